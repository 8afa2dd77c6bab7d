"""
Cells by an objective: one row a cell, each repeat a point.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    Theme,
    axis_title,
    count_of,
    finish_figure,
    hover,
    lay_out_rows,
    lay_out_values,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.plotted import names_of, repeat_points, thin_repeats
from allele_mlflow.reports.summary import medians_by, ordered_cells, outcomes_of
from allele_mlflow.reports.wording import clean, explain, write_number
from allele_mlflow.units import Direction

#: Rows, at most. See `plotted` for points.
MOST_CELLS = 200
_MEDIAN_NAME = 160
#: Share of the width that repeats without a value get, where there are any.
_MARGIN_SHARE = 0.12


def objective_by_cell(
    results: pd.DataFrame,
    objective: str,
    *,
    direction: Direction,
    unit: str = "",
    is_dark: bool = False,
) -> go.Figure:
    """
    One row a cell, the best median on top: each repeat a point, the median a bar across, repeats
    without a value at the right margin.

    Args:
        results: See `SuiteSummary.results`.
        objective: A metric's name, without `metric.`.
        direction: Which way is better; `none` leaves the cells as they first appear.
        unit: Of the objective.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    outcomes = outcomes_of(results)
    keys = ordered_cells(outcomes, objective, direction)
    points = repeat_points(outcomes, objective, keys[:MOST_CELLS])
    valued, valueless = points[points.value.notna()], points[points.value.isna()]
    drawn = thin_repeats(valued)
    figure = start_figure(theme, title=f"{clean(objective)} by cell{explain(unit, direction)}")
    figure.add_traces([_repeats_trace(drawn, theme), _medians_trace(valued, theme)])
    figure.add_traces(_margin_traces(thin_repeats(valueless), theme))
    lay_out_rows(figure, names_of(points, len(keys[:MOST_CELLS])))
    lay_out_values(figure, axis_title(objective, unit), valued.value)
    _lay_out_margin(figure, has_margin=bool(len(valueless)), has_values=bool(len(valued)))
    return finish_figure(figure, _notes(points, drawn, cell_count=len(keys)))


def _repeats_trace(points: pd.DataFrame, theme: Theme) -> go.Scatter:
    return go.Scatter(
        x=numbers(points.value),
        y=numbers(points.height),
        mode="markers",
        name="repeat",
        marker={
            "color": theme.colours[0],
            "size": 7,
            "opacity": 0.75,
            "line": {"width": 0.5, "color": theme.paper},
        },
        hovertext=[
            hover(one.cell, f"repeat {one.repeat}", write_number(one.value))
            for one in points.itertuples()
        ],
        hoverinfo="text",
    )


def _medians_trace(points: pd.DataFrame, theme: Theme) -> go.Scatter:
    grouped = points.groupby("row")
    medians = medians_by(points.value, points.row)
    counts, names = grouped.size(), grouped.cell.first()
    return go.Scatter(
        x=numbers(medians),
        y=[int(row) for row in medians.index],
        mode="markers",
        name="median",
        marker={
            "symbol": "line-ns",
            "size": 17 if len(medians) <= 50 else 12,
            "color": theme.ink,
            "line": {"width": 3, "color": theme.ink},
        },
        hovertext=[
            hover(
                names[row],
                f"median of {counts[row]}",
                write_number(median),
                most_characters=_MEDIAN_NAME,
            )
            for row, median in medians.items()
        ],
        hoverinfo="text",
    )


def _margin_traces(points: pd.DataFrame, theme: Theme) -> list[go.Scatter]:
    """
    Repeats that failed, and those that finished without a value, side by side at the margin.
    """
    counts = points.groupby("row").size()
    places = (points.groupby("row").cumcount() + 1) / (points.row.map(counts) + 1)
    points = points.assign(place=places.astype("float64"))
    is_finished = points.is_finished.astype(bool)
    return [
        go.Scatter(
            x=numbers(chosen.place),
            y=[int(row) for row in chosen.row],
            xaxis="x2",
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 8,
                "color": theme.failed,
                "line": {"width": 1.5, "color": theme.failed},
            },
            hovertext=[
                hover(one.cell, f"repeat {one.repeat}", name, _category(one.category))
                for one in chosen.itertuples()
            ],
            hoverinfo="text",
        )
        for chosen, name, symbol in (
            (points[~is_finished], "failed", "x-thin"),
            (points[is_finished], "no value", "square-open"),
        )
        if len(chosen)
    ]


def _category(category: object) -> str:
    return clean(category) if isinstance(category, str) else ""


def _lay_out_margin(figure: go.Figure, *, has_margin: bool, has_values: bool) -> None:
    end = 1 - _MARGIN_SHARE if has_margin else 1
    figure.update_layout(xaxis={"domain": [0, end]})
    if has_margin:
        figure.update_layout(
            xaxis2={
                "domain": [end + 0.02, 1],
                "range": [0, 1],
                "anchor": "y",
                "tickmode": "array",
                "tickvals": [0.5],
                "ticktext": ["no value"],
                "showgrid": False,
                "fixedrange": True,
            }
        )
    if not has_values:
        say_nothing_to_show(figure, end / 2)


def _notes(points: pd.DataFrame, drawn: pd.DataFrame, *, cell_count: int) -> list[str]:
    shown, valued = points.row.nunique(), int(points.value.notna().sum())
    failed = int((~points.is_finished.astype(bool)).sum())
    parts = [count_of(shown, cell_count, "cell"), f"n = {count_of(valued, valued, 'repeat')}"]
    if failed:
        parts.append(f"{failed} failed")
    if len(points) - valued - failed:
        parts.append(f"{len(points) - valued - failed} without a value")
    if len(drawn) < valued:
        parts.append(f"{len(drawn)} of the points drawn")
    return parts
