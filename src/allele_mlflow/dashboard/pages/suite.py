"""
One execution of a suite: its cells with medians, intervals and failures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.selection import KnownMetric, SuiteFacts
from allele_mlflow.dashboard.pages.executions import (
    Execution,
    executions_of,
    read_executions,
    tags_by_run,
    with_alerts,
    with_counts,
)
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page, Params
from allele_mlflow.dashboard.pages.suite_cells import (
    CellRow,
    CellRuns,
    read_cells,
    read_results,
    sort_value,
)
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.reports.figures import convergence, objective_by_cell, suite_heat_map
from allele_mlflow.reports.summary import Objective, ordered_cells, outcomes_of
from allele_mlflow.tracking.frames import MOST_RUN_IDS, Reader
from allele_mlflow.units import Direction

#: Metrics to choose from; cells whose curves are drawn, their runs and readings; failures told.
MOST_METRICS = 300
MOST_CURVES = 8
MOST_CURVE_RUNS = 400
MOST_READINGS = 200_000
MOST_FAILURES = 50
MOST_HEAT_COLUMNS = 8
_ERROR_TAGS = ("allele.error.category", "allele.error.type", "allele.error.message")
_UNKNOWN = KnownMetric(Direction.NONE, "", is_objective=False)


class FailureCount(msgspec.Struct, frozen=True, kw_only=True):
    """
    Runs that failed alike.
    """

    category: str
    error: str
    message: str
    runs: int
    run_id: str


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """
    An execution. `cells` are groups of them where the view groups.
    """

    execution: Execution
    experiment_id: str
    metric: str
    unit: str
    direction: Direction
    metrics: list[str]
    axes: list[str]
    cells: Paged[CellRow]
    running: int
    failures: list[FailureCount]


COLUMNS = (
    Column("cell", "Cell", Kind.NAME),
    Column("median", "Median", Kind.NUMBER),
    Column("low", "95 % from", Kind.NUMBER, can_sort=False),
    Column("high", "to", Kind.NUMBER, can_sort=False),
    Column("values", "Values", Kind.COUNT),
    Column("repeats", "Repeats", Kind.COUNT),
    Column("failed", "Failed", Kind.COUNT),
    Column("seconds", "Seconds", Kind.SECONDS),
)
GROUP_COLUMNS = (Column("cell", "Group", Kind.NAME), Column("cells", "Cells", Kind.COUNT))
FAILURE_COLUMNS = (
    Column("category", "Category"),
    Column("error", "Error", Kind.NAME, path="/runs/{run_id}"),
    Column("message", "Message"),
    Column("runs", "Runs", Kind.COUNT),
)


def query(ask: Ask) -> Suite:
    """
    The cells of an execution, in the view's order; the best first where it names none.

    Raises:
        RefusalError: 404: there is no such execution.
        AnalysisError: the filter names what no run has.
        TrackingError: the store does not answer.
    """
    view = ask.view
    read = _read(ask)
    execution, facts, metric, cells = read.execution, read.facts, read.metric, read.cells
    with ask.source.reader() as reader:
        failures = _failures(reader, cells)
        keys = _keys_of(reader, cells.runs[cells.runs["is_good"]]["run_id"])
    known = facts.metrics.get(metric, _UNKNOWN)
    by = cells.param(view.group) if view.group else None
    rows = cells.rows(by)
    if view.sort:
        rows = sorted_rows(rows, view, sort_value)
    elif known.direction is not Direction.NONE:
        sign = -1 if known.direction is Direction.HIGHER else 1
        rows.sort(key=lambda row: (row.median is None, sign * (row.median or 0.0)))
    shown = page_of(rows, view)
    return Suite(
        execution=execution,
        experiment_id=execution.experiment_id,
        metric=metric,
        unit=known.unit,
        direction=known.direction,
        metrics=list(dict.fromkeys([metric, *facts.metrics, *keys]))[:MOST_METRICS],
        axes=list(facts.axes),
        cells=msgspec.structs.replace(shown, rows=cells.with_intervals(shown.rows, by)),
        running=cells.running_count,
        failures=failures,
    )


def find_execution(reader: Reader, run_id: str) -> Execution:
    """
    The execution of that id.

    Raises:
        RefusalError: 404: there is none.
        TrackingError: the store does not answer.
    """
    told = reader.runs(run_ids=[run_id], param_keys=[], metric_keys=[])
    found = executions_of(told)
    if not found or tags_by_run(told.tags).get(run_id, {}).get(tags.KIND) != tags.RunKind.SUITE:
        raise RefusalError(404, f"there is no execution of a suite {run_id}")
    return with_alerts(reader, with_counts(reader, found)[0])


def _chosen(ask: Ask, reader: Reader, execution: Execution, facts: SuiteFacts) -> str:
    """
    The metric of the view, else the suite's objective, else one that its newest run has.
    """
    objectives = [name for name, one in facts.metrics.items() if one.is_objective]
    named = ask.view.options["metric"] or next(iter([*objectives, *facts.metrics]), "")
    if named:
        return named
    runs = reader.runs(
        [execution.experiment_id],
        with_tags={tags.EXECUTION: execution.run_uid or "", tags.REPEAT: "0"},
        tag_keys=[],
        param_keys=[],
        metric_keys=[],
    ).runs
    finished = runs[runs["status"] == "FINISHED"]["run_id"]
    return next(iter(_keys_of(reader, finished)), "")


def _keys_of(reader: Reader, run_ids: pd.Series[str]) -> list[str]:
    """
    The metrics of the first of these runs, those of the machine last.
    """
    if not len(run_ids):
        return []
    told = reader.runs(run_ids=[run_ids.iloc[0]], tag_keys=[], param_keys=[])
    return sorted(told.metrics["key"].unique(), key=lambda key: (key.startswith("system/"), key))


def _failures(reader: Reader, cells: CellRuns) -> list[FailureCount]:
    failed = cells.runs[~cells.runs["is_good"]]["run_id"]
    if not len(failed):
        return []
    told = reader.runs(
        run_ids=list(failed[:MOST_RUN_IDS]), tag_keys=_ERROR_TAGS, param_keys=[], metric_keys=[]
    )
    by_run = tags_by_run(told.tags)
    groups: dict[tuple[str, ...], list[str]] = {}
    for run_id in told.runs["run_id"]:
        identity = tuple(by_run.get(run_id, {}).get(tag, "") for tag in _ERROR_TAGS)
        groups.setdefault(identity, []).append(run_id)
    found = [
        FailureCount(category=category, error=error, message=message, runs=len(ids), run_id=ids[0])
        for (category, error, message), ids in groups.items()
    ]
    return sorted(found, key=lambda one: -one.runs)[:MOST_FAILURES]


class _Read(NamedTuple):
    """
    What the page and its figures are of.
    """

    execution: Execution
    facts: SuiteFacts
    metric: str
    cells: CellRuns

    @property
    def known(self) -> KnownMetric:
        """
        What the suite says of the metric.
        """
        return self.facts.metrics.get(self.metric, _UNKNOWN)


def _read(ask: Ask) -> _Read:
    view, run_id = ask.view, ask.params["run_id"]

    def read() -> _Read:
        with ask.source.reader() as reader:
            execution = find_execution(reader, run_id)
            facts = ask.source.facts(execution.run_id)
            metric = _chosen(ask, reader, execution, facts)
            return _Read(execution, facts, metric, read_cells(reader, execution, metric, view))

    key = ("suite", run_id, view.filter, view.group, view.options["metric"])
    return ask.source.recent.get(key, read)


def _cells_figure(ask: Ask, is_dark: bool) -> Any:
    read = _read(ask)
    return objective_by_cell(
        read.cells.results(read.metric),
        read.metric,
        direction=read.known.direction,
        unit=read.known.unit,
        is_dark=is_dark,
    )


def _heat_map_figure(ask: Ask, is_dark: bool) -> Any:
    """
    All metrics that the suite names at once; None where it names fewer than two.
    """
    read = _read(ask)
    metrics = [
        Objective(name, one.unit, one.direction) for name, one in read.facts.metrics.items()
    ][:MOST_HEAT_COLUMNS]
    if len(metrics) < 2:
        return None
    with ask.source.reader() as reader:
        results = read_results(reader, read.execution, read.cells, [one.name for one in metrics])
    return suite_heat_map(results, metrics, is_dark=is_dark)


def _convergence_figure(ask: Ask, is_dark: bool) -> Any:
    read = _read(ask)
    metric, known, results = read.metric, read.known, read.cells.results(read.metric)
    keys = ordered_cells(outcomes_of(results), metric, known.direction)[:MOST_CURVES]
    best = results[results["cell_key"].isin(keys) & (results["status"] == "finished")]
    wanted = best.set_index("run_id")[["cell", "cell_key", "repeat"]]
    pages, count = [], 0
    with ask.source.reader() as reader:
        for page in reader.history(list(wanted.index[:MOST_CURVE_RUNS]), [metric]):
            pages.append(page)
            count += len(page)
            if count >= MOST_READINGS:
                break
    if not pages:
        return None
    history = pd.concat(pages, ignore_index=True).join(wanted, on="run_id")
    if history.groupby("run_id")["step"].nunique().max() < 2:
        return None
    places = {key: place for place, key in enumerate(keys)}
    history = history.assign(place=history["cell_key"].map(places))
    history = history.sort_values("place", kind="stable", ignore_index=True)
    return convergence(history, objective=metric, unit=known.unit, is_dark=is_dark)


def _instances(source: Source) -> Iterator[Params]:
    with source.reader() as reader:
        for one in read_executions(reader):
            yield {"run_id": one.run_id}


PAGE = Page(
    name="suite",
    path="/executions/{run_id}",
    summary="One execution of a suite: its cells with medians, intervals and failures.",
    query=query,
    content=Suite,
    template="suite.html",
    columns={"cells": COLUMNS, "groups": GROUP_COLUMNS, "failures": FAILURE_COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in (*COLUMNS, *GROUP_COLUMNS) if column.can_sort),
        has_filter=True,
        has_group=True,
        has_pages=True,
        options=(Option("metric", "Metric"),),
    ),
    figures={
        "cells": _cells_figure,
        "heat_map": _heat_map_figure,
        "convergence": _convergence_figure,
    },
    instances=_instances,
)
