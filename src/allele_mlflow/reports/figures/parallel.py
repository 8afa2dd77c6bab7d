"""
Parameters and results side by side: a line a cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    DASHES,
    NARROW_NAME,
    Theme,
    as_text,
    count_of,
    faded,
    finish_figure,
    hide_axes,
    hover,
    is_wide,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.summary import (
    Objective,
    medians_by,
    ordered_cells,
    outcomes_of,
    values_of,
)
from allele_mlflow.reports.wording import MISSING, clean, explain, shorten, write_number

MOST_LINES, MOST_AXES, MOST_LEVELS = 300, 10, 8
#: Of the lines the best stand out: this part, and no more than dashes tell apart.
_BEST_RATIO, _MOST_BEST = 0.1, 5


@dataclass(frozen=True)
class _Axis:
    """
    One axis: where each cell is on it, from 0 to 1 (NaN: nowhere), and what stands beside it.
    """

    title: str
    places: list[float]
    texts: list[str]
    ticks: list[tuple[float, str]]


def parallel_coordinates(
    results: pd.DataFrame, objectives: Sequence[Objective], *, is_dark: bool = False
) -> go.Figure:
    """
    A vertical axis for each parameter that varies and each objective, a line a cell through its
    levels and medians; the best by the first objective stand out.

    Args:
        results: See `SuiteSummary.results`.
        objectives: The first orders the cells.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    outcomes = outcomes_of(results)
    first = objectives[0] if objectives else Objective("")
    keys = ordered_cells(outcomes, first.name, first.direction)
    drawn = keys[:MOST_LINES]
    axes = _axes_of(outcomes, objectives, drawn)
    shown = axes[:MOST_AXES]
    figure = start_figure(theme, title="Parameters and results by cell")
    names = dict(zip(outcomes.cell_key, outcomes.cell, strict=True))
    if drawn and shown:
        best_count = _best_count(outcomes, first, drawn)
        figure.add_traces(_lines(shown, [names[key] for key in drawn], best_count, theme))
    _lay_out(figure, shown, theme, is_empty=not (drawn and shown))
    notes = [
        count_of(len(drawn), len(keys), "cell"),
        f"{len(shown)} of {len(axes)} axes" if len(shown) < len(axes) else "",
        f"the best by {clean(first.name)} stand out" if objectives and drawn else "",
    ]
    return finish_figure(figure, notes)


def _best_count(outcomes: pd.DataFrame, first: Objective, drawn: Sequence[str]) -> int:
    """
    How many of the first lines stand out: none where nothing is better than anything.
    """
    if first.direction.value == "none":
        return 0
    values = values_of(outcomes, f"metric.{first.name}")
    valued = set(outcomes.cell_key[values.notna()])
    count = sum(key in valued for key in drawn)
    return min(_MOST_BEST, math.ceil(_BEST_RATIO * count))


def _axes_of(
    outcomes: pd.DataFrame, objectives: Sequence[Objective], keys: Sequence[str]
) -> list[_Axis]:
    """
    Parameters first, as far as they leave room for the objectives.
    """
    firsts = outcomes.drop_duplicates("cell_key").set_index("cell_key").reindex(list(keys))
    params = [name for name in map(str, outcomes.columns) if name.startswith("param.")]
    varied = [name for name in params if firsts[name].map(str).nunique() > 1]
    metrics = []
    for objective in objectives:
        values = values_of(outcomes, f"metric.{objective.name}")
        medians = medians_by(values, outcomes.cell_key).reindex(list(keys))
        title = f"{clean(objective.name)}{explain(objective.unit, objective.direction)}"
        metrics.append(_numeric_axis(title, medians.tolist(), write_number))
    axes = [_param_axis(name.removeprefix("param."), firsts[name].tolist()) for name in varied]
    room = max(MOST_AXES - len(metrics), 1)
    return [*axes[:room], *metrics, *axes[room:]]


def _param_axis(name: str, values: list[object]) -> _Axis:
    plain = [float(one) if _is_number(one) else math.nan for one in values]  # type: ignore[arg-type]
    if not any(map(math.isnan, plain)):
        return _numeric_axis(clean(name), plain, "{:.6g}".format)
    texts = ["unset" if _is_missing(one) else clean(one) for one in values]
    levels = list(dict.fromkeys(texts))
    step = 1 / max(len(levels) - 1, 1)
    places = {level: place * step for place, level in enumerate(levels)}
    return _Axis(clean(name), [places[one] for one in texts], texts, _thinned(places))


