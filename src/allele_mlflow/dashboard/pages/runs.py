"""
The runs of an experiment: filtered, sorted, grouped by a parameter or tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import ExperimentFrames, param_value
from allele_mlflow.analysis.run_expressions import runs_that_hold
from allele_mlflow.dashboard.pages.executions import (
    milliseconds,
    seconds_between,
    tags_by_run,
)
from allele_mlflow.dashboard.pages.experiment import experiment_instances, experiment_name
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.views import Knobs, Option, Paged, View, page_of, sorted_rows
from allele_mlflow.expressions import parse_expression
from allele_mlflow.tracking.frames import Reader, RunFrames

PARAM, METRIC = "param.", "metric."
#: Columns beside the usual ones.
MOST_PARAMS, MOST_METRICS = 8, 6
STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED")


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run, with some of its params and metrics.
    """

    run_id: str
    name: str
    status: str
    cell: str | None
    started_ms: int | None
    seconds: float | None
    params: dict[str, str]
    metrics: dict[str, float]


class RunGroup(msgspec.Struct, frozen=True, kw_only=True):
    """
    Runs that have one value of what the view groups by; `median` is that of its metric.
    """

    group: str
    runs: int
    finished: int
    failed: int
    median: float | None
    seconds: float | None


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """
    Runs of an experiment, or groups of them where the view groups.
    """

    experiment_id: str
    experiment: str
    params: list[str]
    metrics: list[str]
    metric: str
    runs: Paged[RunRow]
    groups: Paged[RunGroup] | None = None


COLUMNS = (
    Column("name", "Run", Kind.NAME, path="/runs/{run_id}"),
    Column("status", "Status", Kind.STATUS),
    Column("started_ms", "Started", Kind.TIME),
    Column("seconds", "Took", Kind.SECONDS),
)
GROUP_COLUMNS = (
    Column("group", "Group", Kind.NAME),
    Column("runs", "Runs", Kind.COUNT),
    Column("finished", "Finished", Kind.COUNT),
    Column("failed", "Failed", Kind.COUNT),
    Column("median", "Median", Kind.NUMBER),
    Column("seconds", "Median time", Kind.SECONDS),
)


def query(ask: Ask) -> Runs:
    """
    The runs of the view's page. Only theirs are read whole; of all others what filter, order and
    groups need.

    Raises:
        RefusalError: 404: there is no such experiment; 400: no run has the metric, param or tag.
        AnalysisError: the filter names what no run has.
        TrackingError: the store does not answer.
    """
    view, experiment_id = ask.view, ask.params["experiment_id"]
    with ask.source.reader() as reader:
        name = experiment_name(reader, experiment_id)
        frames = _told(reader, experiment_id, view)
        if view.group:
            groups = page_of(sorted_rows(_groups(frames, view), view, _group_value), view)
            shown: Paged[str] = page_of([], view)
        else:
            groups = None
            shown = page_of(sorted_rows(frames.runs["run_id"], view, _Values(frames)), view)
        whole = reader.runs(run_ids=shown.rows, tag_keys=[tags.CELL])
    rows = _rows(whole, shown.rows)
    params = _columns((row.params for row in rows), MOST_PARAMS)
    metrics = _metrics(rows, view)
    return Runs(
        experiment_id=experiment_id,
        experiment=name,
        params=params,
        metrics=metrics,
        metric=_metric_of(view),
        runs=Paged(
            rows=[_trimmed(row, params, metrics) for row in rows],
            row_count=shown.row_count,
            page=shown.page,
            page_count=shown.page_count,
            first=shown.first,
        ),
        groups=groups,
    )


def _told(reader: Reader, experiment_id: str, view: View) -> RunFrames:
    """
    All runs that the view means, with what it sorts and groups by.
    """
    named = [view.sort_name, PARAM + view.group if view.group else ""]
    params = [one.removeprefix(PARAM) for one in named if one.startswith(PARAM)]
    frames = reader.runs(
        [experiment_id],
        tag_keys=[view.group] if view.group else [],
        param_keys=None if view.filter else params,
        metric_keys=[_metric_of(view)] if _metric_of(view) else [],
    )
    _check_names(frames, view)
    runs = frames.runs
    if view.find:
        runs = runs[
            runs["name"].fillna("").str.casefold().str.contains(view.find.casefold(), regex=False)
        ]
    if view.options["status"]:
        runs = runs[runs["status"] == view.options["status"]]
    if view.filter and len(runs):
        wanted = parse_expression(view.filter)
        known = ExperimentFrames(runs, frames.params, frames.metrics)
        runs = runs_that_hold(reader, known.of(runs), wanted, text=view.filter)
    return frames._replace(runs=runs)


def _check_names(frames: RunFrames, view: View) -> None:
    """
    Refuse to sort and group by what no run of the experiment has.

    Raises:
        RefusalError: 400: there is no such metric, param or tag.
    """
    if not len(frames.runs):
        return
    metric, params = _metric_of(view), set(frames.params["key"])
    if metric and not len(frames.metrics):
        raise RefusalError(400, f"no run has a metric {metric!r}")
    param = view.sort_name.removeprefix(PARAM)
    if param != view.sort_name and param not in params:
        raise RefusalError(400, f"no run has a param {param!r}")
    if view.group and view.group not in params and not len(frames.tags):
        raise RefusalError(400, f"no run has a param or tag {view.group!r}")


def _metric_of(view: View) -> str:
    """
    The metric that a view sorts by, or wants to see.
    """
    if view.sort_name.startswith(METRIC):
        return view.sort_name.removeprefix(METRIC)
    return view.options["metric"]


