"""
What the phases of a run add up to: the `phase/<name>/...` metrics and `allele/phases.json`. Pure.

Units: `seconds` is the total of all phases of that name, so nested or concurrent ones of one name
count more than once; `cpu_percent_mean` is weighted by time, `gpu_percent_mean` by samples;
`rss_mb_max` is 10^6 bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from allele_mlflow.clock import utc_iso
from allele_mlflow.sampling.phases import PhaseRow

#: Longest phase name inside a metric key; MLflow takes 250 characters with what stands around it.
_SAFE_NAME_LENGTH = 200
_FORBIDDEN = re.compile(r"[^\w./\- :]")


class _Totals:
    """
    Sums over the phases of one name.
    """

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.cpu_s = 0.0
        self.cpu_over_s = 0.0
        self.rss_mb_max: float | None = None
        self.gpu_samples = 0
        self.gpu_percent_sum = 0.0

    def add(self, row: PhaseRow) -> None:
        self.count += 1
        self.seconds += row.seconds
        if row.span.cpu_s is not None:
            self.cpu_s += row.span.cpu_s
            self.cpu_over_s += row.seconds
        if row.rss_mb_max is not None:
            self.rss_mb_max = max(row.rss_mb_max, self.rss_mb_max or 0.0)
        if row.gpu_percent_mean is not None:
            self.gpu_samples += row.gpu_samples
            self.gpu_percent_sum += row.gpu_percent_mean * row.gpu_samples

    def values(self) -> dict[str, float]:
        values = {"seconds": self.seconds, "count": float(self.count)}
        if self.cpu_over_s > 0.0:
            values["cpu_percent_mean"] = 100.0 * self.cpu_s / self.cpu_over_s
        if self.rss_mb_max is not None:
            values["rss_mb_max"] = self.rss_mb_max
        if self.gpu_samples:
            values["gpu_percent_mean"] = self.gpu_percent_sum / self.gpu_samples
        return values


class PhaseSummary:
    """
    Sums over a stream of rows, each phase counted once, by name as a metric key can hold it.

    A phase that comes twice (a row written again after a crash) counts as it came first. Names that
    differ only in characters MLflow forbids are one name here.

    Cost: memory for each phase's number, to know it again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}
        self._totals: dict[str, _Totals] = {}

    def add(self, row: PhaseRow) -> bool:
        """
        Count a row; False when its phase was counted before.
        """
        instances = self._seen.setdefault(row.span.stream_id, set())
        if row.span.instance in instances:
            return False
        instances.add(row.span.instance)
        self._totals.setdefault(metric_safe(row.span.name), _Totals()).add(row)
        return True

    def values(self) -> dict[str, dict[str, float]]:
        """
        The sums by name; what no row knew is absent.
        """
        return {name: totals.values() for name, totals in self._totals.items()}


def summarise(rows: Iterable[PhaseRow]) -> dict[str, float]:
    """
    The `phase/<name>/...` metrics of a run, each phase counted once; what no row knew is absent.
    """
    summary = PhaseSummary()
    for row in rows:
        summary.add(row)
    return {
        f"phase/{name}/{key}": value
        for name, values in summary.values().items()
        for key, value in values.items()
    }


def phases_document(rows: Iterable[PhaseRow], *, max_rows: int = 100_000) -> dict[str, Any]:
    """
    What `allele/phases.json` holds: a summary of all phases, and the first `max_rows` one by one.

    Format history: 1 = {format, summary by name, rows, rows_left_out}.
    """
    summary = PhaseSummary()
    listed: list[dict[str, Any]] = []
    left_out = 0
    for row in rows:
        if not summary.add(row):
            continue
        if len(listed) < max_rows:
            listed.append(_describe_row(row))
        else:
            left_out += 1
    return {
        "format": 1,
        "summary": summary.values(),
        "rows": listed,
        "rows_left_out": left_out,
    }


def _describe_row(row: PhaseRow) -> dict[str, Any]:
    return {
        "name": row.span.name,
        "step": row.span.step,
        "stream": row.span.stream_id,
        "begin": utc_iso(row.span.begin_ns),
        "seconds": row.seconds,
        "cpu_percent": row.cpu_percent,
        "samples": row.samples,
        "rss_mb_max": row.rss_mb_max,
        "gpu_percent_mean": row.gpu_percent_mean,
        "complete": row.span.complete,
    }


def metric_safe(name: str) -> str:
    """
    The name as a part of an MLflow key: forbidden characters and empty parts become `_`.

    Never empty; a name over 200 characters ends in a hash of the whole.
    """
    safe = _FORBIDDEN.sub("_", name)
    # MLflow refuses what a path would simplify: "a//b", "/a", "a/", "." and "..".
    safe = "/".join("_" if part in ("", ".", "..") else part for part in safe.split("/"))
    if len(safe) <= _SAFE_NAME_LENGTH:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{safe[: _SAFE_NAME_LENGTH - 9].rstrip('/')}_{digest}"
