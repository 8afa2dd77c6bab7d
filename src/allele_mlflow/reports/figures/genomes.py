"""
Genomes over generations: their traits, and who came from whom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.curves import curve_traces, lay_out_curves
from allele_mlflow.reports.figures.layout import (
    MOST_CURVES,
    WIDE_NAME,
    Theme,
    as_text,
    axis_title,
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
from allele_mlflow.reports.plotted import MOST_CURVE_POINTS, ancestry_of, even_places, tell_apart
from allele_mlflow.reports.summary import check_columns, quantiles_by
from allele_mlflow.reports.wording import clean, shorten, write_number
from allele_mlflow.units import Direction

#: A row a genome and trait.
TRAIT_COLUMNS = ("generation", "trait", "value")
#: A row a genome; `parents` is a list of ids, and may name genomes that are not there.
GENOME_COLUMNS = ("genome_id", "generation", "fitness", "parents")
MOST_GENOMES = 600


def genome_traits(traits: pd.DataFrame, *, is_dark: bool = False) -> go.Figure:
    """
    The value of each trait by generation: the median over genomes, in a band of the quartiles.

    Args:
        traits: `TRAIT_COLUMNS`. Traits are drawn in the order in which they appear, the first
            `MOST_CURVES` of them.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    frame = _finite(check_columns(traits, TRAIT_COLUMNS, name="traits"), "value")
    known = list(dict.fromkeys(map(str, frame.trait)))
    drawn = known[:MOST_CURVES]
    names = tell_apart([shorten(clean(one), WIDE_NAME) for one in drawn])
    figure = start_figure(theme, title="Traits by generation")
    for number, (trait, name) in enumerate(zip(drawn, names, strict=True)):
        own = frame[frame.trait.astype(str) == trait]
        curve = quantiles_by(own.value, own.generation, [0.25, 0.5, 0.75])
        curve.columns = ["low", "median", "high"]
        curve = curve.assign(count=own.groupby("generation").value.count())
        curve = curve.iloc[even_places(len(curve), MOST_CURVE_POINTS)]
        figure.add_traces(curve_traces(curve, as_text(name), number, theme, of="generation"))
    lay_out_curves(figure, "generation", "trait (value as in the genome)")
    notes = [count_of(len(drawn), len(known), "trait"), "median and quartiles over genomes"]
    return finish_figure(figure, notes)


def genome_lineage(
    genomes: pd.DataFrame,
    *,
    metric: str = "fitness",
    unit: str = "",
    direction: Direction = Direction.HIGHER,
    is_dark: bool = False,
) -> go.Figure:
    """
    Each genome at its generation and fitness, lines from parents to children; the best one and all
    that it came from stand out.

    Args:
        genomes: `GENOME_COLUMNS`.
        metric: What the fitness is.
        unit: Of it.
        direction: Which way is better.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    whole = check_columns(genomes, GENOME_COLUMNS, name="genomes")
    whole = whole.assign(genome_id=whole.genome_id.map(str))
    known = _finite(whole, "fitness").drop_duplicates("genome_id")
    is_rising = direction is Direction.LOWER
    ranked = known.sort_values("fitness", ascending=is_rising, kind="stable", ignore_index=True)
    parents = dict(zip(ranked.genome_id, map(_ids, ranked.parents), strict=True))
    best = str(ranked.genome_id.iloc[0]) if len(ranked) else ""
    ancestry = ancestry_of(best, parents)
    is_ancestor = ranked.genome_id.isin(ancestry)
    drawn = pd.concat([ranked[is_ancestor], ranked[~is_ancestor]]).head(MOST_GENOMES)
    figure = start_figure(theme, title=f"Lineage: {clean(metric)} by generation")
    figure.add_traces(_lineage_traces(drawn, parents, ancestry, best, theme))
    _lay_out(figure, axis_title(metric, unit))
    notes = [
        count_of(len(drawn), len(whole), "genome"),
        f"{len(ancestry)} of them are the best one and its ancestors" if len(drawn) else "",
    ]
    return finish_figure(figure, notes)


def _finite(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """
    The rows with a finite value in a whole generation.
    """
    values = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    generations = pd.to_numeric(frame.generation, errors="coerce").astype("float64")
    found = frame.assign(**{name: values, "generation": generations})
    found = found[(values.abs() < math.inf) & (generations.abs() < 1e15)]
    return found.assign(generation=found.generation.astype("int64"))


def _ids(parents: object) -> tuple[str, ...]:
    return tuple(map(str, parents)) if isinstance(parents, (list, tuple)) else ()


def _lineage_traces(
    drawn: pd.DataFrame,
    parents: Mapping[str, Sequence[str]],
    ancestry: set[str],
    best: str,
    theme: Theme,
) -> list[go.Scatter]:
    if not len(drawn):
        return []
    places = {
        one.genome_id: (float(one.generation), float(one.fitness)) for one in drawn.itertuples()
    }
    pairs = [(parent, child) for child in places for parent in parents[child] if parent in places]
    own = [pair for pair in pairs if pair[1] in ancestry]
    others = [pair for pair in pairs if pair[1] not in ancestry]
    is_own = drawn.genome_id.isin(ancestry)
    return [
        _edges(others, places, "parent of", {"color": theme.faint, "width": 1}),
        _edges(own, places, "ancestor of the best", {"color": theme.colours[0], "width": 1.3}),
        _nodes(drawn[~is_own], "genome", "circle-open", theme.soft, 6),
        _nodes(drawn[is_own & (drawn.genome_id != best)], "ancestor", "square", theme.better, 8),
        _nodes(drawn[drawn.genome_id == best], "best", "star", theme.worse, 15),
    ]


def _edges(
    pairs: Sequence[tuple[str, str]],
    places: Mapping[str, tuple[float, float]],
    name: str,
    line: dict[str, object],
) -> go.Scatter:
    gap = (math.nan, math.nan)
    points = [place for one, other in pairs for place in (places[one], places[other], gap)]
    return go.Scatter(
        x=numbers(x for x, _ in points),
        y=numbers(y for _, y in points),
        mode="lines",
        name=name,
        line=line,
        hoverinfo="skip",
        showlegend=False,
    )


def _nodes(rows: pd.DataFrame, name: str, symbol: str, colour: str, size: int) -> go.Scatter:
    return go.Scatter(
        x=[int(one) for one in rows.generation],
        y=numbers(rows.fitness),
        mode="markers",
        name=name,
        marker={"symbol": symbol, "size": size, "color": colour, "line": {"color": colour}},
        hovertext=[
            hover(one.genome_id, f"generation {one.generation}", write_number(one.fitness))
            for one in rows.itertuples()
        ],
        hoverinfo="text",
    )


def _lay_out(figure: go.Figure, title: str) -> None:
    lay_out_below(figure, height_px=400)
    figure.update_layout(
        xaxis={"title": {"text": "generation"}, "automargin": True},
        yaxis={"title": {"text": title}, "automargin": True},
    )
    if not figure.data:
        hide_axes(figure)
        say_nothing_to_show(figure, text="no genome has a fitness")
