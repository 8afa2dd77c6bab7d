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


#: Cell means 1.5, 4, 5.5, 12; the second seed gives 1, 2, 1, 2 more.
BY_HAND = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11, 2, 5, 6, 13])


def by_term(effects: list[Effect]) -> dict[tuple[str, ...], Effect]:
    return {one.term: one for one in effects}


def test_two_by_two_by_hand() -> None:
    """
    Sums of squares 72 (a), 40.5 (b), 8 (a x b), 4.5 (seeds), and 0.5 left with three degrees of
    freedom, the same in each cell: F = 432, 243, 48; of all 125.5 + 1/6 each explains its own
    less 1/6.
    """
    found = by_term(estimate_effects(BY_HAND, HIGHER))
    wanted = {("a",): (432.0, 6.0, 72), ("b",): (243.0, 4.5, 40.5), ("a", "b"): (48.0, 4.0, 8)}
    assert set(found) == set(wanted)
    half = stats.t.ppf(0.975, 3) * np.sqrt(1 / 6 * (1 / 4 + 1 / 4))
    for term, (ratio, size, squares) in wanted.items():
        one = found[term]
        assert one.p_value == pytest.approx(stats.f.sf(ratio, 1, 3))
        assert one.size is not None
        assert one.size.value == pytest.approx(size)
        width = half if len(term) == 1 else 2 * half
        assert one.size.high == pytest.approx(size + width)
        assert one.variance_ratio == pytest.approx((squares - 1 / 6) / (125.5 + 1 / 6))
        assert one.support == (8, 4, 2, 0)
        assert one.is_clear
    assert found["a",].between == ((1, 2),)
    assert found["a", "b"].between == ((1, 2), (10, 20))
    p_values = [found[term].p_value or 0.0 for term in wanted]
    assert [found[term].p_holm for term in wanted] == pytest.approx(
        [3 * p_values[0], 2 * p_values[1], p_values[2]]
    )


def test_level_means_by_hand() -> None:
    """
    Means of the margins; of each level two cells with variance 1/6 and 3/4 degrees of freedom.
    """
    levels = by_term(estimate_effects(BY_HAND, HIGHER))["a",].levels
    assert [(one.level, one.runs) for one in levels] == [(1, 4), (2, 4)]
    assert [one.mean.value for one in levels] == pytest.approx([2.75, 8.75])
    low = levels[0].mean.low
    assert low == pytest.approx(2.75 - stats.t.ppf(0.975, 1.5) * np.sqrt(1 / 6 / 4))


def test_best_minus_worst_follows_the_direction() -> None:
    """
    Where less is better the size is below zero, from the worst level to the best.
    """
    found = by_term(estimate_effects(BY_HAND, {"y": Direction.LOWER}))["a",]
    assert found.size is not None
    assert found.size.value == pytest.approx(-6.0)
    assert found.between == ((2, 1),)


def test_blocks_take_the_seeds_out() -> None:
    """
    Seeds that lift all cells alike by 100 hide nothing; with seeds of every run's own they do.
    """
    lifted = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11, 102, 105, 106, 113])
    found = by_term(estimate_effects(lifted, HIGHER))["a",]
    assert found.p_value == pytest.approx(stats.f.sf(432.0, 1, 3))
    alone = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, 11, 102, 105, 106, 113], seeds=8)
    one = by_term(estimate_effects(alone, HIGHER))["a",]
    assert not alone.is_blocked
    assert one.support.seeds == 0
    assert one.p_value is not None
    assert one.p_value > 0.5


def test_two_levels_are_welchs_test() -> None:
    """
    Without matched seeds: SciPy's p-value and interval, though one level scatters ten times as far.
    """
    first, second = np.random.default_rng(3).normal([[0.0], [3.0]], [[0.5], [5.0]], size=(2, 6))
    values = list(np.stack([first, second], axis=1).ravel())
    (found,) = estimate_effects(matrix({"a": ["x", "y"]}, values, seeds=12), HIGHER)
    wanted = stats.ttest_ind(second, first, equal_var=False)
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.size is not None
    assert found.size.low == pytest.approx(wanted.confidence_interval().low)


def test_two_levels_of_matched_seeds_are_the_paired_t_test() -> None:
    """
    SciPy's p-value and interval.
    """
    values = np.random.default_rng(4).normal([0.0, 1.0], size=(7, 2))
    values += 10 * np.random.default_rng(5).normal(size=(7, 1))
    (found,) = estimate_effects(matrix({"a": ["x", "y"]}, list(values.ravel())), HIGHER)
    wanted = stats.ttest_rel(values[:, 1], values[:, 0])
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.size is not None
    assert abs(found.size.value) == pytest.approx(abs(np.diff(values.mean(axis=0))[0]))
    assert found.support == (14, 2, 7, 0)


def test_three_levels_by_hand() -> None:
    """
    Variances 1, 4, 7 of three runs each around 2, 4, 9: the sum of squares 78 against the 8 that
    chance gives (2/3 of the variances), with 4.86 degrees of freedom below and 1.71 above.
    """
    cells = [[1.0, 2, 3], [2.0, 4, 6], [9 - np.sqrt(7), 9, 9 + np.sqrt(7)]]
    values = list(np.array(cells).T.ravel())
    (found,) = estimate_effects(matrix({"a": ["x", "y", "z"]}, values, seeds=9), HIGHER)
    weights = np.diag([1.0, 4.0, 7.0])
    spread = (np.eye(3) - 1 / 3) @ weights
    above = np.trace(spread) ** 2 / np.trace(spread @ spread)
    below = 12**2 / ((1 + 16 + 49) / 2)
    assert found.p_value == pytest.approx(stats.f.sf(78 / 8, above, below))


def test_failed_runs_are_counted_and_left_out() -> None:
    """
    The cell of which a run failed has its other run; what is said is of seven runs.
    """
    runs = matrix({"a": [1, 2], "b": [10, 20]}, [1, 3, 5, np.nan, 2, 5, 6, 13])
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


@pytest.mark.parametrize("kind", ["normal", "skewed", "uneven"])
def test_nothing_is_called_clear_where_nothing_is(kind: str) -> None:
    """
    Over 200 matrices of noise, of 4 x 3 cells and three seeds, one effect or more is called clear
    in as many as alpha allows: at most the 99 % point of 200 throws at 5 %. Also where noise is
    log-normal, or four times as large at the last level as at the first.
    """
    chance = np.random.default_rng(11)
    uneven = np.tile(np.repeat([1.0, 2.0, 3.0, 4.0], 3), 3)
    wrong = 0
    for _ in range(200):
        noise = chance.normal(size=36)
        values = {"normal": noise, "skewed": np.exp(noise), "uneven": uneven * noise}[kind]
        runs = matrix({"a": [1, 2, 3, 4], "b": [1, 2, 3]}, list(values))
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
    assert model.value(row) == pytest.approx(11.0)


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
