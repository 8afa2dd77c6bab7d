"""
Scores of predictions, by hand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from allele_mlflow.analysis.prediction_scores import Course, Settled, score_predictions, settle
from allele_mlflow.analysis.told_advice import ToldPrediction, prediction_of

READINGS = pd.DataFrame({"timestamp_ms": [0, 1000, 2000, 3000], "value": [1.0, 4.0, 3.0, 2.0]})
OVER = Course(READINGS, began_ms=0, ended_ms=4000, past_seconds=[5.0, 7.0])


def told(value: float = 2.5, **more: Any) -> ToldPrediction:
    """
    After the second reading, with an interval of 1 to each side and one of 2.
    """
    fields: dict[str, Any] = {
        "prediction_id": "p",
        "run_id": "r",
        "source": "s",
        "kind": "final_value",
        "metric": "score",
        "time_ms": 1500,
        "horizon_s": None,
        "value": value,
        "low_80": value - 1,
        "high_80": value + 1,
        "low_95": value - 2,
        "high_95": value + 2,
    }
    return ToldPrediction(**(fields | more))


@pytest.mark.parametrize(
    ("more", "outcome", "naive"),
    [
        ({}, 2.0, 4.0),
        ({"kind": "resource_peak"}, 4.0, 4.0),
        ({"kind": "resource_peak", "time_ms": 500}, 4.0, 1.0),
        ({"kind": "time_left"}, 2.5, 4.5),
        ({"kind": "performance_forecast", "horizon_s": 0.5}, 3.0, 4.0),
        ({"time_ms": -1}, 2.0, None),
    ],
)
def test_what_came(more: dict[str, Any], outcome: float, naive: float | None) -> None:
    """
    The last reading, the peak, the seconds to the end, the first reading past the horizon; naive
    from what was known at 1.5 s.
    """
    assert settle(told(**more), OVER)[1:] == (outcome, naive, "")


@pytest.mark.parametrize(
    ("more", "course", "reason"),
    [
        ({}, OVER._replace(ended_ms=None), "the run goes on"),
        ({"kind": "time_left"}, OVER._replace(ended_ms=None), "the run goes on"),
        ({"horizon_s": 9.0}, OVER, "the run was over before"),
        ({"horizon_s": 9.0}, OVER._replace(ended_ms=None), "its time has not come"),
        ({}, OVER._replace(readings=READINGS[:0]), "the run has no metric 'score'"),
    ],
)
def test_what_is_not_known_yet(more: dict[str, Any], course: Course, reason: str) -> None:
    """
    Each with its reason, and in no score.
    """
    one = settle(told(**more), course)
    assert (one.outcome, one.reason) == (None, reason)
    (score,) = score_predictions([one])
    assert (score.told, score.settled, score.open) == (1, 0, {reason: 1})
    assert score.bias is None
    assert score.verdict.startswith("not enough evidence: 0 settled")


def test_score_by_hand() -> None:
    """
    Errors 0.5, -1.5, 1 and -3, naive ones of 2 each: two of four within 1, three within 2.
    """
    rows = [Settled(told(), 2.5 - error, 4.5 - error, "") for error in (0.5, -1.5, 1.0, -3.0)]
    (score,) = score_predictions(rows)
    assert score.coverage_80 is not None
    assert score.coverage_95 is not None
    assert (score.coverage_80.value, score.coverage_95.value) == (0.5, 0.75)
    wilson = stats.binomtest(2, 4).proportion_ci(0.95, method="wilson")
    assert score.coverage_80.low == pytest.approx(wilson.low)
    assert score.bias is not None
    assert score.bias.value == pytest.approx(-0.75)
    half = stats.t.ppf(0.975, 3) * np.std([0.5, -1.5, 1, -3], ddof=1) / 2
    assert score.bias.high == pytest.approx(-0.75 + half)
    assert (score.mean_error, score.naive_error) == (1.5, 2.0)
    assert score.skill == pytest.approx(0.25)


def test_bad_forecaster_is_named() -> None:
    """
    Twenty predictions of which no interval holds, each farther off than the last reading.
    """
    rows = [Settled(told(), 12.5, 11.0, "") for _ in range(20)]
    (score,) = score_predictions(rows)
    assert score.verdict == (
        "its 80% interval is too narrow; its 95% interval is too narrow; no better than naive"
    )


def test_interval_that_always_holds_is_too_wide() -> None:
    """
    Forty of forty within what should be 80 %.
    """
    (score,) = score_predictions([Settled(told(), 2.5, 3.0, "") for _ in range(40)])
    assert score.verdict == "its 80% interval is too wide; better than naive"


def test_sources_and_metrics_are_scored_apart() -> None:
    """
    Each in its own row.
    """
    rows = [Settled(told(source=one, metric=m), 2.5, None, "") for one in "ab" for m in "xy"]
    assert [(one.source, one.metric) for one in score_predictions(rows)] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
    ]


def test_alleles_document_is_read() -> None:
    """
    An interval without a level is one of 95 %; the horizon is in minutes; no id but ours.
    """
    found = prediction_of(
        {
            "id": "ours",
            "time": "2026-01-01T00:00:01+00:00",
            "prediction_type": "performance_forecast",
            "metric_name": "latency",
            "predicted_value": 3,
            "confidence_interval": [2, 4],
            "prediction_horizon_minutes": 5,
            "model_name": "forecaster",
        },
        "run",
    )
    assert found is not None
    assert (found.source, found.horizon_s, found.low_95, found.high_95) == ("forecaster", 300, 2, 4)
    assert math.isnan(found.low_80)
    assert found.time_ms % 60_000 == 1000


def test_level_of_the_interval_is_respected() -> None:
    """
    One of 80 % is one of 80 %; one of 50 % is neither.
    """
    line = {"id": "x", "time": "2026-01-01T00:00:00Z", "predicted_value": "1.5"}
    narrow = prediction_of(line | {"confidence_interval": [1, 2], "confidence_level": 0.8}, "r")
    other = prediction_of(line | {"confidence_interval": [1, 2], "confidence_level": 0.5}, "r")
    assert narrow is not None
    assert other is not None
    assert (narrow.low_80, narrow.high_80) == (1, 2)
    assert math.isnan(narrow.low_95)
    assert math.isnan(other.low_80)
    assert math.isnan(other.low_95)


@pytest.mark.parametrize("value", [None, "soon", math.nan, True])
def test_what_has_no_number_is_no_prediction(value: Any) -> None:
    """
    Nothing that could be scored.
    """
    assert prediction_of({"time": "2026-01-01T00:00:00Z", "predicted_value": value}, "r") is None
