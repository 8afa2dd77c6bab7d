"""
Back-tests of our own predictions on an experiment's past, by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from allele_mlflow.analysis.backtest import backtest
from allele_mlflow.analysis.frames import METRICS, PARAMS, RUNS, ExperimentFrames, shaped
from allele_mlflow.analysis.prediction_scores import score_predictions
from allele_mlflow.analysis.predictions import predict_time_left

STEPS = 20


def experiment(curves: list[list[float]], **more: Any) -> tuple[ExperimentFrames, pd.DataFrame]:
    """
    Runs of one cell, one after another, of 10, 11, 12 ... seconds.
    """
    rows, readings = [], []
    began = pd.Timestamp("2026-01-01", tz="UTC")
    for number, curve in enumerate(curves):
        seconds = 10.0 + number
        rows.append(
            {
                "run_id": f"r{number}",
                "kind": "cell",
                "suite": "s",
                "cell_key": "c",
                "is_failed": False,
                "started_at": began,
                "seconds": seconds,
            }
            | more
        )
        began += pd.Timedelta(seconds=seconds + 1)
        readings += [
            {"run_id": f"r{number}", "key": "y", "step": step, "timestamp_ms": 0, "value": value}
            for step, value in enumerate(curve)
        ]
    frames = ExperimentFrames(
        shaped(pd.DataFrame(rows), RUNS),
        shaped(pd.DataFrame(), PARAMS),
        shaped(pd.DataFrame(), METRICS),
    )
    return frames, pd.DataFrame(readings)


def lines(count: int) -> list[list[float]]:
    """
    Curves that rise by 1, 2, 3 ... in all.
    """
    return [list(np.linspace(0.0, 1.0 + number, STEPS)) for number in range(count)]


def test_only_what_was_known_is_used() -> None:
    """
    Of five runs each is predicted from its own half; the fourth and fifth from those before them
    too, and their time left from half of the mean that those took.
    """
    found = backtest(*experiment(lines(5)), "y")
    scores = {(one.source, one.kind): one for one in score_predictions(found)}
    assert scores["allele-mlflow, its own curve", "final_value"].settled == 5
    by_past = [one for one in found if one.told.source == "allele-mlflow, changes of past runs"]
    assert [one.told.run_id for one in by_past] == ["r3", "r4"]
    # half-way is reading 10 of 20: a part of 9/19 of the rise has been, 10/19 is to come
    first = by_past[0]
    assert first.outcome == pytest.approx(4.0)
    assert first.naive == pytest.approx(4 * 9 / 19)
    assert first.told.value == pytest.approx(4 * 9 / 19 + 2 * 10 / 19), "the past rose by 2 in all"
    left = [one for one in found if one.told.kind == "time_left"]
    assert [one.told.run_id for one in left] == ["r3", "r4"]
    assert (left[0].outcome, left[0].naive) == pytest.approx((13 - 5.5, 5.5))
    wanted = predict_time_left(5.5, past_seconds=[10.0, 11.0, 12.0])
    assert left[0].told.value == pytest.approx(wanted.value)


def test_other_cells_are_no_past() -> None:
    """
    Runs that were not over, failed, or of another cell say nothing; what failed is not predicted.
    """
    frames, histories = experiment(lines(4))
    runs = frames.runs
    for changed in (
        runs.assign(cell_key=["a", "b", "c", "d"]),
        runs.assign(started_at=runs["started_at"].iloc[0]),
    ):
        found = backtest(frames._replace(runs=changed), histories, "y")
        assert {one.told.source for one in found} == {"allele-mlflow, its own curve"}
    failed = runs.assign(is_failed=pd.array([True, None, True, True], dtype="boolean"))
    assert backtest(frames._replace(runs=failed), histories, "y") == []


def test_short_curves_are_left_alone() -> None:
    """
    Of fewer than ten steps nothing is said of the end.
    """
    found = backtest(*experiment([[1.0, 2.0, 3.0, 4.0]] * 2), "y")
    assert found == []
