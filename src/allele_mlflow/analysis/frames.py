"""
Experiments as tidy frames, from MLflow alone: runs, params, metrics, cells, histories, resources,
phases, alerts.

Each frame has the columns and dtypes of a constant here, also when it is empty. Times are UTC;
seconds are seconds; what is not known is None, NaN or NaT, never 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.records import OWN_ARTIFACTS
from allele_mlflow.tracking.alert_reader import artifact_alerts
from allele_mlflow.tracking.frames import HISTORY, Reader
from allele_mlflow.tracking.reader import artifact_bytes

#: One row a run. `kind` is "cell" or "suite" for a suite's runs, None for others; `seconds` from
#: start to end; `is_failed` is None while a run goes on.
RUNS = {
    "run_id": "object",
    "experiment_id": "object",
    "experiment": "object",
    "name": "object",
    "status": "object",
    "kind": "object",
    "suite": "object",
    "execution": "object",
    "cell": "object",
    "cell_key": "object",
    "repeat": "Int64",
    "attempt": "Int64",
    "order": "Int64",
    "seed": "Int64",
    "is_failed": "boolean",
    "error_category": "object",
    "environment": "object",
    "commit": "object",
    "host": "object",
    "concurrency": "Int64",
    "load_1m": "float64",
    "started_at": "datetime64[ms, UTC]",
    "seconds": "float64",
    "run_uid": "object",
    "parent_run_id": "object",
    "artifact_uri": "object",
}
#: One row a run and param; values are texts, as MLflow keeps them.
PARAMS = {"run_id": "object", "key": "object", "value": "object"}
#: One row a run and metric: the reading that MLflow shows, of the highest step.
METRICS = {
    "run_id": "object",
    "key": "object",
    "step": "int64",
    "timestamp_ms": "int64",
    "value": "float64",
}
#: One row a cell of an execution and metric, over its repeats that finished.
CELLS = {
    "execution": "object",
    "suite": "object",
    "cell": "object",
    "cell_key": "object",
    "repeats": "int64",
    "finished": "int64",
    "metric": "object",
    "values": "int64",
    "mean": "float64",
    "std": "float64",
    "min": "float64",
    "median": "float64",
    "max": "float64",
}
#: One row a phase of a run that was closed. `cpu_percent` is of one core, memory in MB (10^6).
PHASES = {
    "run_id": "object",
    "stream": "object",
    "name": "object",
    "step": "Int64",
    "begin": "datetime64[ms, UTC]",
    "seconds": "float64",
    "cpu_percent": "float64",
    "rss_mb_max": "float64",
    "gpu_percent_mean": "float64",
    "samples": "Int64",
    "complete": "boolean",
}
#: One row an alert; `time` is when it was raised.
ALERTS = {
    "run_id": "object",
    "alert_id": "object",
    "name": "object",
    "severity": "object",
    "kind": "object",
    "status": "object",
    "message": "object",
    "metric": "object",
    "value": "float64",
    "threshold": "float64",
    "rule": "object",
    "source": "object",
    "cell": "object",
    "phase": "object",
    "step": "Int64",
    "time": "datetime64[ms, UTC]",
    "resolved": "datetime64[ms, UTC]",
    "correlation_id": "object",
    "context": "object",
}
RESOURCE_PREFIX = "system/"
PHASES_FILE = f"{OWN_ARTIFACTS}/phases.json"

_TEXTS = {
    "kind": tags.KIND,
    "suite": tags.SUITE,
    "execution": tags.EXECUTION,
    "cell": tags.CELL,
    "cell_key": tags.CELL_KEY,
    "error_category": "allele.error.category",
    "environment": tags.ENVIRONMENT,
    "commit": tags.COMMIT,
    "host": tags.HOST,
    "run_uid": tags.RUN_UID,
    "parent_run_id": "mlflow.parentRunId",
}
_NUMBERS = {
    "repeat": tags.REPEAT,
    "attempt": tags.ATTEMPT,
    "order": tags.ORDER,
    "seed": tags.SEED,
    "concurrency": tags.CONCURRENCY,
    "load_1m": tags.LOAD,
}
_FINISHED = "FINISHED"


class ExperimentFrames(NamedTuple):
    """
    Runs of experiments and what they say of themselves, keyed by `run_id`, newest first.
    """

    runs: pd.DataFrame
    params: pd.DataFrame
    metrics: pd.DataFrame

    def of(self, runs: pd.DataFrame) -> ExperimentFrames:
        """
        These runs alone.
        """
        ids = runs["run_id"]
        return ExperimentFrames(
            runs,
            self.params[self.params["run_id"].isin(ids)],
            self.metrics[self.metrics["run_id"].isin(ids)],
        )


def read_experiments(
    reader: Reader,
    experiment_ids: Sequence[str],
    *,
    run_ids: Sequence[str] | None = None,
    with_tags: Mapping[str, str | None] | None = None,
    param_keys: Sequence[str] | None = None,
    metric_keys: Sequence[str] | None = None,
    columns: Collection[str] | None = None,
) -> ExperimentFrames:
    """
    Every run of these experiments that is not deleted.

    Args:
        reader: Of the store.
        experiment_ids: As of `Reader.experiments`.
        run_ids: These alone, as of `Reader.runs`.
        with_tags: Only runs that have all of these.
        param_keys: Which params to read; None for all.
        metric_keys: Which metrics, likewise.
        columns: Which columns of `runs` to fill that come from tags; the others are missing
            throughout. None for all.
    Raises:
        TrackingError: the store does not answer.
    """
    texts, numbers = (
        {name: tag for name, tag in known.items() if columns is None or name in columns}
        for known in (_TEXTS, _NUMBERS)
    )
    names = reader.experiments()
    by_id = dict(zip(names["experiment_id"], names["name"], strict=True))
    told = reader.runs(
        experiment_ids,
        run_ids=run_ids,
        with_tags=with_tags,
        tag_keys=[*texts.values(), *numbers.values()],
        param_keys=param_keys,
        metric_keys=metric_keys,
    )
    wide = _by_run(told.tags, told.runs["run_id"])
    runs = told.runs[["run_id", "experiment_id", "name", "status", "artifact_uri"]].copy()
    runs["experiment"] = runs["experiment_id"].map(by_id)
    for name, tag in texts.items():
        runs[name] = _column(wide, tag)
    for name, tag in numbers.items():
        runs[name] = pd.to_numeric(_column(wide, tag), errors="coerce")
    is_over = told.runs["status"].isin([_FINISHED, "FAILED", "KILLED"])
    runs["is_failed"] = (told.runs["status"] != _FINISHED).where(is_over)
    runs["started_at"] = told.runs["start_time"]
    length = told.runs["end_time"] - told.runs["start_time"]
    runs["seconds"] = length.dt.total_seconds()
    return ExperimentFrames(shaped(runs, RUNS), told.params, told.metrics)


def counted_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """
    Of each trial of a suite the one run that counts: the one that finished, else its last attempt.

    Args:
        runs: Columns of `RUNS`, of cells.
    Returns:
        Runs that are over; those that go on count nowhere.
    """
    over = runs[runs["is_failed"].notna()]
    order = over.sort_values(["is_failed", "attempt"], ascending=[True, False], kind="stable")
    return order.drop_duplicates(["execution", "cell_key", "repeat"]).sort_index()


def cells_frame(frames: ExperimentFrames) -> pd.DataFrame:
    """
    Each cell of each execution: its repeats, and every metric over those that finished.

    Returns:
        Columns of `CELLS`; a cell without a single metric has none of its rows.
    """
    runs = frames.runs[frames.runs["kind"] == tags.RunKind.CELL]
    counted = counted_runs(runs)
    keys = ["execution", "suite", "cell", "cell_key"]
    if not len(counted):
        return shaped(pd.DataFrame(), CELLS)
    whole = counted.groupby(keys, sort=False, dropna=False)["is_failed"].agg(
        repeats="size", finished=lambda failed: int((~failed.astype(bool)).sum())
    )
    finished = counted[~counted["is_failed"].astype(bool)]
    values = frames.metrics.merge(finished[[*keys, "run_id"]], on="run_id")
    spread = values.groupby([*keys, "key"], sort=False, dropna=False)["value"].agg(
        ["count", "mean", "std", "min", "median", "max"]
    )
    found = spread.reset_index().merge(whole.reset_index(), on=keys)
    return shaped(found.rename(columns={"key": "metric", "count": "values"}), CELLS)


def params_by_run(params: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """
    The params of each run, numbers and truth values as such.
    """
    found: dict[str, dict[str, Any]] = {}
    for run_id, key, value in params[["run_id", "key", "value"]].itertuples(index=False):
        found.setdefault(run_id, {})[key] = param_value(value)
    return found


def param_value(text: str) -> Any:
    """
    A param as it was before it became a text, as far as that can be told: 0.1, True, "adam".
    """
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_histories(
    reader: Reader, run_ids: Sequence[str], keys: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """
    Every reading of these keys of these runs, in pages of `tracking.frames.HISTORY`.

    Raises:
        TrackingError: the store does not answer.
    """
    if len(run_ids) and len(keys):
        yield from reader.history(list(run_ids), list(keys))


def whole_histories(reader: Reader, run_ids: Sequence[str], keys: Sequence[str]) -> pd.DataFrame:
    """
    The same in one frame, in memory.

    Raises:
        TrackingError: the store does not answer.
    """
    pages = [page for page in read_histories(reader, run_ids, keys) if len(page)]
    return pd.concat(pages, ignore_index=True) if pages else shaped(pd.DataFrame(), HISTORY)


def resource_keys(metrics: pd.DataFrame) -> list[str]:
    """
    The keys of resource samples among metrics.
    """
    keys = metrics["key"].unique()
    return sorted(key for key in keys if key.startswith(RESOURCE_PREFIX))


def read_phases(tracking_uri: str, run_ids: Iterable[str]) -> pd.DataFrame:
    """
    The phases of runs, from their artifacts: one request a run, and more for its file.

    Returns:
        Columns of `PHASES`; a run without phases has no row.
    Raises:
        TrackingError: the store does not answer.
    """
    rows = []
    for run_id in run_ids:
        data = artifact_bytes(tracking_uri, run_id, PHASES_FILE)
        document = _decoded(data)
        rows += [{"run_id": run_id, **row} for row in document.get("rows", [])]
    frame = pd.DataFrame(rows)
    if len(frame):
        frame["begin"] = pd.to_datetime(frame["begin"], utc=True, format="ISO8601")
    return shaped(frame, PHASES)


def read_alerts(tracking_uri: str, run_ids: Iterable[str]) -> pd.DataFrame:
    """
    The alerts of runs, from their artifacts.

    Returns:
        Columns of `ALERTS`.
    Raises:
        TrackingError: the store does not answer.
    """
    rows = [
        {"run_id": run_id, **alert}
        for run_id in run_ids
        for document in artifact_alerts(tracking_uri, run_id)
        for alert in document.get("alerts", [])
    ]
    frame = pd.DataFrame(rows)
    for name in ("time", "resolved"):
        if name in frame:
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
    return shaped(frame, ALERTS)


def shaped(frame: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """
    These columns in this order and with these dtypes; one that is not there is missing throughout.
    """
    found = frame.reindex(columns=list(columns))
    for name, kind in columns.items():
        if kind == "object":
            found[name] = found[name].astype("object").where(found[name].notna(), None)
    return found.astype(columns)


def _decoded(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _by_run(pairs: pd.DataFrame, run_ids: pd.Series[Any]) -> pd.DataFrame:
    """
    A row a run in the runs' order, a column a key.
    """
    unique = pairs.drop_duplicates(["run_id", "key"], keep="last")
    return unique.pivot(index="run_id", columns="key", values="value").reindex(run_ids)


def _column(wide: pd.DataFrame, name: str) -> Any:
    return wide[name].to_numpy() if name in wide else None
