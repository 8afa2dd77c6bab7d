"""
Next cells: found where there is something to gain, by hand, and never in noise.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from allele_mlflow.analysis.factor_model import MatrixRuns
from allele_mlflow.analysis.factors import estimate_effects
from allele_mlflow.analysis.next_cells import NextCells, NextKind, propose_cells
from allele_mlflow.analysis.next_levels import step_between, step_beyond
from allele_mlflow.units import Direction

HIGHER, LOWER = Direction.HIGHER, Direction.LOWER


def runs_of(cells: list[dict[str, Any]], blocks: list[list[float]]) -> MatrixRuns:
    """
    A block of all cells after another.
    """
    points = pd.DataFrame(cells * len(blocks), dtype="object")
    seeds = np.repeat(np.arange(len(blocks), dtype=np.float64), len(cells))
    values = np.concatenate([np.asarray(one, dtype=np.float64) for one in blocks])
    return MatrixRuns(points, pd.DataFrame({"y": values}), pd.Series(seeds))


def proposed(runs: MatrixRuns, direction: Direction = HIGHER) -> NextCells:
    """
    With the effects that are found of the runs.
    """
    return propose_cells(runs, estimate_effects(runs, {"y": direction}), "y", direction)


LINE = [{"x": level} for level in (1, 2, 3)]
#: Means 1, 2, 4; the rest of each run is 0.1 or -0.1 from its cell and seed.
RISING = [[0.9, 2.1, 4.0], [1.1, 1.9, 4.0], [1.0, 2.0, 4.0]]


def test_one_step_beyond_by_hand() -> None:
    """
    From 2 to 3 the metric grew by 2, so at 4 it is to be 6. Of the two levels only the first
    scatters: squares 0.02 over 4/3 degrees of freedom; the gain is the difference of their means.
    There are two ends at which a step could have been asked for.
    """
    (found,) = proposed(runs_of(LINE, RISING)).cells
    assert found.kind is NextKind.BEYOND
    assert (found.params, found.best, found.changed) == ({"x": 4}, {"x": 3}, ("x",))
    assert found.value.value == pytest.approx(6.0)
    assert found.gain.value == pytest.approx(2.0)
    student = stats.t.ppf(1 - 0.05 / 2 / 2, 4 / 3)
    assert found.gain.low == pytest.approx(2.0 - student * np.sqrt(0.015 / 3))
    assert found.support == (6, 2, 3, 0), "of the last two levels"


def test_less_is_better_at_the_other_end() -> None:
    """
    Where less is better the same runs lead below the lowest level, by ratio, to stay above zero;
    a gain is above zero all the same.
    """
    found = proposed(runs_of([{"x": x} for x in (1.0, 2.0, 3.0)], RISING), LOWER).cells
    assert [one.params for one in found] == [{"x": 0.5}]
    assert found[0].gain.value == pytest.approx(0.5), "half a step of -1"
    assert found[0].value.value == pytest.approx(0.5)


def test_top_of_the_parabola_by_hand() -> None:
    """
    Through (0, 0), (10, 30), (20, 20) it is y = 5x - x^2 / 5 with its top 31.25 at 12.5.
    """
    cells = [{"x": level} for level in (0.0, 10.0, 20.0)]
    (found,) = proposed(runs_of(cells, [[0.01, 30, 20], [0, 30.01, 20], [0, 30, 20.01]])).cells
    assert found.kind is NextKind.BETWEEN
    assert found.params["x"] == pytest.approx(12.5, abs=0.01)
    assert found.value.value == pytest.approx(31.25, abs=0.02)
    assert found.gain.value == pytest.approx(1.25, abs=0.02)


def test_untested_combination_that_should_be_best() -> None:
    """
    Of b = 2 the metric has 5 more, of a = 2 it has 3 more; the cell of both was never run.
    """
    cells = [{"a": "p", "b": "p"}, {"a": "q", "b": "p"}, {"a": "p", "b": "q"}]
    found = proposed(runs_of(cells, [[0.0, 3.1, 5.0], [0.1, 3.0, 5.0], [0.0, 3.0, 5.1]])).cells
    assert [(one.kind, one.params) for one in found] == [(NextKind.UNTESTED, {"a": "q", "b": "q"})]
    assert found[0].best == {"a": "p", "b": "q"}
    assert found[0].value.value == pytest.approx(8.0, abs=0.1)


def test_pair_that_acts_together_is_not_added_up() -> None:
    """
    Where two axes clearly act together, a pair that was never run is not predicted by adding.
    """
    cells = [{"a": a, "b": b} for a, b in product("pqr", "pqr") if (a, b) != ("r", "r")]
    means = {"pp": 0, "qq": -9, "pq": 5, "qp": 5, "pr": 6, "rp": 6}
    chance = np.random.default_rng(2)
    blocks = [
        [means.get(one["a"] + one["b"], 1) + 0.1 * chance.normal() for one in cells]
        for _ in range(4)
    ]
    found = proposed(runs_of(cells, blocks))
    assert all(one.kind is not NextKind.UNTESTED for one in found.cells)
    assert found.cells == ()


def test_levels_that_fail_are_not_recommended() -> None:
    """
    The highest level would be best of all, but two of its three runs failed: nothing leads there.
    """
    blocks = [[0.9, 2.1, np.nan], [1.1, 1.9, np.nan], [1.0, 2.0, 40.0]]
    found = proposed(runs_of(LINE, blocks))
    assert all(one.params["x"] != 4 for one in found.cells)


@pytest.mark.parametrize(("shape", "matrices"), [((5, 4), 200), ((2, 2), 400)])
def test_noise_is_never_a_reason(shape: tuple[int, int], matrices: int) -> None:
    """
    Of matrices of noise at least 95 % give "not enough evidence" and no cell.
    """
    cells = [{"a": a, "b": b} for a in range(1, 1 + shape[0]) for b in range(1, 1 + shape[1])]
    chance = np.random.default_rng(shape[0])
    silent = 0
    for _ in range(matrices):
        found = proposed(runs_of(cells, list(chance.normal(size=(3, len(cells))))))
        silent += not found.cells and found.reason.startswith("not enough evidence")
    assert silent >= 0.95 * matrices


def test_plateau_leads_nowhere() -> None:
    """
    The first level is five deviations worse, all others are the same: a clear effect, and yet in at
    most 5 % of 200 matrices a cell is recommended.
    """
    cells = [{"x": x} for x in (1, 2, 3, 4, 5)]
    chance = np.random.default_rng(13)
    means = np.array([0.0, 5.0, 5.0, 5.0, 5.0])
    found = [proposed(runs_of(cells, list(means + chance.normal(size=(5, 5))))) for _ in range(200)]
    assert sum(bool(one.cells) for one in found) <= 10


def test_what_is_there_is_found() -> None:
    """
    A slope of three deviations a level over five levels, five seeds: a step beyond is recommended
    in nearly all of 100 matrices.
    """
    cells = [{"x": x} for x in (1, 2, 3, 4, 5)]
    chance = np.random.default_rng(5)
    means = 3.0 * np.arange(5.0)
    found = [proposed(runs_of(cells, list(means + chance.normal(size=(5, 5))))) for _ in range(100)]
    assert sum(bool(one.cells) and one.cells[0].params == {"x": 6} for one in found) >= 85


def test_reasons_are_said() -> None:
    """
    Without a direction, and where nothing is clear, the nearest effect with its p.
    """
    flat = runs_of(LINE, [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
    assert proposed(flat).reason.startswith("not enough evidence: no effect is clear; the nearest")
    assert proposed(flat, Direction.NONE).reason == "which way is better is not known"


@pytest.mark.parametrize(
    ("levels", "place", "level", "weights"),
    [
        ([1, 2, 3], 2, 4, {3: 2.0, 2: -1.0}),
        ([50, 100, 200, 400], 3, 800, {400: 2.0, 200: -1.0}),
        ([0.1, 0.2, 0.3], 0, 0.05, {0.1: 1.5, 0.2: -0.5}),
        ([0.5, 0.8], 1, 1.0, {0.8: 5 / 3, 0.5: -2 / 3}),
        ([10, 20], 0, 5, {10: 1.5, 20: -0.5}),
        ([-1, 0, 1], 0, -2, {-1: 2.0, 0: -1.0}),
    ],
)
def test_steps_beyond(levels: list[Any], place: int, level: Any, weights: dict[Any, float]) -> None:
    """
    By difference, by ratio, never below zero where all is above, never past 1 where all is a part.
    """
    found = step_beyond(levels, place)
    assert found is not None
    assert found[0] == pytest.approx(level)
    assert found[1] == pytest.approx(weights)


@pytest.mark.parametrize(
    ("levels", "place"), [([0.5, 1.0], 1), ([1, 2, 3], 1), ([0.5, 0.75, 1.0], 2), ([1, 2], 0)]
)
def test_no_step_beyond(levels: list[Any], place: int) -> None:
    """
    From an inner level, past a part of 1, or below the least whole number above zero.
    """
    assert step_beyond(levels, place) is None


def test_no_top_between_neighbours() -> None:
    """
    At an end, without a bend, or where the top rounds to a level that was run.
    """
    assert step_between([1, 2, 3], [0.0, 1.0, 2.0], 2) is None
    assert step_between([1, 2, 3], [0.0, 1.0, 2.0], 1) is None
    assert step_between([1, 2, 3], [0.0, 1.0, 0.1], 1) is None
    assert step_between([1, 2, 3], [0.0, 1.0, float("nan")], 1) is None
