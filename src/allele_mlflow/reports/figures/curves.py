"""
Histories as curves: the median over repeats in a band of their quartiles.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    DASHES,
    MOST_CURVES,
    SHAPES,
    WIDE_NAME,
    Theme,
    as_text,
    axis_title,
    count_of,
    faded,
    finish_figure,
    lay_out_below,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.plotted import curve_of, readings_of, tell_apart
from allele_mlflow.reports.wording import clean, explain, shorten, write_number
from allele_mlflow.units import Direction


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
    theme = theme_of(is_dark=is_dark)
    readings, lost_count = readings_of(history, objective)
    keys = list(dict.fromkeys(readings.cell_key))
    drawn = keys[:MOST_CURVES]
    firsts = readings.drop_duplicates("cell_key").set_index("cell_key").cell
    names = tell_apart([shorten(clean(firsts[key]), WIDE_NAME) for key in drawn])
    title = f"{clean(objective)} by step{explain(unit, Direction.NONE)}"
    figure = start_figure(theme, title=title)
    repeat_counts, step_count, thinned_count = [], 0, 0
    for number, (key, name) in enumerate(zip(drawn, names, strict=True)):
        curve, steps, repeats = curve_of(readings[readings.cell_key == key])
        repeat_counts.append(repeats)
        step_count, thinned_count = max(step_count, steps), max(thinned_count, len(curve))
        figure.add_traces(curve_traces(curve, as_text(name), number, theme, of="step"))
    lay_out_curves(figure, "step", axis_title(objective, unit))
    notes = _notes(
        repeat_counts, cell_count=len(keys), steps=(thinned_count, step_count), lost=lost_count
    )
    return finish_figure(figure, notes)


def curve_traces(
    curve: pd.DataFrame, name: str, number: int, theme: Theme, *, of: str
) -> list[go.Scatter]:
    """
    A curve, behind it its band where there is one.

    Args:
        curve: Columns low, median, high and count, by step.
        name: Escaped.
        number: Of the curve, from 0: decides colour, dash and shape.
        theme: Colours.
        of: What the steps are called.
    """
    steps, group = [int(step) for step in curve.index], f"cell{number}"
    colour = theme.colours[number]
    traces = []
    if int(curve["count"].max()) > 1:
        high, low = numbers(curve.high), numbers(curve.low)
        traces.append(
            go.Scatter(
                x=steps + steps[::-1],
                y=high + low[::-1],
                mode="lines",
                fill="toself",
                fillcolor=faded(colour),
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
            y=numbers(curve["median"]),
            mode="lines+markers",
            name=name,
            legendgroup=group,
            line={"color": colour, "width": 2, "dash": DASHES[number]},
            marker={"symbol": SHAPES[number], "size": 8, "color": colour, "maxdisplayed": 10},
            hovertext=[
                f"{of} {step}: {write_number(one.median)}"
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


def lay_out_curves(figure: go.Figure, x_title: str, y_title: str) -> None:
    """
    Axes for curves, named by escaped texts; none where there is no curve.
    """
    is_empty = not figure.data
    lay_out_below(figure, height_px=400)
    figure.update_layout(
        showlegend=not is_empty,
        xaxis={"title": {"text": x_title}, "automargin": True, "visible": not is_empty},
        yaxis={"title": {"text": y_title}, "automargin": True, "visible": not is_empty},
    )
    if is_empty:
        say_nothing_to_show(figure)


def _notes(
    repeat_counts: list[int], *, cell_count: int, steps: tuple[int, int], lost: int
) -> list[str]:
    parts = [count_of(len(repeat_counts), cell_count, "cell")]
    fewest, most = min(repeat_counts, default=0), max(repeat_counts, default=0)
    span = "" if fewest == most else f"{fewest} … "
    parts.append(f"n = {span}{count_of(most, most, 'repeat')}")
    if most > 1:
        parts.append("median and quartiles")
    if steps[0] < steps[1]:
        parts.append(f"{steps[0]} of {steps[1]} steps drawn")
    if lost:
        parts.append(f"{count_of(lost, lost, 'reading')} without a value")
    return parts
