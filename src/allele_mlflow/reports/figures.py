"""
Figures of a suite: a frame in, a plotly figure out. The only module that knows plotly.

Plotly reads every text as HTML of a kind, so names are escaped on their way in. What a page needs
besides the picture, the title, what it leaves out, and names for narrow screens, is plain text in
`layout.meta`.

Colours are those of Okabe and Ito (2008), which eyes of all kinds tell apart; shapes, dashes and
places tell the same once more, for print in grey.
"""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from allele_mlflow.reports.plotted import (
    curve_of,
    names_of,
    readings_of,
    repeat_points,
    tell_apart,
    thin_repeats,
)
from allele_mlflow.reports.summary import ordered_cells, outcomes_of
from allele_mlflow.reports.wording import clean, explain, shorten, write_number
from allele_mlflow.units import Direction

#: What one figure shows at most: rows, curves. See `plotted` for points.
MOST_CELLS = 200
MOST_CURVES = 8

_WIDE_NAME, _NARROW_NAME, _MEDIAN_NAME = 44, 16, 160
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "4px,2px", "1px,4px")
_SHAPES = (
    *("circle", "square", "diamond", "triangle-up"),
    *("x", "triangle-down", "star", "cross"),
)
#: Share of the width that repeats without a value get, where there are any.
_MARGIN_SHARE = 0.12
#: Values that span more than this ratio are drawn on a logarithmic axis.
_WIDE_SPAN = 1000.0
_DIGITS = 10


@dataclass(frozen=True)
class _Theme:
    ink: str
    faint: str
    paper: str
    failed: str
    colours: tuple[str, ...]


_LIGHT = _Theme(
    ink="#1b1e23",
    faint="#dfe2e6",
    paper="#ffffff",
    failed="#d55e00",
    colours=(
        *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
        *("#e69f00", "#56b4e9", "#1b1e23", "#7a7f87"),
    ),
)
_DARK = _Theme(
    ink="#e6e8eb",
    faint="#343941",
    paper="#16181d",
    failed="#e69f00",
    colours=(
        *("#56b4e9", "#e69f00", "#2fc79b", "#e39ac4"),
        *("#f0e442", "#4f8fd0", "#e6e8eb", "#9aa0a8"),
    ),
)


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
    theme = _DARK if is_dark else _LIGHT
    outcomes = outcomes_of(results)
    keys = ordered_cells(outcomes, objective, direction)
    points = repeat_points(outcomes, objective, keys[:MOST_CELLS])
    valued, valueless = points[points.value.notna()], points[points.value.isna()]
    drawn = thin_repeats(valued)
    names = names_of(points, len(keys[:MOST_CELLS]))
    figure = go.Figure([_repeats_trace(drawn, theme), _medians_trace(valued, theme)])
    for trace in _margin_traces(thin_repeats(valueless), theme):
        figure.add_trace(trace)
    _lay_out(figure, theme, title=f"{clean(objective)} by cell{explain(unit, direction)}")
    figure.layout.meta["note"] = _note_of_repeats(points, drawn, cell_count=len(keys))
    _lay_out_rows(figure, names)
    _lay_out_values(figure, valued.value, axis_title(objective, unit), bool(len(valueless)))
    return _write_title(figure)


