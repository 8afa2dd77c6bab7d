"""
`allele/alerts.json`, `allele/recommendations.json` and `allele/predictions.json` of a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from allele_mlflow.alerts.rules import decode_rules
from allele_mlflow.clock import utc_iso
from allele_mlflow.records import SEVERITIES, Advice, PhaseSpan, RunSpec
from allele_mlflow.sidecar.alert_files import MAX_ALERTS, AlertFiles, KeptAlert, PlacedAlert
from allele_mlflow.sidecar.alert_place import Moment, place_moments

#: Tags that name the cell of a suite, the first that a run has.
CELL_TAGS = ("allele.cell_key", "allele.cell")
#: What stands under `phases` for alerts outside of any.
NO_PHASE = ""


def alerts_document(
    files: AlertFiles,
    spec: RunSpec,
    spans: Iterable[PhaseSpan],
    *,
    more: Iterable[PlacedAlert] = (),
) -> dict[str, Any] | None:
    """
    What `allele/alerts.json` holds; None for a run without rules and alerts.

    Format history: 1 = {format, run_uid, experiment, run_name, host, cell, count, by_severity,
    active, left_out, rules, alerts, phases}. `phases` leads back from the name of a phase to the
    ids of its alerts.

    Args:
        files: Where the alerts are.
        spec: Of the run.
        spans: Its phases.
        more: Alerts that are not in the files yet.
    """
    kept = files.alerts(more)
    first = sorted(kept.first, key=lambda one: one.placed.alert.timestamp_ns)
    rules, _ = decode_rules(spec.alert_rules)
    if not (kept.count or rules):
        return None
    places = place_moments([_moment_of(one) for one in first], spans)
    phases: dict[str, list[str]] = {}
    lines = []
    for one in first:
        line = describe_alert(one, places.get(_moment_of(one)), spec)
        phases.setdefault(line["phase"] or NO_PHASE, []).append(line["alert_id"])
        lines.append(line)
    return {
        "format": 1,
        "run_uid": spec.run_uid,
        "experiment": spec.experiment,
        "run_name": spec.run_name,
        "host": spec.host,
        "cell": cell_of(spec),
        "count": kept.count,
        "by_severity": {one: kept.by_severity[one] for one in SEVERITIES if kept.by_severity[one]},
        "active": kept.active,
        "left_out": kept.count - len(first),
        "rules": [msgspec.to_builtins(rule) for rule in rules],
        "alerts": lines,
        "phases": phases,
    }


def advice_document(
    name: str, advice: Iterable[Advice], spec: RunSpec, spans: Iterable[PhaseSpan]
) -> dict[str, Any] | None:
    """
    What `allele/<name>.json` holds; None where there is nothing.

    Format history: 1 = {format, run_uid, cell, count, left_out, <name>}; each with its own fields
    and `id`, `time`, `phase`, `step`, `correlation_id`.
    """
    listed: list[Advice] = []
    count = 0
    for one in advice:
        count += 1
        if len(listed) < MAX_ALERTS:
            listed.append(one)
    if not count:
        return None
    places = place_moments([_moment_of_advice(one) for one in listed], spans)
    lines = []
    for one in listed:
        span = places.get(_moment_of_advice(one))
        told = {
            "id": one.advice_id,
            "time": utc_iso(one.timestamp_ns),
            "phase": one.phase or (span.name if span is not None else None),
            "step": _step_of(one.step, span),
            "correlation_id": one.correlation_id or spec.correlation_id,
        }
        lines.append(one.document | told)
    return {
        "format": 1,
        "run_uid": spec.run_uid,
        "cell": cell_of(spec),
        "count": count,
        "left_out": count - len(listed),
        name: lines,
    }


def cell_of(spec: RunSpec) -> str | None:
    """
    The cell of a suite that the run is of, where its tags name one.
    """
    return next((spec.tags[tag] for tag in CELL_TAGS if tag in spec.tags), None)


def describe_alert(kept: KeptAlert, span: PhaseSpan | None, spec: RunSpec) -> dict[str, Any]:
    """
    One alert as the document has it.

    Args:
        kept: The alert.
        span: The phase around it, where all phases are known by now.
        spec: Of its run.
    """
    placed, alert = kept.placed, kept.placed.alert
    line = {name: getattr(alert, name) for name in alert.__struct_fields__}
    if placed.is_sure:
        span = None
    step = _step_of(alert.step, span)
    return line | {
        "time": utc_iso(alert.timestamp_ns),
        "status": kept.status,
        "resolved": utc_iso(kept.resolved_ns) if kept.resolved_ns is not None else None,
        "phase": alert.phase or (span.name if span is not None else placed.phase),
        "step": placed.step if step is None else step,
        "run_uid": spec.run_uid,
        "host": spec.host,
        "cell": cell_of(spec),
        "correlation_id": alert.correlation_id or spec.correlation_id,
        "resources": placed.sample.values if placed.sample is not None else None,
        "resources_time": (
            utc_iso(placed.sample.timestamp_ns) if placed.sample is not None else None
        ),
    }


def _moment_of(kept: KeptAlert) -> Moment:
    return Moment(kept.placed.alert.timestamp_ns, kept.placed.stream_id, kept.placed.alert.step)


def _moment_of_advice(advice: Advice) -> Moment:
    return Moment(advice.timestamp_ns, "", advice.step)


def _step_of(step: int | None, span: PhaseSpan | None) -> int | None:
    return span.step if step is None and span is not None else step
