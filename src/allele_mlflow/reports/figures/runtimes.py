"""
How soon searches reach their targets: the distribution of running times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.curves import lay_out_curves
from allele_mlflow.reports.figures.layout import (
    DASHES,
    MOST_CURVES,
    SHAPES,
    WIDE_NAME,
    as_text,
    count_of,
    finish_figure,
    is_wide,
    numbers,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.plotted import even_places, tell_apart
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, shorten, write_number, write_ratio

#: Columns that are read, as `SearchCurves.runtimes()` has them.
RUNTIME_COLUMNS = ("cell", "evaluations", "reached_ratio")
MOST_POINTS = 300
_ALL_RUNS = "all runs"


def running_time_ecdf(
    runtimes: pd.DataFrame,
    *,
    cells: Sequence[str] = (),
    objective: str = "",
    is_dark: bool = False,
) -> go.Figure:
    """
    Part of all runs and targets that were reached, against evaluations: a step curve a cell.

    Args:
        runtimes: `RUNTIME_COLUMNS`, one row a number of evaluations at which something was reached.
        cells: All that searched, so that one which reached nothing lies at zero; by default those
            that have a row.
        objective: Whose targets they are.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = _finite(check_columns(runtimes, RUNTIME_COLUMNS, name="runtimes"))
    keys = list(dict.fromkeys([*map(str, cells), *map(str, frame.cell)]))
    drawn = keys[:MOST_CURVES]
    names = tell_apart([shorten(clean(key) or _ALL_RUNS, WIDE_NAME) for key in drawn])
    of = f" of {clean(objective)}" if objective else ""
    figure = start_figure(theme, title=f"Targets{of} reached by number of evaluations")
    ends = (float(frame.evaluations.min()), float(frame.evaluations.max()))
    for number, (key, name) in enumerate(zip(drawn, names, strict=True)):
        times, ratios = _steps(frame[frame.cell.astype(str) == key], ends)
        figure.add_trace(
            go.Scatter(
                x=numbers(times),
                y=numbers(ratios),
                mode="lines+markers",
                name=as_text(name),
                line={
                    "shape": "hv",
                    "color": theme.colours[number],
                    "width": 2,
                    "dash": DASHES[number],
                },
                marker={"symbol": SHAPES[number], "size": 8, "maxdisplayed": 8},
                hovertext=[
                    f"{write_number(time)} evaluations: {write_ratio(round(ratio * 1000), 1000)}"
                    for time, ratio in zip(times, ratios, strict=True)
                ],
                hoverinfo="text+name",
                hoverlabel={"namelength": -1},
            )
        )
    is_log = is_wide(frame.evaluations)
    words = "evaluations, logarithmic" if is_log else "evaluations"
    lay_out_curves(figure, words, "runs and targets reached (part of all)")
    figure.update_layout(
        xaxis={"type": "log" if is_log else "linear"}, yaxis={"range": [-0.03, 1.03]}
    )
    return finish_figure(figure, [count_of(len(drawn), len(keys), "cell")])


def _finite(frame: pd.DataFrame) -> pd.DataFrame:
    parts = {
        name: pd.to_numeric(frame[name], errors="coerce").astype("float64")
        for name in ("evaluations", "reached_ratio")
    }
    is_good = parts["evaluations"].abs().lt(math.inf) & parts["reached_ratio"].between(0.0, 1.0)
    return frame.assign(**parts)[is_good].sort_values("evaluations", kind="stable")


def _steps(own: pd.DataFrame, ends: tuple[float, float]) -> tuple[list[float], list[float]]:
    """
    The curve of a cell, from the first number of evaluations of all cells to the last.
    """
    places = even_places(len(own), MOST_POINTS)
    times = own.evaluations.iloc[places].tolist()
    ratios = own.reached_ratio.iloc[places].tolist()
    if math.isnan(ends[0]):
        return [0.0], [0.0]
    if not times or times[0] > ends[0]:
        times, ratios = [ends[0], *times], [0.0, *ratios]
    if times[-1] < ends[1]:
        times, ratios = [*times, ends[1]], [*ratios, ratios[-1]]
    return times, ratios
