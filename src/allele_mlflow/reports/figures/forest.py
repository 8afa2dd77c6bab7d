"""
Differences between two sides with their intervals: what is better, and how sure that is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    Theme,
    axis_title,
    count_of,
    finish_figure,
    hide_axes,
    hover,
    lay_out_rows,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, write_number

#: Columns that are read, as `Comparisons.frame()` has them.
COMPARISON_COLUMNS = (
    *("cell", "metric", "verdict", "reason", "baseline", "candidate", "p_holm"),
    *("difference", "difference_low", "difference_high"),
    *("ratio", "ratio_low", "ratio_high"),
)
MOST_ROWS = 120
#: The axis ends at most so many times as far from zero as the largest difference, or as the nearer
#: end of half of the intervals: one interval of two runs would press all others together.
REACH_TIMES = 5.0
_MARGIN_SHARE = 0.05
#: In this order, with the shape of each.
_VERDICTS = {
    "worse": "triangle-down",
    "better": "triangle-up",
    "different": "diamond",
    "inconclusive": "circle-open",
    "equivalent": "square-open",
}
_ALL_RUNS = "all runs"


class _Scale(NamedTuple):
    """
    What is drawn: columns of value, low and high, in which unit, and how it is written.
    """

    column: str
    title: str
    unit: str
    zero: float
    factor: float


def forest_plot(
    comparisons: pd.DataFrame,
    *,
    metric: str | None = None,
    unit: str = "",
    margin_ratio: float | None = None,
    is_dark: bool = False,
) -> go.Figure:
    """
    A row a cell and metric, the verdict as a shape at the difference, with its interval; what is
    decided on top, and the largest difference first.

    Args:
        comparisons: `COMPARISON_COLUMNS`.
        metric: Of this one alone, as a difference in its own unit; by default all, in percent of
            the baseline, and rows without a ratio are left out.
        unit: Of that metric.
        margin_ratio: Up to this part of the baseline a difference makes none: a band around zero.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = check_columns(comparisons, COMPARISON_COLUMNS, name="comparisons")
    scale = _scale_of(metric, unit)
    rows = _placed(frame if metric is None else frame[frame.metric == metric], scale)
    known = rows[rows.value.notna()]
    drawn = known.head(MOST_ROWS)
    margin = margin_ratio if metric is None and margin_ratio else 0.0
    reach = _reach_of(drawn, 100.0 * margin if math.isfinite(margin) else 0.0)
    drawn = drawn.assign(
        row=range(len(drawn)),
        shown_low=drawn.low.clip(lower=-reach),
        shown_high=drawn.high.clip(upper=reach),
    )
    what = "all metrics" if metric is None else clean(metric)
    figure = start_figure(theme, title=f"Candidate against baseline: {what}")
    for verdict in _VERDICTS:
        chosen = drawn[drawn.verdict == verdict]
        if len(chosen):
            figure.add_trace(_verdict_trace(chosen, verdict, theme, scale))
    names = [clean(cell) or _ALL_RUNS for cell in drawn.cell]
    if metric is None:
        names = [f"{name} · {clean(one)}" for name, one in zip(names, drawn.metric, strict=True)]
    lay_out_rows(figure, names)
    _lay_out_scale(figure, theme, scale, margin)
    clipped = _add_arrows(figure, drawn, theme, scale)
    if not len(drawn):
        hide_axes(figure)
        say_nothing_to_show(figure, text="nothing was compared")
    missing = len(rows) - len(known)
    notes = [
        count_of(len(drawn), len(rows), "comparison"),
        *(f"{n} {verdict}" for verdict in _VERDICTS if (n := int((rows.verdict == verdict).sum()))),
        f"{missing} without a {'ratio' if metric is None else 'difference'}" if missing else "",
        "arrow: the interval goes on" if clipped else "",
    ]
    return finish_figure(figure, notes)


def _scale_of(metric: str | None, unit: str) -> _Scale:
    if metric is None:
        title = "candidate / baseline - 1 (percent)"
        return _Scale("ratio", title, "percent", zero=1.0, factor=100.0)
    title = f"candidate - baseline, {axis_title(metric, unit)}"
    return _Scale("difference", title, clean(unit), zero=0.0, factor=1.0)


def _placed(frame: pd.DataFrame, scale: _Scale) -> pd.DataFrame:
    """
    The rows with value, low and high on the scale, those that matter most first.
    """
    parts = {
        name: (pd.to_numeric(frame[column], errors="coerce") - scale.zero) * scale.factor
        for name, column in (
            ("value", scale.column),
            ("low", f"{scale.column}_low"),
            ("high", f"{scale.column}_high"),
        )
    }
    verdicts = [str(one) for one in frame.verdict]
    found = frame.assign(**parts, verdict=verdicts)
    found["value"] = found.value.where(found.value.abs() < math.inf)
    order = {verdict: place for place, verdict in enumerate(_VERDICTS)}
    found = found[found.verdict.isin(order)]
    found = found.assign(rank=found.verdict.map(order), size=-found.value.abs())
    return found.sort_values(["rank", "size"], kind="stable", ignore_index=True)


