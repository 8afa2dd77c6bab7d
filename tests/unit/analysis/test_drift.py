"""
Mann-Kendall and Theil-Sen beside hand-computed and SciPy's values.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from allele_mlflow.analysis.drift import count_concordant, measure_drift, variance_of_concordant
from allele_mlflow.errors import AnalysisError, TooFewPointsError


def test_statistic_is_that_of_the_textbook() -> None:
    """
    10, 15, 14, 20: pairs +5 +4 +10 -1 +5 +6, so S = 5 - 1 = 4; variance 4 x 3 x 13 / 18.
    """
    values = np.array([10.0, 15.0, 14.0, 20.0])
    assert count_concordant(values) == 4
    assert variance_of_concordant(values) == pytest.approx(4 * 3 * 13 / 18)


def test_ties_take_variance_away() -> None:
    """
    Hand-computed: of 1, 1, 2, 3, 3, 3 the variance is (6 x 5 x 17 - 2 x 9 - 3 x 2 x 11) / 18.
    """
    values = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0])
    assert variance_of_concordant(values) == pytest.approx((510 - 18 - 66) / 18)
    assert count_concordant(values) == 11


def test_rising_series_by_hand() -> None:
    """
    Ten rising points: S = 45, variance 125, z = 44 / sqrt(125), p = 8.3e-5; the slope is exact.
    """
    drift = measure_drift(3 + 0.5 * np.arange(10.0))
    assert drift.p == pytest.approx(math.erfc(44 / math.sqrt(125) / math.sqrt(2)))
    assert drift.tau == 1.0
    assert drift.slope_per_step == drift.slope_low == drift.slope_high == 0.5
    assert drift.intercept == 3.0


def test_tau_and_p_agree_with_scipy() -> None:
    """
    Without ties tau is SciPy's, and p that of its normal approximation but for the continuity
    correction.
    """
    values = np.random.default_rng(1).standard_normal(60) + 0.01 * np.arange(60)
    drift = measure_drift(values)
    theirs = kendalltau(np.arange(60), values, method="asymptotic")
    assert drift.tau == pytest.approx(theirs.statistic)
    assert drift.p == pytest.approx(theirs.pvalue, rel=0.05)


def test_interval_of_the_slope_covers_it() -> None:
    """
    The 95 % interval holds the true slope in 200 series about as often as it says.
    """
    held = 0
    for seed in range(200):
        values = np.random.default_rng(seed).standard_normal(40) + 0.1 * np.arange(40)
        drift = measure_drift(values)
        held += drift.slope_low <= 0.1 <= drift.slope_high
    assert 180 <= held <= 199


def test_wandering_noise_is_no_drift() -> None:
    """
    AR(1) noise of 0.5 would pass for a drift in 20 % of series at 5 %; corrected, in fewer than
    half as many.
    """
    found = plain = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        values = [0.0]
        for _ in range(59):
            values.append(0.5 * values[-1] + rng.standard_normal())
        series = np.array(values)
        found += measure_drift(series).p <= 0.05
        z = (abs(count_concordant(series)) - 1) / math.sqrt(variance_of_concordant(series))
        plain += z >= 1.96
    assert plain >= 40
    assert found <= plain / 2


def test_constant_series_has_no_drift() -> None:
    """
    Equal values: no slope, p = 1.
    """
    drift = measure_drift(np.ones(10))
    assert (drift.slope_per_step, drift.p, drift.tau) == (0.0, 1.0, 0.0)


def test_positions_are_respected() -> None:
    """
    Gaps where executions are missing do not steepen the slope.
    """
    at = np.array([0.0, 1, 2, 5, 6, 9, 10, 20, 21])
    assert measure_drift(2 * at, positions=at).slope_per_step == pytest.approx(2.0)


def test_what_cannot_be_judged_is_said() -> None:
    """
    Seven points, or one that is not finite, are an error.
    """
    with pytest.raises(TooFewPointsError, match="7 points: want at least 8"):
        measure_drift(np.arange(7.0))
    with pytest.raises(AnalysisError, match="not finite"):
        measure_drift(np.r_[np.arange(9.0), np.nan])
