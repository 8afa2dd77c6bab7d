"""
What a command would run, and how long that took before: for `--dry-run`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from allele_mlflow.matrix.cells import Cell
from allele_mlflow.matrix.history import Execution, seconds_by_cell
from allele_mlflow.matrix.options import RunOptions
from allele_mlflow.matrix.suite import Suite


class CellForecast(NamedTuple):
    """
    One cell: runs that it would have, and the mean length of those before; None where there is
    none.
    """

    cell: Cell
    runs: int
    seconds: float | None


class Forecast(NamedTuple):
    """
    Units: `seconds` until all is run, as things went before; None where nothing is known.
    """

    cells: list[CellForecast]
    seconds: float | None

    @property
    def run_count(self) -> int:
        """
        Runs of all cells.
        """
        return sum(one.runs for one in self.cells)

    @property
    def guessed_count(self) -> int:
        """
        Cells of which nothing is known: they are taken to be like the others.
        """
        return sum(one.seconds is None for one in self.cells)


def forecast(
    suite: Suite, cells: Sequence[Cell], last: Execution | None, options: RunOptions, *, width: int
) -> Forecast:
    """
    What would be run, with the times of the last execution.

    Args:
        suite: Its repeats.
        cells: Those that are chosen.
        last: The newest execution, None where there is none.
        options: Whether to go on with it.
        width: Attempts at once.
    """
    past = last.past_trials() if last is not None else {}
    seconds = seconds_by_cell(last.runs) if last is not None else {}
    goes_on = options.is_resumed or options.retries_failed
    found = []
    for cell in cells:
        runs = 0
        for repeat in range(suite.repeats):
            before = past.get((cell.key, repeat)) if goes_on else None
            is_left = options.retries_failed and before is None
            runs += not (is_left or (before is not None and before.is_finished))
        found.append(CellForecast(cell, runs, seconds.get(cell.key)))
    known = [one.seconds for one in found if one.seconds is not None]
    if not known:
        return Forecast(found, None)
    mean_s = sum(known) / len(known)
    total_s = sum(one.runs * (mean_s if one.seconds is None else one.seconds) for one in found)
    return Forecast(found, total_s / width)
