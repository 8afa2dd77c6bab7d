"""
MLflow's SQL stores, in memory: what they keep of a batch, and what they refuse.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, PermanentTrackingError
from allele_mlflow.records import Reading, RunId, RunStatus
from allele_mlflow.tracking import limits
from allele_mlflow.tracking.artifact_names import bad_artifact, check_artifact_path
from allele_mlflow.tracking.protocol import RunGlance


class MetricRow(NamedTuple):
    """
    One row of MLflow's `metrics` table; all fields together are its identity.

    NaN is stored as value 0 with `is_nan`, an infinity as the largest double of its sign.
    """

    key: str
    timestamp_ms: int
    step: int
    value: float
    is_nan: bool


@dataclass
class MemoryRun:
    """
    One run of `MemoryTracking`.

    Attributes:
        metrics: Rows in the order of arrival, no two alike.
        latest: By key, the row MLflow shows in its table: largest (step, timestamp, value).
        artifacts: Contents by path.
    """

    run_id: RunId
    experiment_id: str
    run_name: str | None
    start_ms: int
    tags: dict[str, str]
    status: str = "RUNNING"
    end_ms: int | None = None
    metrics: list[MetricRow] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    latest: dict[str, MetricRow] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    _identities: set[MetricRow] = field(default_factory=set, repr=False)

    def rows(self, key: str) -> list[MetricRow]:
        """
        One metric's rows, in the order of arrival.
        """
        return [row for row in self.metrics if row.key == key]

    def _add(self, reading: Reading) -> None:
        row = _stored(reading)
        if row not in self._identities:
            self._identities.add(row)
            self.metrics.append(row)
        shown = self.latest.get(row.key)
        if shown is None or _rank(row) > _rank(shown):
            self.latest[row.key] = row


@dataclass
class MemoryExperiment:
    """
    One experiment of `MemoryTracking`.
    """

    experiment_id: str
    name: str
    artifact_location: str | None
    is_deleted: bool = False


class MemoryTracking:
    """
    A `Tracking` in memory that keeps what MLflow's SQL stores would keep, and refuses what they
    refuse.

    Attributes:
        experiments: By id.
        runs: By run id.
        calls: How often each method was called, failed calls too.

    Stricter than MLflow in one thing: a `log_batch` beyond `tracking.limits` is refused, where
    MLflow's client splits it; the protocol forbids such a call.
    Thread safety: yes, each call as a whole.
    """

    is_idempotent = True
    writes_by = "memory"
    readings_per_call = 0

    def __init__(self) -> None:
        self.experiments: dict[str, MemoryExperiment] = {}
        self.runs: dict[RunId, MemoryRun] = {}
        self.calls: Counter[str] = Counter()
        self._lock = threading.RLock()

    def ensure_experiment(self, name: str, *, artifact_location: str | None) -> str:
        """
        The id of the experiment of that name, created (or restored if deleted) where it must be.
        """
        with self._lock:
            self.calls["ensure_experiment"] += 1
            for experiment in self.experiments.values():
                if experiment.name == name:
                    experiment.is_deleted = False
                    return experiment.experiment_id
            experiment_id = str(len(self.experiments) + 1)
            self.experiments[experiment_id] = MemoryExperiment(
                experiment_id, name, artifact_location
            )
            return experiment_id

    def find_run(self, experiment_id: str, run_uid: str) -> RunId | None:
        """
        The run tagged with `run_uid`, the oldest where there are several, else None.
        """
        with self._lock:
            self.calls["find_run"] += 1
            found = [
                run
                for run in self.runs.values()
                if run.experiment_id == experiment_id and run.tags.get("allele.run_uid") == run_uid
            ]
            return min(found, key=lambda run: run.start_ms).run_id if found else None

    def create_run(
        self, experiment_id: str, *, run_name: str | None, start_ms: int, tags: Mapping[str, str]
    ) -> RunId:
        """
        A new RUNNING run.
        """
        with self._lock:
            self.calls["create_run"] += 1
            experiment = self.experiments.get(experiment_id)
            if experiment is None:
                raise _missing(f"experiment {experiment_id}")
            if experiment.is_deleted:
                raise _refused(f"experiment {experiment_id} is deleted")
            run_id = RunId(f"{len(self.runs) + 1:032x}")
            self.runs[run_id] = MemoryRun(run_id, experiment_id, run_name, start_ms, dict(tags))
            return run_id

    def look_at_run(self, run_id: RunId) -> RunGlance:
        """
        An existing run's experiment and tags.
        """
        with self._lock:
            self.calls["look_at_run"] += 1
            run = self._run(run_id)
            return RunGlance(run.experiment_id, dict(run.tags))

    def reopen_run(self, run_id: RunId) -> str:
        """
        Mark an existing run RUNNING again and return its experiment id.
        """
        with self._lock:
            self.calls["reopen_run"] += 1
            run = self._run(run_id)
            run.status = "RUNNING"
            return run.experiment_id

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        Keep all of it, or refuse all of it.
        """
        params, tags = params or {}, tags or {}
        with self._lock:
            self.calls["log_batch"] += 1
            if not readings and not params and not tags:
                return
            run = self._run(run_id)
            _check_batch(run, readings, params, tags)
            for key, value in params.items():
                run.params.setdefault(key, value[: limits.PARAM_VALUE_LENGTH])
            for reading in readings:
                run._add(reading)
            run.tags.update({key: value[: limits.TAG_VALUE_LENGTH] for key, value in tags.items()})

    def log_artifact(self, run_id: RunId, file: Path, artifact_path: str) -> None:
        """
        Keep the file's bytes at `artifact_path`.
        """
        with self._lock:
            self.calls["log_artifact"] += 1
            run = self._run(run_id)
            check_artifact_path(artifact_path)
            if not file.is_file():
                raise bad_artifact(artifact_path, f"{file} is not a file any more")
            run.artifacts[artifact_path] = file.read_bytes()

    def end_run(self, run_id: RunId, status: RunStatus, end_ms: int) -> None:
        """
        Set the run's final status and end time.
        """
        with self._lock:
            self.calls["end_run"] += 1
            run = self._run(run_id)
            run.status, run.end_ms = status, end_ms

    def run_url(self, experiment_id: str, run_id: RunId) -> str:
        """
        An address that leads nowhere.
        """
        return f"memory:/#/experiments/{experiment_id}/runs/{run_id}"

    def close(self) -> None:
        """
        Count the call.
        """
        with self._lock:
            self.calls["close"] += 1

    def _run(self, run_id: RunId) -> MemoryRun:
        run = self.runs.get(run_id)
        if run is None:
            raise _missing(f"run {run_id}")
        return run


