"""
Executions of suites straight into a store: the runs that the runner would have left, without
running anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from allele_mlflow import suite_tags as tags
from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.records import Reading, RunId, RunStatus
from allele_mlflow.tracking.client import MlflowTracking

DAY_MS = 86_400_000
START_MS = 1_750_000_000_000
PREFIX = "allele_benchmark_"

Metrics = Mapping[str, float]
#: What a trial gives: its metrics, or None where it fails.
Measure = Callable[[Mapping[str, Any], int], Metrics | None]


class Made(NamedTuple):
    """
    An execution in the store.
    """

    run_id: RunId
    run_uid: str
    cells: list[RunId]


class Store:
    """
    A store that executions are put into. `uri` is its address.
    """

    def __init__(self, folder: Path, *, suite: str = "sorting") -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.suite = suite
        self.tracking = MlflowTracking(self.uri, is_bulk=True)
        self._count = 0

    def add(
        self,
        axes: Mapping[str, Sequence[Any]],
        measure: Measure,
        *,
        repeats: int = 8,
        suite_text: str = "",
        environment: Environment | None = None,
        environment_id: str = "env-1",
        seed: int = 7,
    ) -> Made:
        """
        Put an execution into the store, a day after the one before it.
        """
        number, self._count = self._count, self._count + 1
        start_ms = START_MS + number * DAY_MS
        uid = _digest(f"{self.suite}:{number}")
        experiment_id = self.tracking.ensure_experiment(
            PREFIX + self.suite, artifact_location=str(self.folder / "artifacts")
        )
        common = {tags.SUITE: self.suite, tags.ENVIRONMENT: environment_id}
        parent = self._run(
            experiment_id,
            self.suite,
            start_ms,
            {**common, tags.KIND: "suite", tags.RUN_UID: uid, tags.COMMIT: f"{number:040x}"},
        )
        self._keep(parent, "suite.toml", (suite_text or _suite_text(axes)).encode())
        if environment is not None:
            self._keep(parent, "environment.json", environment.to_json())
        cells = []
        for repeat in range(repeats):
            for values in product(*axes.values()):
                params = dict(zip(axes, values, strict=True))
                name = " ".join(f"{key}={value}" for key, value in params.items())
                own_seed = int(_digest(f"{seed}:{repeat}"), 16) % 2**32
                told = {
                    **common,
                    tags.KIND: "cell",
                    tags.RUN_UID: _digest(f"{uid}:{name}:{repeat}"),
                    tags.EXECUTION: uid,
                    tags.CELL: name,
                    tags.CELL_KEY: _digest(name),
                    tags.REPEAT: str(repeat),
                    tags.ATTEMPT: "0",
                    tags.SEED: str(own_seed),
                    tags.COMMIT: f"{number:040x}",
                    "mlflow.parentRunId": parent,
                }
                found = measure(params, own_seed)
                run = self._run(
                    experiment_id,
                    name,
                    start_ms,
                    told,
                    metrics=found or {},
                    params=params,
                    status="FAILED" if found is None else "FINISHED",
                )
                cells.append(run)
        self.tracking.end_run(parent, "FINISHED", start_ms + 10_000)
        return Made(parent, uid, cells)

    def add_run(
        self,
        experiment: str,
        metrics: Metrics,
        *,
        params: Mapping[str, Any] | None = None,
        told: Mapping[str, str] | None = None,
        status: RunStatus | None = "FINISHED",
        start_ms: int = START_MS,
    ) -> RunId:
        """
        Put a run of no suite into the store.
        """
        experiment_id = self.tracking.ensure_experiment(experiment, artifact_location=None)
        return self._run(
            experiment_id,
            "plain",
            start_ms,
            dict(told or {}),
            metrics=metrics,
            params=params or {},
            status=status,
        )

    def close(self) -> None:
        """
        Give back connections.
        """
        self.tracking.close()

    def _run(
        self,
        experiment_id: str,
        name: str,
        start_ms: int,
        told: Mapping[str, str],
        *,
        metrics: Metrics | None = None,
        params: Mapping[str, Any] | None = None,
        status: RunStatus | None = None,
    ) -> RunId:
        run = self.tracking.create_run(
            experiment_id, run_name=name, start_ms=start_ms, tags=dict(told)
        )
        readings = [Reading(key, value, start_ms + 1, 0) for key, value in (metrics or {}).items()]
        texts = {key: str(value) for key, value in (params or {}).items()}
        if readings or texts:
            self.tracking.log_batch(run, readings=readings, params=texts)
        if status is not None:
            self.tracking.end_run(run, status, start_ms + 1000)
        return run

    def _keep(self, run: RunId, path: str, data: bytes) -> None:
        file = self.folder / "scratch"
        file.write_bytes(data)
        self.tracking.log_artifact(run, file, path)


def _suite_text(axes: Mapping[str, Sequence[Any]]) -> str:
    lines = ['name = "sorting"', 'benchmark = "bench:run"', "[matrix]"]
    lines += [f"{name} = {list(values)!r}" for name, values in axes.items()]
    lines += ["[metrics.score]", 'direction = "higher"', "objective = true"]
    return "\n".join(lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
