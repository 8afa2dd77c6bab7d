"""
What a run's page says: params, metrics, phases, alerts, files, delivery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.numerals import whole_number
from allele_mlflow.records import SEVERITIES
from allele_mlflow.tracking.artifact_listing import ArtifactListing
from allele_mlflow.units import describe

#: Pairs, phases, alerts that are told of a run.
MOST_PAIRS = 1000
MOST_PHASES = 200
MOST_ALERTS = 200
PHASE_PREFIX = "phase/"
ERROR_TAG = "allele.error.category"


class Pair(msgspec.Struct, frozen=True):
    """
    A param or a tag.
    """

    key: str
    value: str


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A metric of a run: the reading that MLflow shows.
    """

    key: str
    value: float | None
    unit: str
    step: int
    timestamp_ms: int


class PhaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    All phases of one name. CPU in percent of one core, memory in 10^6 bytes.
    """

    name: str
    seconds: float | None = None
    count: int | None = None
    cpu_percent_mean: float | None = None
    rss_mb_max: float | None = None
    gpu_percent_mean: float | None = None


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    An alert.
    """

    time: str
    severity: str
    name: str
    message: str
    metric: str
    value: float | None
    phase: str
    step: int | None
    status: str


class ErrorRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    The error that a run names as its last, or as its end; `count` is of all its errors.
    """

    category: str
    error: str
    message: str
    count: int | None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """
    A file of a run.
    """

    path: str
    size_bytes: int | None


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """
    Files of a run. `problem`: why they cannot be listed.
    """

    files: list[Artifact] = []
    is_whole: bool = True
    problem: str | None = None


def pairs_of(frame: pd.DataFrame) -> list[Pair]:
    """
    Params or tags by their names.
    """
    told = zip(frame["key"], frame["value"], strict=True)
    return [Pair(str(key), str(value)) for key, value in sorted(told)[:MOST_PAIRS]]


def metric_rows(metrics: pd.DataFrame) -> list[MetricRow]:
    """
    The metrics of one run, those of the machine and of phases last.
    """
    rows = [
        MetricRow(
            key=row.key,
            value=float(row.value),
            unit=unit.unit if (unit := describe(row.key)) is not None else "",
            step=int(row.step),
            timestamp_ms=int(row.timestamp_ms),
        )
        for row in metrics.itertuples()
    ]
    return sorted(rows, key=lambda row: (row.key.startswith(("system/", PHASE_PREFIX)), row.key))


def usual_metric(rows: Sequence[MetricRow]) -> str:
    """
    The first metric that went on for some steps, else the first one; empty where there is none.
    """
    return next((one.key for one in rows if one.step > 0), rows[0].key if rows else "")


def phase_rows(metrics: pd.DataFrame) -> list[PhaseRow]:
    """
    The phases of one run by their summaries, the longest first.
    """
    found: dict[str, dict[str, float]] = {}
    for key, value in zip(metrics["key"], metrics["value"], strict=True):
        name, _, field = key.removeprefix(PHASE_PREFIX).rpartition("/")
        if key.startswith(PHASE_PREFIX) and name and field in PhaseRow.__struct_fields__:
            found.setdefault(name, {})[field] = float(value)
    rows = [
        msgspec.convert({"name": name} | told, PhaseRow, strict=False)
        for name, told in found.items()
    ]
    return sorted(rows, key=lambda row: -(row.seconds or 0.0))[:MOST_PHASES]


def alert_rows(documents: Iterable[dict[str, Any]]) -> list[AlertRow]:
    """
    The alerts of documents (`allele/alerts.json`), the gravest first.
    """
    rows = [_alert(one) for document in documents for one in document.get("alerts", [])]
    order: dict[str, int] = {severity: place for place, severity in enumerate(SEVERITIES)}
    return sorted(rows, key=lambda row: -order.get(row.severity, 0))[:MOST_ALERTS]


def error_rows(own: Mapping[str, str]) -> list[ErrorRow]:
    """
    The error that the tags of a run tell of; empty where they tell of none.
    """
    if ERROR_TAG not in own:
        return []
    return [
        ErrorRow(
            category=own[ERROR_TAG],
            error=own.get("allele.error.type", ""),
            message=own.get("allele.error.message", ""),
            count=whole_number(own.get("allele.error.count")),
        )
    ]


def artifacts_of(listing: ArtifactListing) -> Artifacts:
    """
    A listing as the page has it.
    """
    return Artifacts(
        files=[Artifact(path=one.path, size_bytes=one.size_bytes) for one in listing.files],
        is_whole=listing.is_whole,
    )


def _alert(told: dict[str, Any]) -> AlertRow:
    value = told.get("value")
    step = told.get("step")
    return AlertRow(
        time=str(told.get("time") or ""),
        severity=str(told.get("severity") or ""),
        name=str(told.get("name") or ""),
        message=str(told.get("message") or ""),
        metric=str(told.get("metric") or ""),
        value=float(value) if isinstance(value, int | float) else None,
        phase=str(told.get("phase") or ""),
        step=step if isinstance(step, int) else None,
        status=str(told.get("status") or ""),
    )
