"""
A process that tries mlflow and a tracking store, and tells step by step how it went.

    python -P -m allele_mlflow.tracking.probe < wanted.json

It is for `allele-mlflow doctor`, which starts it as a sidecar is started and ends it when a step
takes too long: a hung call of MLflow's cannot be ended otherwise. Each line of its output is one
`ProbeStep` in JSON. The address comes on stdin, for other users see the command line.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from allele_mlflow.clock import now_monotonic_ns, now_ns
from allele_mlflow.errors import TrackingError
from allele_mlflow.records import Reading, RunId
from allele_mlflow.settings import environment, mask_secrets, publish_variable
from allele_mlflow.tracking.client import MlflowTracking, prepare_environment
from allele_mlflow.tracking.error_mapping import map_error
from allele_mlflow.tracking.schema import is_newer_schema, read_schema_version
from allele_mlflow.tracking.versions import import_mlflow

#: Small, so that a check leaves little behind, and enough for a median.
CALLS = 10
READINGS_PER_CALL = 10
_NS_PER_MS = 1e6
_DISTRIBUTIONS = ("mlflow", "mlflow-skinny", "sqlalchemy", "alembic")
_SQL_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")

StepName = Literal["import", "open", "write", "artifact", "clean"]


class ProbeWish(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to try. Without an experiment mlflow is imported, and no store opened.
    """

    tracking_uri: str
    experiment: str | None = None
    artifact_location: str | None = None


class ProbeStep(msgspec.Struct, frozen=True, kw_only=True):
    """
    How one step went. `error` is None where it went well, and the last step is the one that failed.

    `kind`, `http_status`: as in the TrackingError. `schema`: how the tables stand to this MLflow,
    where that is what failed. `call_ms`: durations of the `log_batch` calls. `versions`: of what is
    installed, by distribution.
    """

    step: StepName
    error: str | None = None
    kind: str | None = None
    http_status: int | None = None
    schema: Literal["newer", "older"] | None = None
    call_ms: list[float] = []
    place: str | None = None
    version: str | None = None
    versions: dict[str, str] = {}


def try_store(wish: ProbeWish, folder: Path) -> Iterator[ProbeStep]:
    """
    Import mlflow, open the store, write a run, upload a file, delete both; a step at a time.

    Args:
        wish: What to try.
        folder: An empty one, for the file.
    Raises:
        TrackingError: the step after the last one that was given failed.
    """
    mlflow = import_mlflow()
    yield ProbeStep(
        step="import",
        version=str(getattr(mlflow, "__version__", "unknown")),
        place=os.path.dirname(str(getattr(mlflow, "__file__", ""))),
        versions=_versions(),
    )
    if wish.experiment is None:
        return
    tracking = MlflowTracking(wish.tracking_uri)
    experiment_id = tracking.ensure_experiment(
        wish.experiment, artifact_location=wish.artifact_location
    )
    run_id = tracking.create_run(
        experiment_id, run_name="doctor", start_ms=_now_ms(), tags={"allele.doctor": "true"}
    )
    yield ProbeStep(step="open")
    try:
        yield ProbeStep(step="write", call_ms=_write(tracking, run_id))
        file = folder / "doctor.txt"
        file.write_text("written by allele-mlflow doctor\n", encoding="ascii")
        tracking.log_artifact(run_id, file, "allele/doctor.txt")
        yield ProbeStep(step="artifact")
    except Exception:
        with contextlib.suppress(TrackingError):  # the first failure is the one to tell
            _clean(tracking, run_id)
        raise
    _clean(tracking, run_id)
    yield ProbeStep(step="clean")
    tracking.close()


def describe_failure(exc: Exception, step: StepName, tracking_uri: str) -> ProbeStep:
    """
    What a step that failed is reported as.
    """
    error = map_error(exc, doing=step, can_refuse=False)
    status = error.facts.get("http_status")
    return ProbeStep(
        step=step,
        error=mask_secrets(" ".join(str(error).split())),
        kind=str(error.kind),
        http_status=status if isinstance(status, int) else None,
        schema=_compare_schema(tracking_uri, error) if step == "open" else None,
    )


def _clean(tracking: MlflowTracking, run_id: RunId) -> None:
    tracking.end_run(run_id, "FINISHED", _now_ms())
    tracking.delete_run(run_id)


def _write(tracking: MlflowTracking, run_id: RunId) -> list[float]:
    durations = []
    for call in range(CALLS + 1):
        stamp_ms = _now_ms()
        readings = [
            Reading(f"doctor/{number}", float(call), stamp_ms, call)
            for number in range(READINGS_PER_CALL)
        ]
        before_ns = now_monotonic_ns()
        tracking.log_batch(run_id, readings=readings)
        durations.append((now_monotonic_ns() - before_ns) / _NS_PER_MS)
    return durations[1:]  # the first one prepares statements and connections


def _now_ms() -> int:
    return now_ns() // 1_000_000


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _compare_schema(tracking_uri: str, error: TrackingError) -> Literal["newer", "older"] | None:
    if not tracking_uri.startswith(_SQL_SCHEMES) or "schema" not in str(error):
        return None
    try:
        version = read_schema_version(tracking_uri)
        return "newer" if is_newer_schema(version) else "older"
    except Exception:  # noqa: BLE001 - the error that is being explained is reported all the same
        return None


def main() -> None:
    """
    Do what stdin says.
    """
    wish = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeWish)
    # what MLflow prints goes elsewhere
    report = os.dup(1)
    os.dup2(2, 1)
    for name, value in prepare_environment(environment(), tracking_uri=wish.tracking_uri).items():
        publish_variable(name, value)
    order: tuple[StepName, ...] = ("import", "open", "write", "artifact", "clean")
    done = 0
    with tempfile.TemporaryDirectory(prefix="allele-mlflow-doctor-") as folder:
        try:
            for step in try_store(wish, Path(folder)):
                os.write(report, msgspec.json.encode(step) + b"\n")
                done += 1
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what was asked for
            failed = describe_failure(exc, order[done], wish.tracking_uri)
            os.write(report, msgspec.json.encode(failed) + b"\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
