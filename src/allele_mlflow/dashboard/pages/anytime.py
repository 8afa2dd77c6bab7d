"""
How good the searches of an execution were after how many evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import counted_runs, read_experiments
from allele_mlflow.analysis.median_interval import median_interval
from allele_mlflow.analysis.search_curves import SearchCurves, read_curves, target_texts
from allele_mlflow.dashboard.pages.executions import Execution, read_executions
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page, Params
from allele_mlflow.dashboard.pages.suite import find_execution
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.reports.figures import running_time_ecdf
from allele_mlflow.units import Direction

#: Runs whose whole histories are read, at most.
MOST_RUNS = 200
SHOWN_TARGETS = 4
_COLUMNS = ("cell", "cell_key", "repeat", "attempt", "seed")


class SearchRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    The searches of a cell. `area`: mean of the best so far between the worst start and the best end
    of all, 0 to 1; `targets`: expected evaluations to each of the targets shown, None for never.
    """

    cell: str
    runs: int
    best: float | None
    area: float | None
    targets: dict[str, float | None]


class Anytime(msgspec.Struct, frozen=True, kw_only=True):
    """
    The searches of an execution by an objective. `left_out`: runs past those that are read.
    """

    execution: Execution
    experiment_id: str
    metric: str
    direction: Direction
    targets: list[str]
    cells: Paged[SearchRow]
    left_out: int


COLUMNS = (
    Column("cell", "Cell", Kind.NAME),
    Column("runs", "Runs", Kind.COUNT),
    Column("best", "Best, median", Kind.NUMBER),
    Column("area", "Area, mean", Kind.NUMBER),
)


def query(ask: Ask) -> Anytime:
    """
    The cells of an execution as searches.

    Raises:
        RefusalError: 404: there is no such execution; 400: no objective is known.
        AnalysisError: no run has the metric, or the param of `per_step`.
        TrackingError: the store does not answer.
    """
    execution, curves, left_out = _curves(ask)
    step = max(1, len(curves.targets) // SHOWN_TARGETS)
    targets = list(curves.targets[::-1][::step][::-1][-SHOWN_TARGETS:])
    rows = _rows(curves, targets)
    return Anytime(
        execution=execution,
        experiment_id=execution.experiment_id,
        metric=curves.metric,
        direction=curves.direction,
        targets=target_texts(targets),
        cells=page_of(sorted_rows(rows, ask.view, getattr), ask.view),
        left_out=left_out,
    )


def _curves(ask: Ask) -> tuple[Execution, SearchCurves, int]:
    options = ask.view.options
    run_id = ask.params["run_id"]

    def read() -> tuple[Execution, SearchCurves, int]:
        with ask.source.reader() as reader:
            execution = find_execution(reader, run_id)
            metric, direction = _objective(ask, execution)
            frames = read_experiments(
                reader,
                [execution.experiment_id],
                columns=_COLUMNS,
                param_keys=[options["per_step"]] if options["per_step"] else [],
                with_tags={
                    tags.EXECUTION: execution.run_uid or "",
                    tags.KIND: tags.RunKind.CELL,
                },
                metric_keys=[metric],
            )
            runs = counted_runs(frames.runs)
            left_out = max(0, len(runs) - MOST_RUNS)
            frames = frames.of(runs.head(MOST_RUNS))
            per_step = options["per_step"] or None
            curves = read_curves(reader, frames, metric, direction, per_step=per_step)
        return execution, curves, left_out

    key = ("anytime", run_id, *sorted(options.items()))
    return ask.source.recent.get(key, read)


def _objective(ask: Ask, execution: Execution) -> tuple[str, Direction]:
    facts = ask.source.facts(execution.run_id).metrics
    objectives = [name for name, one in facts.items() if one.is_objective]
    metric = ask.view.options["metric"] or next(iter(objectives), "")
    if not metric:
        raise RefusalError(400, "the suite names no objective: add metric=NAME to the address")
    said = ask.view.options["direction"]
    direction = Direction(said) if said else Direction.NONE
    if direction is Direction.NONE and metric in facts:
        direction = facts[metric].direction
    if direction is Direction.NONE:
        raise RefusalError(
            400,
            f"which way is better is not known of {metric!r}: add direction=higher or lower",
        )
    return metric, direction


def _rows(curves: SearchCurves, targets: list[float]) -> list[SearchRow]:
    times = curves.running_times()
    found = []
    for cell, group in curves.areas().groupby("cell", sort=False):
        own = times[times["cell"] == cell].set_index("target")
        found.append(
            SearchRow(
                cell=str(cell),
                runs=len(group),
                best=median_interval(group["best"]).median,
                area=_number(group["area"].mean()),
                targets={
                    text: _number(own.loc[target, "expected_evaluations"])
                    if own.loc[target, "reached"]
                    else None
                    for text, target in zip(target_texts(targets), targets, strict=True)
                },
            )
        )
    return found


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _columns(content: Anytime) -> tuple[Column, ...]:
    return (
        *COLUMNS,
        *(
            Column(f"target.{target}", f"To {target}", Kind.NUMBER, can_sort=False)
            for target in content.targets
        ),
    )


def _runtimes_figure(ask: Ask, is_dark: bool) -> Any:
    _, curves, _ = _curves(ask)
    return running_time_ecdf(
        curves.runtimes(), cells=list(curves.runs), objective=curves.metric, is_dark=is_dark
    )


def _instances(source: Source) -> Iterator[Params]:
    """
    Executions whose suite names an objective with a direction.
    """
    with source.reader() as reader:
        executions = read_executions(reader)
    for one in executions:
        facts = source.facts(one.run_id).metrics.values()
        if any(each.is_objective and each.direction is not Direction.NONE for each in facts):
            yield {"run_id": one.run_id}


PAGE = Page(
    name="anytime",
    path="/executions/{run_id}/anytime",
    summary="How good the searches of an execution were after how many evaluations.",
    query=query,
    content=Anytime,
    template="anytime.html",
    columns={"cells": _columns},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS),
        has_pages=True,
        options=(
            Option("metric", "Metric"),
            Option("direction", "Better", ("", "higher", "lower")),
            Option("per_step", "Evaluations of a step"),
        ),
    ),
    figures={"runtimes": _runtimes_figure},
    instances=_instances,
)
