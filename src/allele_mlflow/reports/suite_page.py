"""
The report of one execution of a suite: which sections it has, and what is drawn in them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from allele_mlflow.reports import evidence_tables, tables
from allele_mlflow.reports.figures import (
    convergence,
    forest_plot,
    objective_by_cell,
    parallel_coordinates,
    running_time_ecdf,
    suite_heat_map,
)
from allele_mlflow.reports.page import Draw, Page, Section
from allele_mlflow.reports.summary import (
    Objective,
    PastComparison,
    SuiteSummary,
    ordered_cells,
    outcomes_of,
    parameter_rows,
)
from allele_mlflow.reports.wording import MISSING

_FOOTER = (
    "Of a repeat with several attempts, the last that finished counts. Quartiles are interpolated "
    f"linearly. {MISSING} stands where nothing was measured."
)
_NOTHING = "No repeat has ended."
#: Metrics of the heat map that are no objectives.
_MOST_OTHERS = 6
_PREFIX = "metric."


def suite_page(summary: SuiteSummary) -> Page:
    """
    The sections of a suite's report.

    Raises:
        ValueError: a frame lacks a column, or a moment its time zone.
    """
    return Page(
        kind="Benchmark suite",
        name=tables.name_of(summary),
        headline=tuple(tables.headline_of(summary)),
        notes=tuple(tables.notes_of(summary)),
        sections=tuple(_sections(summary)),
        footer=_FOOTER,
    )


def _sections(summary: SuiteSummary) -> Iterator[Section]:
    yield Section(
        "Results by cell",
        tables.cells_table(summary, others=_others(summary)),
        draws=tuple(_overviews(summary)),
        empty=_NOTHING,
        is_wide=True,
    )
    if summary.comparison is not None:
        yield _comparison_section(summary.comparison)
    for objective in summary.objectives:
        yield Section(
            tables.title_of(objective),
            tables.objective_table(summary, objective),
            draws=tuple(_draws_of(summary, objective)),
            empty=_NOTHING,
            is_wide=True,
        )
        yield from _search_sections(summary, objective)
    yield Section("Failures", tables.failures_table(summary))
    yield Section("Parameters", tables.parameters_table(summary))
    for title, pairs in (("Settings", summary.settings), ("Environment", summary.environment)):
        yield Section(title, tables.pairs_table(pairs), empty="None known.", is_half=True)
    yield Section("More", tables.links_table(summary), is_optional=True)


def _overviews(summary: SuiteSummary) -> Iterator[Draw]:
    """
    The whole suite in one picture, and once more by its parameters, where there is something to
    see.
    """
    results, objectives = summary.results, summary.objectives
    columns = [*objectives, *_others(summary)]
    if not (len(results) and columns):
        return
    yield partial(suite_heat_map, results, columns)
    is_varied = any(row.is_varied for row in parameter_rows(results))
    if objectives and is_varied and results.cell_key.nunique() > 2:
        yield partial(parallel_coordinates, results, objectives)


def _others(summary: SuiteSummary) -> list[Objective]:
    """
    Metrics that cells returned beside the objectives, the first of them.
    """
    named = {one.name for one in summary.objectives}
    columns = map(str, summary.results)
    names = [one.removeprefix(_PREFIX) for one in columns if one.startswith(_PREFIX)]
    return [Objective(name) for name in names if name not in named][:_MOST_OTHERS]


def _comparison_section(comparison: PastComparison) -> Section:
    draw = partial(forest_plot, comparison.rows, margin_ratio=comparison.margin_ratio)
    return Section(
        "Against the execution before",
        evidence_tables.comparison_rows(comparison),
        draws=(draw,) if len(comparison.rows) else (),
        notes=evidence_tables.comparison_notes(comparison),
        empty="Nothing could be compared.",
        is_wide=True,
    )


def _draws_of(summary: SuiteSummary, objective: Objective) -> Iterator[Draw]:
    """
    An objective's figures; none where there is nothing.
    """
    name, unit, direction = objective.name, objective.unit, objective.direction
    if len(summary.results):
        yield partial(objective_by_cell, summary.results, name, direction=direction, unit=unit)
    history = history_of(summary, objective)
    if len(history) and history.step.nunique() > 1:
        yield partial(convergence, history, objective=name, unit=unit)


def _search_sections(summary: SuiteSummary, objective: Objective) -> Iterator[Section]:
    for searches in summary.searches:
        if searches.objective == objective.name:
            draw = partial(
                running_time_ecdf,
                searches.runtimes,
                cells=_best_first(summary, objective, searches.cells),
                objective=searches.objective,
            )
            yield Section(
                f"Running times of searches by {tables.title_of(objective)}",
                evidence_tables.running_times(searches),
                draws=(draw,),
                is_wide=True,
                is_brief=False,
            )


def _best_first(summary: SuiteSummary, objective: Objective, cells: Sequence[str]) -> list[str]:
    """
    The cells that searched, the best by the objective first, as in its other figures.
    """
    results = summary.results
    names = dict(zip(results.cell_key, results.cell, strict=True))
    ordered = ordered_cells(outcomes_of(results), objective.name, objective.direction)
    return [names[key] for key in ordered if names[key] in set(cells)]


def history_of(summary: SuiteSummary, objective: Objective) -> pd.DataFrame:
    """
    The objective's readings by the attempts that count, those of the best cells first.
    """
    history = summary.history
    if not len(history) or "key" not in history.columns:
        return history
    history = history[history.key == objective.name]
    outcomes = outcomes_of(summary.results)
    if "run_id" in history.columns and "run_id" in outcomes.columns:
        history = history[history.run_id.isin(outcomes.run_id.dropna())]
    keys = ordered_cells(outcomes, objective.name, objective.direction)
    places = history.cell_key.map({key: place for place, key in enumerate(keys)})
    return history.assign(place=places).sort_values("place", kind="stable", ignore_index=True)
