"""
Recommendations and predictions as they were told: the documents of a run's artifacts, ours and
Allele's, as things that can be held to account.

What a document does not say is None. Allele's percentages become ratios here: 0.1 = 10 % better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from allele_mlflow.tracking.alert_reader import (
    PREDICTIONS,
    RECOMMENDATIONS,
    artifact_documents,
)

UNKNOWN = "unknown"
_MS_PER_S = 1000


@dataclass(frozen=True)
class Recommendation:
    """
    Advice on what to change.

    Attributes:
        recommendation_id: Ours, by which follow-ups name it; Allele's own is not unique.
        run_id: Of the run that it was made on.
        source: Who made it.
        title: For people.
        time_ms: When it was told, since 1970; None where that is not known.
        params: What a run that follows it has; empty where it is only prose.
        current_params: What it is compared with; empty where that is the run it was made on.
        metric: What is to become better; None where it does not say.
        expected: By how much, as a part of the value now.
        expected_low, expected_high: An interval of that.
    """

    recommendation_id: str
    run_id: str
    source: str
    title: str
    time_ms: int | None
    params: Mapping[str, Any]
    current_params: Mapping[str, Any]
    metric: str | None
    expected: float | None
    expected_low: float | None
    expected_high: float | None


@dataclass(frozen=True)
class ToldPrediction:
    """
    Advice on what will be. `horizon_s` is None where it is about the end of the run; an interval is
    NaN where none was told.
    """

    prediction_id: str
    run_id: str
    source: str
    kind: str
    metric: str
    time_ms: int
    horizon_s: float | None
    value: float
    low_80: float
    high_80: float
    low_95: float
    high_95: float


def read_recommendations(tracking_uri: str, run_ids: Iterable[str]) -> list[Recommendation]:
    """
    Those of runs, each once.

    Raises:
        TrackingError: the store does not answer.
    """
    found: dict[str, Recommendation] = {}
    for run_id in run_ids:
        for told in _lines(tracking_uri, run_id, RECOMMENDATIONS):
            one = recommendation_of(told, run_id)
            found.setdefault(one.recommendation_id, one)
    return list(found.values())


def read_predictions(tracking_uri: str, run_ids: Iterable[str]) -> list[ToldPrediction]:
    """
    Those of runs, each once; without a number they are none.

    Raises:
        TrackingError: the store does not answer.
    """
    found: dict[str, ToldPrediction] = {}
    for run_id in run_ids:
        for told in _lines(tracking_uri, run_id, PREDICTIONS):
            one = prediction_of(told, run_id)
            if one is not None:
                found.setdefault(one.prediction_id, one)
    return list(found.values())


def recommendation_of(told: Mapping[str, Any], run_id: str) -> Recommendation:
    """
    One entry of `allele/recommendations.json`.
    """
    wanted = _mapping(told.get("params"))
    current = _mapping(told.get("current_params"))
    parameter = told.get("parameter")
    if isinstance(parameter, str) and parameter:
        if not wanted and told.get("recommended_value") is not None:
            wanted = {parameter: told["recommended_value"]}
        if not current and told.get("current_value") is not None:
            current = {parameter: told["current_value"]}
    ends = _pair(told.get("expected_interval"))
    return Recommendation(
        recommendation_id=str(told.get("id", "")),
        run_id=run_id,
        source=_first(told, "source", "model_name", "component_type") or UNKNOWN,
        title=_first(told, "title", "description", "recommendation_id") or "",
        time_ms=_time_ms(told.get("time")),
        params=wanted,
        current_params=current,
        metric=_first(told, "metric", "metric_name"),
        expected=_ratio(told.get("expected_improvement")),
        expected_low=_ratio(ends[0]),
        expected_high=_ratio(ends[1]),
    )


def prediction_of(told: Mapping[str, Any], run_id: str) -> ToldPrediction | None:
    """
    One entry of `allele/predictions.json`. An interval without a level counts as one of 95 %.
    """
    value, time_ms = _number(told.get("predicted_value")), _time_ms(told.get("time"))
    if value is None or time_ms is None:
        return None
    level = _number(told.get("confidence_level"))
    wide, narrow = _pair(told.get("interval_95")), _pair(told.get("interval_80"))
    if level is None or math.isclose(level, 0.95):
        wide = _pair(told.get("confidence_interval")) if wide[0] is None else wide
    elif math.isclose(level, 0.8):
        narrow = _pair(told.get("confidence_interval")) if narrow[0] is None else narrow
    minutes = _number(told.get("prediction_horizon_minutes"))
    return ToldPrediction(
        prediction_id=str(told.get("id", "")),
        run_id=run_id,
        source=_first(told, "source", "model_name", "component_type") or UNKNOWN,
        kind=_first(told, "prediction_type") or UNKNOWN,
        metric=_first(told, "metric_name", "metric") or "",
        time_ms=time_ms,
        horizon_s=60.0 * minutes if minutes is not None and minutes > 0 else None,
        value=value,
        **dict(zip(("low_80", "high_80"), map(_or_nan, narrow), strict=True)),
        **dict(zip(("low_95", "high_95"), map(_or_nan, wide), strict=True)),
    )


def is_like(value: Any, wanted: Any) -> bool:
    """
    Whether a param is what a document means, which may have it as a text: 0.2 is "0.20".
    """
    numbers = _number(value), _number(wanted)
    if None not in numbers:
        return math.isclose(numbers[0] or 0.0, numbers[1] or 0.0, rel_tol=1e-9)
    return str(value) == str(wanted)


def _lines(tracking_uri: str, run_id: str, name: str) -> Iterable[Mapping[str, Any]]:
    key = name.removesuffix(".json")
    for document in artifact_documents(tracking_uri, run_id, name):
        lines = document.get(key)
        if isinstance(lines, list):
            yield from (one for one in lines if isinstance(one, dict))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(told: Mapping[str, Any], *names: str) -> str | None:
    found = (told.get(name) for name in names)
    return next((str(value) for value in found if value not in (None, "")), None)


def _pair(value: Any) -> tuple[float | None, float | None]:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = map(_number, value)
        if low is not None and high is not None and low <= high:
            return low, high
    return None, None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _ratio(percent: Any) -> float | None:
    text = percent.strip().removesuffix("%") if isinstance(percent, str) else percent
    found = _number(text)
    return None if found is None else found / 100.0


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _time_ms(text: Any) -> int | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return None if found.tzinfo is None else round(found.timestamp() * _MS_PER_S)
