"""
Effects of a matrix: a 2 x 2 design by hand, another program's figures, and what cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from allele_mlflow.analysis.factor_model import FactorModel, MatrixRuns, scheffe_factor
from allele_mlflow.analysis.factors import Effect, estimate_effects
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction

HIGHER = {"y": Direction.HIGHER}


def matrix(
    axes: Mapping[str, Sequence[Any]], values: Sequence[float], *, seeds: int | None = None
) -> MatrixRuns:
    """
    A complete matrix, one block after another, cells in the order of their product.
    """
    cells = list(product(*axes.values()))
    blocks = len(values) // len(cells)
    points = pd.DataFrame(cells * blocks, columns=list(axes), dtype="object")
    numbers = np.repeat(np.arange(blocks, dtype=np.float64), len(cells))
    told = pd.Series(numbers if seeds is None else np.arange(len(values)) % seeds)
    return MatrixRuns(points, pd.DataFrame({"y": np.asarray(values, dtype=np.float64)}), told)


#: Cell means 1.5, 3.5, 6.5, 11.5; the second seed gives 1, 1, 3, 1 more.
BY_HAND = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11, 2, 4, 8, 12])


def by_term(effects: list[Effect]) -> dict[tuple[str, ...], Effect]:
    return {one.term: one for one in effects}


def test_two_by_two_by_hand() -> None:
    """
    Sums of squares 84.5 (a), 24.5 (b), 4.5 (a x b), 4.5 (seeds), and 1.5 left with three degrees of
    freedom: F = 169, 49, 9; of all 119.5 + 0.5 the effects explain 84, 24, 4.
    """
    found = by_term(estimate_effects(BY_HAND, HIGHER))
    wanted = {("a",): (169.0, 6.5, 84), ("b",): (49.0, 3.5, 24), ("a", "b"): (9.0, 3.0, 4)}
    assert set(found) == set(wanted)
    half = stats.t.ppf(0.975, 3) * np.sqrt(0.5 * (1 / 4 + 1 / 4))
    for term, (ratio, size, share) in wanted.items():
        one = found[term]
        assert one.p_value == pytest.approx(stats.f.sf(ratio, 1, 3))
        assert one.size is not None
        assert one.size.value == pytest.approx(size)
        width = half if len(term) == 1 else 2 * half
        assert one.size.high == pytest.approx(size + width)
        assert one.variance_ratio == pytest.approx(share / 120)
        assert one.support == (8, 4, 2, 0)
    assert found["a",].between == ((1, 2),)
    assert found["a", "b"].between == ((1, 2), (10, 20))
    p_values = [found[term].p_value or 0.0 for term in wanted]
    assert [found[term].p_holm for term in wanted] == pytest.approx(
        [3 * p_values[0], 2 * p_values[1], p_values[2]]
    )
    assert [found[term].is_clear for term in wanted] == [True, True, False]
    assert found["a", "b"].reason == "p = 0.058 after Holm over 3 hypotheses"


def test_level_means_by_hand() -> None:
    """
    Means of the margins, with the scatter between runs of one cell: 0.5 / 4 each.
    """
    levels = by_term(estimate_effects(BY_HAND, HIGHER))["a",].levels
    assert [(one.level, one.runs) for one in levels] == [(1, 4), (2, 4)]
    assert [one.mean.value for one in levels] == pytest.approx([2.5, 9.0])
    low = levels[0].mean.low
    assert low == pytest.approx(2.5 - stats.t.ppf(0.975, 3) * np.sqrt(0.5 / 4))


def test_best_minus_worst_follows_the_direction() -> None:
    """
    Where less is better the size is below zero, from the worst level to the best.
    """
    found = by_term(estimate_effects(BY_HAND, {"y": Direction.LOWER}))["a",]
    assert found.size is not None
    assert found.size.value == pytest.approx(-6.5)
    assert found.between == ((2, 1),)


def test_blocks_take_the_seeds_out() -> None:
    """
    Seeds that lift all cells alike by 100 hide nothing; with seeds of every run's own they do.
    """
    lifted = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11, 102, 104, 108, 112])
    found = by_term(estimate_effects(lifted, HIGHER))["a",]
    assert found.p_value == pytest.approx(stats.f.sf(169.0, 1, 3))
    alone = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11, 102, 104, 108, 112], seeds=8)
    one = by_term(estimate_effects(alone, HIGHER))["a",]
    assert not alone.is_blocked
    assert one.support.seeds == 0
    assert one.p_value is not None
    assert one.p_value > 0.5


def test_single_axis_is_one_way_analysis_of_variance() -> None:
    """
    Without matched seeds one axis of three levels has the F test that SciPy has.
    """
    values = np.random.default_rng(3).normal([0.0, 0.5, 1.0], size=(5, 3))
    runs = matrix({"a": ["x", "y", "z"]}, list(values.ravel()), seeds=15)
    (found,) = estimate_effects(runs, HIGHER)
    assert found.p_value == pytest.approx(stats.f_oneway(*values.T).pvalue)


def test_failed_runs_are_counted_and_left_out() -> None:
    """
    The cell of which a run failed has its other run; what is said is of seven runs.
    """
    runs = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, np.nan, 2, 4, 8, 12])
    found = by_term(estimate_effects(runs, HIGHER))["a",]
    assert found.support == (7, 4, 2, 1)
    assert found.p_value is not None


def test_one_run_a_cell_is_not_enough() -> None:
    """
    Without repeats how far runs scatter is not known, and nothing is clear.
    """
    runs = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11])
    for one in estimate_effects(runs, HIGHER):
        assert not one.is_clear
        assert one.p_value is None
        assert one.reason == "one run a cell: how far runs scatter is not known"


def test_axes_that_go_together_are_not_told_apart() -> None:
    """
    Of two axes with the same levels in every run neither has an effect of its own.
    """
    runs = matrix({"a": [1, 2]}, [1, 5, 2, 6, 1, 7])
    both = MatrixRuns(runs.points.assign(b=runs.points["a"] * 10), runs.values, runs.seeds)
    for one in estimate_effects(both, HIGHER):
        assert not one.is_clear
        assert "no run tells them apart" in one.reason


def test_no_scatter_at_all_is_certain() -> None:
    """
    A benchmark that always gives the same: what differs does so with p = 0, what does not with 1.
    """
    runs = matrix({"a": [1, 2], "b": [10, 20]}, [0.1, 0.1, 0.3, 0.3] * 3)
    found = by_term(estimate_effects(runs, HIGHER))
    assert found["a",].p_value == 0.0
    assert found["b",].p_value == 1.0
    assert found["a",].is_clear


def test_nothing_is_called_clear_where_nothing_is() -> None:
    """
    Over 200 matrices of noise, of 4 x 3 cells and three seeds, one effect or more is called clear
    in as many as alpha allows: at most the 99 % point of 200 throws at 5 %.
    """
    chance = np.random.default_rng(11)
    wrong = 0
    for _ in range(200):
        runs = matrix({"a": [1, 2, 3, 4], "b": [1, 2, 3]}, list(chance.normal(size=36)))
        wrong += any(one.is_clear for one in estimate_effects(runs, HIGHER))
    assert wrong <= stats.binom.ppf(0.99, 200, 0.05)


def test_scheffe_is_student_in_one_dimension() -> None:
    """
    And wider in more, as the F distribution says.
    """
    assert scheffe_factor(1, 7, 0.95) == pytest.approx(stats.t.ppf(0.975, 7))
    assert scheffe_factor(3, 7, 0.95) == pytest.approx(np.sqrt(3 * stats.f.ppf(0.95, 3, 7)))


def test_unknown_cells_have_no_row() -> None:
    """
    Of a level that no run had, nothing is said.
    """
    model = FactorModel(BY_HAND, "y", [("a",), ("b",)])
    assert model.row({"a": 3, "b": 10}) is None
    row = model.row({"a": 2, "b": 20})
    assert row is not None
    assert model.value(row) == pytest.approx(10.75)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (matrix({"a": [1]}, [1, 2]), "every run has the same parameters"),
        (matrix({"a": [1, 2]}, [np.nan] * 4), "no run has a value of 'y'"),
    ],
)
def test_what_is_no_matrix_is_refused(runs: MatrixRuns, words: str) -> None:
    """
    Runs that differ in nothing, or measured nothing.
    """
    with pytest.raises(AnalysisError, match=words):
        estimate_effects(runs, HIGHER)
