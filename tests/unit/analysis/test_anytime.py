"""
Best so far, hitting times, ERT and ECDF by hand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from allele_mlflow.analysis.anytime import (
    SearchRun,
    area_under,
    best_so_far,
    expected_running_time,
    hitting_time,
    runtime_distribution,
)
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction

UP, DOWN = Direction.HIGHER, Direction.LOWER


def search(evaluations: list[float], values: list[float]) -> SearchRun:
    """
    A run as it comes from a history.
    """
    return SearchRun(np.array(evaluations), np.array(values))


RUN = search([10, 20, 30, 40], [1.0, 3.0, 2.0, 4.0])
SLOW = search([10, 20, 30, 40], [0.0, 1.0, 1.0, 2.0])


def test_best_so_far_never_falls() -> None:
    """A worse value later changes nothing; nor does one that is missing."""
    assert best_so_far(RUN, UP).tolist() == [1, 3, 3, 4]
    assert best_so_far(RUN, DOWN).tolist() == [1, 1, 1, 1]
    holes = best_so_far(search([1, 2, 3], [math.nan, 5.0, math.nan]), UP)
    assert np.isnan(holes[0])
    assert holes[1:].tolist() == [5, 5]


def test_area_is_the_mean_of_the_best_so_far() -> None:
    """
    By hand, worst 0 and best 4: nothing for 10 evaluations, 1/4 for 10, 3/4 for 20, of 40; with a
    budget of 80, 4/4 for the 40 that follow.
    """
    assert area_under(RUN, UP, worst=0, best=4) == pytest.approx((10 * 0.25 + 20 * 0.75) / 40)
    longer = area_under(RUN, UP, worst=0, best=4, budget=80)
    assert longer == pytest.approx((10 * 0.25 + 20 * 0.75 + 40) / 80)
    shorter = area_under(RUN, UP, worst=0, best=4, budget=25)
    assert shorter == pytest.approx((10 * 0.25 + 5 * 0.75) / 25)


def test_area_of_minimising_is_its_mirror() -> None:
    """The same search with the sign turned has the same area."""
    mirrored = search([10, 20, 30, 40], [-1.0, -3.0, -2.0, -4.0])
    expected = area_under(RUN, UP, worst=0, best=4)
    assert area_under(mirrored, DOWN, worst=0, best=-4) == pytest.approx(expected)


def test_area_stays_between_its_bounds() -> None:
    """What is better than best counts 1, worse than worst 0, missing as worst."""
    beyond = search([1, 2, 3], [math.nan, -50.0, 50.0])
    assert area_under(beyond, UP, worst=0, best=1, budget=4) == pytest.approx(1 / 4)


def test_area_of_a_budget_that_ends_with_the_first_value() -> None:
    """It is that value's; worst where it is missing, or comes later than the budget ends."""
    assert area_under(RUN, UP, worst=0, best=4, budget=10) == 0.25
    assert area_under(RUN, UP, worst=0, best=4, budget=9) == 0
    assert area_under(search([1], [math.nan]), UP, worst=0, best=1) == 0


def test_hitting_time_is_the_first() -> None:
    """The first point at or past the target; None where there is none."""
    assert hitting_time(RUN, 3.0, UP) == 20
    assert hitting_time(RUN, 3.5, UP) == 40
    assert hitting_time(RUN, 4.5, UP) is None
    assert hitting_time(RUN, 1.0, DOWN) == 10


def test_ert_counts_what_failures_cost() -> None:
    """One of two runs reaches 3, after 20; the other used 40 in vain: ERT = (20 + 40) / 1."""
    assert expected_running_time([RUN, SLOW], 3.0, UP) == 60
    assert expected_running_time([RUN, SLOW], 1.0, UP) == (10 + 20) / 2
    assert expected_running_time([RUN, SLOW], 9.0, UP) == math.inf


def test_ecdf_is_over_runs_and_targets() -> None:
    """Two runs, two targets: 1 after 10 and 20, 3 after 20, and never by the slow one."""
    frame = runtime_distribution([RUN, SLOW], [1.0, 3.0], UP)
    assert frame["evaluations"].tolist() == [10, 20]
    assert frame["reached_ratio"].tolist() == [0.25, 0.75]
    assert runtime_distribution([SLOW], [9.0], UP).empty


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: search([], []), "want .n,. twice, n >= 1"),
        (lambda: search([1, 2], [1.0]), r"got shapes \(2,\) and \(1,\)"),
        (lambda: search([2, 1], [1.0, 2.0]), "got 1 as number 1, want them above zero"),
        (lambda: search([0, 1], [1.0, 2.0]), "got 0 as number 0, want them above zero"),
        (lambda: search([1, math.inf], [1.0, 2.0]), "got inf as number 1, want"),
        (lambda: best_so_far(RUN, Direction.NONE), "want 'higher' or 'lower'"),
        (lambda: area_under(RUN, UP, worst=1, best=0), "want best better"),
        (lambda: area_under(RUN, UP, worst=0, best=1, budget=0), "budget=0"),
        (lambda: expected_running_time([], 1.0, UP), "got no runs"),
        (lambda: runtime_distribution([RUN], [], UP), "got no targets"),
    ],
)
def test_bad_searches_are_refused(call: Any, words: str) -> None:
    """Histories out of order, goals that are none."""
    with pytest.raises(AnalysisError, match=words):
        call()
