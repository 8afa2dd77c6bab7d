"""
The statistics behind the overhead numbers.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.paired import (
    FloatArray,
    Overhead,
    TooFewPairsError,
    estimate_overhead,
    is_logging_first,
    judge_limit,
    judge_null,
)


def noisy_pairs(pairs: int, *, ratio: float, seed: int) -> FloatArray:
    """
    Log ratios around a known one, with the heavy tails that a busy machine gives.
    """
    noise = np.random.default_rng(seed).standard_t(df=3, size=pairs)
    return 0.05 * noise + math.log(ratio)


@pytest.mark.parametrize("ratio", [0.97, 1.0, 1.02, 1.5])
def test_known_ratio_is_found(ratio: float) -> None:
    """
    With 300 noisy pairs the estimate is within one percent point of the true overhead, and the
    interval holds it.
    """
    found = estimate_overhead(noisy_pairs(300, ratio=ratio, seed=1), resamples=1000)
    wanted = (ratio - 1.0) * 100.0
    assert found.pairs == 300
    assert found.overhead_percent == pytest.approx(wanted, abs=1.0)
    assert found.ci_low <= wanted <= found.ci_high


@pytest.mark.parametrize("pairs", [15, 60])
def test_interval_holds_the_truth_as_often_as_it_says(pairs: int) -> None:
    """
    Over 300 sessions without any effect, about 95 % of the intervals hold zero, few pairs or many.
    """
    sessions = 300
    hits = 0
    for seed in range(sessions):
        values = noisy_pairs(pairs, ratio=1.0, seed=seed)
        found = estimate_overhead(values, seed=seed, resamples=500)
        hits += found.ci_low <= 0.0 <= found.ci_high
    assert 0.90 <= hits / sessions <= 0.98


def test_trimmed_mean_is_scipys() -> None:
    """
    The centre is scipy.stats.trim_mean(values, 0.2) = 1/60: two values cut off at each end of ten.
    """
    values = [0.01, 0.02, -0.03, 0.5, 0.04, 0.00, -0.6, 0.015, 0.03, 0.025]
    found = estimate_overhead(values)
    assert found.overhead_percent == pytest.approx(math.expm1(1 / 60) * 100.0)


def test_outliers_do_not_move_the_estimate() -> None:
    """
    A tenth of the pairs disturbed a hundredfold on one side changes the estimate by no percent.
    """
    values = noisy_pairs(200, ratio=1.02, seed=3)
    disturbed = values.copy()
    disturbed[:10] += math.log(100.0)
    before = estimate_overhead(values).overhead_percent
    assert estimate_overhead(disturbed).overhead_percent == pytest.approx(before, abs=1.0)


def test_equal_data_give_equal_intervals() -> None:
    """
    The resampling is seeded: a report can be computed again from its raw data.
    """
    values = noisy_pairs(40, ratio=1.0, seed=5)
    assert estimate_overhead(values) == estimate_overhead(list(values))


@pytest.mark.parametrize("values", [[], [0.1]])
def test_too_few_pairs_are_refused(values: list[float]) -> None:
    """
    One pair has no interval, and none is made up.
    """
    with pytest.raises(TooFewPairsError, match="want at least 2"):
        estimate_overhead(values)


@pytest.mark.parametrize("pairs", [1, 2, 15, 300])
def test_orders_are_balanced_and_random(pairs: int) -> None:
    """
    Logging comes first as often as not, in an order that differs from seed to seed.
    """
    orders = is_logging_first(pairs, seed=1)
    assert len(orders) == pairs
    assert abs(sum(orders) - sum(not first for first in orders)) <= 1
    if pairs == 300:
        assert orders != is_logging_first(pairs, seed=2)
        assert orders != sorted(orders)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-1.0, 4.9, "under 5 %"),
        (5.1, 9.0, "over 5 %"),
        (4.0, 6.0, "too wide to decide (5 %)"),
        (-30.0, 50.0, "too wide to decide (5 %)"),
    ],
)
def test_limit_is_judged_by_the_whole_interval(low: float, high: float, words: str) -> None:
    """
    An interval that holds the limit decides nothing, and says so.
    """
    assert judge_limit(Overhead((low + high) / 2, low, high, 100), 5.0) == words


@pytest.mark.parametrize(
    ("low", "high", "holds"), [(-1, 1, True), (0.1, 1, False), (-2, -1, False)]
)
def test_null_must_hold_zero(low: float, high: float, holds: bool) -> None:
    """
    A session in which nothing differs from nothing is not to be trusted.
    """
    assert judge_null(Overhead(0.0, low, high, 100)).startswith("holds" if holds else "misses")
