"""
What the dashboard is measured on: a store of two suites and a registry, in a minute.

`evolution` has many executions of some cells, a regression of its objective in the newest quarter,
alerts, files and, of the newest execution, histories; `wide` has as many runs in one execution that
did not say its counts, as one that goes on. All runs are `make_store`'s, all versions
`make_registry`'s.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from allele_mlflow import suite_tags as tags
from allele_mlflow.registry import open_registry
from allele_mlflow.registry.promotion import pin_evidence
from allele_mlflow.settings import Settings, load
from allele_mlflow.tracking.client import MlflowTracking
from benchmarks.make_registry import DATABASE, RegistryShape, fill_registry
from benchmarks.make_store import EXPERIMENT_PREFIX, FilledStore, StoreShape, fill_store
from benchmarks.scratch import prepare_store

SUITE, WIDE = "evolution", "wide"
#: Of this model the newest version has evidence.
MODEL = "model-0000"
OBJECTIVE = "fitness/best"
#: One in so many runs has an alert; the newest quarter of the executions is worse by so much.
ALERTED_EVERY = 20
WORSE_BY = 3.0
SUITE_FILE = """
name = "evolution"
benchmark = "bench:run"

[matrix]
population_size = [10, 20, 30, 40, 50]
mutation_rate = [0.01, 0.05, 0.1, 0.3]

[metrics."fitness/best"]
direction = "higher"
objective = true

[metrics.measure_01]
direction = "lower"
unit = "s"

[metrics.measure_02]
direction = "higher"

[metrics.measure_03]
direction = "lower"
"""
ALERT = {
    "name": "stuck",
    "severity": "warning",
    "status": "active",
    "message": "no better for 50 steps",
    "metric": OBJECTIVE,
    "value": 1.5,
    "step": 70,
    "time": "2023-11-14T22:13:20.000+00:00",
}


class DashboardShape(NamedTuple):
    """
    How large it is.

    Attributes:
        executions: Of `evolution`.
        runs: Of each of them; `wide` has as many as all together.
        metrics: Of each run.
        steps: Readings of each metric in the newest execution.
        models, versions: Of the registry, and of each model.
    """

    executions: int = 50
    runs: int = 200
    metrics: int = 50
    steps: int = 20
    models: int = 10
    versions: int = 40


class DashboardStore(NamedTuple):
    """
    Where it is; `newest` and `wide` are the newest execution of `evolution` and that of `wide`,
    `run_id` a run of the newest one that has an alert, `versions` how many the models have.
    """

    settings: Settings
    newest: FilledStore
    wide: FilledStore
    run_id: str
    versions: int
    rows: dict[str, int]


def fill_dashboard(folder: Path, shape: DashboardShape) -> DashboardStore:
    """
    Make store and registry in an empty folder.

    Raises:
        sqlite3.Error: a file is not to be written.
        TrackingError: MLflow cannot open one.
    """
    store = folder / "mlflow.db"
    for path in (store, folder / DATABASE):
        prepare_store(path)
    tracking = MlflowTracking(f"sqlite:///{store}")
    for name in (SUITE, WIDE):
        where = str(folder / "artifacts" / name)
        tracking.ensure_experiment(EXPERIMENT_PREFIX + name, artifact_location=where)
    tracking.close()
    found = [
        fill_store(
            store,
            StoreShape(
                SUITE,
                shape.runs,
                shape.metrics,
                shape.steps if number == shape.executions - 1 else 1,
                failed=shape.runs // 20,
                execution=number,
            ),
        )
        for number in range(shape.executions)
    ]
    wide = fill_store(
        store,
        StoreShape(WIDE, shape.executions * shape.runs, shape.metrics, execution=shape.executions),
    )
    run_id = _complete(store, [one.parent_run_id for one in found], shape)
    fill_registry(folder, RegistryShape(shape.models, shape.versions))
    settings = load(
        {
            "tracking_uri": found[-1].uri,
            "model_registry_uri": f"sqlite:///{folder / DATABASE}",
            "artifact_location": str(folder / "kept"),
            "experiment_prefix": EXPERIMENT_PREFIX,
            "spool_dir": str(folder / "spool"),
        }
    )
    registry = open_registry(settings, by="benchmark")
    pin_evidence(registry, settings, MODEL, shape.versions, SUITE)
    rows = {name: sum(one.rows[name] for one in (*found, wide)) for name in wide.rows}
    return DashboardStore(settings, found[-1], wide, run_id, shape.versions, rows)


def _complete(store: Path, parents: list[str], shape: DashboardShape) -> str:
    """
    What real executions leave besides: counts, files, alerts, a regression. Returns a run of the
    newest one that has an alert.
    """
    with closing(sqlite3.connect(store)) as database, database:
        failed = shape.runs // 20
        counts = {tags.FINISHED_COUNT: shape.runs - failed, tags.FAILED_COUNT: failed}
        counts[tags.NOT_RUN_COUNT] = 0
        told = [(one, key, str(value)) for one in parents for key, value in counts.items()]
        database.executemany("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", told)
        for number, parent in enumerate(parents):
            if number >= len(parents) * 3 // 4:
                for table in ("metrics", "latest_metrics"):
                    database.execute(
                        f"UPDATE {table} SET value = value - ? WHERE key = ? AND run_uuid IN"
                        " (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId'"
                        " AND value = ?)",
                        (WORSE_BY, OBJECTIVE, parent),
                    )
            children = _with_files(database, parent)
        alerted = children[::ALERTED_EVERY]
    return alerted[-1]


def _with_files(database: sqlite3.Connection, parent: str) -> list[str]:
    """
    The runs below a suite's own, which have their files and alerts now.
    """
    rows = database.execute(
        "SELECT run_uuid, artifact_uri FROM runs WHERE run_uuid = ? OR run_uuid IN"
        " (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?)"
        " ORDER BY start_time, name",
        (parent, parent),
    )
    places = {run_id: Path(uri) for run_id, uri in rows}
    for place in places.values():
        (place / "allele").mkdir(parents=True)
        (place / "model.bin").write_bytes(b"m" * 1000)
    (places.pop(parent) / "suite.toml").write_text(SUITE_FILE)
    for run_id in list(places)[::ALERTED_EVERY]:
        (places[run_id] / "allele" / "alerts.json").write_text(json.dumps({"alerts": [ALERT]}))
        said = [(run_id, f"allele.alerts.{name}", "1") for name in ("active", "warning")]
        database.executemany("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", said)
    return list(places)