def convergence(
    history: pd.DataFrame, *, objective: str, unit: str = "", is_dark: bool = False
) -> go.Figure:
    """
    Value against step: a curve a cell, the median over its repeats, in a band of their quartiles.

    Between two readings a repeat counts with the earlier one; before its first and after its last
    not at all. Of two readings of a repeat at one step the later one counts.

    Args:
        history: See `SuiteSummary.history`. Cells are drawn in the order in which they appear, the
            first `MOST_CURVES` of them.
        objective: The key whose readings are drawn.
        unit: Of the objective.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = _DARK if is_dark else _LIGHT
    readings, lost_count = readings_of(history, objective)
    keys = list(dict.fromkeys(readings.cell_key))
    drawn = keys[:MOST_CURVES]
    firsts = readings.drop_duplicates("cell_key").set_index("cell_key").cell
    names = tell_apart([shorten(clean(firsts[key]), _WIDE_NAME) for key in drawn])
    figure = go.Figure()
    repeat_counts, step_count, thinned_count = [], 0, 0
    for number, (key, name) in enumerate(zip(drawn, names, strict=True)):
        curve, steps, repeats = curve_of(readings[readings.cell_key == key])
        repeat_counts.append(repeats)
        step_count, thinned_count = max(step_count, steps), max(thinned_count, len(curve))
        for trace in _curve_traces(curve, _as_text(name), number, theme):
            figure.add_trace(trace)
    _lay_out(figure, theme, title=f"{clean(objective)} by step{explain(unit, Direction.NONE)}")
    figure.layout.meta["note"] = _note_of_curves(
        repeat_counts, cell_count=len(keys), steps=(thinned_count, step_count), lost=lost_count
    )
    _lay_out_steps(figure, axis_title(objective, unit), is_empty=not drawn)
    return _write_title(figure)


def plotly_script() -> str:
    """
    plotly.js of the installed plotly, fit to stand between script tags.

    Raises:
        ValueError: it holds what would end the tag.
    """
    script = str(get_plotlyjs())
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("plotly.js holds the end of a script tag: want another plotly release")
    return script


def axis_title(name: str, unit: str) -> str:
    """
    A metric's name and unit, escaped for plotly.
    """
    return _as_text(shorten(clean(name), 80) + explain(unit, Direction.NONE))


# Repeats, one row a cell.


def _repeats_trace(points: pd.DataFrame, theme: _Theme) -> go.Scatter:
    return go.Scatter(
        x=_numbers(points.value),
        y=_numbers(points.height),
        mode="markers",
        name="repeat",
        marker={
            "color": theme.colours[0],
            "size": 7,
            "opacity": 0.75,
            "line": {"width": 0.5, "color": theme.paper},
        },
        hovertext=[
            _hover(one.cell, f"repeat {one.repeat}", write_number(one.value))
            for one in points.itertuples()
        ],
        hoverinfo="text",
    )


def _medians_trace(points: pd.DataFrame, theme: _Theme) -> go.Scatter:
    grouped = points.groupby("row")
    medians, counts, names = grouped.value.median(), grouped.size(), grouped.cell.first()
    return go.Scatter(
        x=_numbers(medians),
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
            _hover(
                names[row],
                f"median of {counts[row]}",
                write_number(median),
                most_characters=_MEDIAN_NAME,
            )
            for row, median in medians.items()
        ],
        hoverinfo="text",
    )


def _margin_traces(points: pd.DataFrame, theme: _Theme) -> list[go.Scatter]:
    """
    Repeats that failed, and those that finished without a value, side by side at the margin.
    """
    counts = points.groupby("row").size()
    places = (points.groupby("row").cumcount() + 1) / (points.row.map(counts) + 1)
    points = points.assign(place=places.astype("float64"))
    is_finished = points.is_finished.astype(bool)
    return [
        go.Scatter(
            x=_numbers(chosen.place),
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
                _hover(one.cell, f"repeat {one.repeat}", name, _category(one.category))
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


def _hover(name: object, *parts: str, most_characters: int = _WIDE_NAME) -> str:
    words = [shorten(clean(name), most_characters), *(part for part in parts if part)]
    return "<br>".join(_as_text(word) for word in words)


def _note_of_repeats(points: pd.DataFrame, drawn: pd.DataFrame, *, cell_count: int) -> str:
    shown, valued = points.row.nunique(), int(points.value.notna().sum())
    failed = int((~points.is_finished.astype(bool)).sum())
    parts = [_count(shown, cell_count, "cell"), f"n = {_count(valued, valued, 'repeat')}"]
    if failed:
        parts.append(f"{failed} failed")
    if len(points) - valued - failed:
        parts.append(f"{len(points) - valued - failed} without a value")
    if len(drawn) < valued:
        parts.append(f"{len(drawn)} of the points drawn")
    return ", ".join(parts)


def _lay_out_rows(figure: go.Figure, names: list[str]) -> None:
    """
    The axis of cells: places are numbers, for names may be equal, or look like numbers or dates.
    """
    count = len(names)
    wide = tell_apart([shorten(name, _WIDE_NAME) for name in names])
    lines = 2 if count <= 50 else 1
    narrow = tell_apart([shorten(name, _NARROW_NAME * lines) for name in names])
    figure.update_layout(
        height=130 + round(count * (34 if count <= 12 else 24 if count <= 50 else 16)),
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(count)),
            "ticktext": [_as_text(name) for name in wide],
            "tickfont": {"size": 12 if count <= 50 else 10},
            "range": [count - 0.4 if count else 0.5, -0.6],
            "automargin": True,
            "showgrid": True,
            "visible": bool(count),
        },
    )
    figure.layout.meta["narrow_names"] = [
        "<br>".join(_as_text(line) for line in _break(name, lines)) for name in narrow
    ]


def _break(name: str, lines: int) -> list[str]:
    broken = textwrap.wrap(name, _NARROW_NAME + 4) if lines > 1 else [name]
    return [*broken[: lines - 1], " ".join(broken[lines - 1 :])]


def _lay_out_values(figure: go.Figure, values: pd.Series, title: str, has_margin: bool) -> None:
    is_wide = len(values) > 0 and values.min() > 0 and values.max() > _WIDE_SPAN * values.min()
    end = 1 - _MARGIN_SHARE if has_margin else 1
    figure.update_layout(
        xaxis={
            "title": {"text": f"{title}, logarithmic" if is_wide else title},
            "type": "log" if is_wide else "linear",
            "domain": [0, end],
            "automargin": True,
            "visible": bool(len(values)),
        }
    )
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
    if not len(values):
        _say_nothing_to_show(figure, end / 2)


# Histories, one curve a cell.


def _curve_traces(curve: pd.DataFrame, name: str, number: int, theme: _Theme) -> list[go.Scatter]:
    steps, group = [int(step) for step in curve.index], f"cell{number}"
    colour = theme.colours[number]
    traces = []
    if int(curve["count"].max()) > 1:
        high, low = _numbers(curve.high), _numbers(curve.low)
        traces.append(
            go.Scatter(
                x=steps + steps[::-1],
                y=high + low[::-1],
                mode="lines",
                fill="toself",
                fillcolor=_faded(colour),
                line={"width": 0},
                legendgroup=group,
                showlegend=False,
                hoverinfo="skip",
                name=name,
            )
        )
    traces.append(
        go.Scatter(
            x=steps,
            y=_numbers(curve["median"]),
            mode="lines+markers",
            name=name,
            legendgroup=group,
            line={"color": colour, "width": 2, "dash": _DASHES[number]},
            marker={"symbol": _SHAPES[number], "size": 8, "color": colour, "maxdisplayed": 10},
            hovertext=[
                f"step {step}: {write_number(one.median)}"
                + (f" ({write_number(one.low)} … {write_number(one.high)}, n = {count})")
                for step, one, count in zip(
                    steps, curve.itertuples(), curve["count"].tolist(), strict=True
                )
            ],
            hoverinfo="text+name",
            hoverlabel={"namelength": -1},
        )
    )
    return traces


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _note_of_curves(
    repeat_counts: list[int], *, cell_count: int, steps: tuple[int, int], lost: int
) -> str:
    parts = [_count(len(repeat_counts), cell_count, "cell")]
    fewest, most = min(repeat_counts, default=0), max(repeat_counts, default=0)
    span = "" if fewest == most else f"{fewest} … "
    parts.append(f"n = {span}{_count(most, most, 'repeat')}")
    if most > 1:
        parts.append("median and quartiles")
    if steps[0] < steps[1]:
        parts.append(f"{steps[0]} of {steps[1]} steps drawn")
    if lost:
        parts.append(f"{lost} readings without a value")
    return ", ".join(parts)


def _lay_out_steps(figure: go.Figure, title: str, *, is_empty: bool) -> None:
    figure.update_layout(
        height=400 + 18 * len(figure.data) // 2,  # the legend, two names a line
        showlegend=not is_empty,
        hovermode="closest",
        legend={"yref": "container", "y": 0, "yanchor": "bottom"},
        xaxis={"title": {"text": "step"}, "automargin": True, "visible": not is_empty},
        yaxis={"title": {"text": title}, "automargin": True, "visible": not is_empty},
    )
    if is_empty:
        _say_nothing_to_show(figure, 0.5)


# What all figures share.


def _lay_out(figure: go.Figure, theme: _Theme, *, title: str) -> None:
    axis = {
        "gridcolor": theme.faint,
        "linecolor": theme.faint,
        "zeroline": False,
        "title": {"standoff": 10},
    }
    figure.update_layout(
        template={"layout": {"xaxis": axis, "yaxis": axis}},
        font={"family": _FONT, "size": 13, "color": theme.ink},
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        margin={"l": 10, "r": 10, "t": 85, "b": 10},
        hoverlabel={"bgcolor": theme.paper, "font": {"color": theme.ink}, "align": "left"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
        showlegend=True,
        meta={"title": title, "note": ""},
    )


def _write_title(figure: go.Figure) -> go.Figure:
    meta = figure.layout.meta
    title, note = (_as_text(meta[part]) for part in ("title", "note"))
    figure.update_layout(
        title={
            "text": f"{title}<br><span style='font-size:12px'>{note}</span>",
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 22},
            "font": {"size": 16},
        }
    )
    return figure


def _say_nothing_to_show(figure: go.Figure, x: float) -> None:
    figure.add_annotation(
        text="no repeat has a value", x=x, y=0.5, xref="paper", yref="paper", showarrow=False
    )


def _count(shown: int, whole: int, noun: str) -> str:
    words = f"{whole} {noun}{'' if whole == 1 else 's'}"
    return words if shown == whole else f"{shown} of {words}"


def _as_text(text: str) -> str:
    """
    Text that plotly shows as it is: neither its HTML, nor its templates, which even names can be.
    """
    return html.escape(text, quote=False).replace("%{", "&#37;{")


def _numbers(values: Any) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
