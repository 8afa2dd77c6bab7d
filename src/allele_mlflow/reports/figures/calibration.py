"""
Whether advice brings what it promised.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    MOST_CURVES,
    SHAPES,
    WIDE_NAME,
    Theme,
    as_text,
    count_of,
    finish_figure,
    hide_axes,
    hover,
    lay_out_below,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.plotted import tell_apart
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, shorten, write_number

#: A row a recommendation of which both gains are known, as parts of the baseline.
GAIN_COLUMNS = (
    *("source", "title", "verdict", "expected", "expected_low", "expected_high"),
    *("gain", "gain_low", "gain_high"),
)
MOST_POINTS = 500


def gain_calibration(gains: pd.DataFrame, *, is_dark: bool = False) -> go.Figure:
    """
    The gain that came against the gain that was promised, each with its interval, a shape for each
    source; on the dashed line a promise was kept, below it it was too large.

    Args:
        gains: `GAIN_COLUMNS`; 0.1 is ten percent better. Ends of intervals may be missing.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = check_columns(gains, GAIN_COLUMNS, name="gains")
    parts = {
        name: 100.0 * pd.to_numeric(frame[name], errors="coerce").astype("float64")
        for name in GAIN_COLUMNS[3:]
    }
    frame = frame.assign(**parts)
    known = frame[(frame.expected.abs() < math.inf) & (frame.gain.abs() < math.inf)]
    sources = list(dict.fromkeys(map(str, known.source)))
    names = tell_apart([shorten(clean(one), WIDE_NAME) for one in sources[:MOST_CURVES]])
    drawn = known[known.source.astype(str).isin(sources[:MOST_CURVES])].head(MOST_POINTS)
    figure = start_figure(theme, title="Gains that came against gains that were promised")
    if len(drawn):
        figure.add_trace(_diagonal(drawn, theme))
    for number, (source, name) in enumerate(zip(sources, names, strict=False)):
        chosen = drawn[drawn.source.astype(str) == source]
        if len(chosen):
            figure.add_trace(_source_trace(chosen, name, number, theme))
    _lay_out(figure)
    notes = [
        count_of(len(drawn), len(frame), "recommendation"),
        count_of(len(names), len(sources), "source"),
        "intervals where there are any",
    ]
    return finish_figure(figure, notes if len(drawn) else notes[:1])


def _diagonal(drawn: pd.DataFrame, theme: Theme) -> go.Scatter:
    both = [*drawn.expected, *drawn.gain]
    ends = [min(0.0, *both), max(0.0, *both)]
    return go.Scatter(
        x=numbers(ends),
        y=numbers(ends),
        mode="lines",
        name="promise kept",
        line={"color": theme.soft, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )


def _source_trace(rows: pd.DataFrame, name: str, number: int, theme: Theme) -> go.Scatter:
    colour = theme.colours[number]
    return go.Scatter(
        x=numbers(rows.expected),
        y=numbers(rows.gain),
        mode="markers",
        name=as_text(name),
        marker={"symbol": SHAPES[number], "size": 10, "color": colour},
        error_x=_error(rows, "expected", colour),
        error_y=_error(rows, "gain", colour),
        hovertext=[
            hover(
                one.title,
                f"source {clean(one.source)}",
                f"promised {write_number(one.expected)} %, came {write_number(one.gain)} %",
                clean(one.verdict) if isinstance(one.verdict, str) else "",
            )
            for one in rows.itertuples()
        ],
        hoverinfo="text",
    )


def _error(rows: pd.DataFrame, name: str, colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers((rows[f"{name}_high"] - rows[name]).fillna(0.0)),
        "arrayminus": numbers((rows[name] - rows[f"{name}_low"]).fillna(0.0)),
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _lay_out(figure: go.Figure) -> None:
    lay_out_below(figure, height_px=420)
    figure.update_layout(
        xaxis={"title": {"text": "promised gain (percent of the baseline)"}, "automargin": True},
        yaxis={"title": {"text": "gain that came (percent)"}, "automargin": True},
    )
    if not figure.data:
        hide_axes(figure)
        say_nothing_to_show(figure, text="no recommendation was tried and judged")
