"""
Predictions: by hand, and back-tested on curves whose end is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.analysis.predictions import (
    Prediction,
    PredictionKind,
    predict_final,
    predict_peak,
    predict_time_left,
)
from allele_mlflow.errors import AnalysisError, TooFewPointsError

STEPS = np.arange(101.0)
SEEN = 50


def exponential(chance: np.random.Generator) -> FloatArray:
    """Flattens within 5 to 70 of 100 steps."""
    constant = np.exp(chance.uniform(np.log(5), np.log(70)))
    found: FloatArray = 10 - 5 * np.exp(-STEPS / constant) + 0.25 * chance.normal(size=101)
    return found


def power(chance: np.random.Generator) -> FloatArray:
    """Fast at first, and never quite flat."""
    found: FloatArray = 10 - 5 * (1 + STEPS) ** -chance.uniform(0.2, 1.5)
    return found + 0.25 * chance.normal(size=101)


def falling(chance: np.random.Generator) -> FloatArray:
    """A loss."""
    return 20.0 - exponential(chance)


def is_in_bounds(hits: int, count: int, part: float) -> bool:
    """
    Whether so many hits are within the 99 % bounds of a binomial distribution.
    """
    low, high = stats.binom.interval(0.99, count, part)
    return bool(low <= hits <= high)


@pytest.mark.parametrize("curve", [exponential, power, falling])
def test_intervals_of_the_curve_hold(curve: Callable[..., FloatArray]) -> None:
    """
    Of 200 curves seen by half the end lies in the 80 and 95 % intervals as often as that, within
    the 99 % bounds of the binomial distribution.
    """
    chance = np.random.default_rng(4)
    hits = np.zeros(2, dtype=int)
    for _ in range(200):
        values = curve(chance)
        found = predict_final("score", STEPS[:SEEN], values[:SEEN], 100.0)
        end = values[-1]
        hits += [found.low_80 <= end <= found.high_80, found.low_95 <= end <= found.high_95]
    assert is_in_bounds(hits[0], 200, 0.80), hits
    assert is_in_bounds(hits[1], 200, 0.95), hits


def test_curve_is_nearer_than_the_last_value() -> None:
    """
    Of curves that still rise, the prediction errs by less than half of what the last value does.
    """
    chance = np.random.default_rng(9)
    errors = []
    for _ in range(50):
        values = 10 - 5 * np.exp(-STEPS / 40) + 0.05 * chance.normal(size=101)
        found = predict_final("score", STEPS[:SEEN], values[:SEEN], 100.0)
        errors.append([abs(found.value - values[-1]), abs(values[SEEN - 1] - values[-1])])
    ours, naive = np.mean(errors, axis=0)
    assert ours < naive / 2


def test_rising_curve_does_not_turn() -> None:
    """
    A best so far is not predicted to become worse.
    """
    values = np.maximum.accumulate(np.random.default_rng(1).normal(size=30))
    found = predict_final("best", np.arange(30.0), values, 100.0)
    assert found.low_95 >= values[-1]
    assert predict_final("best", np.arange(30.0), -values, 100.0).high_95 <= -values[-1]


def test_past_runs_by_hand() -> None:
    """
    Past runs gained 1, 2, 3 from here: 10 + 2, with a scatter of 1 * sqrt(4/3) and two degrees of
    freedom.
    """
    found = predict_final("score", [1, 2], [9, 10], 5, past_changes=[1, 2, 3])
    assert found.value == pytest.approx(12.0)
    assert found.high_80 == pytest.approx(12 + stats.t.ppf(0.9, 2) * np.sqrt(4 / 3))
    assert found.low_95 == pytest.approx(12 - stats.t.ppf(0.975, 2) * np.sqrt(4 / 3))
    assert (found.method, found.support) == ("changes of past runs", 3)


def test_time_left_by_past_runs() -> None:
    """
    At the beginning as on the logarithms of the past; later under the condition that it still runs.
    """
    past = [8.0, 10.0, 12.5]
    found = predict_time_left(0.0, past_seconds=past)
    assert found.value == pytest.approx(10.0)
    half = stats.t.ppf(0.9, 2) * np.log(1.25) * np.sqrt(4 / 3)
    assert found.high_80 == pytest.approx(10 * np.exp(half))
    later = predict_time_left(10.0, past_seconds=past)
    half = stats.t.ppf(0.75, 2) * np.log(1.25) * np.sqrt(4 / 3)
    assert later.value == pytest.approx(10 * np.exp(half) - 10), "the middle of the upper half"
    assert later.low_95 > 0.0
    assert np.isfinite(predict_time_left(1e9, past_seconds=past).high_95)


def test_intervals_of_past_runs_hold() -> None:
    """
    Of 1,000 runs, with five past ones each and a third of the median gone, as many as are said.
    """
    chance = np.random.default_rng(6)
    hits = count = 0
    while count < 1000:
        seconds = np.exp(0.4 * chance.normal(size=6))
        if seconds[5] <= 0.33:  # it is over by then: nothing is predicted
            continue
        found = predict_time_left(0.33, past_seconds=seconds[:5])
        hits += found.low_80 <= seconds[5] - 0.33 <= found.high_80
        count += 1
    assert is_in_bounds(hits, 1000, 0.80), hits


def test_time_left_by_pace_by_hand() -> None:
    """
    Steps of 1, 2, 3 seconds and six to come: 12, with a scatter of sqrt(6 + 36/3).
    """
    found = predict_time_left(6.0, step_seconds=[1, 2, 3], steps_left=6)
    assert found.value == pytest.approx(12.0)
    assert found.high_80 == pytest.approx(12 + stats.t.ppf(0.9, 2) * np.sqrt(18))
    assert found.low_95 == 0.0


def test_peak_is_not_below_what_was() -> None:
    """
    With past peaks of 100 and a peak of 150 so far, it is 150 or more.
    """
    found = predict_peak("system/process_rss_megabytes", 150.0, [99.0, 100.0, 101.0, 100.5])
    assert found.low_95 >= 150.0
    assert found.kind is PredictionKind.RESOURCE_PEAK
    same = predict_peak("memory", 50.0, [100.0, 100.0, 100.0])
    assert (same.low_95, same.value, same.high_95) == pytest.approx((100.0, 100.0, 100.0))


def test_document_has_alleles_fields() -> None:
    """
    `log.prediction` takes it, and its reader finds both intervals.
    """
    made = Prediction(PredictionKind.FINAL_VALUE, "score", 1.0, 0.5, 1.5, 0.0, 2.0, "curve", 9)
    told = made.document()
    assert (told["prediction_type"], told["predicted_value"]) == ("final_value", 1.0)
    assert (told["confidence_interval"], told["interval_80"]) == ([0.0, 2.0], [0.5, 1.5])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: predict_final("m", [1, 2], [1, 2], 9), TooFewPointsError, "got 2 readings"),
        (lambda: predict_final("m", [2, 1], [1, 2], 9), AnalysisError, "steps rising"),
        (lambda: predict_final("m", [1], [np.nan], 9), AnalysisError, "finite numbers"),
        (lambda: predict_final("m", range(9), range(9), 8), AnalysisError, "before the last"),
        (lambda: predict_time_left(1.0, past_seconds=[1]), TooFewPointsError, "1 past runs"),
        (lambda: predict_time_left(1.0, past_seconds=[-1] * 3), AnalysisError, "above zero"),
        (lambda: predict_peak("m", 1.0, [1, 2]), TooFewPointsError, "want 3"),
    ],
)
def test_too_little_is_refused(call: Any, error: type[Exception], words: str) -> None:
    """
    Too few past runs and readings, and what is no curve.
    """
    with pytest.raises(error, match=words):
        call()


def test_best_so_far_without_past_is_too_narrow() -> None:
    """
    As the guide says: of 200 curves of the best so far some 70 % of ends are in the 80 %
    interval, and some 85 in that of 95; with five past runs as many as are said.
    """
    chance = np.random.default_rng(8)
    hits = np.zeros(3, dtype=int)
    for _ in range(200):
        rise = 10 - 5 * np.exp(-STEPS / np.exp(chance.uniform(np.log(5), np.log(70))))
        own, *past = np.maximum.accumulate(rise + chance.normal(size=(6, 101)), axis=1)
        found = predict_final("best", STEPS[:SEEN], own[:SEEN], 100.0)
        end = own[-1]
        hits[:2] += [found.low_80 <= end <= found.high_80, found.low_95 <= end <= found.high_95]
        changes = [one[-1] - one[SEEN - 1] for one in past]
        by_past = predict_final("best", STEPS[:SEEN], own[:SEEN], 100.0, past_changes=changes)
        hits[2] += by_past.low_80 <= end <= by_past.high_80
    assert 120 <= hits[0] <= 160, hits
    assert 155 <= hits[1] <= 185, hits
    assert is_in_bounds(hits[2], 200, 0.80), hits
