"""
Which run of a suite is the best.
"""

from __future__ import annotations

import math

import pytest

from allele_mlflow.failures import Category
from allele_mlflow.matrix.best_genome import choose_best
from allele_mlflow.matrix.cells import Cell
from allele_mlflow.matrix.messages import CellFailure
from allele_mlflow.matrix.results import TrialRow
from allele_mlflow.units import Direction

CELL = Cell({}, "one", "key", "hash")
FAILURE = CellFailure(
    category=Category.UNKNOWN, error_type="ValueError", message="no", fingerprint="f"
)


def row(uid: str, value: float | None, failure: CellFailure | None = None) -> TrialRow:
    """
    A trial with a score, or without.
    """
    metrics = {} if value is None else {"score": value}
    return TrialRow(CELL, 0, 0, 1, metrics, uid, failure=failure)


@pytest.mark.parametrize(
    ("direction", "values", "best"),
    [
        (Direction.HIGHER, [1.0, 3.0, 2.0], 1),
        (Direction.LOWER, [2.0, 3.0, 1.0], 2),
        (Direction.HIGHER, [1.0, 3.0, 3.0], 1),
        (Direction.LOWER, [1.0, 3.0, 1.0], 0),
        (Direction.HIGHER, [math.nan, math.inf, 2.0], 2),
        (Direction.LOWER, [math.nan, -math.inf, 2.0], 2),
        (Direction.HIGHER, [None, -1.0], 1),
    ],
)
def test_best_is_by_direction_and_the_first_of_equals(
    direction: Direction, values: list[float | None], best: int
) -> None:
    """Higher or lower as the suite says; of equals the first; what is no number is passed over."""
    rows = [row(str(number), value) for number, value in enumerate(values)]
    assert choose_best(rows, "score", direction) is rows[best]


def test_what_failed_is_not_the_best() -> None:
    """A failed trial with a score loses to a finished one; of failed ones alone there is none."""
    failed = row("failed", 9.0, FAILURE)
    good = row("good", 1.0)
    assert choose_best([failed, good], "score", Direction.HIGHER) is good
    assert choose_best([failed], "score", Direction.HIGHER) is None