def _stored(reading: Reading) -> MetricRow:
    value, is_nan = float(reading.value), math.isnan(reading.value)
    if is_nan:
        value = 0.0
    elif math.isinf(value):
        value = math.copysign(limits.LARGEST_VALUE, value)
    return MetricRow(reading.key, int(reading.timestamp_ms), int(reading.step), value, is_nan)


def _rank(row: MetricRow) -> tuple[int, int, float]:
    return row.step, row.timestamp_ms, row.value


def _check_batch(
    run: MemoryRun, readings: Sequence[Reading], params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    sizes = (
        ("metrics", len(readings), limits.METRICS_PER_CALL),
        ("params", len(params), limits.PARAMS_PER_CALL),
        ("tags", len(tags), limits.TAGS_PER_CALL),
        ("items", len(readings) + len(params) + len(tags), limits.ITEMS_PER_CALL),
    )
    for what, count, most in sizes:
        if count > most:
            raise _refused(f"{count} {what} in one call: want at most {most}")
    for key in (*(reading.key for reading in readings), *params, *tags):
        mistake = limits.check_key(key)
        if mistake is not None:
            raise _refused(mistake)
    for reading in readings:
        if reading.timestamp_ms < 0:
            raise _refused(
                f"timestamp_ms={reading.timestamp_ms} of {reading.key!r}: want 0 or more"
            )
    for key, value in params.items():
        kept = run.params.get(key)
        if kept is not None and kept != value[: limits.PARAM_VALUE_LENGTH]:
            raise _refused(f"param {key!r} is {kept!r} and cannot become {value!r}")


def _missing(what: str) -> PermanentTrackingError:
    return PermanentTrackingError(f"{what} does not exist", kind=ErrorKind.NOT_FOUND)


def _refused(reason: str) -> PermanentTrackingError:
    return PermanentTrackingError(reason, kind=ErrorKind.REFUSED)
