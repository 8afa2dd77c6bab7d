"""
Anomalies within each of many runs, as a frame and as the document `anomalies.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.analysis.anomalies import MEMORY_KEYS, RESOURCES, find_anomalies
from allele_mlflow.analysis.frames import (
    ExperimentFrames,
    read_alerts,
    read_histories,
    shaped,
)
from allele_mlflow.analysis.run_history import Anomaly
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.units import Direction

#: One row an anomaly. `source` is "found" in the readings, or "told" by the program (`log.feed`),
#: and placed in phase and step by its time; `status` is how its run ended; `evidence` holds the
#: numbers, units in their names.
ANOMALIES = {
    "run_id": "object",
    "cell": "object",
    "repeat": "Int64",
    "status": "object",
    "source": "object",
    "kind": "object",
    "severity": "object",
    "key": "object",
    "component": "object",
    "phase": "object",
    "first_step": "Int64",
    "last_step": "Int64",
    "started_at": "datetime64[ms, UTC]",
    "ended_at": "datetime64[ms, UTC]",
    "message": "object",
    "evidence": "object",
}
#: Readings of one run that are looked at; the first of those that there are.
MOST_READINGS = 500_000
FILE = "anomalies.json"


def find_in_runs(
    reader: Reader, frames: ExperimentFrames, *, objectives: Mapping[str, Direction]
) -> pd.DataFrame:
    """
    The anomalies of runs, with the cell and the outcome of the run that each is of.

    Args:
        reader: Of the store.
        frames: The runs.
        objectives: Keys that a search improves, and which way.
    Returns:
        Columns of `ANOMALIES`, by run, then as they begin.
    Raises:
        TrackingError: the store does not answer.

    Cost: the history of each run is read, one run at a time.
    """
    rows: list[dict[str, Any]] = []
    by_run = frames.metrics.groupby("run_id")["key"]
    keys = {run_id: _looked_at(group) for run_id, group in by_run}
    wanted = frames.runs[["run_id", "cell", "repeat", "status"]]
    for run_id, cell, repeat, status in wanted.itertuples(index=False, name=None):
        readings = _readings(reader, run_id, keys.get(run_id, []))
        whose = {"run_id": run_id, "cell": cell, "repeat": repeat, "status": status}
        found = find_anomalies(readings, objectives=objectives)
        rows.extend({**whose, **_row(one)} for one in found)
    return shaped(pd.DataFrame(rows), ANOMALIES)


def told_anomalies(tracking_uri: str, frames: ExperimentFrames) -> pd.DataFrame:
    """
    The anomalies that runs were told of, such as Allele's `AnomalyResult`.

    Returns:
        Columns of `ANOMALIES`.
    Raises:
        TrackingError: the store does not answer.

    Cost: a request or two for each run.
    """
    alerts = read_alerts(tracking_uri, frames.runs["run_id"])
    told = alerts[alerts["kind"] == "anomaly"].rename(
        columns={"name": "kind_told", "metric": "key_told", "cell": "cell_told"}
    )
    runs = frames.runs[["run_id", "cell", "repeat", "status"]]
    found = told.drop(columns=["status"]).merge(runs, on="run_id")
    context = found["context"].map(lambda one: one if isinstance(one, dict) else {})
    rows = found.assign(
        source="told",
        kind=found["kind_told"],
        key=found["key_told"].fillna("*"),
        component=[one.get("component_id") or one.get("component_type") for one in context],
        first_step=found["step"],
        last_step=found["step"],
        started_at=found["time"],
        ended_at=found["resolved"].fillna(found["time"]),
        evidence=list(context),
    )
    return shaped(rows, ANOMALIES)


def _row(one: Anomaly) -> dict[str, Any]:
    return {
        "source": "found",
        "kind": one.kind.value,
        "severity": one.severity,
        "key": one.key,
        "first_step": one.first_step,
        "last_step": one.last_step,
        "started_at": pd.Timestamp(one.started_ms, unit="ms", tz="UTC"),
        "ended_at": pd.Timestamp(one.ended_ms, unit="ms", tz="UTC"),
        "message": one.words,
        "evidence": dict(one.evidence),
    }


def anomalies_document(found: pd.DataFrame, *, runs: int) -> dict[str, Any]:
    """
    What `anomalies.json` holds.

    Format history: 1 = {format, runs, count, by_kind, anomalies}.
    """
    plain = found.astype("object").where(found.notna(), None)
    rows = [
        {**row, **{name: row[name].isoformat() for name in ("started_at", "ended_at")}}
        for row in plain.to_dict("records")
    ]
    return {
        "format": 1,
        "runs": runs,
        "count": len(found),
        "by_kind": {str(kind): int(count) for kind, count in found["kind"].value_counts().items()},
        "anomalies": msgspec.to_builtins(rows, enc_hook=_plain),
    }


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _looked_at(keys: pd.Series[str]) -> list[str]:
    return [key for key in keys if key in MEMORY_KEYS or not key.startswith((RESOURCES, "phase/"))]


def _readings(reader: Reader, run_id: str, keys: list[str]) -> pd.DataFrame:
    pages, count = [], 0
    for page in read_histories(reader, [run_id], keys):
        pages.append(page)
        count += len(page)
        if count >= MOST_READINGS:
            break
    columns = ["key", "step", "timestamp_ms", "value"]
    return pd.concat(pages)[columns] if pages else pd.DataFrame(columns=columns)
