"""
Permutation and rank tests: published p-values, SciPy's, and data that have nothing to test.
"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.differences import (
    Significance,
    permutation_tests,
    rank_tests,
    smallest_p_value,
)
from allele_mlflow.analysis.locations import Location
from allele_mlflow.errors import AnalysisError, TooFewPointsError

CHANCE = np.random.default_rng(11)
FIRST = CHANCE.normal(size=6)
SECOND = CHANCE.normal(size=7) + 1.0
PAIR = CHANCE.normal(size=6) + 0.7
#: Heights of cross- and self-fertilised maize in eighths of an inch, Darwin 1876, as differences;
#: Fisher 1935, The Design of Experiments, section 21: 863 + 863 of 2^15 sums reach what was seen.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)


def one(found: list[Significance]) -> Significance:
    """
    The only one.
    """
    (only,) = found
    return only


def by_scipy(location: Location, *, is_paired: bool) -> float:
    """
    SciPy's permutation test over all arrangements.
    """
    centre: Any = {
        Location.MEAN: np.mean,
        Location.MEDIAN: np.median,
        Location.IQM: lambda values, axis: stats.trim_mean(values, 0.25, axis=axis),
    }[location]
    if is_paired:
        found = stats.permutation_test(
            (PAIR - FIRST,),
            lambda values, axis: centre(values, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        )
    else:
        found = stats.permutation_test(
            (SECOND, FIRST),
            lambda high, low, axis: centre(high, axis=axis) - centre(low, axis=axis),
            vectorized=True,
            n_resamples=np.inf,
        )
    return float(found.pvalue)


@pytest.mark.parametrize("location", Location)
def test_permutation_agrees_with_scipy(location: Location) -> None:
    """All 1,716 splits of six and seven values, of unequal sizes on purpose."""
    found = one(permutation_tests(FIRST, SECOND, location=location))
    assert found.p_value == pytest.approx(by_scipy(location, is_paired=False))
    assert (found.is_exact, found.sample_count) == (True, 13)
    assert found.method == f"permutation test of the {location}"


@pytest.mark.parametrize("location", Location)
def test_sign_flips_agree_with_scipy(location: Location) -> None:
    """All 64 choices of six signs."""
    found = one(permutation_tests(FIRST, PAIR, is_paired=True, location=location))
    assert found.p_value == pytest.approx(by_scipy(location, is_paired=True))
    assert (found.is_exact, found.sample_count) == (True, 6)


def test_fishers_count_of_darwins_maize() -> None:
    """
    Fisher counted 1,726 of 32,768; that is more than are tried one by one, and the random ones
    come within three standard errors of it.
    """
    found = one(permutation_tests(np.zeros(15), DARWIN, is_paired=True))
    error = (1726 / 32768 / 99_999) ** 0.5
    assert found.p_value == pytest.approx(1726 / 32768, abs=2 * 3 * error)
    assert not found.is_exact


def test_random_arrangements_never_give_zero() -> None:
    """The arrangement that was seen counts: two sides that do not overlap have 2 / (N + 1)."""
    sides = np.arange(30.0), np.arange(30.0) + 100
    found = one(permutation_tests(*sides, arrangements=999))
    assert found.p_value == pytest.approx(2 / 1000)
    assert found.p_value == smallest_p_value(30, 30, is_paired=False, arrangements=999)


@pytest.mark.parametrize(
    ("count", "p_value"), [(3, 0.1), (4, 2 / 70), (5, 2 / 252), (6, 2 / 924), (8, 2 / 12870)]
)
def test_smallest_p_without_pairs(count: int, p_value: float) -> None:
    """2 / C(2n, n): 0.10, 0.029, 0.0079, 0.0022; sides that do not overlap reach it."""
    assert smallest_p_value(count, count, is_paired=False) == pytest.approx(p_value)
    sides = np.arange(float(count)), np.arange(count) + 50.0
    for found in (permutation_tests(*sides), rank_tests(*sides)):
        assert one(found).p_value == pytest.approx(p_value)


@pytest.mark.parametrize(("count", "p_value"), [(1, 1.0), (5, 0.0625), (6, 0.03125), (8, 1 / 128)])
def test_smallest_p_of_pairs(count: int, p_value: float) -> None:
    """2 / 2^n; pairs that all differ the same way reach it."""
    assert smallest_p_value(count, count, is_paired=True) == p_value
    sides = np.zeros(count), np.arange(count) + 1.0
    for found in (permutation_tests(*sides, is_paired=True), rank_tests(*sides, is_paired=True)):
        assert one(found).p_value == pytest.approx(p_value)


def test_column_does_not_know_its_neighbours() -> None:
    """A table's columns have the p-values that each has alone, also where splits are random."""
    sides = CHANCE.normal(size=(12, 3)), CHANCE.normal(size=(14, 3))
    together = permutation_tests(*sides, arrangements=500, location=Location.MEDIAN)
    alone = [
        one(permutation_tests(*pair, arrangements=500, location=Location.MEDIAN))
        for pair in zip(sides[0].T, sides[1].T, strict=True)
    ]
    assert together == alone


