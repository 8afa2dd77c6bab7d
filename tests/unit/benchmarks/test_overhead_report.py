"""
The JSON that the overhead benchmark writes, and what its tables say.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from benchmarks.overhead_report import (
    add_whole,
    arms_table,
    build_report,
    judge,
    overhead_of,
    whole_table,
)
from benchmarks.paired import Overhead

ARM_KEYS = {"overhead_percent", "ci_low", "ci_high", "pairs", "metrics_per_s"}
SIDECAR_KEYS = {"sidecar_cpu_percent", "sidecar_cpu_us_per_metric"}


def raw_arm(pairs: int) -> dict[str, Any]:
    ratios = [0.01 + 0.001 * (number % 5) for number in range(pairs)]
    both = {"log_ratios": ratios, "cpu_log_ratios": ratios}
    return both | {"metrics_per_s": 4800.0, "block_ms": 33.0, "lost": 0}


def raw_effect(pairs: int) -> dict[str, Any]:
    sidecar = {"sidecar_cpu_percent": 24.0, "sidecar_cpu_us_per_metric": 180.0}
    return raw_arm(pairs) | sidecar


def whole_report(pairs: int) -> dict[str, Any]:
    report = build_report(
        {"null": raw_arm(pairs), "allele_mlflow": raw_arm(pairs)}, {"python": "3"}
    )
    effects = {"whole_effect": raw_effect(pairs), "whole_effect_quiet": raw_effect(pairs)}
    return add_whole(report, effects, {"python": "3"})


def shown(table: Any) -> str:
    console = Console(width=140, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_report_has_the_promised_shape() -> None:
    """
    Each arm and both whole effects have exactly the promised keys; raw data and environment are
    there; it is JSON.
    """
    report = json.loads(json.dumps(whole_report(20), allow_nan=False))
    assert all(set(arm) == ARM_KEYS for arm in report["arms"].values())
    assert all(set(arm) == ARM_KEYS - {"metrics_per_s"} for arm in report["cpu"].values())
    for name in ("whole_effect", "whole_effect_quiet"):
        assert set(report[name]) == ARM_KEYS | SIDECAR_KEYS
        assert len(report["raw"][name]) == 20
    assert len(report["raw"]["arms"]["null"]) == 20
    assert report["environment"]["whole_effect"] == {"python": "3"}


def test_new_whole_effect_leaves_the_arms_alone() -> None:
    """
    A long measurement of the whole effect replaces that, and nothing else of an earlier report.
    """
    before = whole_report(15)
    after = add_whole(before, {"whole_effect": raw_effect(130)}, {"python": "4"})
    assert after["whole_effect"]["pairs"] == 130
    assert after["whole_effect_quiet"] == before["whole_effect_quiet"]
    assert after["arms"] == before["arms"]
    assert after["environment"]["python"] == "3"
    assert after["environment"]["whole_effect"] == {"python": "4"}
    assert len(before["raw"]["whole_effect"]) == 15


def test_whole_effect_can_stand_alone() -> None:
    """
    The long measurement can be the first.
    """
    report = add_whole({"arms": {}}, {"whole_effect": raw_effect(20)}, {})
    assert report["whole_effect"]["pairs"] == 20
    assert "allele-mlflow, live" in shown(whole_table(report))


def test_single_pair_has_no_interval() -> None:
    """
    What was not measured is None in the JSON and a dash in the table, never zero.
    """
    report = whole_report(1)
    arm = report["arms"]["allele_mlflow"]
    assert (arm["overhead_percent"], arm["ci_low"], arm["ci_high"]) == (None, None, None)
    assert overhead_of(arm) is None
    assert "too few pairs to judge" in shown(arms_table(report))
    assert "too few pairs to judge" in shown(whole_table(report))


@pytest.mark.parametrize(
    ("name", "interval", "pairs", "words"),
    [
        ("null", (-0.5, 0.5), 300, "holds zero, as it must"),
        ("null", (0.5, 1.5), 300, "misses zero: do not trust this"),
        ("allele_mlflow", (0.5, 1.5), 300, "under 5 %"),
        ("mlflow_sync", (4000.0, 5000.0), 15, "over 5 %"),
        ("whole_effect", (-5.0, 12.0), 15, "too wide to decide (5 %)"),
        ("whole_effect_quiet", (-1.0, 1.6), 130, "too wide to decide (1.5 %)"),
        ("allele_mlflow", (0.5, 1.5), 3, "too few pairs to judge"),
    ],
)
def test_reading_says_what_the_interval_can_tell(
    name: str, interval: tuple[float, float], pairs: int, words: str
) -> None:
    """
    A reader who knows no statistics is told whether the number decides anything.
    """
    low, high = interval
    assert judge(name, Overhead((low + high) / 2, low, high, pairs)) == words
