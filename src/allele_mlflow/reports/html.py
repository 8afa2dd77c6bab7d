"""
A suite's report as one HTML file: opens from a disk, asks no other address for anything.

Tables say everything without JavaScript; figures are drawn where there is some. Text from outside
passes Jinja's escaping; the file's own policy (CSP) forbids it to load or send anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import jinja2
import pandas as pd
from markupsafe import Markup

from allele_mlflow.reports import tables
from allele_mlflow.reports.figures import convergence, objective_by_cell, plotly_script
from allele_mlflow.reports.summary import Objective, SuiteSummary, ordered_cells, outcomes_of
from allele_mlflow.reports.wording import MISSING

#: What a report may weigh, plotly.js and all, and what of it may be tables.
REPORT_BYTES_MAX = 5_900_000
_TABLES_BYTES_MAX = 600_000
#: Rows of a table: the first of these with which all tables fit.
_ROW_COUNTS = (tables.MOST_ROWS, 200, 80, 30)
#: Of the page around a figure.
_FRAME_BYTES = 2000
#: What a dark page changes in a trace: looks, never data.
_LOOKS = ("marker", "line", "fillcolor", "hoverlabel")


@dataclass(frozen=True)
class PageFigure:
    """
    A figure as the page draws it: `data` is JSON that may stand in a script tag.
    """

    title: str
    note: str
    height_px: int
    data: Markup


#: An objective's figures; None for one that was left out.
Figures: TypeAlias = tuple[PageFigure | None, ...]


def suite_report(summary: SuiteSummary) -> str:
    """
    The report of one execution, a whole HTML document.

    Raises:
        ValueError: a frame lacks a column, or a moment its time zone.

    Cost: plotly.js is in it, so some 5 MB, and under 6 MB whatever the suite's size: tables and
    figures are bounded, and say so where they leave something out.
    """
    for most_rows in _ROW_COUNTS:
        page = _tables_of(summary, most_rows)
        plain = _render(page, [()] * len(summary.objectives), script="")
        if len(plain.encode()) <= _TABLES_BYTES_MAX:
            break
    script = plotly_script()
    left_bytes = REPORT_BYTES_MAX - len(plain.encode()) - len(script.encode())
    chosen = list(_choose_figures(summary, left_bytes))
    return _render(page, chosen, script=script if any(map(any, chosen)) else "")


def _tables_of(summary: SuiteSummary, most_rows: int) -> dict[str, Any]:
    """
    All that a page says without its figures.
    """
    page = {
        "cells": tables.cells_table(summary),
        "failures": tables.failures_table(summary),
        "parameters": tables.parameters_table(summary),
        "settings": tables.pairs_table(summary.settings),
        "environment": tables.pairs_table(summary.environment),
        "links": tables.links_table(summary),
    }
    return {
        "name": tables.name_of(summary),
        "headline": tables.headline_of(summary),
        "notes": tables.notes_of(summary),
        "objectives": [
            (tables.title_of(one), tables.objective_table(summary, one).bounded(most_rows))
            for one in summary.objectives
        ],
        "missing": MISSING,
        **{name: table.bounded(most_rows) for name, table in page.items()},
    }


def _render(page: dict[str, Any], figures: Sequence[Figures], script: str) -> str:
    sections = [
        (title, table, chosen)
        for (title, table), chosen in zip(page["objectives"], figures, strict=True)
    ]
    template = _environment().get_template("suite.html")
    return template.render(**page, sections=sections, plotly=Markup(script))


def _choose_figures(summary: SuiteSummary, left_bytes: int) -> Iterator[Figures]:
    """
    The figures of each objective; None stands for one that would make the file too large.
    """
    for objective in summary.objectives:
        chosen: list[PageFigure | None] = []
        for light, dark in _figures_of(summary, objective):
            figure = _page_figure(light, dark)
            size_bytes = len(figure.data.encode()) + _FRAME_BYTES
            is_small = size_bytes <= left_bytes
            left_bytes -= size_bytes if is_small else 0
            chosen.append(figure if is_small else None)
        yield tuple(chosen)


def _figures_of(summary: SuiteSummary, objective: Objective) -> Iterator[tuple[Any, Any]]:
    """
    An objective's figures, each for a light and for a dark page; none where there is nothing.
    """
    if len(summary.results):
        light, dark = (
            objective_by_cell(
                summary.results,
                objective.name,
                direction=objective.direction,
                unit=objective.unit,
                is_dark=is_dark,
            )
            for is_dark in (False, True)
        )
        yield light, dark
    history = _history_of(summary, objective)
    if len(history):
        light, dark = (
            convergence(history, objective=objective.name, unit=objective.unit, is_dark=is_dark)
            for is_dark in (False, True)
        )
        yield light, dark


def _history_of(summary: SuiteSummary, objective: Objective) -> pd.DataFrame:
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


def _page_figure(light: Any, dark: Any) -> PageFigure:
    """
    A figure without its title, which the page writes itself, for there it breaks into lines.
    """
    meta = dict(light.layout.meta)
    for figure in (light, dark):
        figure.update_layout(title=None, margin={"t": 40}, meta=None)
    height_px = int(light.layout.height) - 30
    light_spec, dark_spec = json.loads(light.to_json()), json.loads(dark.to_json())
    for spec in (light_spec, dark_spec):
        spec["layout"].pop("height")
    looks = [{name: one[name] for name in _LOOKS if name in one} for one in dark_spec["data"]]
    data = {
        "traces": light_spec["data"],
        "layouts": {"light": light_spec["layout"], "dark": dark_spec["layout"]},
        "darkLooks": looks,
        "narrowNames": meta.get("narrow_names"),
    }
    return PageFigure(meta["title"], meta["note"], height_px, _as_script(data))


def _as_script(data: object) -> Markup:
    """
    JSON that no tag can end.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " "))


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("allele_mlflow.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
