"""
The tables at the end of a suite.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.cli.output import shown
from allele_mlflow.cli.rendering import rendered as rendered
from allele_mlflow.cli.suite_display import duration_text
from allele_mlflow.matrix.messages import CellFailure
from allele_mlflow.matrix.results import Outcome, TrialRow, group_failures
from allele_mlflow.matrix.suite import MetricFacts
from allele_mlflow.units import Direction

#: Cells that are shown; all are in results.csv.
MOST_CELLS = 200
MOST_METRICS = 4


def results_table(outcome: Outcome) -> Table:
    """
    A line a cell: how many repeats finished, median and range of each objective, seconds.
    """
    suite = outcome.prepared.suite
    facts = dict(list(_shown_metrics(outcome).items())[:MOST_METRICS])
    table = Table(title=Text(shown(suite.name)), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("cell", overflow="fold")
    table.add_column("finished", justify="right", no_wrap=True)
    for name, fact in facts.items():
        unit = f" ({shown(fact.unit)})" if fact.unit else ""
        table.add_column(Text(f"{shown(name)}{unit}\nmedian [min, max]"), justify="right")
    table.add_column("seconds", justify="right", no_wrap=True)
    by_cell: dict[str, list[TrialRow]] = {}
    for row in outcome.rows:
        by_cell.setdefault(row.cell.key, []).append(row)
    best = {name: best_cell(by_cell, name, fact.direction) for name, fact in facts.items()}
    for number, (key, rows) in enumerate(by_cell.items()):
        if number == MOST_CELLS:
            table.add_row(f"... and {len(by_cell) - MOST_CELLS} more: see results.csv")
            break
        finished = [row for row in rows if row.failure is None]
        seconds = [row.seconds for row in finished if row.seconds is not None]
        table.add_row(
            Text(shown(rows[0].cell.name)),
            f"{len(finished)}/{len(rows)}",
            *(
                Text(spread_text(values_of(finished, name)) + _star(best[name], key))
                for name in facts
            ),
            duration_text(statistics.median(seconds)) if seconds else "-",
        )
    if any(key is not None for key in best.values()):
        table.caption = "* the best median"
        table.caption_justify = "left"
    return table


def _shown_metrics(outcome: Outcome) -> dict[str, MetricFacts]:
    suite = outcome.prepared.suite
    if suite.objectives:
        return suite.objectives
    names = dict.fromkeys(name for row in outcome.rows for name in row.metrics)
    return {name: suite.metrics.get(name, MetricFacts()) for name in names}


def values_of(rows: Iterable[TrialRow], metric: str) -> list[float]:
    """
    The finite values of a metric.
    """
    found = (row.metrics.get(metric) for row in rows)
    return [value for value in found if value is not None and math.isfinite(value)]


def best_cell(by_cell: dict[str, list[TrialRow]], metric: str, direction: Direction) -> str | None:
    """
    Key of the cell with the best median; None where better is not known, or one is all there is.
    """
    if direction is Direction.NONE or len(by_cell) < 2:
        return None
    medians = {
        key: statistics.median(values)
        for key, rows in by_cell.items()
        if (values := values_of((row for row in rows if row.failure is None), metric))
    }
    if not medians:
        return None
    choose = max if direction is Direction.HIGHER else min
    return choose(medians, key=medians.__getitem__)


def spread_text(values: list[float]) -> str:
    """
    Median, and where there are several, least and largest.
    """
    if not values:
        return "-"
    median = f"{statistics.median(values):.5g}"
    return median if len(values) == 1 else f"{median} [{min(values):.5g}, {max(values):.5g}]"


def _star(best: str | None, key: str) -> str:
    return "" if best is None else " *" if best == key else "  "


def failures_table(failures: Iterable[tuple[str, CellFailure]]) -> Table:
    """
    A line for each kind of failure: category, how often, where, what it said.
    """
    table = Table(title="failures", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("category", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("cells", overflow="fold", max_width=36)
    table.add_column("what it said", overflow="fold")
    for group in group_failures(failures):
        cells = group.cells[:3] + ([f"and {len(group.cells) - 3} more"] if group.cells[3:] else [])
        name = group.error_type.rpartition(".")[2]
        message = f"{name}: {group.message}" if group.message else name
        table.add_row(
            group.category.replace("_", " "),
            str(group.count),
            Text(shown(", ".join(cells))),
            Text(shown(message[:300])),
        )
    return table