def _reach_of(drawn: pd.DataFrame, least: float) -> float:
    """
    How far from zero intervals are drawn, at least `least`; infinite where all are drawn whole.
    """
    ends = pd.DataFrame({"low": drawn.low.abs(), "high": drawn.high.abs()}).min(axis=1)
    usual = ends.where(ends < math.inf).quantile(0.5, interpolation="lower")
    largest = [one for one in (drawn.value.abs().max(), usual, least) if one > 0.0]
    return max(REACH_TIMES * float(max(largest, default=math.inf)), least)


def _add_arrows(figure: go.Figure, drawn: pd.DataFrame, theme: Theme, scale: _Scale) -> int:
    """
    Heads of arrows at the intervals that are cut off, and an axis that ends there; how many.
    """
    sides = (("low", "triangle-left"), ("high", "triangle-right"))
    cut = {
        side: drawn[drawn[f"shown_{side}"] != drawn[side]].dropna(subset=side) for side, _ in sides
    }
    for side, symbol in sides:
        rows = cut[side]
        if len(rows):
            figure.add_trace(
                go.Scatter(
                    x=numbers(rows[f"shown_{side}"]),
                    y=_rows_of(rows),
                    mode="markers",
                    name="the interval goes on",
                    showlegend=False,
                    marker={
                        "symbol": symbol,
                        "size": 9,
                        "color": [_colour_of(verdict, theme) for verdict in rows.verdict],
                    },
                    hovertext=[_hover_of(row, scale) for row in rows.itertuples()],
                    hoverinfo="text",
                )
            )
    count = sum(map(len, cut.values()))
    if count:
        seen = pd.concat([drawn.value, drawn.shown_low, drawn.shown_high])
        low, high = float(seen.min()), float(seen.max())
        room = _MARGIN_SHARE * (high - low)
        figure.update_layout(xaxis={"range": [min(low, 0.0) - room, max(high, 0.0) + room]})
    return count


def _colour_of(verdict: str, theme: Theme) -> str:
    colours = {"better": theme.better, "worse": theme.worse, "different": theme.ink}
    return colours.get(verdict, theme.soft)


def _verdict_trace(rows: pd.DataFrame, verdict: str, theme: Theme, scale: _Scale) -> go.Scatter:
    own = _colour_of(verdict, theme)
    return go.Scatter(
        x=numbers(rows.value),
        y=_rows_of(rows),
        mode="markers",
        name=verdict,
        marker={
            "symbol": _VERDICTS[verdict],
            "size": 11,
            "color": own,
            "line": {"width": 2, "color": own},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": numbers(rows.shown_high - rows.value),
            "arrayminus": numbers(rows.value - rows.shown_low),
            "color": own,
            "thickness": 1.2 if own == theme.soft else 2,
            "width": 4,
        },
        hovertext=[_hover_of(row, scale) for row in rows.itertuples()],
        hoverinfo="text",
    )


def _rows_of(rows: pd.DataFrame) -> list[int]:
    return [int(row) for row in rows.row]


def _hover_of(row: object, scale: _Scale) -> str:
    told = row._asdict()  # type: ignore[attr-defined]
    ends = f"[{write_number(told['low'])}, {write_number(told['high'])}]"
    p_value = pd.to_numeric(told["p_holm"], errors="coerce")
    return hover(
        told["cell"] or _ALL_RUNS,
        clean(told["metric"]),
        f"{told['verdict']}: {write_number(told['value'])} {ends} {scale.unit}".rstrip(),
        f"baseline {_number(told['baseline'])}, candidate {_number(told['candidate'])}",
        "" if pd.isna(p_value) else f"p = {p_value:.2g} after correction",
        clean(told["reason"] or "")[:200],
    )


def _number(value: object) -> str:
    return write_number(float(pd.to_numeric(value, errors="coerce")))


def _lay_out_scale(figure: go.Figure, theme: Theme, scale: _Scale, margin_ratio: float) -> None:
    figure.update_layout(
        xaxis={
            "title": {"text": scale.title},
            "zeroline": True,
            "zerolinecolor": theme.ink,
            "zerolinewidth": 1.5,
            "automargin": True,
        },
        margin={"t": 100},
    )
    if margin_ratio and math.isfinite(margin_ratio):
        figure.add_vrect(
            x0=-100 * margin_ratio,
            x1=100 * margin_ratio,
            fillcolor=theme.faint,
            opacity=0.6,
            layer="below",
            line_width=0,
        )
