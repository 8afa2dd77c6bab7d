"""
One number for a configuration over many cells, with an interval from resampling within each cell.

Scores of different cells are put together as they are: they must be on one scale, as a part of the
best known value.

Source: Agarwal, Schwarzer, Castro, Courville, Bellemare 2021, NeurIPS 34 (arXiv 2108.13264).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from allele_mlflow.analysis.intervals import CONFIDENCE, RESAMPLES, Estimate
from allele_mlflow.analysis.locations import FloatArray, Location, centres_of, weights_of
from allele_mlflow.analysis.resampling import bootstrap_weights
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError
from allele_mlflow.units import Direction

_METHOD = "percentile bootstrap, stratified by cell"


def aggregate_scores(
    cells: Sequence[ArrayLike],
    *,
    location: Location = Location.IQM,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """
    The location of all runs of all cells; by default the interquartile mean.

    Args:
        cells: Scores of the runs of each cell, finite.
        location: What stands for all of them.
        confidence: As of 0.95.
        resamples: Of the bootstrap, which draws the runs of each cell from that cell.
        seed: Of those.
    Raises:
        TooFewPointsError: there is no cell, or one without runs.
        AnalysisError: a score is not finite.

    Cost: resamples * runs, sorted.
    """
    scores = _checked(cells)
    value = float(centres_of(np.concatenate(scores), location))
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [score[generator.integers(0, len(score), (resamples, len(score)))] for score in scores],
        axis=1,
    )
    drawn.sort(axis=1)
    return _estimate(value, drawn @ weights_of(location, drawn.shape[1]), confidence)


def probability_of_improvement(
    baseline: Sequence[ArrayLike],
    candidate: Sequence[ArrayLike],
    direction: Direction,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """
    How likely a run of the candidate is better than one of the baseline on the same cell, the mean
    over all cells; ties count half.

    Args:
        baseline: Scores of the runs of each cell.
        candidate: Of the same cells.
        direction: Which way is better.
        confidence: As of 0.95.
        resamples: Of the bootstrap within cells.
        seed: Of those.
    Raises:
        TooFewPointsError: there is no cell, or one without runs.
        AnalysisError: the cells are not as many, or the direction is none.
    """
    sides = _checked(baseline), _checked(candidate)
    if len(sides[0]) != len(sides[1]) or direction is Direction.NONE:
        message = (
            f"{len(sides[0])} and {len(sides[1])} cells, direction {direction.value!r}: want the "
            "same cells on both sides, and 'higher' or 'lower'"
        )
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    sign = 1.0 if direction is Direction.HIGHER else -1.0
    generator = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(resamples)
    for one, other in zip(*sides, strict=True):
        lead = sign * (other - one[:, np.newaxis])
        wins = (np.sign(lead) + 1.0) / 2.0
        value += float(wins.mean()) / len(sides[0])
        firsts, seconds = (_rows(len(side), resamples, generator) for side in (one, other))
        drawn += ((firsts @ wins) * seconds).sum(axis=1) / len(sides[0])
    return _estimate(value, drawn, confidence)


def performance_profile(
    cells: Sequence[ArrayLike],
    thresholds: ArrayLike,
    direction: Direction,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """
    For each threshold the part of runs that reach it, the mean over cells, with a pointwise band.

    Args:
        cells: Scores of the runs of each cell.
        thresholds: Shape (t,).
        direction: Which way is better.
        confidence: Of the band.
        resamples: Of the bootstrap within cells.
        seed: Of those.
    Returns:
        Columns `threshold`, `reached_ratio`, `low`, `high`.
    Raises:
        TooFewPointsError: there is no cell, or one without runs.
        AnalysisError: the direction is none.
    """
    scores = _checked(cells)
    if direction is Direction.NONE:
        message = "direction 'none': want 'higher' or 'lower'"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    wanted = np.asarray(thresholds, dtype=np.float64)
    generator = np.random.default_rng(seed)
    value, drawn = np.zeros(len(wanted)), np.zeros((resamples, len(wanted)))
    for score in scores:
        seen = score[:, np.newaxis]
        is_reached = seen >= wanted if direction is Direction.HIGHER else seen <= wanted
        value += is_reached.mean(axis=0) / len(scores)
        drawn += _rows(len(score), resamples, generator) @ is_reached / len(scores)
    low, high = np.quantile(drawn, _tails(confidence), axis=0)
    return pd.DataFrame({"threshold": wanted, "reached_ratio": value, "low": low, "high": high})


def _rows(count: int, resamples: int, generator: np.random.Generator) -> FloatArray:
    return bootstrap_weights(count, Location.MEAN, resamples=resamples, generator=generator)


def _estimate(value: float, drawn: FloatArray, confidence: float) -> Estimate:
    low, high = np.quantile(drawn, _tails(confidence)).tolist()
    return Estimate(value, low, high, _METHOD)


def _tails(confidence: float) -> list[float]:
    return [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]


def _checked(cells: Sequence[ArrayLike]) -> list[FloatArray]:
    scores = [np.asarray(cell, dtype=np.float64) for cell in cells]
    sizes = [score.size for score in scores]
    if not scores or not min(sizes):
        message = f"got cells of {sizes} runs, want at least one cell, and one run in each"
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS)
    if any(score.ndim != 1 or not np.isfinite(score).all() for score in scores):
        message = "got a score that is not finite, or a table: want one list of numbers a cell"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    return scores
