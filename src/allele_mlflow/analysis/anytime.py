"""
How a search got where it got: best so far against evaluations, hitting times, ERT, ECDF.

Cost is counted in evaluations of the objective, never in seconds: those compare machines.

Source: Hansen, Auger, Brockhoff, Tusar, Tusar 2016, COCO: Performance Assessment, arXiv 1605.03560.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction


@dataclass(frozen=True)
class SearchRun:
    """
    One run: after so many evaluations the objective had these values.

    Attributes:
        evaluations: Shape (n,), above zero, increasing; the last is the run's budget.
        values: Shape (n,). NaN where there was none; the best so far stays.
    Raises:
        AnalysisError: empty, of unlike lengths, or not increasing.
    """

    evaluations: FloatArray
    values: FloatArray

    def __post_init__(self) -> None:
        evaluations = np.asarray(self.evaluations, dtype=np.float64)
        values = np.asarray(self.values, dtype=np.float64)
        if evaluations.ndim != 1 or evaluations.shape != values.shape or not len(values):
            message = f"got shapes {evaluations.shape} and {values.shape}, want (n,) twice, n >= 1"
            raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
        is_wrong = ~(np.isfinite(evaluations) & (np.diff(evaluations, prepend=0.0) > 0.0))
        if is_wrong.any():
            place = int(is_wrong.argmax())
            got = f"got {evaluations[place]:g} as number {place}"
            message = f"evaluations: {got}, want them above zero and increasing"
            raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
        object.__setattr__(self, "evaluations", evaluations)
        object.__setattr__(self, "values", values)

    @property
    def budget(self) -> float:
        """
        Evaluations that the run used.
        """
        return float(self.evaluations[-1])


def best_so_far(run: SearchRun, direction: Direction) -> FloatArray:
    """
    Shape (n,): the best value up to each point; NaN before the first value.

    Raises:
        AnalysisError: the direction says of neither side that it is better.
    """
    _check_direction(direction)
    best = np.fmax if direction is Direction.HIGHER else np.fmin
    found: FloatArray = best.accumulate(run.values)
    return found


def area_under(
    run: SearchRun, direction: Direction, *, worst: float, best: float, budget: float | None = None
) -> float:
    """
    Mean of the best so far over the budget: 1 for a run that had `best` from the start, 0 for one
    that never left `worst`.

    Args:
        run: Its best so far holds until a better one; before its first value it has `worst`.
            Where the budget ends with the first value, that one is the mean.
        direction: Which way is better.
        worst: Counts as 0, and what is worse too.
        best: Counts as 1, and what is better too.
        budget: Evaluations over which the mean is taken; by default the run's own.
    Raises:
        AnalysisError: `best` is not better than `worst`, or the budget is not above zero.
    """
    curve = best_so_far(run, direction)
    limit = run.budget if budget is None else budget
    is_ordered = best > worst if direction is Direction.HIGHER else best < worst
    if not is_ordered or not limit > 0.0:
        message = f"worst={worst:g}, best={best:g}, budget={limit:g}: want best better, budget > 0"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    share = np.clip((curve - worst) / (best - worst), 0.0, 1.0)
    if limit == run.evaluations[0]:  # a value ends the budget, and holds for none of it
        return 0.0 if np.isnan(share[0]) else float(share[0])
    starts = np.minimum(run.evaluations, limit)
    lengths = np.diff(starts, append=limit)
    return float(np.nansum(share * lengths) / limit)


def hitting_time(run: SearchRun, target: float, direction: Direction) -> float | None:
    """
    Evaluations after which the target was first reached or passed; None where it never was.
    """
    curve = best_so_far(run, direction)
    is_hit = curve >= target if direction is Direction.HIGHER else curve <= target
    return float(run.evaluations[is_hit.argmax()]) if is_hit.any() else None


def expected_running_time(runs: Sequence[SearchRun], target: float, direction: Direction) -> float:
    """
    ERT: evaluations that restarting until the target is reached would take on average.

    The sum of all runs' evaluations, of those that reached it up to then, over the number of those
    that did; infinite where none did.

    Raises:
        AnalysisError: there is no run.
    """
    _check_runs(runs)
    times = [hitting_time(run, target, direction) for run in runs]
    spent = sum(run.budget if time is None else time for run, time in zip(runs, times, strict=True))
    hits = sum(time is not None for time in times)
    return spent / hits if hits else math.inf


def runtime_distribution(
    runs: Sequence[SearchRun], targets: Sequence[float], direction: Direction
) -> pd.DataFrame:
    """
    ECDF of runtimes: which part of all pairs of run and target was reached after how many
    evaluations.

    Returns:
        Columns `evaluations`, increasing, and `reached_ratio`; a row for each number of evaluations
        at which something was reached. Empty where nothing was.
    Raises:
        AnalysisError: there is no run, or no target.
    """
    _check_runs(runs)
    if not len(targets):
        raise AnalysisError("got no targets, want at least one", kind=ErrorKind.BAD_DATA)
    times = [hitting_time(run, target, direction) for run in runs for target in targets]
    evaluations, counts = np.unique(
        np.array([time for time in times if time is not None], dtype=np.float64),
        return_counts=True,
    )
    reached = np.cumsum(counts) / len(times)
    return pd.DataFrame({"evaluations": evaluations, "reached_ratio": reached})


def _check_runs(runs: Sequence[SearchRun]) -> None:
    if not runs:
        raise AnalysisError("got no runs, want at least one", kind=ErrorKind.BAD_DATA)


def _check_direction(direction: Direction) -> None:
    if direction is Direction.NONE:
        message = "direction 'none': want 'higher' or 'lower', or nothing is best"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
