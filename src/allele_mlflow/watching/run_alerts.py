"""
The alerts of a run that is not over, from the spool.
"""

from __future__ import annotations

from typing import Any

from allele_mlflow.records import SEVERITIES
from allele_mlflow.sidecar.alert_document import NO_PHASE, alerts_document
from allele_mlflow.sidecar.alert_files import unread_alerts
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.watching.spools import SpooledRun

Document = dict[str, Any]


def waiting_alerts(run: SpooledRun) -> Document | None:
    """
    What `allele/alerts.json` would hold of a run that is not over, with what no sidecar has read
    yet; None where it has no rules and no alerts.
    """
    files = RunFiles(run.folder)
    spans = [*(row.span for row in files.phase_rows()), *files.phases.recent_spans()]
    unread = unread_alerts(run.folder, run.spec)
    found = alerts_document(files.alerts, run.spec, spans, more=unread)
    if found is not None:
        found["run_id"] = run.state.run_id if run.state is not None else None
    return found


def without_milder(document: Document, severity: str | None) -> Document:
    """
    The document with alerts of this severity and graver ones only; None keeps all.
    """
    if severity is None:
        return document
    order: list[str] = list(SEVERITIES)
    wanted = order[order.index(severity) :]
    kept = [one for one in document["alerts"] if one["severity"] in wanted]
    phases: dict[str, list[str]] = {}
    for one in kept:
        phases.setdefault(one["phase"] or NO_PHASE, []).append(one["alert_id"])
    return document | {"alerts": kept, "phases": phases}
