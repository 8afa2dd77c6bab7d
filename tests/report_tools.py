"""
An invented execution of a suite, for tests of reports.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pandas as pd

from allele_mlflow.reports.summary import FailureGroup, Link, Objective, SuiteSummary
from allele_mlflow.units import Direction

HOSTILE = "<script>alert(1)</script> | `x` %{x} [a](http://b) \u202e\n日本"
BEGAN_MS = 1_750_000_000_000
SIX_MB = 6_000_000
VOID = {"meta", "br", "hr", "img", "input", "link"}


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


def spec_of(figure: Any) -> dict[str, Any]:
    """
    A figure as its file has it.
    """
    spec = json.loads(figure.to_json())
    assert isinstance(spec, dict)
    return spec


def trace_of(figure: Any, name: str) -> dict[str, Any]:
    """
    The one trace of that name.
    """
    found = [trace for trace in spec_of(figure)["data"] if trace["name"] == name]
    assert len(found) == 1
    return dict(found[0])


def note_of(figure: Any) -> str:
    """
    What a figure says that it shows and leaves out.
    """
    return str(spec_of(figure)["layout"]["meta"]["note"])


def make_comparisons(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """
    Comparisons as `Comparisons.frame()` gives them, each row with what it names and usual facts.
    """
    usual = {
        "cell": "a",
        "metric": "score",
        "verdict": "better",
        "reason": "because",
        "baseline": 10.0,
        "candidate": 11.0,
        "p_holm": 0.01,
        "difference": 1.0,
        "difference_low": 0.5,
        "difference_high": 1.5,
        "ratio": 1.1,
        "ratio_low": 1.05,
        "ratio_high": 1.15,
    }
    return pd.DataFrame([usual | row for row in rows])


def make_series(values: list[float], **columns: list[Any]) -> pd.DataFrame:
    """
    One history, an execution a day.
    """
    return pd.DataFrame(
        {
            "execution_id": [f"e{number}" for number in range(len(values))],
            "started_ms": [1_750_000_000_000 + 86_400_000 * n for n in range(len(values))],
            "value": values,
            **columns,
        }
    )


def make_finding(kind: str, outcome: str, execution: str, **others: Any) -> dict[str, Any]:
    """
    A finding as `trend --json` tells it.
    """
    return {
        "kind": kind,
        "outcome": outcome,
        "execution": execution,
        "level_before": 1.0,
        "level_after": 2.0,
        "words": f"{outcome}: it {kind}d",
        **others,
    }


def make_phases(spans: Sequence[tuple[str, float, float]], **columns: list[Any]) -> pd.DataFrame:
    """
    Phases by name, begin and length in seconds since `BEGAN_MS`.
    """
    begins = [BEGAN_MS + 1000 * begin for _, begin, _ in spans]
    return pd.DataFrame(
        {
            "name": [name for name, _, _ in spans],
            "step": list(range(len(spans))),
            "begin": pd.to_datetime(begins, unit="ms", utc=True),
            "seconds": [seconds for _, _, seconds in spans],
            **columns,
        }
    )


def make_samples(key: str, values: list[float]) -> pd.DataFrame:
    """
    Samples of a key, one a second since `BEGAN_MS`.
    """
    times = [BEGAN_MS + 1000 * number for number in range(len(values))]
    return pd.DataFrame({"key": key, "timestamp_ms": times, "value": values})


def make_alert(name: str, at_s: float, severity: str = "warning", **others: Any) -> dict[str, Any]:
    """
    An alert, raised so many seconds after `BEGAN_MS`.
    """
    time = pd.Timestamp(BEGAN_MS + round(1000 * at_s), unit="ms", tz="UTC")
    return {"time": time, "severity": severity, "name": name, "message": f"{name}!", **others}


class ReadPage(HTMLParser):
    """
    A page's tags, attributes and texts; every tag that is opened must be closed in order.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.tags)

    def visible(self) -> list[str]:
        return [text for tag, text in self.texts if tag not in ("script", "style")]

    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(text) for tag, text in self.texts if tag == "script" and text[0] == "{"]