def test_ranks_agree_with_scipy_without_ties() -> None:
    """Mann-Whitney's and Wilcoxon's exact distributions are SciPy's, at sizes past permuting."""
    first, second = CHANCE.normal(size=20), CHANCE.normal(size=20) + 0.5
    found = one(rank_tests(first, second))
    assert (found.is_exact, found.sample_count) == (True, 40)
    assert found.p_value == stats.mannwhitneyu(first, second, method="exact").pvalue
    pairs = one(rank_tests(first, second, is_paired=True))
    assert pairs.p_value == stats.wilcoxon(second - first, method="exact").pvalue
    assert (pairs.is_exact, pairs.sample_count) == (True, 20)


def test_tied_ranks_are_permuted() -> None:
    """
    1, 2, 2 against 2, 3, 3: ranks 1, 3, 3 and 3, 5.5, 5.5. Three of 20 splits reach the sum of 14,
    both 5.5 and one of three 3, so p = 2 * 3 / 20.
    """
    found = one(rank_tests(np.array([1.0, 2, 2]), np.array([2.0, 3, 3])))
    assert found.p_value == pytest.approx(2 * 3 / 20)
    assert found.is_exact
    assert found.method == "Mann-Whitney test, ranks permuted"


def test_differences_of_zero_count_for_neither() -> None:
    """
    0, 0, 1, 2, 3, 4 (ranks 1.5, 1.5, 3, 4, 5, 6, the zeros without a sign): 4 of 64 choices of
    signs reach the sum of 18, so p = 2 * 4 / 64.
    """
    found = one(rank_tests(np.zeros(6), np.array([0.0, 0, 1, 2, 3, 4]), is_paired=True))
    assert found.p_value == pytest.approx(2 * 4 / 64)


@pytest.mark.parametrize("is_paired", [True, False])
def test_equal_values_differ_in_nothing(is_paired: bool) -> None:
    """Where all values are the same p is 1; rounding does not make arrangements differ."""
    sides = np.full(7, 0.1), np.full(7, 0.1)
    assert one(permutation_tests(*sides, is_paired=is_paired)).p_value == 1.0
    assert one(rank_tests(*sides, is_paired=is_paired)).p_value == 1.0


def test_ties_hold_under_rounding() -> None:
    """Tenths, whose sums round differently, have the p-value of whole numbers."""
    first, second = CHANCE.integers(0, 4, size=7) * 1.0, CHANCE.integers(1, 5, size=7) * 1.0
    whole = one(permutation_tests(first, second))
    assert one(permutation_tests(first * 0.1 + 1e6, second * 0.1 + 1e6)).p_value == whole.p_value
    assert whole.p_value * comb(14, 7) == pytest.approx(round(whole.p_value * comb(14, 7)))


@pytest.mark.parametrize(
    ("first", "second", "is_paired", "error", "words"),
    [
        ([], [1.0], False, TooFewPointsError, "0 and 1 values: want at least one on each side"),
        ([1.0, np.nan], [1.0], False, AnalysisError, "got nan among the values"),
        ([1.0, np.inf], [1.0], False, AnalysisError, "got inf among the values"),
        ([1.0, 2.0], [1.0], True, AnalysisError, r"pairs: got shapes \(2, 1\) and \(1, 1\)"),
        ([[1.0, 2.0]], [1.0], False, AnalysisError, "want as many columns"),
        ([[[1.0]]], [1.0], False, AnalysisError, "got 3 dimensions"),
    ],
)
def test_what_cannot_be_tested_says_why(
    first: list[float], second: list[float], is_paired: bool, error: type[Exception], words: str
) -> None:
    """Empty sides, values that are none, and shapes that do not fit."""
    with pytest.raises(error, match=words):
        permutation_tests(np.array(first), np.array(second), is_paired=is_paired)
