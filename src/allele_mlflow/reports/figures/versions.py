"""
Versions of a registered model: their traits beside each other, and what each has shown.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    MOST_CURVES,
    SHAPES,
    WIDE_NAME,
    Theme,
    as_text,
    axis_title,
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
from allele_mlflow.reports.plotted import tell_apart
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, shorten, write_number

#: A row a genome and trait.
PROFILE_COLUMNS = ("genome", "trait", "value")
#: A row a version.
FITNESS_COLUMNS = ("version", "stage", "mean", "low", "high", "runs")
MOST_TRAITS = 80
MOST_VERSIONS = 60


def trait_profile(traits: pd.DataFrame, *, is_dark: bool = False) -> go.Figure:
    """
    A row a trait, each genome as a shape at its value.

    Args:
        traits: `PROFILE_COLUMNS`. Genomes and traits in the order in which they appear, the first
            of them.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = check_columns(traits, PROFILE_COLUMNS, name="traits")
    frame = frame.assign(
        value=numbers(pd.to_numeric(frame["value"], errors="coerce")),
        genome=frame["genome"].map(str),
        trait=frame["trait"].map(str),
    )
    known = frame[frame["value"].notna()]
    all_traits = list(dict.fromkeys(known["trait"]))
    places = {trait: place for place, trait in enumerate(all_traits[:MOST_TRAITS])}
    genomes = list(dict.fromkeys(known["genome"]))
    labels = tell_apart([shorten(clean(one), WIDE_NAME) for one in genomes[:MOST_CURVES]])
    figure = start_figure(theme, title="Traits")
    drawn = known[known["trait"].isin(places)]
    # the first lies on top of the others
    pairs = list(enumerate(zip(genomes, labels, strict=False)))[::-1]
    for number, (genome, label) in pairs:
        own = drawn[drawn["genome"] == genome]
        figure.add_trace(_profile_trace(own, label, number, theme, places))
    figure.update_layout(legend={"traceorder": "reversed"})
    lay_out_rows(figure, [clean(trait) for trait in places])
    lay_out_values(figure, "value of the trait", drawn["value"])
    if not len(drawn):
        hide_axes(figure)
        say_nothing_to_show(figure, text="no trait is a number")
    notes = [
        count_of(len(places), len(all_traits), "trait"),
        count_of(len(labels), len(genomes), "genome"),
    ]
    return finish_figure(figure, notes)


def version_fitness(
    versions: pd.DataFrame, *, metric: str, unit: str = "", is_dark: bool = False
) -> go.Figure:
    """
    A row a version: the mean with its interval, the stage as a shape.

    Args:
        versions: `FITNESS_COLUMNS`, the first on top.
        metric: What the fitness is.
        unit: Of it.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = check_columns(versions, FITNESS_COLUMNS, name="versions")
    frame = frame.assign(
        **{
            name: pd.Series(
                numbers(pd.to_numeric(frame[name], errors="coerce")), frame.index, dtype="float64"
            )
            for name in ("mean", "low", "high", "runs")
        },
        stage=frame["stage"].map(str),
    )
    known = frame[frame["mean"].notna()]
    drawn = known.head(MOST_VERSIONS).reset_index(drop=True)
    figure = start_figure(theme, title=f"Fitness by version: {clean(metric)}")
    stages = list(dict.fromkeys(drawn["stage"]))
    for number, stage in enumerate(stages[:MOST_CURVES]):
        figure.add_trace(_stage_trace(drawn[drawn["stage"] == stage], stage, number, theme))
    lay_out_rows(figure, [f"version {clean(one)}" for one in drawn["version"]])
    figure.update_layout(
        xaxis={
            "title": {"text": axis_title(metric, unit)},
            "automargin": True,
            "visible": bool(len(drawn)),
        }
    )
    if not len(drawn):
        hide_axes(figure)
        say_nothing_to_show(figure, text="no version has a fitness")
    missing = len(frame) - len(known)
    notes = [
        count_of(len(drawn), len(known), "version"),
        f"{missing} without a fitness" if missing else "",
        "mean of the runs of its evidence, with its 95 % interval" if len(drawn) else "",
    ]
    return finish_figure(figure, notes)


def _profile_trace(
    own: pd.DataFrame, label: str, number: int, theme: Theme, places: dict[str, int]
) -> go.Scatter:
    return go.Scatter(
        x=numbers(own["value"]),
        y=[places[trait] for trait in own["trait"]],
        mode="markers",
        name=as_text(label),
        marker={
            "symbol": SHAPES[number] + ("" if number == 0 else "-open"),
            "size": 11,
            "color": theme.colours[number],
            "line": {"width": 2},
        },
        hoverinfo="text",
        hovertext=[
            hover(trait, label, write_number(value))
            for trait, value in zip(own["trait"], own["value"], strict=True)
        ],
    )


def _stage_trace(own: pd.DataFrame, stage: str, number: int, theme: Theme) -> go.Scatter:
    rows = list(own.itertuples())
    return go.Scatter(
        x=numbers(own["mean"]),
        y=[int(row.Index) for row in rows],
        mode="markers",
        name=as_text(shorten(clean(stage), WIDE_NAME)),
        marker={"symbol": SHAPES[number], "size": 10, "color": theme.colours[number]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": numbers(own["high"] - own["mean"]),
            "arrayminus": numbers(own["mean"] - own["low"]),
            "color": theme.colours[number],
            "thickness": 1.5,
        },
        hoverinfo="text",
        hovertext=[
            hover(
                f"version {row.version}",
                clean(stage),
                f"{write_number(row.mean)} [{write_number(row.low)}, {write_number(row.high)}]",
                f"{write_number(row.runs)} runs",
            )
            for row in rows
        ],
    )
