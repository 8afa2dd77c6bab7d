"""
The tables of a suite's report about more than one execution, and about searches. Pure.
"""

from __future__ import annotations

import math

import pandas as pd

from allele_mlflow.reports.summary import PastComparison, Searches, check_columns
from allele_mlflow.reports.tables import Column, Table, bounded, plain_name, plain_text
from allele_mlflow.reports.wording import MISSING, write_number

_COLUMNS = (
    *("cell", "metric", "baseline", "candidate", "ratio", "ratio_low", "ratio_high"),
    *("difference", "difference_low", "difference_high", "p_holm", "verdict", "reason"),
)
#: Verdicts in the order in which they matter.
_ORDER = ("worse", "better", "different", "inconclusive", "equivalent")


def comparison_rows(comparison: PastComparison) -> Table:
    """
    A row a cell and metric, what is decided first.

    Raises:
        ValueError: a column is missing.
    """
    columns = (
        Column("Cell"),
        Column("Metric"),
        *(Column(title, is_number=True) for title in ("Before", "Now", "Difference", "p")),
        Column("Verdict"),
        Column("Why"),
    )
    frame = check_columns(comparison.rows, _COLUMNS, name="comparison")
    order = {verdict: place for place, verdict in enumerate(_ORDER)}
    ranks = [order.get(str(one), len(order)) for one in frame.verdict]
    frame = frame.assign(rank=ranks).sort_values("rank", kind="stable")
    rows = [
        (
            plain_name(row["cell"] or "all runs"),
            _metric(row["metric"], comparison),
            _number(row["baseline"]),
            _number(row["candidate"]),
            _difference(row),
            MISSING if pd.isna(row["p_holm"]) else f"{row['p_holm']:.2g}",
            str(row["verdict"]),
            plain_text(row["reason"]),
        )
        for row in frame.to_dict("records")
    ]
    return bounded(columns, rows, "comparisons")


def comparison_notes(comparison: PastComparison) -> tuple[str, ...]:
    """
    What was compared with what, and what a reader has to know of it.
    """
    return (f"compared with {plain_text(comparison.baseline)}", *map(plain_text, comparison.notes))


def running_times(searches: Searches) -> Table:
    """
    A row a cell and target: how many runs reached it, and the expected running time (ERT).
    """
    columns = (
        Column("Cell"),
        *(
            Column(title, is_number=True)
            for title in ("Target", "Reached", "Expected evaluations", "Median evaluations")
        ),
    )
    rows = [
        (
            plain_name(row.cell or "all runs"),
            write_number(float(row.target)),
            f"{row.reached} of {row.runs}",
            write_number(float(row.expected_evaluations))
            if math.isfinite(row.expected_evaluations)
            else "never",
            write_number(float(row.median_evaluations)),
        )
        for row in searches.running_times.itertuples()
    ]
    return bounded(columns, rows, "running times")


def _metric(name: str, comparison: PastComparison) -> str:
    unit = comparison.units.get(name, "")
    is_said = not unit or name.endswith(unit)
    return plain_name(name if is_said else f"{name} ({unit})")


def _number(value: object) -> str:
    return write_number(float(pd.to_numeric(value, errors="coerce")))


def _difference(row: dict[str, object]) -> str:
    """
    In percent where there is a ratio with an interval, else in the metric's unit.
    """
    ratio = [float(pd.to_numeric(row[name], errors="coerce")) for name in _COLUMNS[4:7]]
    if all(map(math.isfinite, ratio)):
        value, low, high = (f"{100 * (one - 1):+.3g}" for one in ratio)
        return f"{value} % [{low}, {high}]"
    value, low, high = (_number(row[name]) for name in _COLUMNS[7:10])
    return value if MISSING in (low, high) else f"{value} [{low}, {high}]"
