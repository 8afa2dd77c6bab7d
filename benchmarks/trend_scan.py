"""
How long a scan of many histories takes: 400 of 200 executions, without a change and with one in
each of them, which is the worst, for then all are shuffled.

    python benchmarks/trend_scan.py

Writes benchmarks/results/trend_scan.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.analysis.trend import scan_trends
from benchmarks.environment import describe_environment
from benchmarks.made_series import NOISE_RATIO, draw_null
from benchmarks.program import run_benchmark

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "trend_scan.json"
HISTORIES, EXECUTIONS, FIRST_SEED = 400, 200, 10_000
SHIFT_SIGMA, SHIFT_AT = 5.0, 0.75


def make_frame(histories: int, executions: int, *, is_shifted: bool) -> pd.DataFrame:
    """
    Histories of normal noise, with a shift of five sigma in the last quarter or without.
    """
    shift = SHIFT_SIGMA * NOISE_RATIO * is_shifted
    step = shift * (np.arange(executions) >= SHIFT_AT * executions)
    parts = [
        pd.DataFrame(
            {
                "cell": f"cell {number // 10}",
                "metric": f"metric {number % 10}",
                "execution_id": [f"e{index:04}" for index in range(executions)],
                "started_ms": np.arange(executions),
                "value": draw_null("gaussian", executions, FIRST_SEED + number) + step,
            }
        )
        for number in range(histories)
    ]
    return pd.concat(parts, ignore_index=True)


def time_scan(frame: pd.DataFrame) -> dict[str, float]:
    """
    Seconds by the clock and of CPU, and what was found.
    """
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    report = scan_trends(frame)
    return {
        "clock_s": round(time.perf_counter() - began_s, 2),
        "cpu_s": round(time.process_time() - began_cpu_s, 2),
        "findings": len(report.findings),
    }


def measure(is_quick: bool) -> dict[str, Any]:
    """
    Both scans; the report.
    """
    size = (20, 40) if is_quick else (HISTORIES, EXECUTIONS)
    return {
        "format": 1,
        "histories": size[0],
        "executions": size[1],
        "quiet": time_scan(make_frame(*size, is_shifted=False)),
        "all_shifted": time_scan(make_frame(*size, is_shifted=True)),
        "environment": describe_environment(ROOT),
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    console.print(f"{report['histories']} histories of {report['executions']} executions")
    for name in ("quiet", "all_shifted"):
        console.print(f"  {name}: {report[name]}", markup=False)


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="How long a scan of many histories takes.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(is_quick),
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
