"""
The cells of one execution in numbers: medians with intervals, failures, groups. Pure but for the
reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import (
    ExperimentFrames,
    counted_runs,
    param_value,
    read_experiments,
)
from allele_mlflow.analysis.median_interval import median_interval
from allele_mlflow.analysis.run_expressions import runs_that_hold
from allele_mlflow.dashboard.pages.executions import Execution
from allele_mlflow.dashboard.views import View
from allele_mlflow.expressions import parse_expression
from allele_mlflow.tracking.frames import Reader

#: What a trial took, without the making and closing of its run.
SECONDS = "trial/seconds"
_COLUMNS = ("cell", "cell_key", "repeat", "attempt", "error_category")


class CellRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A cell, or a group of cells. `low` and `high` hold its median with 95 %; None where there are
    too few values. `seconds` is the median of its repeats, each by what its trial took, or by the
    time from its run's start to its end where the trial did not say it.
    """

    cell: str
    cell_key: str
    cells: int
    repeats: int
    finished: int
    failed: int
    values: int
    median: float | None
    low: float | None
    high: float | None
    seconds: float | None


class CellRuns:
    """
    The runs of an execution that count, with one metric of theirs.
    """

    def __init__(self, frames: ExperimentFrames, metric: str) -> None:
        """
        Args:
            frames: Runs of cells, their params as far as they are needed, and the metric.
            metric: Its key.
        """
        self.frames = frames
        values = _values_of(frames, metric)
        runs = counted_runs(frames.runs)
        trial_seconds = runs["run_id"].map(_values_of(frames, SECONDS)).astype("float64")
        is_good = ~runs["is_failed"].astype(bool)
        self.runs = runs.assign(
            is_good=is_good,
            cell=runs["cell"].where(runs["cell"].notna(), runs["cell_key"]).fillna(""),
            cell_key=runs["cell_key"].fillna(""),
            seconds=trial_seconds.fillna(runs["seconds"]),
            value=runs["run_id"].map(values).where(is_good).astype("float64"),
        )
        self.running_count = int(frames.runs["is_failed"].isna().sum())

    def rows(self, by: Sequence[Any] | None = None) -> list[CellRow]:
        """
        A row a cell, in the order in which they ran first; its interval is not known yet.

        Args:
            by: Of each run, what it is grouped by; the cell where it is None.
        """
        runs = self.runs if by is None else self.runs.assign(cell=by, cell_key=by)
        if not len(runs):
            return []
        # two values may be too large for the sum that their median is half of
        runs = runs.assign(half=runs["value"] / 2.0)
        grouped = runs.iloc[::-1].groupby("cell_key", sort=False)
        found = grouped.agg(
            cell=("cell", "first"),
            repeats=("is_good", "size"),
            finished=("is_good", "sum"),
            values=("value", "count"),
            half=("half", "median"),
            seconds=("seconds", "median"),
        )
        cells = self.runs.iloc[::-1].groupby(runs["cell_key"].iloc[::-1], sort=False)["cell_key"]
        counts = cells.nunique()
        return [
            CellRow(
                cell=str(row.cell),
                cell_key=str(row.Index),
                cells=int(counts[row.Index]),
                repeats=int(row.repeats),
                finished=int(row.finished),
                failed=int(row.repeats - row.finished),
                values=int(row.values),
                median=_number(2.0 * row.half),
                low=None,
                high=None,
                seconds=_number(row.seconds),
            )
            for row in found.itertuples()
        ]

    def with_intervals(
        self, rows: Sequence[CellRow], by: Sequence[Any] | None = None
    ) -> list[CellRow]:
        """
        The same rows with the intervals of their medians.
        """
        runs = self.runs if by is None else self.runs.assign(cell_key=by)
        values = runs.assign(cell_key=runs["cell_key"].astype(str)).set_index("cell_key")["value"]
        found = []
        for row in rows:
            interval = median_interval(values.loc[[row.cell_key]].to_numpy())
            found.append(msgspec.structs.replace(row, low=interval.low, high=interval.high))
        return found

    def param(self, name: str) -> list[Any]:
        """
        The value of a param of each run, a text that says so where it has none.
        """
        params = self.frames.params
        told = params[params["key"] == name].set_index("run_id")["value"]
        found = self.runs["run_id"].map(told)
        return [f"without {name}" if pd.isna(one) else one for one in found]

    def results(self, metric: str) -> pd.DataFrame:
        """
        As the figures of reports take them.
        """
        runs = self.runs.iloc[::-1]
        return pd.DataFrame(
            {
                "run_id": runs["run_id"],
                "cell": runs["cell"],
                "cell_key": runs["cell_key"],
                "repeat": runs["repeat"],
                "attempt": runs["attempt"],
                "status": runs["is_good"].map({True: "finished", False: "failed"}),
                "category": runs["error_category"],
                "seconds": runs["seconds"],
                f"metric.{metric}": runs["value"],
            }
        ).reset_index(drop=True)


def read_cells(reader: Reader, execution: Execution, metric: str, view: View) -> CellRuns:
    """
    The runs of an execution that are over, and of which the view's filter is true.

    Raises:
        AnalysisError: no run has a param or tag that the filter names.
        MatrixError: the filter cannot be computed of a run.
        TrackingError: the store does not answer.
    """
    params = None if view.filter else [view.group] if view.group else []
    frames = read_experiments(
        reader,
        [execution.experiment_id],
        with_tags={tags.EXECUTION: execution.run_uid or "", tags.KIND: tags.RunKind.CELL},
        param_keys=params,
        metric_keys=sorted({metric, SECONDS} - {""}),
        columns=_COLUMNS,
    )
    if view.filter and len(frames.runs):
        wanted = parse_expression(view.filter)
        frames = frames.of(runs_that_hold(reader, frames, wanted, text=view.filter))
    return CellRuns(frames, metric)


def sort_value(row: CellRow, name: str) -> Any:
    """
    By what a row stands in a table that is sorted by a column.
    """
    value = getattr(row, name)
    return param_value(value) if name == "cell" and row.cells > 1 else value


def _values_of(frames: ExperimentFrames, key: str) -> pd.Series[Any]:
    """
    What each run says of a metric.
    """
    return frames.metrics[frames.metrics["key"] == key].set_index("run_id")["value"]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def read_results(
    reader: Reader, execution: Execution, cells: CellRuns, metrics: Sequence[str]
) -> pd.DataFrame:
    """
    The runs of an execution that count, with several metrics of theirs, as figures of reports take
    them.

    Raises:
        TrackingError: the store does not answer.
    """
    told = reader.runs(
        [execution.experiment_id],
        with_tags={tags.EXECUTION: execution.run_uid or "", tags.KIND: tags.RunKind.CELL},
        tag_keys=[],
        param_keys=[],
        metric_keys=metrics,
    ).metrics
    results = cells.results("")
    for name in metrics:
        values = told[told["key"] == name].set_index("run_id")["value"]
        results[f"metric.{name}"] = results["run_id"].map(values).astype("float64")
    return results.drop(columns="metric.")
