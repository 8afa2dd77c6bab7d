"""
What a person reads while a suite runs, and at its end.
"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from allele_mlflow.cli.suite_display import LiveView, PlainView, duration_text, result_line
from allele_mlflow.cli.suite_tables import best_cell, failures_table, rendered, spread_text
from allele_mlflow.failures import Category
from allele_mlflow.matrix.cells import Trial, make_cells
from allele_mlflow.matrix.messages import CellFailure, CellResult
from allele_mlflow.matrix.options import Beginning
from allele_mlflow.matrix.results import TrialRow
from allele_mlflow.matrix.suite_file import suite_of
from allele_mlflow.units import Direction

SUITE = suite_of(
    {
        "name": "s",
        "benchmark": "m:f",
        "matrix": {"a": ["x\x1b[31m", "[bold]y"]},
        "metrics": {"m": {"direction": "lower", "objective": True}},
    }
)
CELLS = make_cells(SUITE, version="1")
TRIAL = Trial(CELLS[0], 1, 0)


def result(failure: CellFailure | None = None) -> CellResult:
    """
    An attempt that finished, or failed.
    """
    return CellResult(
        cell_key=CELLS[0].key,
        repeat=1,
        attempt=1,
        run_uid="u",
        status="failed" if failure else "finished",
        metrics={"m": 0.25, "other": 3.0},
        failure=failure,
        seconds=12.0,
        started_ns=0,
        ended_ns=2_000_000_000,
    )


FAILED = CellFailure(
    category=Category.OUT_OF_MEMORY,
    error_type="some.module.BoomError",
    message="first\nsecond \x1b]0;title\x07",
    fingerprint="f",
)
BEGINNING = Beginning("s", 2, 4, 1, "process:2", 2, None, is_adaptive=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.0004 s"),
        (0.26, "0.26 s"),
        (3.14, "3.1 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (180, "3 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
    ],
)
def test_durations_are_as_people_say_them(seconds: float, text: str) -> None:
    """Seconds, minutes, hours, no more digits than anybody reads."""
    assert duration_text(seconds) == text


def test_lines_tell_objective_attempt_and_failure() -> None:
    """What came out, in which attempt; of a failure category, class and message in one line."""
    fine = result_line(SUITE, TRIAL, result(), is_retried=False)
    assert fine.endswith("#2 (attempt 2): m 0.25 in 12 s")
    failed = result_line(SUITE, TRIAL, result(FAILED), is_retried=True)
    assert "FAILED, out of memory: BoomError: first" in failed
    assert failed.endswith("; trying again")


def test_plain_view_writes_clean_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One line an attempt on stderr; no control character of a name or message reaches it."""
    with PlainView(SUITE) as view:
        view.begin(BEGINNING)
        view.finished(TRIAL, result(FAILED), is_retried=False, total=4)
        view.finished(TRIAL, result(), is_retried=False, total=5)
    written = capsys.readouterr()
    assert written.out == ""
    lines = written.err.splitlines()
    assert lines[0] == "s: 2 cells, 4 runs or more, 1 of them finished before; process:2"
    assert [line.split()[0] for line in lines[1:]] == ["[1/4]", "[2/5]"]
    assert "\x1b" not in written.err


def test_live_view_shows_progress_and_keeps_failures() -> None:
    """A bar with the time left and the running cells; failures stay above it; markup is text."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with LiveView(SUITE, console) as view:
        view.begin(BEGINNING)
        view.submitted(Trial(CELLS[1], 0, 1), 0)
        view.finished(TRIAL, result(FAILED), is_retried=False, total=4)
        view.tick()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1/4" in text
    assert "1 failed, about 3.0 s left" in text
    assert "[bold]y #1" in text
    assert "BoomError" in text


def row(cell: int, value: float | None) -> TrialRow:
    """
    A finished trial, or without a value a failed one.
    """
    failure = None if value is not None else FAILED
    metrics = {} if value is None else {"m": value}
    return TrialRow(CELLS[cell], 0, 0, 1, metrics, "u", failure=failure)


def test_best_cell_is_that_of_the_better_median() -> None:
    """In the metric's direction; without one, or with one cell only, there is none."""
    rows = {"a": [row(0, 1.0), row(0, 9.0), row(0, 2.0)], "b": [row(1, 3.0), row(1, None)]}
    assert best_cell(rows, "m", Direction.LOWER) == "a"
    assert best_cell(rows, "m", Direction.HIGHER) == "b"
    assert best_cell(rows, "m", Direction.NONE) is None
    assert best_cell({"a": rows["a"]}, "m", Direction.LOWER) is None
    assert best_cell({"a": [row(0, None)], "b": [row(1, None)]}, "m", Direction.LOWER) is None


def test_spread_and_failures_read_well() -> None:
    """One value stands alone, several have a range; failures of one kind are one line."""
    assert (spread_text([]), spread_text([2.0])) == ("-", "2")
    assert spread_text([3.0, 1.0, 2.0]) == "2 [1, 3]"
    text = rendered(failures_table([("one", FAILED), ("two", FAILED), ("one", FAILED)]))
    (line,) = [line for line in text.splitlines() if "out of memory" in line]
    assert "3" in line
    assert "one, two" in line
    assert "\x1b]" not in text
