"""
Comparisons as rows: what is written, and in which order.
"""

from __future__ import annotations

import msgspec
import pytest

from allele_mlflow.analysis.verdicts import Verdict
from allele_mlflow.dashboard.pages.compare_rows import DifferenceRow, sort_value
from allele_mlflow.dashboard.views import View, sorted_rows
from allele_mlflow.units import Direction

ROW = DifferenceRow(
    candidate_name="evolution",
    cell="rate=0.1",
    metric="score",
    unit="points",
    direction=Direction.HIGHER,
    verdict=Verdict.BETTER,
    reason="",
    is_paired=True,
    baseline=10.0,
    baseline_runs=8,
    candidate=11.0,
    candidate_runs=8,
    difference=1.0,
    difference_low=0.5,
    difference_high=1.5,
    ratio=1.1,
    ratio_low=1.005,
    ratio_high=1.15,
    a12=0.9,
    p_holm=0.01,
)


def test_what_a_row_says_in_words() -> None:
    """
    The metric with its unit, the change in percent with its interval, and whether in pairs.
    """
    assert ROW.quantity == "score (points)"
    assert ROW.change == "+10 % [+0.50, +15]"
    assert ROW.runs == "8 and 8, in pairs"


@pytest.mark.parametrize("name", ["ratio", "ratio_low", "ratio_high"])
def test_a_change_without_an_interval_is_not_told(name: str) -> None:
    """
    Where a part of the ratio could not be computed, no percent is written.
    """
    assert msgspec.structs.replace(ROW, **{name: None}).change is None


def test_a_unit_that_the_name_says_is_not_said_twice() -> None:
    """
    `trial/seconds` is in seconds, and a metric without a unit has none.
    """
    seconds = msgspec.structs.replace(ROW, metric="trial/seconds", unit="seconds")
    assert seconds.quantity == "trial/seconds"
    assert msgspec.structs.replace(ROW, unit="").quantity == "score"


def test_rows_are_sorted_by_what_they_mean() -> None:
    """
    Verdicts by how much they matter, changes by their size and not by their text.
    """
    worse = msgspec.structs.replace(ROW, verdict=Verdict.WORSE, ratio=0.9)
    unknown = msgspec.structs.replace(ROW, verdict=Verdict.INCONCLUSIVE, ratio=None)
    found = sorted_rows([unknown, ROW, worse], View(sort="verdict"), sort_value)
    assert found == [worse, ROW, unknown]
    found = sorted_rows([unknown, worse, ROW], View(sort="-change"), sort_value)
    assert found == [ROW, worse, unknown]
