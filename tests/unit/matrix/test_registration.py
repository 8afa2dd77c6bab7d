"""
What is said of a genome that was measured again, and when nothing is said at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.analysis.claims import check_claim
from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.matrix.cells import make_cells
from allele_mlflow.matrix.prepared import Prepared
from allele_mlflow.matrix.registration import describe_earned, register_outcome
from allele_mlflow.matrix.results import Outcome, TrialRow
from allele_mlflow.matrix.suite_file import suite_of
from allele_mlflow.settings import load
from allele_mlflow.units import Direction

FIELDS: dict[str, Any] = {
    "name": "s",
    "benchmark": "m:f",
    "genome": {"evaluate": "m:g"},
    "metrics": {"score": {"direction": "higher", "objective": True}},
}


def outcome(*, finished: int = 1, is_interrupted: bool = False, **fields: Any) -> Outcome:
    """
    Of a suite of one cell.
    """
    suite = suite_of(FIELDS | fields)
    (cell,) = make_cells(suite, version="1")
    prepared = Prepared(suite, Path("/suite"), [cell], "1", "", Environment())
    rows = [TrialRow(cell, number, 0, 1, {"score": 1.0}, "u") for number in range(finished)]
    return Outcome(prepared, rows=rows, is_interrupted=is_interrupted)


@pytest.mark.parametrize(
    ("given", "execution", "overrides"),
    [
        (outcome(genome=None), "u", {}),
        (outcome(finished=0), "u", {}),
        (outcome(is_interrupted=True), "u", {}),
        (outcome(), None, {}),
        (outcome(), "u", {"auto_register_models": False}),
        (outcome(), "u", {"model_registry_enabled": False}),
        (outcome(), "u", {"tracking_uri": "offline"}),
    ],
)
def test_nobody_is_told_of_what_was_not_asked_for(
    given: Outcome, execution: str | None, overrides: dict[str, Any]
) -> None:
    """No [genome], nothing finished or tracked, interrupted, offline, or switched off: silence."""
    assert register_outcome(given, execution, load(overrides, environ={})) is None


def test_what_waits_is_said() -> None:
    """Where not all is in MLflow yet nothing can be read back, and `--resume` is named."""
    made = register_outcome(outcome(), "u", load(environ={}), is_complete=False)
    assert made is not None
    assert "not all is in MLflow yet; --resume" in made.said
    assert made.version is None


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        (None, "score 10 [9.018, 10.98] on 5 fresh seeds"),
        (11.0, "score 10 [9.018, 10.98] on 5 fresh seeds, the search said 11"),
        (
            20.0,
            "score 10 [9.018, 10.98] on 5 fresh seeds, the search said 20: 7.596 better than they "
            "make likely (up to 12.4)",
        ),
    ],
)
def test_the_line_says_what_was_measured_and_claimed(claimed: float | None, said: str) -> None:
    """Mean, interval and number; the claim, and by how much it is too good."""
    values = [9.0, 10.0, 11.0, 10.5, 9.5]
    assert describe_earned("score", check_claim(values, Direction.HIGHER, claimed=claimed)) == said
