"""
Two tables of runs as rows that can be compared: for each cell and metric, the values of both sides.

A table has one row a run. Column `cell` names what was run (one cell where it is missing), `seed`
makes pairs where both sides have the same ones, `is_failed` marks runs that did not finish; every
other column of numbers is a metric. A value that is NaN or infinite, or of a failed run, is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from allele_mlflow.analysis.locations import BoolArray, FloatArray
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction

CELL, SEED, IS_FAILED = "cell", "seed", "is_failed"
#: With fewer pairs no p-value below 0.05 exists; the same runs without pairs can have one.
FEWEST_PAIRS = 6


def fewest_pairs(hypotheses: int, alpha: float = 0.05) -> int:
    """
    With fewer pairs than this nothing can be significant after Holm's correction.
    """
    return max(FEWEST_PAIRS, 2 + math.floor(math.log2(hypotheses / alpha)))


class Measured(NamedTuple):
    """
    One metric of one cell. Values have shape (runs,), NaN where a run gave none; where `is_paired`,
    place i of both sides is one seed. `is_measured` is False where finished runs of a side never
    gave the metric: then it says nothing of them.
    """

    cell: str
    metric: str
    baseline: FloatArray
    candidate: FloatArray
    is_paired: bool
    is_measured: bool

    @property
    def is_complete(self) -> bool:
        """
        Whether every run gave a value.
        """
        return not (np.isnan(self.baseline).any() or np.isnan(self.candidate).any())

    def finite(self) -> tuple[FloatArray, FloatArray]:
        """
        The values that there are; of pairs those of which both are there.
        """
        if not self.is_paired:
            return self.baseline[~np.isnan(self.baseline)], self.candidate[
                ~np.isnan(self.candidate)
            ]
        is_whole = ~(np.isnan(self.baseline) | np.isnan(self.candidate))
        return self.baseline[is_whole], self.candidate[is_whole]

    def penalised(self, direction: Direction) -> tuple[FloatArray, FloatArray]:
        """
        All runs, those without a value as the worst there is: infinity on the wrong side.
        """
        worst = -np.inf if direction is Direction.HIGHER else np.inf
        return (
            np.where(np.isnan(self.baseline), worst, self.baseline),
            np.where(np.isnan(self.candidate), worst, self.candidate),
        )


class CellRuns(NamedTuple):
    """
    One cell on both sides: how many runs, and how many of them did not fail.
    """

    cell: str
    baseline_runs: int
    baseline_finished: int
    candidate_runs: int
    candidate_finished: int

    @property
    def has_failures(self) -> bool:
        """
        Whether any run failed.
        """
        return (self.baseline_runs, self.candidate_runs) != (
            self.baseline_finished,
            self.candidate_finished,
        )


class Sides(NamedTuple):
    """
    What can be compared, and the cells that only one side has.
    """

    measured: list[Measured]
    cells: list[CellRuns]
    only_baseline: list[str]
    only_candidate: list[str]


def match_sides(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    alpha: float = 0.05,
) -> Sides:
    """
    Both tables, cell by cell and metric by metric, in the order in which the baseline has them.

    Args:
        baseline: One row a run.
        candidate: Likewise.
        metrics: Those that are compared; by default every column of numbers that a side has.
        alpha: Of all of them together; it decides how many pairs are enough.
    Raises:
        AnalysisError: a metric is in neither table as numbers, or a run has no cell.
    """
    names = _chosen(baseline, candidate, metrics)
    groups, others = _by_cell(baseline), _by_cell(candidate)
    both = [cell for cell in groups if cell in others]
    enough = fewest_pairs(max(1, len(both) * len(names)), alpha)
    return Sides(
        [one for cell in both for one in _measure(cell, groups[cell], others[cell], names, enough)],
        [_count_runs(cell, groups[cell], others[cell]) for cell in both],
        [cell for cell in groups if cell not in others],
        [cell for cell in others if cell not in groups],
    )


def _chosen(
    baseline: pd.DataFrame, candidate: pd.DataFrame, metrics: Sequence[str] | None
) -> list[str]:
    found = dict.fromkeys([*_metrics_of(baseline), *_metrics_of(candidate)])
    unknown = [name for name in metrics or () if name not in found]
    if unknown:
        message = f"metric {unknown[0]!r}: in neither table as numbers, want one of {list(found)}"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA, metric=unknown[0])
    return list(found) if metrics is None else list(dict.fromkeys(metrics))


def _metrics_of(table: pd.DataFrame) -> Iterator[str]:
    for name, kind in table.dtypes.items():
        is_number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        if is_number and name not in (CELL, SEED, IS_FAILED):
            yield str(name)


def _by_cell(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    if CELL not in table:
        return {"": table} if len(table) else {}
    nameless = int(table[CELL].isna().sum())
    if nameless:
        message = f"{nameless} of {len(table)} runs have no cell: want a name in column {CELL!r}"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    return {str(cell): group for cell, group in table.groupby(CELL, sort=False, observed=True)}


def _measure(
    cell: str, baseline: pd.DataFrame, candidate: pd.DataFrame, names: list[str], enough: int
) -> Iterator[Measured]:
    is_paired = _has_pairs(baseline, candidate, enough)
    if is_paired:
        places = {seed: place for place, seed in enumerate(baseline[SEED])}
        candidate = candidate.iloc[np.argsort(candidate[SEED].map(places).to_numpy())]
    for name in names:
        sides = _values(baseline, name), _values(candidate, name)
        is_measured = all(
            np.isfinite(side).any() or _is_failed(table).all()
            for side, table in zip(sides, (baseline, candidate), strict=True)
        )
        yield Measured(cell, name, *sides, is_paired, is_measured)


def _has_pairs(baseline: pd.DataFrame, candidate: pd.DataFrame, enough: int) -> bool:
    """
    Whether both sides have the same seeds, each once, and enough of them.
    """
    if SEED not in baseline or SEED not in candidate:
        return False
    seeds, others = baseline[SEED], candidate[SEED]
    is_whole = not (seeds.hasnans or others.hasnans) and seeds.is_unique and others.is_unique
    return is_whole and len(seeds) >= enough and set(seeds) == set(others)


def _values(table: pd.DataFrame, name: str) -> FloatArray:
    if name not in table:
        return np.full(len(table), np.nan)
    values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values) & ~_is_failed(table), values, np.nan)


def _is_failed(table: pd.DataFrame) -> BoolArray:
    if IS_FAILED not in table:
        return np.zeros(len(table), dtype=bool)
    # Missing is not failed.
    is_failed: BoolArray = table[IS_FAILED].eq(True).to_numpy(dtype=bool, na_value=False)
    return is_failed


def _count_runs(cell: str, baseline: pd.DataFrame, candidate: pd.DataFrame) -> CellRuns:
    failed = [int(_is_failed(table).sum()) for table in (baseline, candidate)]
    return CellRuns(
        cell, len(baseline), len(baseline) - failed[0], len(candidate), len(candidate) - failed[1]
    )
