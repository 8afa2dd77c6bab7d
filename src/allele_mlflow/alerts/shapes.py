"""
The shapes in which others tell what they found, told by what is in them (duck typing).

Given are plain copies of what was handed over: mappings of text, numbers, lists and mappings, as
`snapshots.plain_fields` makes them. Known are those of Allele's observability engine: `MetricValue`
and measurements, `Alert` and the plain mapping of its alert manager, `AnomalyResult`,
`OptimizationRecommendation`, `PredictionResult`, and `AlertRule`. Whatever has their fields counts
as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from allele_mlflow.alerts.rules import NAME_LENGTH, AlertRule
from allele_mlflow.records import SEVERITIES, AlertRaised, AlertStatus, Severity

MESSAGE_LENGTH = 4000
#: Longest context of an alert, as JSON; a longer one is left out, and says so.
CONTEXT_BYTES = 16 << 10
#: What the numbers of a measurement are called, by its class.
MEASUREMENTS = {
    "ResourceMeasurement": "observed/resources",
    "SystemMetrics": "observed/system",
    "PerformanceMetrics": "observed/performance",
    "ComponentMetrics": "observed/component",
}
#: Two of these in a mapping without a class make it a ResourceMeasurement.
_RESOURCE_FIELDS = frozenset({"cpu_percent", "memory_mb", "memory_percent", "gpu_percent"})
#: How others call our severities.
_SEVERITIES: dict[str, Severity] = {
    "info": "info",
    "warning": "warning",
    "error": "error",
    "critical": "critical",
    "debug": "info",
    "low": "info",
    "warn": "warning",
    "medium": "warning",
    "moderate": "warning",
    "high": "error",
    "severe": "critical",
    "fatal": "critical",
}
_STATUSES: dict[str, AlertStatus] = {
    "active": "active",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
}
#: Fields of alerts and anomalies that have a place of their own.
_PLACED = frozenset(
    {
        *("alert_id", "rule_id", "name", "description", "message", "severity", "status"),
        *("metric_name", "current_value", "actual_value", "threshold", "correlation_id"),
        *("context", "step"),
    }
)


class Shape(StrEnum):
    """
    What a thing is.
    """

    METRIC = "metric"
    MEASUREMENT = "measurement"
    ALERT = "alert"
    ANOMALY = "anomaly"
    RECOMMENDATION = "recommendation"
    PREDICTION = "prediction"


class Place(NamedTuple):
    """
    When and where in the program something was told.
    """

    timestamp_ns: int
    phase: str | None
    step: int | None


class ShapeError(ValueError):
    """
    A thing has a known shape and cannot be what it says; the text says what was wanted.
    """


def shape_of(fields: Mapping[str, Any], class_name: str = "") -> Shape | None:
    """
    What a thing with these fields is, None where it is nothing that we know.
    """
    has = fields.keys()
    if {"prediction_type", "predicted_value"} <= has:
        return Shape.PREDICTION
    if "recommended_value" in has and has & {"category", "recommendation_id", "title"}:
        return Shape.RECOMMENDATION
    if "alert_id" in has or {"rule_id", "current_value"} <= has:
        return Shape.ALERT
    if "anomaly_type" in has:
        return Shape.ANOMALY
    if {"name", "value"} <= has and has & {"metric_type", "component", "unit"}:
        return Shape.METRIC
    if class_name in MEASUREMENTS or len(has & _RESOURCE_FIELDS) > 1:
        return Shape.MEASUREMENT
    return None


def alert_of(fields: Mapping[str, Any], *, alert_id: str, place: Place) -> AlertRaised:
    """
    An alert or anomaly of either shape as ours; what has no place of its own is in `context`.

    Args:
        fields: Of the thing.
        alert_id: Ours, for no sender's is sure to be unique.
        place: When and where it was told.
    Raises:
        ShapeError: a severity or status that nobody has.
    """
    shape = shape_of(fields)
    metric = _text(fields.get("metric_name"))
    is_second = "anomaly_type" in fields
    name = _text(fields.get("name")) or _text(fields.get("anomaly_type")) or metric or "alert"
    value = _number(fields.get("actual_value" if is_second else "current_value"))
    own = fields.get("context")
    context = dict(own) if isinstance(own, Mapping) else {} if own is None else {"context": own}
    for key, given in fields.items():
        if key not in _PLACED and given is not None:
            context.setdefault(key, given)
    return make_alert(
        name,
        alert_id=alert_id,
        place=place,
        severity=severity_of(fields.get("severity")),
        message=_text(fields.get("description")) or _text(fields.get("message")) or "",
        kind="anomaly" if shape is Shape.ANOMALY else "alert",
        status=_status_of(fields.get("status")),
        metric=metric,
        value=value,
        threshold=_number(fields.get("threshold")),
        rule=_text(fields.get("rule_id")),
        source_id=_text(fields.get("alert_id")),
        correlation_id=_text(fields.get("correlation_id")),
        context=context,
    )


def make_alert(
    name: str,
    *,
    alert_id: str,
    place: Place,
    severity: Severity,
    message: str,
    metric: str | None,
    value: float | None,
    threshold: float | None,
    context: dict[str, Any],
    **more: Any,
) -> AlertRaised:
    """
    An alert of bounded size; what JSON has no number for is a word.
    """
    is_finite = value is None or math.isfinite(value)
    size = len(msgspec.json.encode(context))
    if size > CONTEXT_BYTES:
        context = {"left_out": f"{size} bytes of context: at most {CONTEXT_BYTES} are kept"}
    return AlertRaised(
        timestamp_ns=place.timestamp_ns,
        alert_id=alert_id,
        name=name[:NAME_LENGTH],
        severity=severity,
        message=message[:MESSAGE_LENGTH],
        metric=metric[:NAME_LENGTH] if metric is not None else None,
        value=value if is_finite else None,
        non_finite=None if is_finite else str(value),
        threshold=threshold if threshold is not None and math.isfinite(threshold) else None,
        step=place.step,
        phase=place.phase,
        context=context,
        **more,
    )


def rule_of(fields: Mapping[str, Any]) -> AlertRule:
    """
    A rule of Allele's `AlertRule` as ours: the mean of the readings in its `evaluation_window`
    (seconds) is compared.

    Raises:
        ShapeError: it is no such rule, or one of its fields cannot be.
    """
    wanted = {"metric_name", "threshold", "condition"}
    if not wanted <= fields.keys():
        raise ShapeError(f"want an AlertRule, or what has {', '.join(sorted(wanted))}")
    given = {
        "name": _text(fields.get("name")) or _text(fields.get("rule_id")),
        "metric": fields["metric_name"],
        "condition": fields["condition"],
        "threshold": fields["threshold"],
        "severity": severity_of(fields.get("severity")),
        "enabled": fields.get("enabled"),
        "description": fields.get("description"),
        "window_s": fields.get("evaluation_window"),
        "cooldown_s": fields.get("cooldown_seconds"),
        "minimum_samples": fields.get("minimum_samples"),
    }
    try:
        return msgspec.convert({k: v for k, v in given.items() if v is not None}, AlertRule)
    except msgspec.ValidationError as exc:
        raise ShapeError(str(exc)) from None


def readings_of(fields: Mapping[str, Any], class_name: str = "") -> dict[str, float]:
    """
    The numbers of a `MetricValue` or a measurement by the keys under which they are logged.

    A metric of a component is `<component>/<name>`; the numbers of a measurement are
    `observed/<kind>/<field>`, nested ones below.

    Raises:
        ShapeError: there is no number in it.
    """
    if shape_of(fields, class_name) is Shape.METRIC:
        value = _number(fields["value"])
        if value is None:
            raise ShapeError(f"value: want a number, got {type(fields['value']).__name__}")
        component = _text(fields.get("component"))
        return {f"{component}/{fields['name']}" if component else str(fields["name"]): value}
    prefix = MEASUREMENTS.get(class_name, MEASUREMENTS["ResourceMeasurement"])
    found = dict(_numbers(fields, prefix))
    if not found:
        raise ShapeError("want a measurement with numbers in it")
    return found


def step_of(fields: Mapping[str, Any]) -> int | None:
    """
    The step or generation that a thing names, in itself, its tags or its context; None without.
    """
    for place in (fields, fields.get("tags"), fields.get("context")):
        if not isinstance(place, Mapping):
            continue
        for name in ("step", "generation"):
            given = place.get(name)
            if type(given) is int:
                return given
            if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 19:
                return int(given)
    return None


def severity_of(given: object) -> Severity:
    """
    One of our severities, "warning" where none is given.

    Raises:
        ShapeError: nobody has such a one.
    """
    if given is None:
        return "warning"
    found = _SEVERITIES.get(given.lower()) if isinstance(given, str) else None
    if found is None:
        raise ShapeError(f"severity={given!r:.60}: want one of {', '.join(SEVERITIES)}")
    return found


def _status_of(given: object) -> AlertStatus:
    if given is None:
        return "active"
    found = _STATUSES.get(given.lower()) if isinstance(given, str) else None
    if found is None:
        raise ShapeError(f"status={given!r:.60}: want one of {', '.join(_STATUSES)}")
    return found


def _numbers(fields: Mapping[str, Any], prefix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, given in fields.items():
        if isinstance(given, Mapping):
            found |= _numbers(given, f"{prefix}/{name}")
        elif (number := _number(given)) is not None:
            found[f"{prefix}/{name}"] = number
    return found


def _number(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    try:
        return float(given)
    except OverflowError:
        return None


def _text(given: object) -> str | None:
    return str(given) if isinstance(given, (str, int, float)) and given != "" else None
