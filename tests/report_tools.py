"""
An invented execution of a suite, for tests of reports.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from allele_mlflow.reports.summary import FailureGroup, Link, Objective, SuiteSummary
from allele_mlflow.units import Direction

HOSTILE = "<script>alert(1)</script> | `x` %{x} [a](http://b) \u202e\n日本"


def make_row(
    cell: str = "a", repeat: int = 0, value: float | None = 1.0, **others: Any
) -> dict[str, Any]:
    """
    A run's row of results; failed where there is no value.
    """
    return {
        "cell": cell,
        "cell_key": f"key of {cell}",
        "repeat": repeat,
        "attempt": 1,
        "status": "finished" if value is not None else "failed",
        "category": None if value is not None else "timeout",
        "seed": repeat,
        "order": 0,
        "seconds": 2.5,
        "run_id": f"run {cell} {repeat}",
        "run_uid": f"uid {cell} {repeat}",
        "param.size": len(cell),
        "metric.score": math.nan if value is None else value,
        **others,
    }


def make_results(values: dict[str, list[float | None]]) -> pd.DataFrame:
    """
    Cells by name with a value for each repeat, None for one that failed.
    """
    return pd.DataFrame(
        [
            make_row(cell, repeat, value)
            for cell, repeats in values.items()
            for repeat, value in enumerate(repeats)
        ]
    )


def make_history(readings: dict[str, list[list[float]]]) -> pd.DataFrame:
    """
    Cells by name, for each repeat its values at step 0, 1, 2, ...
    """
    return pd.DataFrame(
        [
            {
                "run_id": f"run {cell} {repeat}",
                "cell": cell,
                "cell_key": f"key of {cell}",
                "repeat": repeat,
                "key": "score",
                "step": step,
                "timestamp_ms": 1000 * step,
                "value": value,
            }
            for cell, repeats in readings.items()
            for repeat, values in enumerate(repeats)
            for step, value in enumerate(values)
        ]
    )


def make_summary(results: pd.DataFrame, **others: Any) -> SuiteSummary:
    """
    An execution with one objective, and something of everything that a report shows.
    """
    facts: dict[str, Any] = {
        "suite": "speed",
        "execution": "first",
        "started_at": datetime(2024, 5, 1, 10, tzinfo=UTC),
        "ended_at": datetime(2024, 5, 1, 11, 7, tzinfo=UTC),
        "where": "bench-host",
        "objectives": (Objective("score", "points", Direction.HIGHER),),
        "failures": (FailureGroup("timeout", "f00d", 3, "took too long", ("a", "b")),),
        "settings": {"repeats": 5},
        "environment": {"python": "3.11.4"},
        "links": (Link("MLflow", "http://127.0.0.1:5000/#/runs/a_b"),),
        "notes": ("machine was busy",),
    }
    return SuiteSummary(results=results, **(facts | others))
