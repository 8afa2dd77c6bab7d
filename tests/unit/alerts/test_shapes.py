"""
The shapes of others: told by their fields, and turned into ours.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from allele_mlflow.alerts.shapes import (
    CONTEXT_BYTES,
    Place,
    Shape,
    ShapeError,
    alert_of,
    readings_of,
    rule_of,
    shape_of,
    step_of,
)
from allele_mlflow.records import AlertRaised

ALERT = {
    "alert_id": "a-1",
    "rule_id": "high_latency",
    "name": "High latency",
    "description": "slow",
    "severity": "error",
    "component_type": "llm_client",
    "component_id": "llm_client",
    "metric_name": "latency",
    "current_value": 9.5,
    "threshold": 5,
    "status": "active",
    "triggered_at": "2026-01-01T00:00:00+00:00",
    "resolved_at": None,
    "context": {"condition": "gt", "tags": {"a": "b"}},
    "correlation_id": "c-1",
}
SECOND = {
    "alert_id": "b-1",
    "timestamp": "2026-01-01T00:00:00",
    "component_type": "genome",
    "component_id": "g7",
    "metric_name": "fitness",
    "severity": "high",
    "anomaly_type": "throughput_drop",
    "anomaly_score": 0.9,
    "confidence": 0.8,
    "actual_value": 0.1,
    "expected_value": 0.7,
    "deviation": -0.6,
    "context": {"window": 5},
    "recommendations": ["look"],
    "priority": 1,
}
ANOMALY = {k: v for k, v in SECOND.items() if k not in ("alert_id", "priority")} | {
    "threshold": 0.5
}
RECOMMENDATION = {
    "recommendation_id": "evolution_config_stagnating",
    "category": "configuration_tuning",
    "title": "Raise the mutation rate",
    "current_value": "0.1",
    "recommended_value": "0.2",
    "expected_improvement": 12.5,
}
PREDICTION = {
    "prediction_type": "performance_forecast",
    "predicted_value": 0.9,
    "confidence_interval": [0.8, 1.0],
    "metric_name": "fitness",
}
METRIC = {
    "name": "fitness",
    "value": 0.5,
    "metric_type": "gauge",
    "component": "evolution_engine",
    "tags": {"generation": "7"},
    "correlation_id": "c-2",
}
RESOURCES = {"cpu_percent": 50.0, "memory_mb": 120, "gpu_percent": None, "timestamp": "2026"}
RULE = {
    "rule_id": "r-1",
    "name": "High latency",
    "metric_name": "latency",
    "threshold": 5.0,
    "condition": "gt",
    "severity": "critical",
    "enabled": True,
    "cooldown_seconds": 30,
    "evaluation_window": 60,
    "minimum_samples": 5,
    "notification_channels": ["mail"],
}
PLACE = Place(7, "select", 3)


def alert(fields: dict[str, Any]) -> AlertRaised:
    return alert_of(fields, alert_id="ours", place=PLACE)


@pytest.mark.parametrize(
    ("fields", "class_name", "shape"),
    [
        (ALERT, "Alert", Shape.ALERT),
        (SECOND, "dict", Shape.ALERT),
        (ANOMALY, "AnomalyResult", Shape.ANOMALY),
        (RECOMMENDATION, "dict", Shape.RECOMMENDATION),
        (PREDICTION, "dict", Shape.PREDICTION),
        (METRIC, "MetricValue", Shape.METRIC),
        (RESOURCES, "dict", Shape.MEASUREMENT),
        ({"throughput": 1.0}, "PerformanceMetrics", Shape.MEASUREMENT),
        ({"throughput": 1.0}, "dict", None),
        ({"loss": 0.5}, "dict", None),
        ({"name": "a", "value": 1}, "dict", None),
        (RULE, "AlertRule", None),
    ],
)
def test_shape_is_told_by_fields(fields: Any, class_name: str, shape: Shape | None) -> None:
    """
    Whatever has the fields of a known thing is one; anything else is nothing.
    """
    assert shape_of(fields, class_name) is shape


def test_first_shape_of_an_alert() -> None:
    """
    Allele's Alert, which has no to_dict: every field has its place or is in the context.
    """
    found = alert(ALERT)
    assert (found.alert_id, found.source_id, found.rule) == ("ours", "a-1", "high_latency")
    assert (found.name, found.message, found.severity) == ("High latency", "slow", "error")
    assert (found.metric, found.value, found.threshold) == ("latency", 9.5, 5.0)
    assert (found.correlation_id, found.kind, found.status) == ("c-1", "alert", "active")
    assert (found.timestamp_ns, found.phase, found.step) == PLACE
    assert found.context == {
        "condition": "gt",
        "tags": {"a": "b"},
        "component_type": "llm_client",
        "component_id": "llm_client",
        "triggered_at": "2026-01-01T00:00:00+00:00",
    }


def test_second_shape_of_an_alert() -> None:
    """
    The plain mapping of Allele's alert manager: named by its anomaly, with its actual value.
    """
    found = alert(SECOND)
    assert (found.kind, found.name, found.value) == ("alert", "throughput_drop", 0.1)
    assert (found.severity, found.source_id, found.threshold) == ("error", "b-1", None)
    assert found.context["component_id"] == "g7"
    assert found.context["window"] == 5
    assert found.context["priority"] == 1


def test_anomaly_is_an_alert_of_its_kind() -> None:
    """
    An AnomalyResult has no id and no correlation id; ours is all that it has.
    """
    found = alert(ANOMALY)
    assert (found.kind, found.alert_id, found.source_id) == ("anomaly", "ours", None)
    assert (found.threshold, found.correlation_id) == (0.5, None)
    assert found.context["expected_value"] == 0.7


@pytest.mark.parametrize("status", ["active", "Acknowledged", "resolved"])
def test_status_is_kept(status: str) -> None:
    """
    What the sender says of its alert is kept.
    """
    assert alert(ALERT | {"status": status}).status == status.lower()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"severity": "urgent"}, "severity='urgent': want one of info, warning, error, critical"),
        ({"severity": 3}, "severity=3: want one of"),
        ({"status": "gone"}, "status='gone': want one of active, acknowledged, resolved"),
    ],
)
def test_unknown_words_are_refused(fields: dict[str, Any], told: str) -> None:
    """
    A severity or status that nobody has is a mistake, told with what is wanted.
    """
    with pytest.raises(ShapeError) as caught:
        alert(ALERT | fields)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("given", "value", "non_finite"),
    [(3, 3.0, None), (math.nan, None, "nan"), (-math.inf, None, "-inf"), ("9", None, None)],
)
def test_value_that_json_has_no_number_for(given: Any, value: Any, non_finite: Any) -> None:
    """
    What is not finite is told by a word; what is no number at all is no value.
    """
    found = alert(ALERT | {"current_value": given})
    assert (found.value, found.non_finite) == (value, non_finite)


def test_size_is_bounded() -> None:
    """
    Names, messages and contexts of any length fit into one event, and what was left out is told.
    """
    found = alert(ALERT | {"name": "n" * 999, "description": "d" * 9999, "x": "y" * CONTEXT_BYTES})
    assert (len(found.name), len(found.message)) == (250, 4000)
    assert list(found.context) == ["left_out"]


def test_rule_of_allele() -> None:
    """
    Allele's AlertRule is a rule of ours on the mean of its window.
    """
    found = rule_of(RULE)
    assert (found.name, found.metric, found.condition) == ("High latency", "latency", "gt")
    assert (found.window_s, found.statistic, found.cooldown_s) == (60.0, "mean", 30.0)
    assert (found.severity, found.minimum_samples, found.enabled) == ("critical", 5, True)


@pytest.mark.parametrize(
    "fields",
    [{}, {"name": "n"}, RULE | {"condition": "like"}, RULE | {"threshold": None}],
)
def test_no_rule(fields: dict[str, Any]) -> None:
    """
    What is no rule, or cannot be one, is refused.
    """
    with pytest.raises(ShapeError):
        rule_of(fields)


def test_readings() -> None:
    """
    A metric stands under its component, a measurement under what it is; what is no number is left
    out.
    """
    assert readings_of(METRIC) == {"evolution_engine/fitness": 0.5}
    assert readings_of({"name": "a", "value": 1, "unit": "s"}) == {"a": 1.0}
    assert readings_of(RESOURCES) == {
        "observed/resources/cpu_percent": 50.0,
        "observed/resources/memory_mb": 120.0,
    }
    nested = {"latency": {"p50": 1, "p99": 2.5}, "ok": True, "id": "x"}
    assert readings_of(nested, "PerformanceMetrics") == {
        "observed/performance/latency/p50": 1.0,
        "observed/performance/latency/p99": 2.5,
    }
    for bad in (METRIC | {"value": "high"}, METRIC | {"value": True}):
        with pytest.raises(ShapeError):
            readings_of(bad)
    with pytest.raises(ShapeError):
        readings_of({"a": "b"}, "SystemMetrics")


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"step": 5}, 5),
        (METRIC, 7),
        ({"context": {"generation": 9}}, 9),
        ({"tags": {"step": "-1"}}, None),
        ({"tags": ["step"]}, None),
        ({"step": True}, None),
        ({}, None),
    ],
)
def test_step(fields: dict[str, Any], step: int | None) -> None:
    """
    A thing may name its step or generation in itself, its tags or its context.
    """
    assert step_of(fields) == step
