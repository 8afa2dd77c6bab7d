"""
Intervals of differences, ratios and success rates: published ones, SciPy's, and degenerate data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.intervals import (
    BCA,
    Estimate,
    difference_of_rates,
    estimate_differences,
    estimate_ratios,
    success_rate,
)
from allele_mlflow.analysis.locations import FloatArray, Location
from allele_mlflow.errors import AnalysisError

#: Extra hours of sleep with two drugs, ten patients (Student 1908, Biometrika 6).
SLEEP = (
    np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]),
    np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]),
)
CHANCE = np.random.default_rng(3)
FIRST = CHANCE.normal(size=20)
SECOND = CHANCE.normal(size=25) + 0.8
LOCATIONS: dict[Location, Any] = {
    Location.MEDIAN: np.median,
    Location.IQM: lambda values, axis: stats.trim_mean(values, 0.25, axis=axis),
}


def by_scipy(
    sides: tuple[FloatArray, ...], location: Location, *, freedom: int
) -> tuple[float, float]:
    """
    SciPy's BCa of the last side's location, minus that of the first where there are two.
    """

    def statistic(*samples: FloatArray, axis: int) -> FloatArray:
        centres = [LOCATIONS[location](sample, axis=axis) for sample in samples]
        difference: FloatArray = centres[-1] - centres[0] if len(centres) == 2 else centres[0]
        return difference

    found = stats.bootstrap(
        sides,
        statistic,
        confidence_level=2 * stats.norm.cdf(stats.t.ppf(0.975, freedom)) - 1,
        n_resamples=40_000,
        vectorized=True,
        batch=2000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    return float(found.low), float(found.high)


def ends(found: list[Estimate]) -> tuple[float, float]:
    """
    Of the only interval.
    """
    (one,) = found
    assert one.low is not None
    assert one.high is not None
    return one.low, one.high


@pytest.mark.parametrize(
    ("is_paired", "low", "high"),
    [(False, -0.2054832, 3.3654832), (True, 0.7001142, 2.4598858)],
)
def test_means_have_students_interval(is_paired: bool, low: float, high: float) -> None:
    """Student's own data, with the intervals that R's t.test documents for them."""
    found = estimate_differences(*SLEEP, is_paired=is_paired)
    assert ends(found) == pytest.approx((low, high), abs=1e-6)
    assert found[0].value == pytest.approx(1.58)
    assert found[0].method.startswith("Student's t")


@pytest.mark.parametrize("location", LOCATIONS)
def test_bca_agrees_with_scipy(location: Location) -> None:
    """
    Medians and interquartile means of twice 20 values that scatter alike: SciPy's BCa, but for
    other draws, at the level whose normal quantile is Student's with 38 degrees of freedom.
    """
    sides = FIRST, np.concatenate([FIRST[10:] + 0.5, FIRST[:10] + 0.5])
    found = estimate_differences(*sides, location=location, resamples=40_000)
    low, high = by_scipy(sides, location, freedom=38)
    assert ends(found) == pytest.approx((low, high), abs=0.04 * (high - low))
    assert found[0].method == BCA


@pytest.mark.parametrize("location", LOCATIONS)
def test_bca_of_pairs_agrees_with_scipy(location: Location) -> None:
    """The same of the differences of pairs, with 19 degrees of freedom."""
    differences = SECOND[:20] - FIRST
    found = estimate_differences(
        FIRST, SECOND[:20], is_paired=True, location=location, resamples=40_000
    )
    low, high = by_scipy((differences,), location, freedom=19)
    assert ends(found) == pytest.approx((low, high), abs=0.04 * (high - low))


def test_ratio_is_taken_on_logarithms() -> None:
    """Twice as long in every pair is a ratio of 2, whatever the pairs' own lengths."""
    values = np.array([1.0, 10.0, 100.0, 3.0, 7.0, 11.0])
    (pairs,) = estimate_ratios(values, 2 * values, is_paired=True)
    assert pairs is not None
    assert (pairs.value, pairs.low, pairs.high) == pytest.approx((2.0, 2.0, 2.0))
    (apart,) = estimate_ratios(values, 2 * values)
    (on_logs,) = estimate_differences(np.log(values), np.log(2 * values))
    assert apart is not None
    assert apart.value == pytest.approx(2.0)
    assert np.log(ends([apart])) == pytest.approx(ends([on_logs]))
    assert apart.method.endswith("on logarithms")


