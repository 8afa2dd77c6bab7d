"""
What would be run, what an execution has left, and when a cell is known well.
"""

from __future__ import annotations

import pytest

from allele_mlflow.matrix.adaptive import interval_half_width, is_known_well
from allele_mlflow.matrix.cells import make_cells
from allele_mlflow.matrix.forecast import forecast
from allele_mlflow.matrix.history import Execution, PastRun, seconds_by_cell
from allele_mlflow.matrix.options import RunOptions
from allele_mlflow.matrix.suite_file import suite_of
from allele_mlflow.matrix.trial import SECONDS_METRIC

SUITE = suite_of({"name": "s", "benchmark": "m:f", "matrix": {"a": [1, 2, 3]}, "repeats": 2})
CELLS = make_cells(SUITE, version="1")


def past(cell: int, repeat: int, status: str, *, attempt: int = 0, seconds: float = 1.0) -> PastRun:
    """
    One attempt of an earlier execution.
    """
    uid = f"{cell}{repeat}{attempt}"
    metrics = {SECONDS_METRIC: seconds, "m": float(attempt)}
    return PastRun(uid, uid, CELLS[cell].key, repeat, attempt, status, metrics)


LAST = Execution(
    "parent",
    "uid",
    [
        past(0, 0, "FINISHED", seconds=2.0),
        past(0, 1, "FINISHED", seconds=4.0),
        past(1, 0, "FAILED", seconds=100.0),
        past(1, 0, "FINISHED", attempt=1, seconds=10.0),
        past(1, 1, "KILLED"),
    ],
)


def test_trial_counts_as_finished_with_any_attempt() -> None:
    """Attempts are numbered on, one that finished is enough, and its metrics are the trial's."""
    trials = LAST.past_trials()
    assert trials[CELLS[1].key, 0] == (2, True, {SECONDS_METRIC: 10.0, "m": 1.0})
    assert trials[CELLS[1].key, 1][:2] == (1, False)
    assert (CELLS[2].key, 0) not in trials


def test_times_are_those_of_finished_trials() -> None:
    """The mean of each cell; what failed took as long as it took, and tells nothing."""
    assert seconds_by_cell(LAST.runs) == {CELLS[0].key: 3.0, CELLS[1].key: 10.0}


@pytest.mark.parametrize(
    ("options", "runs", "seconds"),
    [
        (RunOptions(), [2, 2, 2], (2 * 3 + 2 * 10 + 2 * 6.5) / 2),
        (RunOptions(is_resumed=True), [0, 1, 2], (10 + 2 * 6.5) / 2),
        (RunOptions(retries_failed=True), [0, 1, 0], 10 / 2),
    ],
)
def test_forecast_counts_what_would_be_run(
    options: RunOptions, runs: list[int], seconds: float
) -> None:
    """All of it, what is missing or failed, only what failed; one without a past is like others."""
    found = forecast(SUITE, CELLS, LAST, options, width=2)
    assert [one.runs for one in found.cells] == runs
    assert found.seconds == pytest.approx(seconds)
    assert found.guessed_count == 1


def test_without_a_past_nothing_is_predicted() -> None:
    """No execution: no time, and every run is to be made."""
    found = forecast(SUITE, CELLS, None, RunOptions(is_resumed=True), width=1)
    assert (found.run_count, found.seconds) == (6, None)


def test_interval_is_students() -> None:
    """Half width of the 95 % interval of 1, 2, 3, 4, 5: 2.776 * 1.5811 / sqrt(5) = 1.9632."""
    assert interval_half_width([1, 2, 3, 4, 5], confidence=0.95) == pytest.approx(1.9632, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "is_known"),
    [([10, 10, 10], True), ([10, 10.1, 9.9], True), ([10, 20, 30], False), ([0, 0, 0], True)],
)
def test_known_well_is_relative_to_the_mean(values: list[float], is_known: bool) -> None:
    """Within five percent of the mean to each side; at zero only without scatter."""
    assert is_known_well(values, half_width_ratio=0.05, confidence=0.95) is is_known