def _thinned(places: dict[str, float]) -> list[tuple[float, str]]:
    ticks = [(place, shorten(level, 18)) for level, place in places.items()]
    if len(ticks) <= MOST_LEVELS:
        return ticks
    return [ticks[0], (0.5, f"… {len(ticks)} levels"), ticks[-1]]


def _is_number(value: object) -> bool:
    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_plain and math.isfinite(value)  # type: ignore[arg-type]


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _numeric_axis(title: str, values: list[float], write: Callable[[float], str]) -> _Axis:
    """
    An axis from the smallest value to the largest, by their logarithms where they span decades.
    """
    finite = [one for one in values if math.isfinite(one)]
    is_log = is_wide(finite)
    # halved: the difference of two ends must be finite too
    scaled = [math.log(one) if is_log and math.isfinite(one) else one / 2 for one in values]
    known = [one for one in scaled if math.isfinite(one)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = high - low
    places = [
        math.nan if not math.isfinite(one) else (one - low) / span if span else 0.5
        for one in scaled
    ]
    by_place = dict(zip(places, values, strict=True))
    levels = sorted(place for place in by_place if math.isfinite(place))
    chosen = levels if len(levels) <= MOST_LEVELS else [levels[0], levels[-1]]
    ticks = [(place, write(by_place[place])) for place in chosen]
    title = f"{title}, logarithmic" if is_log else title
    return _Axis(title, places, [write(one) for one in values], ticks)


def _lines(
    axes: Sequence[_Axis], names: Sequence[str], best_count: int, theme: Theme
) -> list[go.Scatter]:
    rest = range(best_count, len(names))
    traces = []
    if len(rest):
        name = "the other cells" if best_count else "cells"
        line = {"color": theme.soft, "width": 1}
        traces.append(_trace(axes, names, rest, name, line, theme))
    for number in reversed(range(best_count)):
        colour = theme.colours[number % 4]
        line = {"color": colour, "width": 3, "dash": DASHES[number]}
        name = f"{number + 1}. {shorten(names[number], 40)}"
        traces.append(_trace(axes, names, [number], name, line, theme))
    return traces


def _trace(
    axes: Sequence[_Axis],
    names: Sequence[str],
    chosen: Sequence[int],
    name: str,
    line: dict[str, object],
    theme: Theme,
) -> go.Scatter:
    """
    The lines of some cells as one, with gaps between them and where a cell has no value.
    """
    x, y, texts = [], [], []
    for cell in chosen:
        for place, axis in enumerate(axes):
            x.append(float(place))
            y.append(axis.places[cell])
            text = axis.texts[cell] or MISSING
            texts.append(hover(names[cell], f"{shorten(axis.title, 60)}: {shorten(text, 60)}"))
        x.append(math.nan)
        y.append(math.nan)
        texts.append("")
    is_best = len(chosen) == 1
    return go.Scatter(
        x=numbers(x),
        y=numbers(y),
        mode="lines+markers",
        name=as_text(name),
        line=line,
        opacity=1.0 if is_best else 0.55,
        marker={"size": 7 if is_best else 4, "color": line["color"]},
        hovertext=texts,
        hoverinfo="text",
        connectgaps=False,
    )


def _lay_out(figure: go.Figure, axes: Sequence[_Axis], theme: Theme, *, is_empty: bool) -> None:
    figure.update_layout(
        height=430 + 18 * len(figure.data),
        hovermode="closest",
        legend={"yref": "container", "y": 0, "yanchor": "bottom", "traceorder": "reversed"},
        xaxis={
            "tickmode": "array",
            "tickvals": list(range(len(axes))),
            "ticktext": [_title_of(axis.title) for axis in axes],
            "range": [-0.15, max(len(axes) - 1, 1) + 0.45],
            "showgrid": False,
            "automargin": True,
            "fixedrange": True,
        },
        yaxis={"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
    )
    figure.layout.meta["narrow_columns"] = [
        as_text(shorten(axis.title.partition(" (")[0], NARROW_NAME)) for axis in axes
    ]
    if is_empty:
        hide_axes(figure)
        say_nothing_to_show(figure, text="no cell has run")
        return
    for place, axis in enumerate(axes):
        line = {"color": theme.ink, "width": 1.2}
        figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line=line, layer="below")
        for height, text in axis.ticks:
            figure.add_annotation(
                x=place,
                y=height,
                text=as_text(text),
                xanchor="left",
                xshift=6,
                showarrow=False,
                font={"size": 11, "color": theme.ink},
                bgcolor=faded(theme.paper, 0.8),
            )


def _title_of(title: str) -> str:
    name, bracket, rest = shorten(title, 60).partition(" (")
    parts = [name, bracket.strip() + rest] if bracket else [name]
    return "<br>".join(as_text(part) for part in parts)
