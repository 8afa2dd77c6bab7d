"""
The plan of a suite: results in, instructions out.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from allele_mlflow.failures import Category
from allele_mlflow.matrix.cells import Cell, Trial, make_cells
from allele_mlflow.matrix.messages import CellFailure, CellResult
from allele_mlflow.matrix.plan import WAIT, PastTrial, Submit, SuitePlan
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.suite_file import suite_of

OBJECTIVE = {"m": {"direction": "lower", "objective": True}}


def make_plan(width: int = 2, **fields: Any) -> SuitePlan:
    """
    A plan of three cells; `past`, `fails_fast`, `only_failed` go to it, the rest to the suite.
    """
    own = {k: fields.pop(k) for k in ("past", "fails_fast", "only_failed") if k in fields}
    suite: Suite = suite_of({"name": "s", "benchmark": "m:f", "matrix": {"a": [1, 2, 3]}} | fields)
    return SuitePlan(suite, make_cells(suite, version="1"), width, **own)


def result(trial: Trial, attempt: int, outcome: float | Category) -> CellResult:
    """
    What became of an attempt: a value of the objective, or a category of failure.
    """
    failure = None
    if isinstance(outcome, Category):
        failure = CellFailure(category=outcome, error_type="E", message="", fingerprint="f")
    return CellResult(
        cell_key=trial.cell.key,
        repeat=trial.repeat,
        attempt=attempt,
        run_uid="u",
        status="finished" if failure is None else "failed",
        metrics={} if isinstance(outcome, Category) else {"m": outcome},
        failure=failure,
    )


def drive(plan: SuitePlan, outcomes: Any) -> list[Submit]:
    """
    Run the plan to its end, oldest attempt first; everything that was submitted, in order.
    """
    submitted: list[Submit] = []
    running: list[Submit] = []
    while (step := plan.next()) is not None:
        if step == WAIT:
            one = running.pop(0)
            plan.finished(one.trial, result(one.trial, one.attempt, outcomes(one)))
        else:
            submitted.append(step)
            running.append(step)
            assert len(running) <= plan.width
    return submitted


def test_every_trial_once_in_blocks() -> None:
    """Three cells four times: each block is complete before the next begins, places count up."""
    submitted = drive(make_plan(repeats=4), lambda _: 1.0)
    assert [s.trial.repeat for s in submitted] == [r for r in range(4) for _ in range(3)]
    assert [s.trial.order for s in submitted] == list(range(12))
    assert Counter(s.trial.identity for s in submitted).most_common(1)[0][1] == 1


def test_never_more_at_once_than_the_executor_takes() -> None:
    """With a width of one, a submit is followed by a wait."""
    plan = make_plan(width=1)
    first = plan.next()
    assert isinstance(first, Submit)
    assert plan.next() == WAIT
    plan.finished(first.trial, result(first.trial, 0, 1.0))
    assert isinstance(plan.next(), Submit)


def test_failures_are_tried_again_as_their_category_says() -> None:
    """Two retries of infrastructure: three attempts, numbered; a configuration error has one."""
    plan = make_plan(retries={"infrastructure": 2})
    category = {0: Category.INFRASTRUCTURE, 1: Category.CONFIGURATION}

    def outcome(step: Submit) -> float | Category:
        return category.get(step.trial.order, 1.0)

    submitted = drive(plan, outcome)
    attempts = Counter(s.trial.order for s in submitted)
    assert attempts == {0: 3, 1: 1, 2: 1}
    assert [s.attempt for s in submitted if s.trial.order == 0] == [0, 1, 2]


def test_a_retry_that_finishes_is_over() -> None:
    """The second attempt finishes: there is no third."""
    plan = make_plan(retries={"timeout": 5})
    submitted = drive(plan, lambda s: Category.TIMEOUT if s.attempt == 0 else 1.0)
    assert max(s.attempt for s in submitted) == 1
    assert len(submitted) == 6


def test_fail_fast_submits_nothing_more() -> None:
    """After the first failure what runs is waited for, and nothing follows."""
    plan = make_plan(width=2, repeats=9, fails_fast=True)
    assert len(drive(plan, lambda _: Category.DATA)) == 2


def test_resume_runs_what_is_missing_or_failed() -> None:
    """Finished trials are reused; a failed one goes on with its next attempt, a new one begins."""
    plan = make_plan(repeats=1)
    first, second, _ = plan.cells
    past = {
        (first.key, 0): PastTrial(1, True, {"m": 1.0}),
        (second.key, 0): PastTrial(2, False, {}),
    }
    plan = make_plan(repeats=1, past=past)
    submitted = drive(plan, lambda _: 1.0)
    assert {s.trial.cell.key: s.attempt for s in submitted} == {
        second.key: 2,
        plan.cells[2].key: 0,
    }
    assert plan.reused_count == 1


def test_retry_failed_leaves_what_was_never_tried() -> None:
    """Only trials that were tried and did not finish are run."""
    cells: list[Cell] = list(make_plan().cells)
    past = {
        (cells[0].key, 0): PastTrial(1, True, {}),
        (cells[1].key, 0): PastTrial(1, False, {}),
    }
    plan = make_plan(past=past, only_failed=True)
    assert plan.total_count == 1
    assert [s.trial.cell.key for s in drive(plan, lambda _: 1.0)] == [cells[1].key]


def test_adaptive_repeats_stop_where_the_objective_is_known() -> None:
    """A cell without scatter has the least number of repeats, a noisy one the most."""
    plan = make_plan(
        repeats=3, metrics=OBJECTIVE, adaptive={"half_width_ratio": 0.05, "most_repeats": 8}
    )

    def outcome(step: Submit) -> float:
        if step.trial.cell.params["a"] != 3:
            return 10.0
        return 15.0 if step.trial.repeat % 2 else 5.0

    counts = Counter(s.trial.cell.params["a"] for s in drive(plan, outcome))
    assert counts == {1: 3, 2: 3, 3: 8}


def test_adaptive_leaves_cells_that_never_finish() -> None:
    """A cell that always fails is not repeated beyond the suite's own number."""
    plan = make_plan(repeats=3, metrics=OBJECTIVE, adaptive={"most_repeats": 8})
    counts = Counter(
        s.trial.cell.params["a"]
        for s in drive(plan, lambda s: Category.DATA if s.trial.cell.params["a"] == 1 else 1.0)
    )
    assert counts[1] == 3


def test_stop_ends_with_what_runs() -> None:
    """After `stop`, results are taken in until nothing runs; then it is over."""
    plan = make_plan(width=2)
    one, two = plan.next(), plan.next()
    assert isinstance(one, Submit)
    assert isinstance(two, Submit)
    plan.stop()
    assert plan.next() == WAIT
    plan.finished(one.trial, result(one.trial, 0, Category.INTERRUPTED))
    assert plan.next() == WAIT
    plan.finished(two.trial, result(two.trial, 0, 1.0))
    assert plan.next() is None


@pytest.mark.parametrize("width", [1, 2, 7])
def test_a_cell_that_interrupts_itself_stops_nobody_else(width: int) -> None:
    """`sys.exit(1)` in a benchmark is its own failure: all other cells are run."""
    assert len(drive(make_plan(width), lambda _: Category.INTERRUPTED)) == 3
