"""
Whether mlflow and the tracking store work for a sidecar, and what to do where they do not.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from pathlib import Path
from urllib.parse import unquote, urlsplit

from allele_mlflow.cli.checks.database_file import check_database_file
from allele_mlflow.cli.checks.findings import Finding, Level, good, note, unusable, warning
from allele_mlflow.cli.checks.folders import can_write, nearest_existing
from allele_mlflow.cli.checks.probing import ProbeResult, run_probe
from allele_mlflow.cli.checks.store_failures import explain_failure, explain_silence
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.tracking.probe import READINGS_PER_CALL, ProbeStep, ProbeWish
from allele_mlflow.tracking.schema import sqlite_path
from allele_mlflow.tracking.versions import lowest_mlflow
from allele_mlflow.version import __version__

#: A call that takes longer is felt: 1000 metrics a second want ten calls of 100.
SLOW_CALL_MS = 1000.0
EXPERIMENT = "doctor"


def check_versions() -> list[Finding]:
    """
    What this command itself is made of.
    """
    floor = lowest_mlflow()
    wanted = f", wants mlflow {floor} or newer" if floor else ""
    system = f"{platform.system()} {platform.release()}"
    text = f"allele-mlflow {__version__}{wanted}; Python {platform.python_version()}; {system}"
    if floor is None:
        remedy = (
            "pip install allele-mlflow; without its metadata nobody knows which mlflow it wants"
        )
        return [note("versions", text, remedy)]
    return [good("versions", text, allele_mlflow=__version__, mlflow_floor=floor)]


def check_store(settings: Settings, *, timeout_s: float) -> list[Finding]:
    """
    mlflow, the store, its latency and its artifacts, tried as a sidecar would use them.

    Creates no database and no folder of a store that is not there. Else a run is written into the
    experiment `<prefix>doctor`, and deleted.
    """
    if settings.is_offline:
        text = "offline: records are only spooled"
        remedy = "deliver with `allele-mlflow sync --tracking-uri URI`"
        return [*check_mlflow(settings, timeout_s=timeout_s), note("store", text, remedy)]
    path = store_path(settings.tracking_uri)
    findings = [] if path is None else check_database_file(path)
    is_missing = path is not None and (not path.exists() or _is_empty(path))
    if is_missing or any(finding.level is Level.PROBLEM for finding in findings):
        wish = ProbeWish(tracking_uri=settings.tracking_uri)
        result = run_probe(settings, wish, timeout_s=timeout_s)
        location = check_local_location(settings.experiment_artifact_location)
        return [*read_import(result), *findings, *location]
    wish = ProbeWish(
        tracking_uri=settings.tracking_uri,
        experiment=f"{settings.experiment_prefix}{EXPERIMENT}",
        artifact_location=settings.experiment_artifact_location,
    )
    result = run_probe(settings, wish, timeout_s=timeout_s)
    store = mask_secrets(settings.tracking_uri)
    return [
        *read_import(result),
        *findings,
        *read_steps(result, store=store, experiment=wish.experiment or "", timeout_s=timeout_s),
    ]


def check_mlflow(settings: Settings, *, timeout_s: float) -> list[Finding]:
    """
    Whether a sidecar could import mlflow.
    """
    wish = ProbeWish(tracking_uri=settings.tracking_uri)
    return read_import(run_probe(settings, wish, timeout_s=timeout_s))


def read_import(result: ProbeResult) -> list[Finding]:
    """
    What the probe says of mlflow itself.
    """
    step = result.step("import")
    if step is None and result.is_silent:
        remedy = "look at the disk that Python's packages lie on: the import never ends"
        return [unusable("mlflow", "the import of mlflow does not come to an end", remedy)]
    if step is None:
        remedy = "run `python -P -c 'import mlflow'` in the folder / and mend what it says"
        text = f"the process that imports mlflow ended without a word: {result.last_words}"
        return [unusable("mlflow", text, remedy)]
    if step.error is not None:
        return [unusable("mlflow", *explain_failure(step, store=""))]
    kind = "full" if "mlflow" in step.versions else "mlflow-skinny"
    libraries = ", ".join(
        f"{name} {step.versions[name]}"
        for name in ("sqlalchemy", "alembic")
        if name in step.versions
    )
    text = f"mlflow {step.version} ({kind}) in {step.place}; {libraries}"
    return [good("mlflow", text, version=step.version, installed=step.versions)]


def read_steps(
    result: ProbeResult, *, store: str, experiment: str, timeout_s: float
) -> list[Finding]:
    """
    What the probe says of the store, as far as it got there.

    Args:
        result: Of a probe that was to write.
        store: Its address, secrets masked.
        experiment: Where the run was written.
        timeout_s: What each step had.
    """
    imported = result.step("import")
    if imported is None or imported.error is not None:
        return [note("store", f"{store}: not tried, for there is no mlflow to try it with")]
    findings = []
    wrote = result.step("write")
    if wrote is not None and wrote.error is None:
        findings.append(_describe_latency(wrote, store, experiment))
    artifact = result.step("artifact")
    if artifact is not None and artifact.error is None:
        findings.append(good("artifacts", "a file was uploaded"))
    last = result.steps[-1]
    if last.error is not None:
        check = "artifacts" if last.step == "artifact" else "store"
        findings.append(unusable(check, *explain_failure(last, store=store)))
    elif result.is_silent:
        check = "artifacts" if last.step == "write" else "store"  # the step behind it hangs
        findings.append(unusable(check, *explain_silence(store, timeout_s)))
    elif last.step != "clean":
        text = f"{store}: the process that tried it ended without a word: {result.last_words}"
        findings.append(unusable("store", text, "look at the memory limit and the system's log"))
    return findings


def _describe_latency(step: ProbeStep, store: str, experiment: str) -> Finding:
    p50_ms, max_ms = statistics.median(step.call_ms), max(step.call_ms)
    text = (
        f"{store} takes a log_batch of {READINGS_PER_CALL} metrics in {p50_ms:.1f} ms "
        f"(p50 of {len(step.call_ms)}, max {max_ms:.1f} ms); written to the experiment {experiment}"
    )
    facts = {"log_batch_p50_ms": p50_ms, "log_batch_max_ms": max_ms}
    if p50_ms <= SLOW_CALL_MS:
        return good("store", text, **facts)
    remedy = "set ALLELE_MLFLOW_METRICS_BATCH_SIZE=1000: fewer calls; records wait meanwhile"
    return warning("store", f"{text}: slow", remedy, **facts)


def store_path(tracking_uri: str) -> Path | None:
    """
    The file or folder that a local store is kept in; None of a server.
    """
    with contextlib.suppress(ImportError):  # without SQLAlchemy; the probe will say so
        path = sqlite_path(tracking_uri)
        if path is not None:
            return path
    return _local_folder(tracking_uri)


def check_local_location(location: str | None) -> list[Finding]:
    """
    Whether a local artifact folder could be written, or made; nothing of any other place.
    """
    folder = None if location is None else _local_folder(location)
    if folder is None:
        return []
    nearest = nearest_existing(folder)
    if can_write(nearest):
        state = "can be written" if nearest == folder else "is not there yet, and can be made"
        return [good("artifacts", f"{folder} {state}")]
    remedy = f"chmod u+w {nearest}, or set ALLELE_MLFLOW_ARTIFACT_LOCATION to another folder"
    return [unusable("artifacts", f"{nearest} cannot be written", remedy)]


def _local_folder(address: str) -> Path | None:
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if os.path.isabs(address) else None


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0
