"""
What is still to come of a run: its final objective, the time left, the peak of a resource; each
with intervals of 80 and 95 %.

Past runs of the same cell say most, and are asked first; without them a run's own beginning is all
there is. A prediction says what it was made from, and `document()` is what `log.prediction` takes,
so that `allele-mlflow predictions` can hold it to account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy import special

from allele_mlflow.analysis.learning_curve import FEWEST_READINGS, end_quantiles
from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError

#: Low ends of both intervals, the middle, high ends: in the order of `Prediction`.
_PARTS = np.array([0.025, 0.1, 0.5, 0.9, 0.975])
FEWEST_PAST = 3
SOURCE = "allele-mlflow"


class PredictionKind(StrEnum):
    """
    What is predicted. Append only: documents have the names.
    """

    FINAL_VALUE = "final_value"
    TIME_LEFT = "time_left"
    RESOURCE_PEAK = "resource_peak"


@dataclass(frozen=True)
class Prediction:
    """
    A value that will be known later: in the middle of two intervals.

    Attributes:
        kind: What of the metric it is; of `TIME_LEFT` seconds.
        metric: Its key.
        value: As likely too high as too low.
        low_80, high_80, low_95, high_95: The intervals.
        method: What it was made from.
        support: How many past runs, or readings, or steps that was.
    """

    kind: PredictionKind
    metric: str
    value: float
    low_80: float
    high_80: float
    low_95: float
    high_95: float
    method: str
    support: int

    def document(self) -> dict[str, Any]:
        """
        The fields of a `PredictionResult`, and `interval_80`.
        """
        return {
            "prediction_type": self.kind.value,
            "metric_name": self.metric,
            "predicted_value": self.value,
            "confidence_interval": [self.low_95, self.high_95],
            "confidence_level": 0.95,
            "interval_80": [self.low_80, self.high_80],
            "model_name": SOURCE,
            "source": SOURCE,
            "prediction_explanation": f"{self.method} ({self.support})",
        }


def predict_final(
    metric: str,
    steps: Sequence[float] | FloatArray,
    values: Sequence[float] | FloatArray,
    last_step: float,
    *,
    past_changes: Sequence[float] | FloatArray = (),
) -> Prediction:
    """
    The reading at a run's last step.

    Args:
        metric: Its key.
        steps: Of the readings so far, rising.
        values: Those readings.
        last_step: When the run will be over.
        past_changes: Of past runs of the cell, their final reading minus that at the last of
            `steps`; from three on they are what the prediction is made of.
    Raises:
        TooFewPointsError: fewer than three past runs and fewer than five readings.
        AnalysisError: steps and values do not belong to each other, or a value is not finite.

    Coverage: in benchmarks/results/advice.json. Without past runs the intervals are too narrow for
    a best-so-far curve, and for one of which little was seen and whose noise lasts.
    """
    at, seen = _checked(steps), _checked(values)
    if len(at) != len(seen) or (np.diff(at) <= 0).any() or not len(at):
        message = f"{len(at)} steps and {len(seen)} values: want as many, steps rising"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    changes = _checked(past_changes)
    kind = PredictionKind.FINAL_VALUE
    if len(changes) >= FEWEST_PAST:
        quantiles = float(seen[-1]) + _student_quantiles(changes, _PARTS)
        return _made(kind, metric, quantiles, "changes of past runs", len(changes))
    if at[-1] >= last_step:
        message = f"a reading at step {at[-1]:g}: want steps before the last, {last_step:g}"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    if len(seen) < FEWEST_READINGS:
        message = f"got {len(seen)} readings, want {FEWEST_READINGS}, or {FEWEST_PAST} past runs"
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS)
    quantiles = end_quantiles(at, seen, float(last_step), _PARTS)
    return _made(kind, metric, quantiles, "its own curve", len(seen))


def predict_time_left(
    elapsed_s: float,
    *,
    past_seconds: Sequence[float] | FloatArray = (),
    step_seconds: Sequence[float] | FloatArray = (),
    steps_left: int = 0,
) -> Prediction:
    """
    Seconds until a run is over.

    Args:
        elapsed_s: Since it began.
        past_seconds: How long past runs of the cell took; from three on they are asked.
        step_seconds: How long each step of this run took so far, else.
        steps_left: Steps that are still to come.
    Raises:
        TooFewPointsError: fewer than three past runs, and fewer than two steps.
        AnalysisError: a time is negative or not finite.
    """
    kind, metric = PredictionKind.TIME_LEFT, "run/seconds"
    past = _positive(past_seconds)
    if len(past) >= FEWEST_PAST:
        quantiles = _above(past, elapsed_s) - elapsed_s
        return _made(kind, metric, quantiles, "seconds of past runs", len(past))
    pace = _positive(step_seconds)
    if len(pace) < 2:
        message = f"got {len(past)} past runs and {len(pace)} steps, want {FEWEST_PAST} or 2"
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS)
    # each step to come scatters for itself, and all of them by how well the mean is known
    scale = pace.std(ddof=1) * np.sqrt(steps_left + steps_left**2 / len(pace))
    quantiles = steps_left * pace.mean() + special.stdtrit(len(pace) - 1, _PARTS) * scale
    return _made(kind, metric, np.maximum(quantiles, 0.0), "the pace of its steps", len(pace))


def predict_peak(
    metric: str, peak_so_far: float, past_peaks: Sequence[float] | FloatArray
) -> Prediction:
    """
    The largest reading of a resource by the end of a run.

    Args:
        metric: Its key.
        peak_so_far: Of this run.
        past_peaks: Of past runs of the cell.
    Raises:
        TooFewPointsError: fewer than three past runs.
        AnalysisError: a peak is not above zero.
    """
    past = _positive(past_peaks)
    if len(past) < FEWEST_PAST:
        message = f"got {len(past)} past runs, want {FEWEST_PAST}"
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS)
    quantiles = _above(past, peak_so_far)
    return _made(PredictionKind.RESOURCE_PEAK, metric, quantiles, "peaks of past runs", len(past))


def _made(
    kind: PredictionKind, metric: str, quantiles: FloatArray, method: str, support: int
) -> Prediction:
    low_95, low_80, value, high_80, high_95 = map(float, quantiles)
    return Prediction(kind, metric, value, low_80, high_80, low_95, high_95, method, support)


def _student_quantiles(past: FloatArray, parts: FloatArray) -> FloatArray:
    """
    Of one value more from where the past ones came.
    """
    scale = past.std(ddof=1) * np.sqrt(1.0 + 1.0 / len(past))
    found: FloatArray = past.mean() + special.stdtrit(len(past) - 1, parts) * scale
    return found


def _above(past: FloatArray, least: float) -> FloatArray:
    """
    The same of positive values, by their logarithms, where it is known to be above `least`.
    """
    logs = np.log(past)
    scale = float(logs.std(ddof=1)) * np.sqrt(1.0 + 1.0 / len(past))
    below = 0.0
    if least > 0.0 and scale > 0.0:
        away = (np.log(least) - logs.mean()) / scale
        below = float(special.stdtr(len(past) - 1, away))
    # past all that was seen before the condition leaves no number: then it is over at once
    parts = np.minimum(below + _PARTS * (1.0 - below), 1.0 - 1e-12)
    found: FloatArray = np.maximum(np.exp(_student_quantiles(logs, parts)), least)
    return found


def _positive(values: Sequence[float] | FloatArray) -> FloatArray:
    found = _checked(values)
    if (found <= 0.0).any():
        message = f"got {found.min():g}, want values above zero"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    return found


def _checked(values: Sequence[float] | FloatArray) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        message = "want a list of finite numbers: take missing readings out first"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    return found
