"""
What a suite's trials came to: rows, frames, counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from allele_mlflow.failures import Category
from allele_mlflow.matrix.cells import Cell
from allele_mlflow.matrix.messages import CellFailure, CellResult
from allele_mlflow.matrix.prepared import Prepared

#: Columns of `results_frame` that every row has; parameters and metrics follow.
COLUMNS = (
    *("cell", "cell_key", "repeat", "attempt", "status", "category", "seed", "order"),
    *("seconds", "cpu_s", "peak_rss_bytes", "host", "run_uid", "run_id"),
)
PARAM_PREFIX = "param."
METRIC_PREFIX = "metric."


@dataclass(frozen=True)
class TrialRow:
    """
    The attempt of a trial that counts: the one that finished, else the last one.

    Units: see `CellResult`. `is_reused`: an earlier part of the execution ran it.
    """

    cell: Cell
    repeat: int
    attempt: int
    seed: int
    metrics: Mapping[str, float]
    run_uid: str
    run_id: str | None = None
    order: int | None = None
    seconds: float | None = None
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None
    host: str = ""
    failure: CellFailure | None = None
    is_reused: bool = False

    @property
    def status(self) -> str:
        """
        In a word.
        """
        return "finished" if self.failure is None else "failed"


@dataclass
class Outcome:
    """
    What became of an execution.

    Attributes:
        rows: Of each trial that was tried, now or in an earlier part.
        failures: Every failed attempt of this part: its cell's name, and why.
        is_local: All cells ran on this machine.
        is_interrupted: It was stopped before its end, by Ctrl-C.
        left_count: Trials that were not tried, because it stopped.
    """

    prepared: Prepared
    rows: list[TrialRow] = field(default_factory=list)
    failures: list[tuple[str, CellFailure]] = field(default_factory=list)
    is_interrupted: bool = False
    is_local: bool = True
    left_count: int = 0
    seconds: float = 0.0

    @property
    def finished_count(self) -> int:
        """
        Trials that finished.
        """
        return sum(row.failure is None for row in self.rows)

    @property
    def failed_count(self) -> int:
        """
        Trials that failed, after all retries.
        """
        return sum(row.failure is not None for row in self.rows)


def row_of(cell: Cell, result: CellResult, *, seed: int, order: int) -> TrialRow:
    """
    The row of an attempt of this execution.
    """
    return TrialRow(
        cell=cell,
        repeat=result.repeat,
        attempt=result.attempt,
        seed=seed,
        metrics=result.metrics,
        run_uid=result.run_uid,
        order=order,
        seconds=result.seconds,
        cpu_s=result.cpu_s,
        peak_rss_bytes=result.peak_rss_bytes,
        host=result.host,
        failure=result.failure,
    )


def results_frame(rows: Iterable[TrialRow]) -> pd.DataFrame:
    """
    One row a trial: `COLUMNS`, then `param.<name>` and `metric.<name>`; what is missing is missing.

    Units: seconds, bytes. Rows are sorted by cell and repeat, as the suite has them.
    """
    lines: list[dict[str, Any]] = []
    for row in rows:
        line: dict[str, Any] = {
            "cell": row.cell.name,
            "cell_key": row.cell.key,
            "category": row.failure.category.value if row.failure is not None else None,
        }
        for name in COLUMNS:
            if name not in line:
                line[name] = getattr(row, name)
        line |= {PARAM_PREFIX + name: _plain(value) for name, value in row.cell.params.items()}
        line |= {METRIC_PREFIX + name: value for name, value in row.metrics.items()}
        lines.append(line)
    known = [name for line in lines for name in line if name not in COLUMNS]
    params = [name for name in dict.fromkeys(known) if name.startswith(PARAM_PREFIX)]
    metrics = [name for name in dict.fromkeys(known) if name.startswith(METRIC_PREFIX)]
    return pd.DataFrame(lines, columns=[*COLUMNS, *params, *metrics])


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else str(value)


@dataclass
class FailureGroup:
    """
    Failures that are the same one: one category, one type, one path through the code.
    """

    category: Category
    error_type: str
    fingerprint: str
    message: str
    cells: list[str] = field(default_factory=list)
    count: int = 0
    traceback: str = ""


def group_failures(failures: Iterable[tuple[str, CellFailure]]) -> list[FailureGroup]:
    """
    Failures by what they are, most frequent first.

    Args:
        failures: Names of cells, and why an attempt at one failed.
    """
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    for cell, failure in failures:
        identity = (failure.category.value, failure.error_type, failure.fingerprint)
        group = groups.setdefault(
            identity,
            FailureGroup(
                failure.category,
                failure.error_type,
                failure.fingerprint,
                failure.message,
                traceback=failure.traceback,
            ),
        )
        group.count += 1
        if cell not in group.cells:
            group.cells.append(cell)
    return sorted(groups.values(), key=lambda group: -group.count)


def errors_document(failures: Iterable[tuple[str, CellFailure]]) -> dict[str, Any]:
    """
    What `errors.json` of a suite's run holds.
    """
    groups = group_failures(failures)
    return {
        "format": 1,
        "count": sum(group.count for group in groups),
        "by_category": _counts(groups),
        "errors": [
            {
                "category": group.category.value,
                "error_type": group.error_type,
                "fingerprint": group.fingerprint,
                "count": group.count,
                "message": group.message,
                "cells": group.cells,
                "traceback": group.traceback,
            }
            for group in groups
        ],
    }


def _counts(groups: Iterable[FailureGroup]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.category.value] = counts.get(group.category.value, 0) + group.count
    return counts
