"""
What logging cost the runs of a suite.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    Theme,
    count_of,
    finish_figure,
    hide_axes,
    hover,
    lay_out_rows,
    lay_out_values,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, write_number

#: A row a run: its cell (or its name), and in percent of the run's time what the tags
#: `allele.logger_overhead_percent` and `allele.sidecar_cpu_s` say.
OVERHEAD_COLUMNS = ("cell", "logger_percent", "sidecar_percent")
MOST_CELLS, MOST_POINTS = 120, 3000
_COSTS = (
    ("logger_percent", "log calls, in the benchmark's thread", "circle", 0),
    ("sidecar_percent", "sidecar, on another core", "diamond-open", 1),
)


def logging_overhead(
    runs: pd.DataFrame, *, budget_percent: float | None = None, is_dark: bool = False
) -> go.Figure:
    """
    A row a cell, each run a point: what its log calls took of its time, and what the sidecar took
    of a core meanwhile; the costliest on top.

    Args:
        runs: `OVERHEAD_COLUMNS`.
        budget_percent: What log calls may take: a line.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = check_columns(runs, OVERHEAD_COLUMNS, name="runs")
    parts = {name: pd.to_numeric(frame[name], errors="coerce") for name, *_ in _COSTS}
    frame = frame.assign(**parts, cell=[clean(one) or "all runs" for one in frame.cell])
    medians = frame.groupby("cell", sort=False).logger_percent.median()
    order = medians.sort_values(ascending=False, kind="stable", na_position="last")
    shown = list(order.index[:MOST_CELLS])
    rows = frame[frame.cell.isin(shown)]
    rows = rows.assign(row=rows.cell.map({cell: place for place, cell in enumerate(shown)}))
    stride = math.ceil(len(rows) / MOST_POINTS) or 1
    drawn = rows.iloc[::stride]
    figure = start_figure(theme, title="What logging cost")
    figure.add_traces([_trace(drawn, *cost, theme) for cost in _COSTS])
    lay_out_rows(figure, shown)
    values = [value for trace in figure.data for value in trace.x if value is not None]
    lay_out_values(figure, "percent of the run's time, of one core", values)
    budget = ""
    if budget_percent is not None and math.isfinite(budget_percent) and values:
        figure.add_vline(
            x=budget_percent,
            line={"color": theme.ink, "dash": "dash", "width": 1.5},
        )
        budget = f"dashed: the budget of {budget_percent:g} percent"
    if not values:
        hide_axes(figure)
        say_nothing_to_show(figure, text="no run tells what its logging cost")
    notes = [
        count_of(len(shown), len(order), "cell"),
        f"n = {count_of(len(rows), len(rows), 'run')}",
        f"{len(drawn)} of the points drawn" if len(drawn) < len(rows) else "",
        budget,
    ]
    return finish_figure(figure, notes)


def _trace(
    rows: pd.DataFrame, column: str, name: str, symbol: str, number: int, theme: Theme
) -> go.Scatter:
    known = rows[rows[column].abs() < math.inf]
    offset = 0.15 if number else -0.15
    return go.Scatter(
        x=numbers(known[column]),
        y=[row + offset for row in known.row],
        mode="markers",
        name=name,
        marker={
            "symbol": symbol,
            "size": 8,
            "color": theme.colours[number],
            "line": {"width": 1.5, "color": theme.colours[number]},
        },
        hovertext=[
            hover(cell, f"{name}: {write_number(value)} %")
            for cell, value in zip(known.cell, known[column], strict=True)
        ],
        hoverinfo="text",
    )
