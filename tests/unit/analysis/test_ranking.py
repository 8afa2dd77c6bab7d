"""
Friedman's test, critical differences and pairs: published tables, SciPy, and hand-made rankings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.ranking import critical_difference, friedman_test, rank_configurations
from allele_mlflow.errors import AnalysisError, TooFewPointsError
from allele_mlflow.units import Direction

UP = Direction.HIGHER
NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("configurations", "quantile"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)],
)
def test_critical_values_are_demsars(configurations: int, quantile: float) -> None:
    """Demsar 2006, table 5 (a), two-tailed Nemenyi at 0.05."""
    width = np.sqrt(configurations * (configurations + 1) / (6 * 14))
    assert critical_difference(configurations, 14) == pytest.approx(quantile * width, abs=1.1e-3)


def test_critical_difference_of_demsars_example() -> None:
    """Four classifiers on fourteen data sets: 1.25 (section 3.2.2)."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(
    ("ranks", "p_value"),
    [
        # Friedman 1937, table V: three ranks, four rows; chi-square 8.0, 6.5 and 0.
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]], 0.0046),
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 3, 2]], 0.042),
        ([[1, 2, 3], [3, 2, 1], [1, 2, 3], [3, 2, 1]], 1.0),
    ],
)
def test_small_friedman_is_exact(ranks: list[list[float]], p_value: float) -> None:
    """The exact probabilities that Friedman tabulated."""
    found = friedman_test(np.array(ranks, dtype=float))
    assert found.p_value == pytest.approx(p_value, abs=5e-4)
    assert (found.is_exact, found.sample_count) == (True, 4)


def test_large_friedman_agrees_with_scipy() -> None:
    """Thirty problems, where SciPy's chi-square is good."""
    scores = np.random.default_rng(4).normal(size=(30, 4)) + np.array([0, 0, 0, 0.5])
    found = friedman_test(stats.rankdata(scores, axis=1), arrangements=20_000)
    assert not found.is_exact
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue, abs=0.01)


def test_clear_order_is_found() -> None:
    """Ten problems that agree: the order, whole ranks, all pairs apart after Holm."""
    scores = np.arange(10.0)[:, np.newaxis] + np.array([0.1, 0.4, 0.2, 0.3])
    found = rank_configurations(scores, NAMES, UP)
    assert found.names == ("b", "d", "c", "a")
    assert list(found.mean_ranks) == [1, 2, 3, 4]
    assert [pair.p_holm for pair in found.pairs] == pytest.approx([6 * 2 / 2**10] * 6)
    assert all(pair.is_different for pair in found.pairs)
    assert [(pair.better, pair.worse) for pair in found.pairs][:3] == [
        ("b", "d"),
        ("b", "c"),
        ("b", "a"),
    ]


def test_lower_turns_the_order() -> None:
    """With the direction, best becomes worst."""
    scores = np.arange(10.0)[:, np.newaxis] + np.array([0.1, 0.4, 0.2, 0.3])
    assert rank_configurations(scores, NAMES, Direction.LOWER).names == ("a", "c", "d", "b")


def test_groups_are_within_the_critical_difference() -> None:
    """
    Mean ranks 1, 2, 3, 4 over ten problems, where 1.48 separates: neighbours share a bar; over
    two problems, where 3.32 does, all do.
    """
    scores = np.arange(10.0)[:, np.newaxis] + np.array([4, 3, 2, 1])
    assert rank_configurations(scores, NAMES, UP).groups == (("a", "b"), ("b", "c"), ("c", "d"))
    few = rank_configurations(scores[:2], NAMES, UP)
    assert few.groups == (NAMES,)
    assert not any(pair.is_different for pair in few.pairs)


def test_equal_configurations_tie() -> None:
    """All the same everywhere: one rank, p = 1, nothing differs."""
    found = rank_configurations(np.ones((5, 3)), NAMES[:3], UP)
    assert list(found.mean_ranks) == [2, 2, 2]
    assert found.friedman.p_value == 1.0
    assert {pair.p_holm for pair in found.pairs} == {1.0}
    assert found.groups == (NAMES[:3],)


def test_pairs_need_friedman() -> None:
    """Of pure noise over twelve problems no pair is called different in 95 of 100."""
    chance = np.random.default_rng(9)
    noise = [
        rank_configurations(chance.normal(size=(12, 4)), NAMES, UP, arrangements=499)
        for _ in range(100)
    ]
    assert sum(any(pair.is_different for pair in found.pairs) for found in noise) <= 9


def test_configuration_without_a_score_ranks_last() -> None:
    """NaN is worse than any number, in both directions, and two of them tie."""
    scores = np.tile([1.0, 2.0, np.nan, np.nan], (6, 1))
    for direction in (Direction.HIGHER, Direction.LOWER):
        found = rank_configurations(scores, NAMES, direction)
        assert found.names[2:] == ("c", "d")
        assert list(found.mean_ranks) == [1, 2, 3.5, 3.5]
        last = found.pairs[-1]
        assert (last.better, last.worse, last.p_value) == ("c", "d", 1.0)


@pytest.mark.parametrize(
    ("scores", "names", "direction", "error", "words"),
    [
        (np.ones((5, 2)), "ab", UP, TooFewPointsError, "2 configurations on 5 problems"),
        (np.ones((1, 3)), "abc", UP, TooFewPointsError, "3 configurations on 1 problems"),
        (np.ones((5, 3)), "ab", UP, AnalysisError, r"got shape \(5, 3\) and 2 names"),
        (np.ones((5, 3)), "abc", Direction.NONE, AnalysisError, "want 'higher' or 'lower'"),
    ],
)
def test_what_cannot_be_ranked_says_why(
    scores: Any, names: str, direction: Direction, error: type[Exception], words: str
) -> None:
    """Too few of either, names that do not fit, no direction."""
    with pytest.raises(error, match=words):
        rank_configurations(scores, tuple(names), direction)
