"""
An SQLite store as a suite of many runs leaves it, in seconds: what reads MLflow is measured on it.

MLflow makes the tables and the experiment; the rows are written in SQL, with the tags, params and
metrics that the sidecar writes. The same arguments give the same rows.

    python benchmarks/make_store.py --runs 10000 --metrics 50 --suite evolution --folder store

Writes store/mlflow.db, which must not be there yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.tracking.client import MlflowTracking
from benchmarks.scratch import prepare_store

EXPERIMENT_PREFIX = "allele_benchmark_"
RUNS_PER_CELL = 10
MUTATION_RATES = (0.01, 0.05, 0.1, 0.3)
FIRST_MS = 1_700_000_000_000
RUN_MS = 800
DAY_MS = 86_400_000
RUNS_PER_INSERT = 250
SEED = 7
INSERTS = {
    "runs": (
        *("run_uuid", "experiment_id", "name", "status", "start_time", "end_time", "artifact_uri"),
        *("lifecycle_stage", "user_id", "source_type", "source_name", "entry_point_name"),
        "source_version",
    ),
    "tags": ("run_uuid", "key", "value"),
    "params": ("run_uuid", "key", "value"),
    "metrics": ("run_uuid", "key", "value", "step", "timestamp", "is_nan"),
    "latest_metrics": ("run_uuid", "key", "value", "step", "timestamp", "is_nan"),
}


class StoreShape(NamedTuple):
    """
    What is put into a store.

    Attributes:
        suite: Its name; the experiment's without the prefix.
        runs: Child runs, ten repeats a cell; their parent comes on top.
        metrics: Keys of each run.
        steps: Readings of each key.
        failed: How many of the runs failed, spread evenly.
        cell_keys: Keys of the cells, where they are to be those of a real suite.
        execution: Which of the suite's executions, each a day after the one before: they go into
            one store side by side.
    """

    suite: str = "evolution"
    runs: int = 10_000
    metrics: int = 50
    steps: int = 1
    failed: int = 0
    cell_keys: tuple[str, ...] = ()
    execution: int = 0

    @property
    def first_ms(self) -> int:
        """
        When it began.
        """
        return FIRST_MS + self.execution * DAY_MS


class FilledStore(NamedTuple):
    """
    Where it is. `rows` is how many there are in each table.
    """

    uri: str
    experiment_id: str
    parent_run_id: str
    rows: dict[str, int]


class _Run(NamedTuple):
    run_id: str
    number: int
    kind: str
    is_failed: bool


#: Rows by table.
_Rows = dict[str, list[tuple[Any, ...]]]


def fill_store(path: Path, shape: StoreShape) -> FilledStore:
    """
    Put a suite into a store that has its tables.

    Raises:
        sqlite3.Error: the file is not one, or not to be written.
        TrackingError: MLflow cannot open it.

    Cost: 100,000 to 200,000 rows a second; memory does not grow with the runs.
    """
    uri = f"sqlite:///{path}"
    tracking = MlflowTracking(uri)
    experiment = EXPERIMENT_PREFIX + shape.suite
    experiment_id = tracking.ensure_experiment(experiment, artifact_location=None)
    tracking.close()
    counts = dict.fromkeys(INSERTS, 0)
    chance = random.Random(SEED + shape.execution)
    parent_run_id = _new_id(chance)
    with closing(sqlite3.connect(path)) as connection:
        # who wants to keep this store can make it again
        connection.execute("PRAGMA synchronous = OFF")
        ((root,),) = connection.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = ?", (experiment_id,)
        )
        origin = _Origin(shape, int(experiment_id), root, parent_run_id)
        for rows in origin.all_rows(chance):
            for table, found in rows.items():
                columns = INSERTS[table]
                marks = ", ".join("?" * len(columns))
                query = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
                connection.executemany(query, found)
                counts[table] += len(found)
            connection.commit()
    return FilledStore(uri, experiment_id, parent_run_id, counts)


class _Origin(NamedTuple):
    """
    What all rows have in common.
    """

    shape: StoreShape
    experiment_id: int
    artifact_root: str
    parent_run_id: str

    def all_rows(self, chance: random.Random) -> Iterator[_Rows]:
        """
        The parent's rows, then those of some runs at a time.
        """
        shape = self.shape
        rows = self._rows_of(_Run(self.parent_run_id, 0, "suite", is_failed=False), chance)
        for number in range(shape.runs):
            is_failed = number * shape.failed % shape.runs < shape.failed
            run = _Run(_new_id(chance), number, "cell", is_failed)
            for table, found in self._rows_of(run, chance).items():
                rows[table] += found
            if (number + 1) % RUNS_PER_INSERT == 0:
                yield rows
                rows = {table: [] for table in INSERTS}
        yield rows

    def _rows_of(self, run: _Run, chance: random.Random) -> _Rows:
        run_id, start_ms = run.run_id, self.shape.first_ms + run.number * 1000
        status = "FAILED" if run.is_failed else "FINISHED"
        uri = f"{self.artifact_root}/{run_id}/artifacts"
        row = (
            *(run_id, self.experiment_id, _name(run), status, start_ms, start_ms + RUN_MS, uri),
            *("active", "benchmark", "LOCAL", "make_store.py", "", ""),
        )
        params = {} if run.kind == "suite" else _params(run)
        history = [] if run.kind == "suite" else list(self._readings(run, start_ms, chance))
        latest = {key: (run_id, key, *rest) for _, key, *rest in history}
        return {
            "runs": [row],
            "tags": [(run_id, key, value) for key, value in self._tags(run).items()],
            "params": [(run_id, key, value) for key, value in params.items()],
            "metrics": history,
            "latest_metrics": list(latest.values()),
        }

    def _readings(
        self, run: _Run, start_ms: int, chance: random.Random
    ) -> Iterator[tuple[Any, ...]]:
        steps = self.shape.steps // 2 if run.is_failed else self.shape.steps
        for number in range(self.shape.metrics):
            key = "fitness/best" if number == 0 else f"measure_{number:02d}"
            level = (run.number // RUNS_PER_CELL) % 17 + chance.gauss(number, 0.3)
            for step in range(steps):
                value = level - 1 / (1 + step)
                yield run.run_id, key, value, step, start_ms + RUN_MS * step // steps, 0

    def _tags(self, run: _Run) -> dict[str, str]:
        tags = {
            "mlflow.runName": _name(run),
            "mlflow.user": "benchmark",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": "make_store.py",
            "allele.run_uid": run.run_id[::-1],
            "allele.suite": self.shape.suite,
            "allele.execution": self.parent_run_id[::-1],
            "allele.kind": run.kind,
            "allele.environment": "0123456789abcdef",
            "allele.heartbeat": "2023-11-14T22:13:20Z",
            "allele.started_ns": str((self.shape.first_ms + run.number * 1000) * 1_000_000),
            "allele.ended_by": "close",
            "allele.delivery": json.dumps({"accepted": self.shape.metrics, "pending": 0}),
            "allele.sidecar_cpu_s": "0.31",
            "allele.logger_overhead_percent": "0.412",
        }
        if run.kind == "suite":
            return tags
        cell = ", ".join(f"{key}={value}" for key, value in _params(run).items() if key != "seed")
        keys = self.shape.cell_keys
        own_key = hashlib.sha256(cell.encode()).hexdigest()[:32]
        tags |= {
            "mlflow.parentRunId": self.parent_run_id,
            "allele.cell": cell,
            "allele.cell_key": keys[run.number // RUNS_PER_CELL] if keys else own_key,
            "allele.repeat": str(run.number % RUNS_PER_CELL),
            "allele.attempt": "0",
        }
        if run.is_failed:
            tags |= {
                "allele.error.category": "numeric",
                "allele.error.type": "ZeroDivisionError",
                "allele.error.message": "division by zero",
                "allele.error.count": "1",
            }
        return tags


def _params(run: _Run) -> dict[str, str]:
    cell = run.number // RUNS_PER_CELL
    rate = MUTATION_RATES[cell % len(MUTATION_RATES)]
    population = 10 * (1 + cell // len(MUTATION_RATES))
    return {
        "population_size": str(population),
        "mutation_rate": str(rate),
        "seed": str(run.number),
    }


def _name(run: _Run) -> str:
    return "suite" if run.kind == "suite" else f"{run.kind}-{run.number:05d}"


def _new_id(chance: random.Random) -> str:
    return uuid.UUID(int=chance.getrandbits(128)).hex


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description="An SQLite store with a suite of many runs.")
    parser.add_argument("--runs", type=int, default=StoreShape().runs, help="child runs")
    parser.add_argument("--metrics", type=int, default=StoreShape().metrics, help="keys of each")
    parser.add_argument("--steps", type=int, default=StoreShape().steps, help="readings of a key")
    parser.add_argument("--failed", type=int, default=0, help="how many of the runs failed")
    parser.add_argument("--suite", default=StoreShape().suite, help="its name")
    parser.add_argument("--folder", type=Path, required=True, help="where mlflow.db is made")
    options = parser.parse_args(arguments)
    path = (options.folder / "mlflow.db").resolve()
    if path.exists():
        print(f"{path} is there already: want a folder without mlflow.db", file=sys.stderr)
        return 2
    logging.disable(logging.INFO)  # of alembic
    prepare_store(path)
    begun_s = time.perf_counter()
    filled = fill_store(
        path,
        StoreShape(options.suite, options.runs, options.metrics, options.steps, options.failed),
    )
    taken_s = time.perf_counter() - begun_s
    rows = ", ".join(f"{count:,} {table}" for table, count in filled.rows.items())
    print(f"{path}: {rows}; {path.stat().st_size / 1e6:.0f} MB in {taken_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
