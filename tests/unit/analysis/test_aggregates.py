"""
Interquartile means over cells, probability of improvement, performance profiles: by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.aggregates import (
    aggregate_scores,
    performance_profile,
    probability_of_improvement,
)
from allele_mlflow.errors import AnalysisError, TooFewPointsError
from allele_mlflow.units import Direction

UP, DOWN = Direction.HIGHER, Direction.LOWER
CHANCE = np.random.default_rng(8)


def test_aggregate_is_the_trimmed_mean_of_all_runs() -> None:
    """Eight runs of two cells: the mean of the middle four, 3, 4, 5, 6."""
    found = aggregate_scores([[1, 2, 3, 4], [5, 6, 7, 100]], resamples=500)
    assert found.value == 4.5
    assert found.low is not None
    assert found.high is not None
    assert found.low < 4.5 < found.high


def test_runs_are_drawn_within_their_cell() -> None:
    """
    Cells without any scatter of their own have an interval of one point, though they lie far
    apart; runs of one heap would not. Fifteen runs, three cut off at each end: 2 * 1, 5 * 2, 2 * 9.
    """
    found = aggregate_scores([[1.0] * 5, [2.0] * 5, [9.0] * 5])
    assert (found.low, found.value, found.high) == pytest.approx((30 / 9,) * 3)


def test_interval_of_one_cell_is_scipys() -> None:
    """One cell is a plain bootstrap: SciPy's percentile interval, but for other draws."""
    values = CHANCE.normal(size=30)
    found = aggregate_scores([values], resamples=40_000)
    scipy = stats.bootstrap(
        (values,),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        n_resamples=40_000,
        method="percentile",
        batch=2000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = scipy.high - scipy.low
    assert (found.low, found.high) == pytest.approx((scipy.low, scipy.high), abs=0.04 * width)


def test_improvement_is_the_mean_over_cells() -> None:
    """First cell always won, second all ties: (1 + 0.5) / 2; the other way round, the rest."""
    sides: tuple[Any, Any] = ([[1, 2], [5, 5, 5]], [[3, 4], [5, 5]])
    assert probability_of_improvement(*sides, UP).value == 0.75
    assert probability_of_improvement(*sides, DOWN).value == 0.25
    assert probability_of_improvement(*sides[::-1], UP).value == 0.25


def test_improvement_interval_contains_the_truth() -> None:
    """Shifted normal scores, true probability 0.714: most of a hundred intervals hold it."""
    held = 0
    for _ in range(100):
        first, second = CHANCE.normal(size=(2, 3, 10))
        found = probability_of_improvement(list(first), list(second + 0.8), UP, resamples=500)
        held += not found.excludes(0.7142)
    assert held >= 86


def test_profile_counts_runs_that_reach() -> None:
    """Cell one reaches 2 in 2 of 3 runs, cell two in 1 of 2: mean (2/3 + 1/2) / 2."""
    frame = performance_profile([[1, 2, 3], [1, 5]], [0, 2, 9], UP, resamples=500)
    assert frame["reached_ratio"].tolist() == pytest.approx([1.0, (2 / 3 + 1 / 2) / 2, 0.0])
    assert (frame["low"] <= frame["reached_ratio"]).all()
    assert (frame["high"] >= frame["reached_ratio"]).all()
    lower = performance_profile([[1, 2, 3], [1, 5]], [0, 2, 9], DOWN, resamples=500)
    assert lower["reached_ratio"].tolist() == pytest.approx([0.0, (2 / 3 + 1 / 2) / 2, 1.0])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: aggregate_scores([]), TooFewPointsError, "want at least one cell"),
        (lambda: aggregate_scores([[1.0], []]), TooFewPointsError, r"got cells of \[1, 0\] runs"),
        (lambda: aggregate_scores([[np.nan]]), AnalysisError, "not finite"),
        (
            lambda: probability_of_improvement([[1.0]], [[1.0], [2.0]], UP),
            AnalysisError,
            "1 and 2 cells",
        ),
        (
            lambda: performance_profile([[1.0]], [1.0], Direction.NONE),
            AnalysisError,
            "want 'higher' or 'lower'",
        ),
    ],
)
def test_bad_scores_are_refused(call: Any, error: type[Exception], words: str) -> None:
    """Nothing to aggregate, scores that are none, cells that do not match."""
    with pytest.raises(error, match=words):
        call()
