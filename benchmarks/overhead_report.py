"""
From raw pairs to `results/overhead.json` and the tables that a person reads. Pure.

Format history: 1 = first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarks.paired import (
    Overhead,
    TooFewPairsError,
    estimate_overhead,
    judge_limit,
    judge_null,
)

FORMAT = 1
#: Percent that the upper end of an interval should stay under.
LIMIT_PERCENT = 5.0
QUIET_LIMIT_PERCENT = 1.5
#: A bootstrap of fewer knows too little of the spread.
LEAST_PAIRS = 10
TITLES = {
    "null": "nothing against nothing",
    "allele_mlflow": "allele-mlflow, live",
    "allele_mlflow_quiet": "allele-mlflow, quiet",
    "deque_floor": "deque.append (the floor)",
    "mlflow_sync": "mlflow.log_metric",
    "mlflow_async": "the same, asynchronous",
    "mlflow_async_buffered": "the same, buffered 1 s",
    "whole_effect": "allele-mlflow, live",
    "whole_effect_quiet": "allele-mlflow, quiet",
    "whole_effect_at_rate": "live, at a rate",
    "whole_effect_quiet_at_rate": "quiet, at a rate",
}
#: What the whole effect at a chosen rate is called behind its name.
AT_RATE = "_at_rate"
WHOLE = tuple(name for name in TITLES if name.startswith("whole_effect"))
SIDECAR_FIELDS = ("sidecar_cpu_percent", "sidecar_cpu_us_per_metric")


def build_report(arms: Mapping[str, Mapping[str, Any]], environment: Any) -> dict[str, Any]:
    """
    The short blocks as JSON, without the whole effect yet.
    """
    return {
        "format": FORMAT,
        "arms": {name: _estimate(raw["log_ratios"]) | _rate(raw) for name, raw in arms.items()},
        "cpu": {name: _estimate(raw["cpu_log_ratios"]) for name, raw in arms.items()},
        "environment": dict(environment),
        "raw": {
            "unit": "log(seconds with logging / seconds without), one a pair",
            "arms": {name: _rounded(raw["log_ratios"]) for name, raw in arms.items()},
            "cpu": {name: _rounded(raw["cpu_log_ratios"]) for name, raw in arms.items()},
            "block_ms": {name: round(raw["block_ms"], 3) for name, raw in arms.items()},
        },
    }


def add_whole(
    report: dict[str, Any], effects: Mapping[str, Mapping[str, Any]], environment: Any
) -> dict[str, Any]:
    """
    The report with the whole effect in place of the one that it had, and where that was measured.
    """
    added = dict(report)
    raw = dict(report.get("raw", {}))
    for name, effect in effects.items():
        fields = {field: round(float(effect[field]), 3) for field in SIDECAR_FIELDS}
        added[name] = _estimate(effect["log_ratios"]) | _rate(effect) | fields
        raw[name] = _rounded(effect["log_ratios"])
    added["raw"] = raw
    added["environment"] = dict(report.get("environment", {})) | {"whole_effect": environment}
    return added


def _estimate(log_ratios: list[float]) -> dict[str, Any]:
    try:
        return dict(estimate_overhead(log_ratios).as_json())
    except TooFewPairsError:  # one pair is enough to see that it runs, and says nothing
        nothing = dict.fromkeys(("overhead_percent", "ci_low", "ci_high"))
        return nothing | {"pairs": len(log_ratios)}


def _rate(raw: Mapping[str, Any]) -> dict[str, float]:
    return {"metrics_per_s": round(float(raw["metrics_per_s"]), 1)}


def _rounded(log_ratios: list[float]) -> list[float]:
    return [round(value, 6) for value in log_ratios]


def overhead_of(summary: Mapping[str, Any]) -> Overhead | None:
    """
    The numbers of one arm again, None where there were too few pairs for any.
    """
    names = ("overhead_percent", "ci_low", "ci_high")
    if any(summary[name] is None or not math.isfinite(summary[name]) for name in names):
        return None
    centre, low, high = (float(summary[name]) for name in names)
    return Overhead(centre, low, high, summary["pairs"])


def judge(name: str, overhead: Overhead | None) -> str:
    """
    What an interval says, in words.
    """
    if overhead is None or overhead.pairs < LEAST_PAIRS:
        return "too few pairs to judge"
    if name == "null":
        return judge_null(overhead)
    limit = QUIET_LIMIT_PERCENT if name.startswith("whole_effect_quiet") else LIMIT_PERCENT
    return judge_limit(overhead, limit)


def arms_table(report: Mapping[str, Any]) -> Table:
    """
    The short blocks: what a call costs the program, caches and all.
    """
    table = _empty_table("Short blocks: what the calls cost")
    table.add_column("CPU time %\n95 % interval", justify="right")
    table.add_column("metrics/s", justify="right")
    table.add_column("reading")
    for name, summary in report["arms"].items():
        overhead = overhead_of(summary)
        cpu = overhead_of(report["cpu"][name])
        cpu_text = "-" if cpu is None else f"{cpu.overhead_percent:+.2f}\n{cpu.interval}"
        rate = f"{summary['metrics_per_s']:,.0f}" if summary["metrics_per_s"] else "-"
        table.add_row(*_cells(name, summary, overhead), cpu_text, rate, judge(name, overhead))
    return table


def whole_table(report: Mapping[str, Any]) -> Table:
    """
    The whole effect: seconds-long phases with a sidecar at work, against no logging at all.
    """
    table = _empty_table("Whole effect: with the sidecar's work, against nothing at all")
    table.add_column("metrics/s", justify="right")
    table.add_column("sidecar", justify="right")
    table.add_column("us/metric", justify="right")
    table.add_column("reading")
    for name in WHOLE:
        summary = report.get(name)
        if summary is None:
            continue
        overhead = overhead_of(summary)
        table.add_row(
            *_cells(name, summary, overhead),
            f"{summary['metrics_per_s']:,.0f}",
            f"{summary['sidecar_cpu_percent']:.1f} %",
            f"{summary['sidecar_cpu_us_per_metric']:.0f}",
            judge(name, overhead),
        )
    return table


def _empty_table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("arm", no_wrap=True)
    table.add_column("overhead %\n95 % interval", justify="right", no_wrap=True)
    table.add_column("pairs", justify="right")
    return table


def _cells(name: str, summary: Mapping[str, Any], overhead: Overhead | None) -> list[str]:
    title = TITLES.get(name, name)
    if overhead is None:
        return [title, "-", str(summary["pairs"])]
    return [title, f"{overhead.overhead_percent:+.2f}\n{overhead.interval}", str(overhead.pairs)]
