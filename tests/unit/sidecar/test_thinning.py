"""
Thinning: first and last are shown, of each window what the rule says, wherever the chunks are cut.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.records import Reading
from allele_mlflow.resolution import Rule, parse_rules
from allele_mlflow.sidecar.thinning import KeyState, Thinner

RULES = "one/*: every 10; min/*: min per 10 steps; max/*: max per 1 s; mean/*: mean per 10 steps"


def reading(step: int, value: float | None = None, key: str = "one/a") -> Reading:
    """
    A reading whose time is 100 ms a step.
    """
    return Reading(key, float(step) if value is None else value, step * 100, step)


def thin(text: str, readings: list[Reading]) -> tuple[list[Reading], list[Reading]]:
    """
    What is shown as it came, and what stands for the others.
    """
    thinner = Thinner(parse_rules(text), {})
    found = thinner.take(readings)
    assert sum(found.archived.values()) + len(found.shown) == len(readings)
    return found.shown, found.standing_in + thinner.finish()


def test_every_tenth_and_the_last() -> None:
    """Of 25 readings every tenth is shown, and the last one."""
    shown, standing_in = thin("one/*: every 10", [reading(step) for step in range(25)])
    assert [r.step for r in shown] == [0, 10, 20]
    assert [r.step for r in standing_in] == [24]


def test_steps_that_are_rare_already() -> None:
    """One reading in a window is no reason to thin: of steps 0, 10, 20 all are shown."""
    shown, standing_in = thin("*: every 10", [reading(step) for step in (0, 10, 20)])
    assert [r.step for r in shown] == [0, 10, 20]
    assert standing_in == []


def test_interval() -> None:
    """At most one in an interval of time: the first."""
    shown, _ = thin("*: one per 1 s", [reading(step) for step in range(7, 35)])
    assert [r.timestamp_ms for r in shown] == [700, 1000, 2000, 3000]


def test_mean_stands_at_the_end_of_its_window() -> None:
    """The mean of a window has the time and step of its last reading; first and last are shown."""
    shown, standing_in = thin(
        "*: mean per 10 steps", [reading(step, key="k") for step in range(15)]
    )
    assert shown == [reading(0, key="k")]
    assert standing_in == [
        reading(9, 4.5, key="k"),
        reading(14, 12.0, key="k"),
        reading(14, key="k"),
    ]


@pytest.mark.parametrize(("choice", "step"), [("min", 3), ("max", 6)])
def test_extremes_are_readings(choice: str, step: int) -> None:
    """The least or greatest of a window is shown as it was read."""
    values = [5.0, 5.0, 4.0, 1.0, 4.0, 5.0, 9.0, 5.0, 5.0, 5.0]
    readings = [reading(number, value) for number, value in enumerate(values)]
    _, standing_in = thin(f"*: {choice} per 10 steps", [*readings, reading(10)])
    assert standing_in[0] == readings[step]


@pytest.mark.parametrize("choice", ["min", "max", "mean"])
def test_a_reading_that_is_shown_needs_no_stand_in(choice: str) -> None:
    """Of one reading in the first window, nothing is sent twice: not every store forgives that."""
    readings = [reading(0, 1.0), reading(10, 2.0)]
    shown, standing_in = thin(f"*: {choice} per 10 steps", readings)
    assert (shown, standing_in) == (readings[:1], readings[1:])


@pytest.mark.parametrize("choice", ["min", "max", "mean"])
def test_nan_is_seen(choice: str) -> None:
    """A NaN is not passed over: it is what the window shows."""
    readings = [reading(0, 1.0), reading(1, math.nan), reading(2, 3.0), reading(10, 4.0)]
    _, standing_in = thin(f"*: {choice} per 10 steps", readings)
    assert math.isnan(standing_in[0].value)


def test_a_key_without_a_rule_is_left_alone() -> None:
    """Nothing is thinned without a rule."""
    readings = [reading(step, key="other") for step in range(30)]
    assert thin(RULES, readings) == (readings, [])


keys = st.sampled_from(["one/a", "min/a", "max/b", "mean/c", "mean/d", "free"])
histories = st.lists(
    st.builds(
        reading,
        st.integers(-50, 50),
        st.floats(-10, 10) | st.sampled_from([math.inf, -math.inf]),
        keys,
    ),
    max_size=60,
)


@given(histories, st.lists(st.integers(0, 60), max_size=4))
def test_chunks_may_be_cut_anywhere(history: list[Reading], cuts: list[int]) -> None:
    """
    Whole or in pieces, by one sidecar or by several that hand over: the same is shown.
    """
    whole = Thinner(parse_rules(RULES), {})
    found = whole.take(history)
    expected = Counter(map(repr, found.shown)), Counter(map(repr, found.standing_in))
    last = whole.finish()

    shown: Counter[str] = Counter()
    standing_in: Counter[str] = Counter()
    states: dict[str, KeyState] = {}
    edges = sorted({0, len(history), *(cut for cut in cuts if cut < len(history))})
    thinner = Thinner(parse_rules(RULES), {})
    for start, end in pairwise(edges):
        kept = msgspec.msgpack.encode(states)
        thinner = Thinner(parse_rules(RULES), msgspec.msgpack.decode(kept, type=type_of_states))
        piece = thinner.take(history[start:end])
        shown.update(map(repr, piece.shown))
        standing_in.update(map(repr, piece.standing_in))
        states |= piece.states
    assert (shown, standing_in) == expected
    assert sorted(map(repr, thinner.finish())) == sorted(map(repr, last))
    assert thinner.finish() == []


type_of_states = dict[str, KeyState]


@given(histories)
def test_first_and_last_of_each_key_and_one_of_each_window(history: list[Reading]) -> None:
    """
    Whatever comes in whatever order: first and last are there, and each window has its reading.
    """
    rules = parse_rules(RULES)
    thinner = Thinner(rules, {})
    found = thinner.take(history)
    seen = [*found.shown, *found.standing_in, *thinner.finish()]
    for key in {r.key for r in history}:
        given_ones = [r for r in history if r.key == key]
        rule = next((r for r in rules if key.startswith(r.pattern[:-1])), None)
        assert given_ones[0] in seen
        assert given_ones[-1] in seen
        if rule is None:
            continue
        for _, window in groupby(given_ones, key=lambda r: rule.window_of(r.step, r.timestamp_ms)):
            kept = list(window)
            assert any(_stands_for(r, kept, rule) for r in seen if r.key == key)


def _stands_for(shown: Reading, window: list[Reading], rule: Rule) -> bool:
    values = [r.value for r in window]
    if rule.choice == "one":
        return shown == window[0]
    if rule.choice == "mean":
        mean = sum(values) / len(values)
        is_equal = shown.value == mean or (math.isnan(shown.value) and math.isnan(mean))
        return is_equal and shown.step == window[-1].step
    return shown.value == (min(values) if rule.choice == "min" else max(values))
