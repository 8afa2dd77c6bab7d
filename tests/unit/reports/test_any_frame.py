"""
Whatever is in a frame, a figure comes out: strict JSON of bounded size, names as text, SVG only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allele_mlflow.reports import figures
from allele_mlflow.reports.figures import (
    calibration,
    forest,
    genomes,
    overhead,
    timeline,
    versions,
)
from allele_mlflow.reports.figures.runtimes import RUNTIME_COLUMNS
from allele_mlflow.reports.summary import HISTORY_COLUMNS, RESULT_COLUMNS, Objective
from allele_mlflow.units import Direction
from tests.report_tools import BEGAN_MS

#: No figure of a large frame weighs more, so that a report of a suite stays under 6 MB.
MOST_BYTES = 1_400_000
SVG_TRACES = {"scatter", "bar"}
OBJECTIVES = (Objective("score", "<i>u</i>", Direction.HIGHER), Objective("m<b>2</b>"))
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "<b>bold</b> & <a href='javascript:alert(1)'>link</a>",
    "\"quoted\" 'twice' \\ back",
    "line\nbreak\r\ttab",
    "long " * 400,
    "日本語 \U0001f9ec ‮reversed ⁦isolated",
    "%{x} %{customdata[0]} {{jinja}}",
    "2024-01-01",
    "",
)
Draw = Callable[[pd.DataFrame, bool], Any]


class Kind(NamedTuple):
    """
    A figure, how it is made from one frame, and which columns are of numbers, texts and times.
    """

    draw: Draw
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


def _of(columns: Iterable[str], texts: set[str], times: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    return {
        "numbers": tuple(one for one in columns if one not in texts | times),
        "texts": tuple(one for one in columns if one in texts),
        "times": tuple(one for one in columns if one in times),
    }


_RESULTS = _of(
    (*RESULT_COLUMNS, "param.size", "param.kind", "metric.score", "metric.m<b>2</b>"),
    {"cell", "cell_key", "status", "category", "param.kind"},
)
KINDS: dict[str, Kind] = {
    "cells": Kind(
        lambda frame, dark: figures.objective_by_cell(
            frame, "score", direction=Direction.HIGHER, is_dark=dark
        ),
        **_RESULTS,
    ),
    "heat map": Kind(
        lambda frame, dark: figures.suite_heat_map(frame, OBJECTIVES, is_dark=dark), **_RESULTS
    ),
    "parallel": Kind(
        lambda frame, dark: figures.parallel_coordinates(frame, OBJECTIVES, is_dark=dark),
        **_RESULTS,
    ),
    "curves": Kind(
        lambda frame, dark: figures.convergence(
            frame.assign(key="score"), objective="score", is_dark=dark
        ),
        **_of(set(HISTORY_COLUMNS) - {"key", "step"}, {"cell", "cell_key"}),
    ),
    "forest": Kind(
        lambda frame, dark: figures.forest_plot(
            frame.assign(verdict=_in_turn(frame, list(forest._VERDICTS))), is_dark=dark
        ),
        **_of(set(forest.COMPARISON_COLUMNS) - {"verdict"}, {"cell", "metric", "reason"}),
    ),
    "runtimes": Kind(
        lambda frame, dark: figures.running_time_ecdf(frame, is_dark=dark),
        **_of(RUNTIME_COLUMNS, {"cell"}),
    ),
    "history": Kind(
        lambda frame, dark: figures.metric_history(
            frame.assign(execution_id=_in_turn(frame, "abc")),
            frame.assign(
                kind=_in_turn(frame, ["change", "drift", "outlier", "environment change"]),
                outcome=_in_turn(frame, ["regression", "improvement", "neutral"]),
                execution=_in_turn(frame, "cab"),
            ),
            metric="m<b>2</b>",
            cell=str(frame.words.iloc[0]) if len(frame) else "",
            is_dark=dark,
        ),
        **_of(
            (
                *("started_ms", "value", "spread", "environment", "commit"),
                *("level_before", "level_after", "words"),
            ),
            {"words", "environment", "commit"},
        ),
    ),
    "timeline phases": Kind(
        lambda frame, dark: figures.run_timeline(
            frame, _none(timeline.SAMPLE_COLUMNS), is_dark=dark
        ),
        **_of(timeline.PHASE_COLUMNS, {"name"}, {"begin"}),
    ),
    "timeline samples": Kind(
        lambda frame, dark: figures.run_timeline(
            _none(timeline.PHASE_COLUMNS),
            frame.assign(key=_in_turn(frame, ["system/process_cpu_percent", "system/gpu_1_x"])),
            is_dark=dark,
        ),
        **_of(("timestamp_ms", "value"), set()),
    ),
    "timeline alerts": Kind(
        lambda frame, dark: figures.run_timeline(
            _none(timeline.PHASE_COLUMNS), _none(timeline.SAMPLE_COLUMNS), frame, is_dark=dark
        ),
        **_of(
            (*timeline.ALERT_COLUMNS, "phase", "resolved"),
            {"severity", "name", "message", "phase"},
            {"time", "resolved"},
        ),
    ),
    "overhead": Kind(
        lambda frame, dark: figures.logging_overhead(frame, budget_percent=1.0, is_dark=dark),
        **_of(overhead.OVERHEAD_COLUMNS, {"cell"}),
    ),
    "calibration": Kind(
        lambda frame, dark: figures.gain_calibration(frame, is_dark=dark),
        **_of(calibration.GAIN_COLUMNS, {"source", "title", "verdict"}),
    ),
    "traits": Kind(
        lambda frame, dark: figures.genome_traits(frame, is_dark=dark),
        **_of(genomes.TRAIT_COLUMNS, {"trait"}),
    ),
    "trait profile": Kind(
        lambda frame, dark: figures.trait_profile(frame, is_dark=dark),
        **_of(versions.PROFILE_COLUMNS, {"genome", "trait"}),
    ),
    "fitness of versions": Kind(
        lambda frame, dark: figures.version_fitness(frame, metric="m<b>2</b>", is_dark=dark),
        **_of(versions.FITNESS_COLUMNS, {"version", "stage"}),
    ),
    "lineage": Kind(
        lambda frame, dark: figures.genome_lineage(
            frame.assign(parents=[[one] for one in frame.genome_id[::-1]]), is_dark=dark
        ),
        **_of(("genome_id", "generation", "fitness"), {"genome_id"}),
    ),
}


def _in_turn(frame: pd.DataFrame, values: Any) -> list[Any]:
    return [values[number % len(values)] for number in range(len(frame))]


def _none(columns: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


NUMBERS = st.one_of(
    st.floats(),
    st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]),
    st.integers(-5, 5).map(float),
)
NAMES = st.one_of(st.sampled_from(HOSTILE_NAMES), st.text(max_size=12), st.sampled_from("ab"))
TIMES = st.one_of(
    st.none(), st.datetimes(pd.Timestamp("1971-01-01"), pd.Timestamp("2200-01-01"))
).map(lambda one: pd.NaT if one is None else pd.Timestamp(one, tz="UTC"))


@st.composite
def frames(draw: Any, kind: Kind) -> pd.DataFrame:
    """
    A frame of the kind's columns, with anything that such columns can hold.
    """
    count = draw(st.integers(0, 12))
    columns: dict[str, Any] = {
        **dict.fromkeys(kind.numbers, NUMBERS),
        **dict.fromkeys(kind.texts, NAMES),
        **dict.fromkeys(kind.times, TIMES),
    }
    found = pd.DataFrame(index=range(count))
    for name, values in columns.items():
        kind_of = "object" if name in kind.texts else None  # as the store's frames have texts
        drawn = draw(st.lists(values, min_size=count, max_size=count))
        found[name] = pd.Series(drawn, dtype=kind_of, index=found.index)
    return found.assign(step=range(count))


def checked(figure: Any, *, most_bytes: int = MOST_BYTES) -> str:
    """
    The figure's JSON without what a page escapes itself, once it is as it should be.
    """
    text = figure.to_json()
    assert len(text.encode("utf-8", "surrogatepass")) <= most_bytes
    spec = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    json.dumps(spec, allow_nan=False)
    assert {trace["type"] for trace in spec["data"]} <= SVG_TRACES
    assert spec["layout"]["height"] > 100
    meta = spec["layout"].pop("meta")
    assert meta["note"] is not None
    return json.dumps(spec, ensure_ascii=False)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@given(data=st.data())
@settings(max_examples=8)
def test_any_frame_gives_a_figure(kind: Kind, data: st.DataObject) -> None:
    """
    No value of a column, finite or not, raises or leaves the JSON of a figure.
    """
    text = checked(kind.draw(data.draw(frames(kind)), data.draw(st.booleans())))
    for mark in ("<script", "<a ", "<i>", "hovertemplate", "texttemplate"):
        assert mark not in text


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_empty_frame_says_so(kind: Kind) -> None:
    """
    A frame without rows, or without columns, gives a figure with a word in the place of data.
    """
    columns = (*kind.numbers, *kind.texts, *kind.times)
    figure = kind.draw(_none(columns), False)
    spec = json.loads(figure.to_json())
    assert len(spec["layout"]["annotations"]) == 1
    assert spec["layout"]["annotations"][0]["text"]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_missing_column_is_named(kind: Kind) -> None:
    """
    A frame with rows that lacks a column is refused, and the column named.
    """
    with pytest.raises((ValueError, AttributeError), match=r"without|has no attribute"):
        kind.draw(pd.DataFrame({"other": [1.0, 2.0]}), False)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_hostile_names_are_text(kind: Kind) -> None:
    """
    Markup, templates and what turns writing around reach plotly as text, and only so.
    """
    count = len(HOSTILE_NAMES)
    numbers = {name: [float(n + 1) for n in range(count)] for name in kind.numbers}
    texts = {name: pd.Series(HOSTILE_NAMES, dtype="object") for name in kind.texts}
    times = {
        name: pd.to_datetime([BEGAN_MS + 1000 * n for n in range(count)], unit="ms", utc=True)
        for name in kind.times
    }
    frame = pd.DataFrame({**numbers, **texts, **times}).assign(step=range(count))
    if "status" in texts:
        frame["status"] = "finished"
    text = checked(kind.draw(frame, False))
    marks = ("<script", "<b>", "<a ", "‮", "⁦", "%{", "\\n")
    for mark in marks:
        assert mark not in text
    if kind.texts:
        assert "&lt;b&gt;" in text or "&lt;script" in text


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_large_frame_gives_a_bounded_figure(kind: Kind) -> None:
    """
    Ten thousand rows with names of two hundred characters make no figure that a report cannot
    hold.
    """
    count = 10_000
    chance = np.random.default_rng(1)
    names = [f"{number % 1000} " + "長い" * 100 for number in range(count)]
    columns = {name: chance.lognormal(0, 3, count) for name in kind.numbers}
    times = pd.to_datetime(BEGAN_MS + 1000 * chance.permutation(count), unit="ms", utc=True)
    frame = pd.DataFrame(
        {**columns, **dict.fromkeys(kind.texts, names), **dict.fromkeys(kind.times, times)}
    ).assign(step=range(count))
    if "status" in kind.texts:
        frame["status"] = "finished"
        frame["repeat"] = range(count)
    checked(kind.draw(frame, False))
