"""
The frames in which runs come back: their columns, their dtypes, and how rows become them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from allele_mlflow.numerals import whole_number
from allele_mlflow.tracking.limits import LARGEST_VALUE, check_key

#: Columns and dtypes of each frame.
RUNS = {
    "run_id": "object",
    "experiment_id": "object",
    "name": "object",
    "status": "object",
    "lifecycle": "object",
    "start_time": "datetime64[ms, UTC]",
    "end_time": "datetime64[ms, UTC]",
    "artifact_uri": "object",
}
PAIRS = {"run_id": "object", "key": "object", "value": "object"}
HISTORY = {
    "run_id": "object",
    "key": "object",
    "step": "int64",
    "timestamp_ms": "int64",
    "value": "float64",
}
READINGS = {"key": "object", "step": "int64", "timestamp_ms": "int64", "value": "float64"}
EXPERIMENTS = {"experiment_id": "object", "name": "object", "lifecycle": "object"}

#: Rows of a page: some 10 MB.
PAGE_ROWS = 100_000
#: Runs that may be asked for by their ids: an old SQLite takes 999 values in a query.
MOST_RUN_IDS = 500


class RunFrames(NamedTuple):
    """
    Runs in tidy frames, all keyed by `run_id`.

    Attributes:
        runs: Columns of `RUNS`; times in UTC, `end_time` NaT while a run goes on.
        params: Columns of `PAIRS`.
        tags: Columns of `PAIRS`.
        metrics: Columns of `HISTORY`: of each key the reading that MLflow shows.
    """

    runs: pd.DataFrame
    params: pd.DataFrame
    tags: pd.DataFrame
    metrics: pd.DataFrame


class WantedRuns(NamedTuple):
    """
    Which runs `Reader.runs` is to give, and what of them.

    Attributes:
        experiment_ids: Of these alone; None for all.
        run_ids: These alone; None for all.
        with_deleted: Deleted ones too.
        with_tags: Only runs that have all of these tags with exactly these values; None for any
            value but the empty one.
        tag_keys: The tags to give; None for all, empty for none.
        param_keys: The params, likewise.
        metric_keys: The metrics, likewise.
    """

    experiment_ids: list[str] | None
    run_ids: list[str] | None
    with_deleted: bool
    with_tags: dict[str, str | None]
    tag_keys: list[str] | None
    param_keys: list[str] | None
    metric_keys: list[str] | None


class Reader(Protocol):
    """
    Reads one tracking store; changes nothing in it. Not thread-safe.
    """

    def experiments(self) -> pd.DataFrame:
        """
        Columns of `EXPERIMENTS`, deleted ones too.

        Raises:
            TrackingError: the store does not answer.
        """

    def experiment_id_of(self, name: str) -> str | None:
        """
        The id of the experiment of that name, a deleted one too; None where there is none.

        Raises:
            TrackingError: the store does not answer.
        """

    def runs(
        self,
        experiment_ids: Sequence[str] | None = None,
        *,
        run_ids: Sequence[str] | None = None,
        with_deleted: bool = False,
        with_tags: Mapping[str, str | None] | None = None,
        tag_keys: Sequence[str] | None = None,
        param_keys: Sequence[str] | None = None,
        metric_keys: Sequence[str] | None = None,
    ) -> RunFrames:
        """
        The runs of these experiments, all by default, newest first.

        Args:
            experiment_ids: As of `experiments`.
            run_ids: These alone, as far as they are there; at most `MOST_RUN_IDS`.
            with_deleted: Deleted ones too.
            with_tags: Only runs that have all of these tags with exactly these values; None for any
                value but the empty one.
            tag_keys: The tags to give; None for all, an empty list for none.
            param_keys: The params to give, likewise.
            metric_keys: The metrics to give, likewise.
        Raises:
            ValueError: what is no id of an experiment, a text in place of a list, a key that no
                tag can have.
            TrackingError: the store does not answer.

        Cost: what is not asked for is not read where the store is asked in SQL; through MLflow's
        client all of a run is read, and then kept or not.
        """

    def history(
        self,
        run_ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """
        Every reading of these runs and keys (all by default) once, in frames of `HISTORY`.

        Runs and keys come in any order and may share a page. The readings of one key of one run
        come by step, then time; over HTTP a history of more than 25,000 comes by time. What MLflow
        keeps as its largest number is infinite again.

        Raises:
            ValueError: a text in place of a list, or `page_rows` below 1.
            TrackingError: the store does not answer.
        """

    def close(self) -> None:
        """
        Give back connections.
        """


def check_history_request(
    run_ids: Sequence[str], keys: Sequence[str] | None, page_rows: int
) -> None:
    """
    Refuse what cannot be meant: a text in place of a list of texts, a page without a row.

    Raises:
        ValueError: says what was given and what is wanted.
    """
    for name, given in (("run_ids", run_ids), ("keys", keys)):
        if isinstance(given, str):
            raise ValueError(f"{name}={given!r}: want a list of texts")
    if page_rows < 1:
        raise ValueError(f"page_rows={page_rows}: want 1 or more")


def check_experiment_ids(experiment_ids: Sequence[str] | None) -> list[str] | None:
    """
    Ids of experiments as a list, None for all.

    Raises:
        ValueError: a text, or one that is no id.
    """
    if experiment_ids is None:
        return None
    ids = [experiment_ids] if isinstance(experiment_ids, str) else list(map(str, experiment_ids))
    if isinstance(experiment_ids, str) or None in map(whole_number, ids):
        raise ValueError(f"experiment_ids={experiment_ids!r}: want ids, as of experiments()")
    return ids


def check_runs_request(
    experiment_ids: Sequence[str] | None,
    *,
    run_ids: Sequence[str] | None,
    with_deleted: bool,
    with_tags: Mapping[str, str | None] | None,
    tag_keys: Sequence[str] | None,
    param_keys: Sequence[str] | None,
    metric_keys: Sequence[str] | None,
) -> WantedRuns:
    """
    What `Reader.runs` was asked for, as lists.

    Raises:
        ValueError: says what was given and what is wanted.
    """
    keys = {"tag_keys": tag_keys, "param_keys": param_keys, "metric_keys": metric_keys}
    for name, given in (("run_ids", run_ids), *keys.items()):
        if isinstance(given, str):
            raise ValueError(f"{name}={given!r}: want a list of texts")
    if run_ids is not None and len(run_ids) > MOST_RUN_IDS:
        raise ValueError(f"{len(run_ids):,} run_ids: want at most {MOST_RUN_IDS}")
    try:
        tags = dict(with_tags or {})
    except (TypeError, ValueError) as exc:
        raise ValueError(f"with_tags={with_tags!r}: want a value for each key") from exc
    for key, value in tags.items():
        wrong = check_key(key)
        if wrong or not (value is None or isinstance(value, str)):
            raise ValueError(f"with_tags={tags!r}: {wrong or 'want a text for each key'}")
    return WantedRuns(
        check_experiment_ids(experiment_ids),
        None if run_ids is None else list(map(str, run_ids)),
        with_deleted,
        tags,
        *(None if given is None else list(given) for given in keys.values()),
    )


def frame_of(rows: Iterable[Sequence[Any]], columns: dict[str, str]) -> pd.DataFrame:
    """
    A frame of rows, with these columns and dtypes; what a row has behind them is left out.
    """
    kept = list(rows)
    # column by column with its dtype: pandas would look at all texts for what they might be
    return pd.DataFrame(
        {
            name: pd.Series(_column([row[place] for row in kept], kind), dtype=kind)
            for place, (name, kind) in enumerate(columns.items())
        }
    )


def _column(values: list[Any], kind: str) -> list[Any]:
    """
    Values of a column, each text once: drivers make a new one for each row, and of 500,000 metrics
    ids and keys would take 75 MB.
    """
    if kind != "object":
        return values
    once: dict[Any, Any] = {}
    return [once.setdefault(value, value) for value in values]


def pairs_frame(rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """
    A frame of `PAIRS`.
    """
    return frame_of(rows, PAIRS)


def runs_frame(rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """
    A frame of `RUNS`; the times are given in milliseconds since 1970.
    """
    times_given = dict.fromkeys(("start_time", "end_time"), "object")
    frame = frame_of(rows, RUNS | times_given)
    for name in times_given:
        # 0 is what MLflow's server answers for an end that has not come
        times = pd.to_numeric(frame[name]).astype("Int64").replace(0, pd.NA)
        frame[name] = pd.to_datetime(times, unit="ms", utc=True)
    return frame.astype(RUNS)


def history_frame(rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """
    A frame of `HISTORY`, from rows that have `is_nan` behind their value.
    """
    kept = list(rows)
    frame = frame_of(kept, HISTORY)
    values = frame["value"].to_numpy(copy=True)
    is_infinite = np.abs(values) == LARGEST_VALUE
    values[is_infinite] = np.copysign(np.inf, values[is_infinite])
    values[np.array([row[len(HISTORY)] for row in kept], dtype=bool)] = np.nan
    frame["value"] = values
    return frame
