"""
What the sidecar writes to MLflow beside the user's records: tags, summaries, environment.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.environment.taking import take_machine
from allele_mlflow.failures import Category
from allele_mlflow.queue import spool
from allele_mlflow.records import Ledger, Reading, RunEnded, RunSpec, canonical_json
from allele_mlflow.sampling.phase_summary import phases_document, summarise
from allele_mlflow.sidecar.alert_document import advice_document, alerts_document
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.tracking import limits

#: When the run was last known to be served, while it runs.
HEARTBEAT_TAG = "allele.heartbeat"
#: When the part of the run that opened it last was started; an earlier part, delivered later, has
#: no say in how the run ends.
STARTED_TAG = "allele.started_ns"
#: Errors whose traceback is a file of its own.
MAX_TRACEBACKS = 100
#: Tags that say where a run comes from.
ORIGIN_TAGS = frozenset({"mlflow.source.type", "mlflow.source.name", "mlflow.user"})


def start_tags(spec: RunSpec, *, parent_run_id: str | None) -> dict[str, str]:
    """
    The tags that a run is created with: the user's, ours, and those MLflow's pages show.
    """
    tags = dict(spec.tags)
    tags["allele.run_uid"] = spec.run_uid
    tags[HEARTBEAT_TAG] = utc_iso(now_ns())
    tags[STARTED_TAG] = str(spec.created_ns)
    environment = find_environment(spec)
    if environment is not None:  # a suite knows more of it, and has said so
        tags.setdefault("allele.environment", environment.identity)
    tags["mlflow.source.type"] = "LOCAL"
    if spec.correlation_id:
        tags["allele.correlation_id"] = spec.correlation_id
    if spec.source:
        tags["mlflow.source.name"] = spec.source
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    try:
        tags.setdefault("mlflow.user", getpass.getuser())
    except (KeyError, OSError):
        pass  # a user id without a name, as in some containers
    return {key: value[: limits.TAG_VALUE_LENGTH] for key, value in tags.items()}


def run_tags(
    files: RunFiles, end: RunEnded, ledger: Ledger, *, cpu_s: float, has_rules: bool = False
) -> dict[str, str]:
    """
    The tags of a run's end: how it ended, its ledger, its errors and alerts, what its logger cost.
    """
    tags = {
        "allele.ended_by": end.ended_by,
        "allele.delivery": ledger_text(ledger),
        "allele.sidecar_cpu_s": f"{cpu_s:.2f}",
    }
    if end.overhead_ratio is not None:
        tags["allele.logger_overhead_percent"] = f"{end.overhead_ratio * 100:.3f}"
    errors = files.errors()
    error = errors.verdict or errors.last
    if errors.verdict is not None and errors.verdict.category != Category.UNKNOWN:
        tags["allele.ended_by"] = errors.verdict.category
    if error is not None:
        tags["allele.error.category"] = error.category
        tags["allele.error.type"] = error.error_type[:250]
        tags["allele.error.message"] = error.message[:1000]
        tags["allele.error.count"] = str(errors.count)
    alerts = files.alerts.alerts()
    if alerts.count:
        tags |= {f"allele.alerts.{one}": str(n) for one, n in sorted(alerts.by_severity.items())}
    if alerts.count or has_rules:
        tags["allele.alerts.active"] = str(alerts.active)
    return tags


def ledger_text(ledger: Ledger) -> str:
    """
    The ledger as JSON, for the tag `allele.delivery`.
    """
    return msgspec.json.encode(
        {"accepted": ledger.accepted} | msgspec.to_builtins(ledger), order="sorted"
    ).decode()


def summary_readings(files: RunFiles, end_ns: int) -> list[Reading]:
    """
    The `phase/<name>/...` metrics.
    """
    return [
        Reading(key, value, end_ns // 1_000_000, 0)
        for key, value in sorted(summarise(files.phase_rows()).items())
        if limits.check_key(key) is None
    ]


def summary_files(files: RunFiles, folder: Path, spec: RunSpec) -> Iterator[tuple[str, Path]]:
    """
    The artifacts of a run's end as (path below our own artifacts, file); written into the run's
    folder on the way.
    """
    documents: dict[str, Any] = {"environment.json": describe_environment(spec)}
    phases = phases_document(files.phase_rows())
    if phases["rows"]:
        documents["phases.json"] = phases
    errors = files.errors()
    if errors.count:
        documents["errors.json"] = errors.document()
    documents |= _documents_of_alerts(files, spec)
    for name, document in documents.items():
        path = folder / name
        spool.write_whole(path, msgspec.json.format(canonical_json(document), indent=1))
        yield name, path
    for number, error in enumerate(errors.first[:MAX_TRACEBACKS]):
        if not error.traceback:  # a process that ended without a word left none
            continue
        path = folder / f"traceback-{number}.txt"
        spool.write_whole(path, error.traceback.encode("utf-8", "backslashreplace"))
        yield f"tracebacks/{number:03d}-{error.fingerprint}.txt", path
    if files.rejected_path.exists():
        yield spool.REJECTED_FILE, files.rejected_path


def _documents_of_alerts(files: RunFiles, spec: RunSpec) -> dict[str, Any]:
    kept = files.alerts
    spans = (row.span for row in files.phase_rows())
    found: dict[str, Any] = {"alerts.json": alerts_document(kept, spec, spans)}
    for name, advice in (
        ("recommendations", kept.recommendations()),
        ("predictions", kept.predictions()),
    ):
        spans = (row.span for row in files.phase_rows())
        found[f"{name}.json"] = advice_document(name, advice, spec, spans)
    return {name: document for name, document in found.items() if document is not None}


def describe_environment(spec: RunSpec) -> dict[str, Any]:
    """
    Where the run ran: who ran what from where, and the environment's fingerprint.
    """
    told: dict[str, Any] = {
        "host": spec.host,
        "source": spec.source,
        "working_folder": spec.working_folder,
        "executable": spec.executable or None,
    }
    environment = find_environment(spec) or Environment()
    return {**msgspec.to_builtins(environment), **told}


def find_environment(spec: RunSpec) -> Environment | None:
    """
    The run's environment, as far as this process knows it; None where it is delivered on another
    machine, which says nothing about it. Of the checkout it says nothing, see `take_environment`.
    """
    if spec.host != os.uname().nodename:
        return None
    found = _machine(spec.visible_devices)
    if spec.executable not in ("", sys.executable):  # delivered by another Python's `sync`
        found = msgspec.structs.replace(
            found, python=None, implementation=None, python_flags=None, packages=None
        )
    return msgspec.structs.replace(
        found, usable_cpu_count=spec.usable_cpu_count, thread_limits=spec.thread_limits
    )


@cache
def _machine(visible_devices: str | None) -> Environment:
    """
    As it was when it was first asked for: runs may come by the second.
    """
    return take_machine(visible_devices)
