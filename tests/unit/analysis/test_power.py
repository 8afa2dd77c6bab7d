"""
What a design can show: the smallest p-values of published tables, and power held against simulated
tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.differences import permutation_tests
from allele_mlflow.analysis.power import (
    Design,
    past_deviation,
    runs_for_power,
    runs_to_reach,
)
from allele_mlflow.errors import AnalysisError, TooFewPointsError


@pytest.mark.parametrize(
    ("runs", "hypotheses", "is_paired", "is_reachable"),
    [
        (3, 1, False, False),  # 0.1: Allele's default of three runs can never be significant
        (4, 1, False, True),  # 0.029
        (5, 1, True, False),  # 0.0625
        (6, 1, True, True),  # 0.031
        (5, 20, False, False),  # 20 * 0.0079
        (6, 20, False, True),  # 20 * 0.0022 = 0.043
        (6, 2, True, False),
    ],
)
def test_design_knows_what_it_cannot_show(
    runs: int, hypotheses: int, is_paired: bool, is_reachable: bool
) -> None:
    """The smallest p times the hypotheses, against 0.05."""
    assert Design(runs, hypotheses, is_paired=is_paired).is_reachable is is_reachable


@pytest.mark.parametrize(
    ("hypotheses", "is_paired", "runs"),
    [
        (1, False, 4),
        (20, False, 6),
        (1, True, 6),
        (20, True, 10),
        (400, False, 9),
        (5000, True, None),
    ],
)
def test_runs_to_reach(hypotheses: int, is_paired: bool, runs: int | None) -> None:
    """
    Twenty cells need six runs a side, or ten pairs (20 * 2 / 2^10 = 0.039); 99,999 random
    arrangements are too few for five thousand hypotheses.
    """
    assert runs_to_reach(hypotheses, is_paired=is_paired) == runs


def test_alpha_is_lowered_to_a_p_value_that_exists() -> None:
    """Four against four: p comes in steps of 2/70, and one of them is below 0.05."""
    assert Design(4).attainable_alpha == pytest.approx(2 / 70)
    assert Design(3).attainable_alpha == 0.0
    assert Design(10).attainable_alpha == pytest.approx(0.05, abs=2e-5)


@pytest.mark.parametrize(
    ("runs", "effect", "is_paired"),
    [(5, 2.0, False), (8, 1.0, False), (8, 1.5, False), (7, 1.5, True), (10, 1.0, True)],
)
def test_power_is_that_of_simulated_tests(runs: int, effect: float, is_paired: bool) -> None:
    """
    Four thousand data sets with a true difference: permutation tests find as many as was said,
    within 0.03 (their own error is 0.008; the rest is that they are not quite Student's).
    """
    chance = np.random.default_rng(runs)
    first, second = chance.normal(size=(2, runs, 4000)) / (np.sqrt(2) if is_paired else 1)
    found = permutation_tests(first, second + effect, is_paired=is_paired)
    seen = np.mean([one.p_value < 0.05 for one in found])
    assert Design(runs, is_paired=is_paired).power(effect) == pytest.approx(seen, abs=0.03)


def test_power_at_many_runs_is_a_textbooks() -> None:
    """Cohen 1988, table 2.3.5: d = 0.5 with 64 a side has power 0.80 at two-sided 0.05."""
    assert Design(64).power(0.5) == pytest.approx(0.80, abs=0.005)
    assert runs_for_power(0.5) == 64
    assert runs_for_power(0.5, is_paired=True) == 34  # Cohen 1988: 34 pairs at d = 0.5
    assert Design(64).detectable_effect() == pytest.approx(0.5, abs=0.005)


def test_detectable_effect_has_its_power() -> None:
    """Found again by what it was computed from; more hypotheses need a larger one."""
    design = Design(10, hypotheses=40)
    effect = design.detectable_effect(0.9)
    assert effect is not None
    assert design.power(effect) == pytest.approx(0.9)
    single = Design(10).detectable_effect(0.9)
    assert single is not None
    assert effect > single
    assert Design(3).detectable_effect() is None
    assert Design(6).detectable_effect(0.01) == 0.0


@pytest.mark.parametrize("effect", [0.0, 0.3, 2.0, -2.0, 60.0, 900.0])
def test_power_is_a_probability(effect: float) -> None:
    """Also where SciPy's distribution ends; the sign of an effect does not matter."""
    power = Design(9).power(effect)
    assert 0.0 < power <= 1.0
    assert power == Design(9).power(-effect)


def test_some_effects_are_never_found() -> None:
    """No number of runs finds a difference of nothing."""
    assert runs_for_power(0.0) is None
    assert runs_for_power(1e-3) is None


def test_fewest_runs_are_the_fewest() -> None:
    """One run less has less than the power that was asked for."""
    runs = runs_for_power(1.2, 20, power=0.9)
    assert runs is not None
    assert Design(runs, 20).power(1.2) >= 0.9 > Design(runs - 1, 20).power(1.2)


def test_past_deviation_is_pooled() -> None:
    """By hand: squares 2 and 8 around their own means, with 2 and 1 degrees of freedom."""
    groups: list[Any] = [[1, 2, 3], [10, 14], [5], [np.nan, np.inf]]
    assert past_deviation(groups) == pytest.approx(np.sqrt((2 + 8) / 3))
    with pytest.raises(TooFewPointsError, match="1 cells, none with two values"):
        past_deviation([[5.0]])


def test_normal_quantile_is_the_limit() -> None:
    """With very many runs Student's power is the normal one."""
    expected = stats.norm.cdf(0.05 * np.sqrt(4000 / 2) - stats.norm.ppf(0.975))
    assert Design(4000).power(0.05) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Design(0), "runs=0: want at least 1"),
        (lambda: Design(3, hypotheses=-1), "hypotheses=-1: want at least 1"),
        (lambda: Design(3, alpha=5.0), "alpha=5: want a number between 0 and 1"),
        (lambda: Design(9).detectable_effect(1.0), "power=1: want a number between 0 and 1"),
    ],
)
def test_bad_designs_are_refused(call: Any, words: str) -> None:
    """Numbers that no design has."""
    with pytest.raises(AnalysisError, match=words):
        call()
