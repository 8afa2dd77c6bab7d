"""
Predictions held to account: how often their intervals held what came, how far off they were, and
whether a naive forecast had done as well.

Naive is what is known without any forecaster: the last reading; of a peak the peak so far; of the
time left the mean of past runs minus what has gone by.

Predictions within one run hang together: with several a run the intervals of the scores are too
narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from allele_mlflow.analysis.intervals import CONFIDENCE, Estimate, success_rate
from allele_mlflow.analysis.predictions import PredictionKind
from allele_mlflow.analysis.told_advice import ToldPrediction

#: A score of fewer says nothing.
FEWEST_TO_JUDGE = 5


class Course(NamedTuple):
    """
    How a run went, as far as a prediction can be judged by it.

    Attributes:
        readings: Columns `timestamp_ms` and `value`, of the metric that was predicted.
        began_ms: When the run began.
        ended_ms: When it was over; None while it goes on.
        past_seconds: How long runs of the same cell took that were over before the prediction.
    """

    readings: pd.DataFrame
    began_ms: int
    ended_ms: int | None
    past_seconds: Sequence[float] = ()


class Settled(NamedTuple):
    """
    A prediction, what came, and what a naive forecast had said; None with the reason.
    """

    told: ToldPrediction
    outcome: float | None
    naive: float | None
    reason: str


@dataclass(frozen=True)
class PredictionScore:
    """
    All predictions of one source, kind and metric.

    Attributes:
        source, kind, metric: Whose, of what.
        told: How many there are.
        settled: Of how many it is known what came.
        coverage_80, coverage_95: Part of those with such an interval of which it held what came.
        bias: Mean of predicted minus what came; below zero is too low.
        mean_error: Mean distance from what came.
        naive_error: The same of the naive forecast.
        skill: 1 - mean_error / naive_error over those that have both: 1 is perfect, at 0 or below
            the forecaster is of no use.
        open: Why the others are not settled, with how many.
    """

    source: str
    kind: str
    metric: str
    told: int
    settled: int
    coverage_80: Estimate | None
    coverage_95: Estimate | None
    bias: Estimate | None
    mean_error: float | None
    naive_error: float | None
    skill: float | None
    open: dict[str, int]

    @property
    def verdict(self) -> str:
        """
        In words: whether the intervals hold, and whether there is any skill.
        """
        if self.settled < FEWEST_TO_JUDGE:
            return f"not enough evidence: {self.settled} settled, want {FEWEST_TO_JUDGE}"
        said = []
        for part, found in ((0.8, self.coverage_80), (0.95, self.coverage_95)):
            if found is not None and found.high is not None and found.high < part:
                said.append(f"its {part:.0%} interval is too narrow")
            elif found is not None and found.low is not None and found.low > part:
                said.append(f"its {part:.0%} interval is too wide")
        if self.skill is not None:
            said.append("better than naive" if self.skill > 0.0 else "no better than naive")
        return "; ".join(said) or "its intervals hold"


def settle(told: ToldPrediction, course: Course) -> Settled:
    """
    What came of a prediction.
    """
    readings = course.readings.sort_values("timestamp_ms", kind="stable")
    values, times = readings["value"], readings["timestamp_ms"]
    known = values[times <= told.time_ms]
    last = float(known.iloc[-1]) if len(known) else None
    is_over = course.ended_ms is not None
    if told.kind == PredictionKind.TIME_LEFT:
        return _settle_time(told, course)
    if told.horizon_s is not None:
        later = values[times >= told.time_ms + 1000.0 * told.horizon_s]
        if len(later):
            return Settled(told, float(later.iloc[0]), last, "")
        why = "the run was over before" if is_over else "its time has not come"
        return Settled(told, None, last, why)
    if not is_over:
        return Settled(told, None, last, "the run goes on")
    if not len(values):
        return Settled(told, None, None, f"the run has no metric {told.metric!r}")
    if told.kind == PredictionKind.RESOURCE_PEAK:
        so_far = float(known.max()) if len(known) else None
        return Settled(told, float(values.max()), so_far, "")
    return Settled(told, float(values.iloc[-1]), last, "")


def _settle_time(told: ToldPrediction, course: Course) -> Settled:
    elapsed_s = (told.time_ms - course.began_ms) / 1000.0
    past = course.past_seconds
    naive = max(float(np.mean(past)) - elapsed_s, 0.0) if len(past) else None
    if course.ended_ms is None:
        return Settled(told, None, naive, "the run goes on")
    return Settled(told, (course.ended_ms - told.time_ms) / 1000.0, naive, "")


def score_predictions(settled: Iterable[Settled]) -> list[PredictionScore]:
    """
    A score for each source, kind and metric, in the order in which they first come.
    """
    groups: dict[tuple[str, str, str], list[Settled]] = {}
    for one in settled:
        key = (one.told.source, one.told.kind, one.told.metric)
        groups.setdefault(key, []).append(one)
    return [_score(*key, found) for key, found in groups.items()]


def _score(source: str, kind: str, metric: str, found: Sequence[Settled]) -> PredictionScore:
    known = [one for one in found if one.outcome is not None]
    errors = np.array([one.told.value - (one.outcome or 0.0) for one in known])
    both = [one for one in known if one.naive is not None]
    ours = np.array([abs(one.told.value - (one.outcome or 0.0)) for one in both])
    naive = np.array([abs((one.naive or 0.0) - (one.outcome or 0.0)) for one in both])
    naive_error = float(naive.mean()) if len(naive) else None
    reasons = [one.reason for one in found if one.outcome is None]
    return PredictionScore(
        source,
        kind,
        metric,
        told=len(found),
        settled=len(known),
        coverage_80=_coverage([(o.told.low_80, o.outcome or 0.0, o.told.high_80) for o in known]),
        coverage_95=_coverage([(o.told.low_95, o.outcome or 0.0, o.told.high_95) for o in known]),
        bias=_mean(errors) if len(errors) else None,
        mean_error=float(np.abs(errors).mean()) if len(errors) else None,
        naive_error=naive_error,
        skill=1.0 - float(ours.mean()) / naive_error if naive_error else None,
        open={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
    )


def _coverage(rows: Sequence[tuple[float, float, float]]) -> Estimate | None:
    told = [(low, value, high) for low, value, high in rows if low <= high]
    hits = sum(low <= value <= high for low, value, high in told)
    return success_rate(hits, len(told)) if told else None


def _mean(errors: np.ndarray) -> Estimate:
    value = float(errors.mean())
    if len(errors) < 2:
        return Estimate(value, None, None, "no interval: one prediction")
    half = float(special.stdtrit(len(errors) - 1, 0.5 + CONFIDENCE / 2))
    half *= float(errors.std(ddof=1)) / math.sqrt(len(errors))
    return Estimate(value, value - half, value + half, "Student's t")
