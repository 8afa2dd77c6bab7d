"""
A12 and Cliff's delta by hand, their words, and intervals.
"""

from __future__ import annotations

import numpy as np
import pytest

from allele_mlflow.analysis.effects import (
    Magnitude,
    a12,
    cliffs_delta,
    estimate_a12,
    magnitude_of,
)
from allele_mlflow.errors import AnalysisError, TooFewPointsError


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([4, 5, 6], [1, 2, 3], 0.0),
        ([1, 2, 3], [1, 2, 3], 0.5),
        ([1, 2], [2, 3], 3.5 / 4),  # 2 > 1, 3 > 1, 3 > 2, and half of 2 = 2
        ([7], [7, 7, 8], 2 / 3),  # two ties, one win: (0.5 + 0.5 + 1) / 3
        ([np.inf, 1], [np.inf, np.inf], 0.75),  # failed runs tie with each other
    ],
)
def test_a12_counts_wins(first: list[float], second: list[float], value: float) -> None:
    """Wins of the second side and half the ties, by hand; delta is on the scale of -1 to 1."""
    sides = np.array(first, dtype=float), np.array(second, dtype=float)
    assert a12(*sides) == pytest.approx(value)
    assert cliffs_delta(*sides) == pytest.approx(2 * value - 1)
    assert estimate_a12(*sides)[0].value == pytest.approx(value)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0.5, Magnitude.NEGLIGIBLE),
        (0.559, Magnitude.NEGLIGIBLE),
        (0.56, Magnitude.SMALL),
        (1 - 0.56, Magnitude.SMALL),
        (0.64, Magnitude.MEDIUM),
        (1 - 0.64, Magnitude.MEDIUM),
        (0.71, Magnitude.LARGE),
        (1 - 0.71, Magnitude.LARGE),
        (0.0, Magnitude.LARGE),
    ],
)
def test_words_begin_where_vargha_and_delaney_say(value: float, word: Magnitude) -> None:
    """0.56, 0.64, 0.71, to either side."""
    assert magnitude_of(value) is word


def test_interval_of_a12_holds_its_value() -> None:
    """
    Overlapping normal samples with a true A12 of 0.714 (a shift of 0.8): the interval is around
    the value, within 0 to 1, and most contain the truth.
    """
    chance = np.random.default_rng(0)
    sides = chance.normal(size=(15, 200)), chance.normal(size=(15, 200)) + 0.8
    found = estimate_a12(*sides, resamples=1000)
    for one in found:
        assert one.low is not None
        assert one.high is not None
        assert 0.0 <= one.low <= one.value <= one.high <= 1.0
    assert sum(not one.excludes(0.7142) for one in found) >= 180


@pytest.mark.parametrize(("sign", "low", "high"), [(1, 0.025 ** (1 / 6), 1.0), (-1, 0.0, None)])
def test_bound_of_what_was_never_seen(sign: int, low: float, high: float | None) -> None:
    """Six wins of six: A12 could be 0.54 and still show that once in forty times."""
    (found,) = estimate_a12(np.zeros(6), sign * np.arange(1.0, 8.0))
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 6) if high is None else high)


def test_pairs_are_drawn_together() -> None:
    """Seeds that pull both sides the same way make the interval narrower than without pairs."""
    seeds = np.linspace(0, 1, 20)
    sides = seeds, seeds + np.tile([0.12, 0.13], 10)
    (pairs,), (apart,) = (estimate_a12(*sides, is_paired=how) for how in (True, False))
    assert pairs.value == apart.value
    assert pairs.low is not None
    assert apart.low is not None
    assert pairs.low > apart.low


def test_nothing_to_rank_says_so() -> None:
    """An empty side and a NaN are errors, not numbers."""
    with pytest.raises(TooFewPointsError, match="at least one on each side"):
        a12(np.array([]), np.array([1.0]))
    with pytest.raises(AnalysisError, match="got nan"):
        a12(np.array([np.nan]), np.array([1.0]))