def test_ratio_needs_values_above_zero() -> None:
    """A column with a zero has no ratio; the one beside it has its own."""
    first = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 1.0]])
    found = estimate_ratios(first, first * 3)
    assert found[0] is not None
    assert found[0].value == pytest.approx(3.0)
    assert found[1] is None
    assert estimate_ratios(-first, first) == [None, None]


@pytest.mark.parametrize("location", LOCATIONS)
def test_small_samples_say_what_they_got(location: Location) -> None:
    """Medians: nothing below five runs, wider percentiles below ten, BCa from there on."""
    (four,) = estimate_differences(FIRST[:4], SECOND, location=location)
    assert (four.low, four.high) == (None, None)
    assert four.method == "no interval: want at least 5 runs a side, got 4"
    (nine,) = estimate_differences(FIRST[:9], SECOND[:9], location=location)
    assert nine.method == "percentile bootstrap, widened for few runs"
    assert ends([nine])[0] < nine.value < ends([nine])[1]


def test_one_run_has_no_interval() -> None:
    """A difference of single runs is given, and that nothing is known about its error."""
    (found,) = estimate_differences(FIRST[:1], SECOND)
    assert found.value == pytest.approx(SECOND.mean() - FIRST[0])
    assert found.method == "no interval: want at least 2 runs a side, got 1"
    assert not found.excludes(1e9)
    assert not found.is_within(-1e9, 1e9)


@pytest.mark.parametrize("location", Location)
@pytest.mark.parametrize("is_paired", [True, False])
def test_no_scatter_is_said(location: Location, is_paired: bool) -> None:
    """Equal values on both sides: the interval is a point, and named; no warning, no NaN."""
    (found,) = estimate_differences(
        np.full(12, 0.1), np.full(12, 0.3), is_paired=is_paired, location=location
    )
    assert ends([found]) == pytest.approx((0.2, 0.2))
    assert found.method == "no scatter on either side"


def test_fallback_is_named() -> None:
    """
    Where all resamples lie on one side of the estimate, here because there is only one, BCa is not
    defined; percentiles are given, under their name.
    """
    (found,) = estimate_differences(FIRST, SECOND, location=Location.MEDIAN, resamples=1)
    assert found.method == "percentile bootstrap"
    assert ends([found])[0] == ends([found])[1]


def test_ties_do_not_need_the_fallback() -> None:
    """All of ten runs but one are equal: resamples that tie count half, and BCa is defined."""
    values = np.array([0.0, *[1.0] * 9])
    (found,) = estimate_differences(np.zeros(10), values, location=Location.MEDIAN)
    assert ends([found]) == (1.0, 1.0)
    assert found.method == BCA


@pytest.mark.parametrize("location", Location)
def test_interval_moves_with_the_data(location: Location) -> None:
    """Scaled and shifted data have the scaled interval: no unit is better than another."""
    (plain,) = estimate_differences(FIRST, SECOND, location=location)
    (scaled,) = estimate_differences(1000 * FIRST + 5, 1000 * SECOND + 5, location=location)
    assert ends([scaled]) == pytest.approx([1000 * end for end in ends([plain])])


def test_wilsons_interval() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, Statistics in Medicine 17, 857, table I)."""
    found = success_rate(81, 263)
    assert found.value == pytest.approx(81 / 263)
    assert ends([found]) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert ends([success_rate(0, 3)])[0] == 0.0


def test_newcombes_interval() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, 17, 873, table II, method 10)."""
    found = difference_of_rates(48, 80, 56, 70)
    assert found.value == pytest.approx(0.2)
    assert ends([found]) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_infinite_values_are_refused() -> None:
    """Failed runs have to be taken out first, and the message says so."""
    with pytest.raises(AnalysisError, match="take failed runs out first"):
        estimate_differences(np.array([1.0, np.inf]), np.array([1.0, 2.0]))
