"""
Curves of searches in frames, against values computed by hand.
"""

from __future__ import annotations

import math

import pandas as pd
import pytest

from allele_mlflow.analysis.search_curves import curves_of, target_texts
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction


def readings(curves: dict[str, list[float]], cell: str = "c") -> pd.DataFrame:
    """
    One reading a step from 0 on.
    """
    return pd.DataFrame(
        [
            {"run_id": run_id, "cell": cell, "step": step, "timestamp_ms": step, "value": value}
            for run_id, values in curves.items()
            for step, value in enumerate(values)
        ]
    )


def test_areas_and_running_times_by_hand() -> None:
    """Two runs from 0 to 10 in four steps: areas, hits and ERT as on paper."""
    found = curves_of(
        readings({"a": [0, 10, 10, 10], "b": [0, 0, 5, 5]}),
        "score",
        Direction.HIGHER,
        targets=[5.0, 10.0],
    )
    areas = found.areas().set_index("run_id")
    # evaluations 1..4 of a budget of 4: a is at 1 from evaluation 2 on, b at 0.5 from 3 on
    assert areas.loc["a", "area"] == pytest.approx((4 - 2) / 4)
    assert areas.loc["b", "area"] == pytest.approx(0.5 * (4 - 3) / 4)
    assert list(areas["best"]) == [10.0, 5.0]
    times = found.running_times().set_index("target")
    assert times.loc[5.0, "expected_evaluations"] == pytest.approx((2 + 3) / 2)
    assert times.loc[10.0, "expected_evaluations"] == pytest.approx((2 + 4) / 1)
    assert list(times["reached"]) == [2, 1]
    ecdf = found.runtimes()
    assert list(ecdf["evaluations"]) == [2.0, 3.0]
    assert list(ecdf["reached_ratio"]) == [0.5, 0.75]


def test_lower_is_better_and_steps_count_evaluations() -> None:
    """With 50 evaluations a step times are fifty times as many; less is better."""
    found = curves_of(
        readings({"a": [8, 4, 6, 2]}),
        "loss",
        Direction.LOWER,
        evaluations={"a": 50.0},
        targets=[4.0, 1.0],
    )
    times = found.running_times()
    assert list(times["median_evaluations"][:1]) == [100.0]
    assert math.isinf(times["expected_evaluations"][1])
    assert list(found.areas()["best"]) == [2.0]


def test_usual_targets_lie_between_start_and_best() -> None:
    """Ten targets from the worst start to the best end, the easiest first."""
    found = curves_of(readings({"a": [0, 5], "b": [2, 10]}), "score", Direction.HIGHER)
    assert found.targets == tuple(pytest.approx(float(number)) for number in range(1, 11))


def test_usual_targets_are_distinct() -> None:
    """One value is one target, and it is reached; values that differ by rounding make few."""
    one = curves_of(readings({"a": [0.1], "b": [0.1]}), "score", Direction.HIGHER)
    assert one.targets == (0.1,)
    assert list(one.running_times()["reached"]) == [2]
    near = curves_of(readings({"a": [1.0, math.nextafter(1.0, 2.0)]}), "score", Direction.HIGHER)
    assert near.targets == (1.0, math.nextafter(1.0, 2.0))
    given = curves_of(readings({"a": [1.0]}), "score", Direction.HIGHER, targets=[2.0, 2.0])
    assert given.targets == (2.0,)


def test_the_last_target_is_the_best_value() -> None:
    """What a run reached is never out of reach by rounding, nor is a number too large."""
    for number in range(300):
        worst, best = math.sin(number), math.sin(number) + 10.0 ** (number % 9) * 0.1
        found = curves_of(readings({"a": [worst, best]}), "score", Direction.HIGHER)
        assert found.targets[-1] == best
        assert list(found.running_times()["reached"]) == [1] * len(found.targets)
    huge = curves_of(readings({"a": [-1.7e308, 1.7e308]}), "score", Direction.HIGHER)
    assert len(huge.targets) == 10
    assert all(map(math.isfinite, huge.targets))


def test_targets_are_written_apart() -> None:
    """Five digits, or as many as tell them apart."""
    assert target_texts([1.0, 2.0]) == ["1", "2"]
    assert target_texts([1.000001, 1.000002]) == ["1.000001", "1.000002"]
    assert target_texts([1.0, math.nextafter(1.0, 2.0)]) == ["1", "1.0000000000000002"]


def test_area_of_one_evaluation_is_its_value() -> None:
    """Searches of one evaluation: the best has 1, the worst 0, one between them its part."""
    runs = readings({"a": [1.0], "b": [0.0], "c": [0.25]})
    assert list(curves_of(runs, "score", Direction.HIGHER).areas()["area"]) == [1.0, 0.0, 0.25]
    assert list(curves_of(runs, "score", Direction.LOWER).areas()["area"]) == [0.0, 1.0, 0.75]


def test_missing_values_keep_the_best() -> None:
    """NaN and infinities are no values; the best so far stays; none at all is refused."""
    found = curves_of(readings({"a": [1, float("nan"), float("inf"), 3]}), "s", Direction.HIGHER)
    assert list(found.areas()["best"]) == [3.0]
    with pytest.raises(AnalysisError, match="no run has a finite value"):
        curves_of(readings({"a": [float("nan")]}), "s", Direction.HIGHER)


def test_runs_that_do_not_move() -> None:
    """A constant search has all of its area, and no division by nothing."""
    found = curves_of(readings({"a": [1, 1, 1]}), "s", Direction.HIGHER)
    assert list(found.areas()["area"]) == [1.0]
