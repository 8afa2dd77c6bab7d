"""
A suite at a glance: cells by metrics.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    NARROW_NAME,
    Theme,
    as_text,
    count_of,
    finish_figure,
    hide_axes,
    hover,
    lay_out_rows,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.plotted import blend, levels_of
from allele_mlflow.reports.summary import (
    Objective,
    medians_by,
    ordered_cells,
    outcomes_of,
    values_of,
)
from allele_mlflow.reports.wording import clean, explain, shorten, write_number
from allele_mlflow.units import Direction

MOST_CELLS, MOST_METRICS = 120, 10
_TILE = 0.94


def suite_heat_map(
    results: pd.DataFrame, objectives: Sequence[Objective], *, is_dark: bool = False
) -> go.Figure:
    """
    A row a cell, a column a metric: the median over repeats, in a stronger colour the better its
    rank is; hatched where repeats have no value, densely where none has.

    Args:
        results: See `SuiteSummary.results`.
        objectives: The columns; the first orders the rows. Where no direction is better, the higher
            value has the stronger colour.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    outcomes = outcomes_of(results)
    shown = list(objectives)[:MOST_METRICS]
    figure = start_figure(theme, title="Cells by metric")
    keys = ordered_cells(outcomes, shown[0].name, shown[0].direction) if shown else []
    drawn = keys[:MOST_CELLS]
    names = dict(zip(outcomes.cell_key, outcomes.cell, strict=True))
    for place, objective in enumerate(shown):
        tiles = _tiles(outcomes, objective, drawn)
        figure.add_trace(_column(tiles, [names[key] for key in drawn], objective, place, theme))
    lay_out_rows(figure, [names[key] for key in drawn])
    _lay_out_columns(figure, shown)
    if not drawn:
        hide_axes(figure)
        say_nothing_to_show(figure)
    notes = [
        count_of(len(drawn), len(keys), "cell"),
        count_of(len(shown), len(objectives), "metric"),
        "medians",
        "stronger is better",
    ]
    if any(one.direction is Direction.NONE for one in shown):
        notes.append("or higher, where no direction is known")
    if any("/" in trace.marker.pattern.shape for trace in figure.data):
        notes.append("hatched: repeats without a value")
    return finish_figure(figure, notes if drawn else notes[:1])


def _tiles(outcomes: pd.DataFrame, objective: Objective, keys: Sequence[str]) -> pd.DataFrame:
    """
    By cell: `median` or NaN, `count` of values, `repeats`, and `level` from 0 to 1, the best.
    """
    values = values_of(outcomes, f"metric.{objective.name}")
    grouped = values.groupby(outcomes.cell_key)
    found = pd.DataFrame(
        {
            "median": medians_by(values, outcomes.cell_key),
            "count": grouped.count(),
            "repeats": grouped.size(),
        }
    ).reindex(list(keys))
    return found.assign(level=levels_of(found["median"], objective.direction))


def _column(
    tiles: pd.DataFrame, names: Sequence[str], objective: Objective, place: int, theme: Theme
) -> go.Bar:
    """
    The tiles of one metric: bars of one length, for these can be hatched.
    """
    title = shorten(clean(objective.name), 80)
    is_whole, is_none = tiles["count"] == tiles["repeats"], tiles["count"] == 0
    return go.Bar(
        orientation="h",
        x=[_TILE] * len(tiles),
        y=list(range(len(tiles))),
        base=[place] * len(tiles),
        width=_TILE,
        name=as_text(title),
        marker={
            "color": [
                theme.paper if pd.isna(level) else blend(theme.paper, theme.tint, level)
                for level in tiles.level
            ],
            "line": {"width": 0.5, "color": theme.faint},
            "pattern": {
                "shape": ["" if whole else "/" for whole in is_whole],
                "solidity": [0.35 if none else 0.12 for none in is_none],
                "size": 8,
                "fgcolor": theme.ink,
                "fgopacity": 0.4,
                "fillmode": "overlay",
            },
        },
        text=[
            "none" if none else write_number(one)
            for one, none in zip(tiles["median"], is_none, strict=True)
        ],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        insidetextfont={"color": theme.ink, "size": 12},
        hovertext=[
            hover(
                name,
                f"{title}{explain(objective.unit, objective.direction)}",
                f"median {write_number(median)}",
                f"{count} of {repeats} repeats have a value",
            )
            for name, median, count, repeats in zip(
                names, tiles["median"], tiles["count"], tiles["repeats"], strict=True
            )
        ],
        hoverinfo="text",
    )


def _lay_out_columns(figure: go.Figure, shown: Sequence[Objective]) -> None:
    titles = [_lines(one) for one in shown]
    lines = max((len(one) for one in titles), default=0)
    figure.update_layout(
        barmode="overlay",
        showlegend=False,
        height=figure.layout.height + 18 * lines,
        margin={"t": 85 + 18 * lines},
        uniformtext={"minsize": 10, "mode": "hide"},
        xaxis={
            "side": "top",
            "tickmode": "array",
            "tickvals": [place + _TILE / 2 for place in range(len(shown))],
            "ticktext": ["<br>".join(map(as_text, one)) for one in titles],
            "tickfont": {"size": 11},
            "range": [-0.06, max(len(shown), 1)],
            "showgrid": False,
            "automargin": True,
            "fixedrange": True,
        },
    )
    figure.update_yaxes(showgrid=False)


def _lines(objective: Objective) -> list[str]:
    """
    What stands above a column: the metric in two lines, its unit, its better direction.
    """
    name = textwrap.wrap(shorten(clean(objective.name), 2 * NARROW_NAME), NARROW_NAME)
    unit = f"({shorten(clean(objective.unit), NARROW_NAME)})" if objective.unit else ""
    better = {Direction.HIGHER: "more is better", Direction.LOWER: "less is better"}
    return [*name, *filter(None, (unit, better.get(objective.direction)))]
