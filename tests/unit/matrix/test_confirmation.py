"""
What a confirmation decides before it runs anything: sides, repeats, order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.analysis.verdicts import Verdict
from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.errors import MatrixError
from allele_mlflow.matrix.cells import make_cells
from allele_mlflow.matrix.confirmation import (
    check_sides,
    choose_repeats,
    compared_metrics,
    overall,
    plan_trials,
)
from allele_mlflow.matrix.messages import CellResult
from allele_mlflow.matrix.plan import Submit
from allele_mlflow.matrix.prepared import Prepared
from allele_mlflow.matrix.suite_file import suite_of


def prepared(version: str = "1", **fields: Any) -> Prepared:
    """
    A suite of three cells at some version of its code.
    """
    suite = suite_of(
        {
            "name": "s",
            "benchmark": "m:f",
            "matrix": {"a": [1, 2, 3]},
            "metrics": {"score": {"direction": "higher", "objective": True}},
        }
        | fields
    )
    cells = make_cells(suite, version=version)
    return Prepared(suite, Path("/suite"), cells, version, "", Environment())


def order_of(baseline: Prepared, candidate: Prepared, repeats: int) -> list[tuple[int, str, str]]:
    """
    Repeat, side and cell of each trial in the order in which they are run.
    """
    trials = plan_trials(baseline, candidate, repeats)
    found: list[tuple[int, str, str]] = []
    while isinstance(step := trials.plan.next(), Submit):
        trial = step.trial
        sided = trials.cells[trial.cell.key]
        found.append((trial.repeat, sided.side, sided.cell.key))
        trials.plan.finished(
            trial,
            CellResult(
                cell_key=trial.cell.key,
                repeat=trial.repeat,
                attempt=0,
                run_uid="u",
                status="finished",
            ),
        )
    return found


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_sides_are_interleaved_in_complete_blocks(version: str) -> None:
    """
    Each repeat has every cell of either side once before any is run again; the order within a
    repeat changes, and now one side begins and now the other, also where both are the same code.
    """
    baseline, candidate = prepared("1"), prepared(version)
    order = order_of(baseline, candidate, 20)
    blocks = [[one for one in order if one[0] == repeat] for repeat in range(20)]
    assert [one for block in blocks for one in block] == order
    whole = {("baseline", cell.key) for cell in baseline.cells}
    whole |= {("candidate", cell.key) for cell in candidate.cells}
    assert all({one[1:] for one in block} == whole for block in blocks)
    assert len({tuple(one[1:] for one in block) for block in blocks}) > 10
    assert {block[0][1] for block in blocks} == {"baseline", "candidate"}
    assert order == order_of(baseline, candidate, 20)


def test_adaptive_repeats_are_the_same_for_both_sides() -> None:
    """
    A suite that asks for more repeats where it knows too little gets those that were planned: a
    cell with more on one side has no pairs.
    """
    suite = prepared(adaptive={"half_width_ratio": 0.01, "most_repeats": 50})
    assert len(order_of(suite, suite, 4)) == 4 * 6


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"seed": 8}, "seed is 0 of the baseline, 8"),
        ({"warm_ups": 1}, "warm_ups"),
        ({"name": "t"}, "name is 's' of the baseline, 't'"),
        ({"matrix": {"a": [1, 2]}}, "only the baseline has the cells a=3"),
        ({"matrix": {"a": [1, 2, 3, 4, 5, 6, 7]}}, "a=4; a=5; a=6 and 1 more"),
        ({"metrics": {"score": {"direction": "lower", "objective": True}}}, "'score': higher"),
    ],
)
def test_sides_that_are_not_one_suite_are_refused(theirs: dict[str, Any], said: str) -> None:
    """
    Another seed, other cells or another direction of a metric: the message says which.
    """
    with pytest.raises(MatrixError, match=r"both sides are to be one suite") as caught:
        check_sides(prepared(), prepared(**theirs))
    assert said in str(caught.value)


def test_other_code_and_more_metrics_are_no_other_suite() -> None:
    """
    The version of the code is what the two differ in, and repeats and new metrics do not matter.
    """
    more = {
        "score": {"direction": "higher", "objective": True},
        "new": {"direction": "lower"},
    }
    check_sides(prepared("1"), prepared("2", repeats=9, metrics=more))


@pytest.mark.parametrize(
    ("of_suite", "hypotheses", "asked", "count"),
    [(1, 1, None, 6), (30, 1, None, 30), (1, 4, None, 8), (1, 100, None, 12), (9, 1, 7, 7)],
)
def test_repeats_are_enough_for_significance(
    of_suite: int, hypotheses: int, asked: int | None, count: int
) -> None:
    """
    Two-sided p of n pairs is at least 2 / 2**n: below 0.05 / hypotheses, with the fewest pairs or
    as many as the suite has.
    """
    found = choose_repeats(of_suite, hypotheses, asked)
    assert (found.count, found.warning) == (count, "")
    assert 2 / 2**count < 0.05 / hypotheses


def test_too_few_repeats_are_said_and_hopeless_ones_refused() -> None:
    """
    Who asks for 3 repeats gets them with a warning that names how many can show something; where
    no number can, nothing is run.
    """
    found = choose_repeats(10, 4, 3)
    assert found.count == 3
    assert "8 can" in found.warning
    with pytest.raises(MatrixError, match="no number of repeats"):
        choose_repeats(10, 10_000_000, None)


def test_time_is_compared_beside_what_the_suite_names() -> None:
    """
    By default the suite's metrics and the length of a trial; else what was asked for.
    """
    assert compared_metrics(prepared(), []) == ["score", "trial/seconds"]
    assert compared_metrics(prepared(), ["phase/*"]) == ["phase/*"]


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        (["equivalent", "worse", "better"], "worse"),
        (["equivalent", "better", "inconclusive"], "better"),
        (["different", "better"], "different"),
        (["equivalent", "inconclusive"], "inconclusive"),
        (["equivalent", "equivalent"], "equivalent"),
        ([], "inconclusive"),
    ],
)
def test_one_verdict_for_all_rows(verdicts: list[str], found: str) -> None:
    """
    One worse row makes the candidate worse; equivalent is it only where every row is.
    """
    assert overall([Verdict(one) for one in verdicts]) is Verdict(found)