class _Values:
    """
    By what a run stands in a table that is sorted by a column.
    """

    def __init__(self, frames: RunFrames) -> None:
        self._runs = frames.runs.set_index("run_id")
        values = zip(frames.metrics["run_id"], frames.metrics["value"], strict=True)
        self._metrics: dict[str, Any] = dict(values)
        self._params = frames.params
        self._kept: dict[str, dict[str, Any]] = {}

    def __call__(self, run_id: str, name: str) -> Any:
        if name not in self._kept:
            self._kept[name] = self._column(name)
        return self._kept[name].get(run_id)

    def _column(self, name: str) -> dict[str, Any]:
        if name.startswith(METRIC):
            return self._metrics
        if name.startswith(PARAM):
            key = name.removeprefix(PARAM)
            of_key = self._params[self._params["key"] == key]
            values = zip(of_key["run_id"], of_key["value"], strict=True)
            return {run_id: param_value(value) for run_id, value in values}
        runs = self._runs
        if name == "started_ms":
            return {key: milliseconds(one) for key, one in runs["start_time"].items()}
        if name == "seconds":
            length = (runs["end_time"] - runs["start_time"]).dt.total_seconds()
            return dict(length.items())
        return dict(runs[name].items()) if name in runs else {}


def _groups(frames: RunFrames, view: View) -> list[RunGroup]:
    pairs = pd.concat([frames.tags, frames.params[frames.params["key"] == view.group]])
    told = dict(zip(pairs["run_id"], pairs["value"], strict=True))
    values = dict(zip(frames.metrics["run_id"], frames.metrics["value"], strict=True))
    runs = frames.runs.assign(
        group=[told.get(run_id, f"without {view.group}") for run_id in frames.runs["run_id"]],
        is_good=frames.runs["status"] == "FINISHED",
        is_bad=frames.runs["status"].isin(["FAILED", "KILLED"]),
        seconds=(frames.runs["end_time"] - frames.runs["start_time"]).dt.total_seconds(),
        value=frames.runs["run_id"].map(values).astype("float64"),
    )
    found = runs.groupby("group").agg(
        runs=("run_id", "size"),
        finished=("is_good", "sum"),
        failed=("is_bad", "sum"),
        median=("value", "median"),
        seconds=("seconds", "median"),
    )
    return [
        RunGroup(
            group=str(row.Index),
            runs=int(row.runs),
            finished=int(row.finished),
            failed=int(row.failed),
            median=_number(row.median),
            seconds=_number(row.seconds),
        )
        for row in found.itertuples()
    ]


def _group_value(row: RunGroup, name: str) -> Any:
    if name == "group":
        return param_value(row.group)
    return getattr(row, name, None)


def _rows(told: RunFrames, order: Sequence[str]) -> list[RunRow]:
    params, own = tags_by_run(told.params), tags_by_run(told.tags)
    metrics: dict[str, dict[str, float]] = {}
    for run_id, key, value in told.metrics[["run_id", "key", "value"]].itertuples(index=False):
        metrics.setdefault(run_id, {})[key] = value
    by_id = {
        row.run_id: RunRow(
            run_id=row.run_id,
            name=row.name or row.run_id,
            status=row.status,
            cell=own.get(row.run_id, {}).get(tags.CELL),
            started_ms=milliseconds(row.start_time),
            seconds=seconds_between(row.start_time, row.end_time),
            params=params.get(row.run_id, {}),
            metrics=metrics.get(row.run_id, {}),
        )
        for row in told.runs.itertuples()
    }
    return [by_id[run_id] for run_id in order if run_id in by_id]


def _trimmed(row: RunRow, params: Sequence[str], metrics: Sequence[str]) -> RunRow:
    """
    The row with what is shown of it.
    """
    return msgspec.structs.replace(
        row,
        params={name: row.params[name] for name in params if name in row.params},
        metrics={name: row.metrics[name] for name in metrics if name in row.metrics},
    )


def _columns(told: Any, most: int) -> list[str]:
    """
    Names of params: those that vary, where any does.
    """
    values: dict[str, set[str]] = {}
    for params in told:
        for name, value in params.items():
            values.setdefault(name, set()).add(value)
    varied = [name for name in values if len(values[name]) > 1]
    return (varied or list(values))[:most]


def _metrics(rows: Sequence[RunRow], view: View) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in sorted(row.metrics))
    usual = sorted(names, key=lambda name: name.startswith(("system/", "phase/")))
    wanted = [_metric_of(view)] if _metric_of(view) else []
    return list(dict.fromkeys([*wanted, *usual]))[:MOST_METRICS]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _run_columns(content: Runs) -> tuple[Column, ...]:
    return (
        *COLUMNS,
        *(Column(f"{METRIC}{name}", name, Kind.NUMBER) for name in content.metrics),
        *(Column(f"{PARAM}{name}", name, Kind.NAME) for name in content.params),
    )


PAGE = Page(
    name="runs",
    path="/experiments/{experiment_id}/runs",
    summary="The runs of an experiment: filtered, sorted, grouped by a parameter or tag.",
    query=query,
    content=Runs,
    template="runs.html",
    tab="Runs",
    columns={"runs": _run_columns, "groups": GROUP_COLUMNS},
    knobs=Knobs(
        sorts=(
            *(column.name for column in COLUMNS),
            *(column.name for column in GROUP_COLUMNS),
            PARAM,
            METRIC,
        ),
        has_filter=True,
        has_find=True,
        has_group=True,
        has_pages=True,
        options=(Option("metric", "Metric"), Option("status", "Status", ("", *STATUSES))),
    ),
    instances=experiment_instances,
)
