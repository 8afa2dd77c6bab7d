"""
How often one side beats the other: Vargha and Delaney's A12 and Cliff's delta.

Both look at ranks only, so a failed run can take part as the worst value there is: infinity.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from allele_mlflow.analysis.differences import pooled_ranks
from allele_mlflow.analysis.intervals import CONFIDENCE, RESAMPLES, Estimate
from allele_mlflow.analysis.locations import FloatArray, Location
from allele_mlflow.analysis.resampling import bootstrap_weights, row_blocks
from allele_mlflow.analysis.samples import check_samples


class Magnitude(StrEnum):
    """
    What A12 is called: from 0.56 (or down to 0.44) small, from 0.64 medium, from 0.71 large.

    Source: Vargha, Delaney 2000, Journal of Educational and Behavioral Statistics 25(2).
    """

    NEGLIGIBLE = "negligible"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


_SMALLEST = ((0.71, Magnitude.LARGE), (0.64, Magnitude.MEDIUM), (0.56, Magnitude.SMALL))


def a12(first: ArrayLike, second: ArrayLike) -> float:
    """
    Probability that a run of the second side has the higher value, ties counted half.

    Args:
        first: Shape (n,), n >= 1; infinite values may stand for failed runs.
        second: Shape (k,), likewise.
    Raises:
        TooFewPointsError: a side is empty.
        AnalysisError: a value is NaN.
    """
    one, other, _ = check_samples(first, second, is_paired=False, is_finite=False)
    ranks = pooled_ranks(one, other)[1].sum()
    return float((ranks / len(other) - (len(other) + 1) / 2) / len(one))


def cliffs_delta(first: ArrayLike, second: ArrayLike) -> float:
    """
    Probability that the second side is higher minus that it is lower: 2 * A12 - 1.
    """
    return 2.0 * a12(first, second) - 1.0


def magnitude_of(probability: float) -> Magnitude:
    """
    What an A12 is called, whichever side it favours.
    """
    # Rounded: 1 - 0.29 is a little less than 0.71.
    favoured = round(max(probability, 1.0 - probability), 12)
    return next((name for least, name in _SMALLEST if favoured >= least), Magnitude.NEGLIGIBLE)


def estimate_a12(
    first: ArrayLike,
    second: ArrayLike,
    *,
    is_paired: bool = False,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Estimate]:
    """
    A12 of each column, with a percentile interval of the bootstrap, which draws runs, or pairs,
    read at Student's quantile.

    Args:
        first: Shape (n,) or (n, m); infinite values may stand for failed runs.
        second: Shape (k,) or (k, m), likewise.
        is_paired: Whether row i of both is one pair.
        confidence: As of 0.95.
        resamples: Of the bootstrap.
        seed: Of those.
    Raises:
        TooFewPointsError: a side is empty.
        AnalysisError: a value is NaN, or the sides do not fit each other.

    Where one side always won, resamples cannot show what was never seen: the interval then reaches
    to the A12 at which as many disjoint pairs would all be won with a probability of
    (1 - confidence) / 2.
    """
    one, other, _ = check_samples(first, second, is_paired=is_paired, is_finite=False)
    generator = np.random.default_rng([seed, len(one), len(other), is_paired])

    def draw(count: int) -> FloatArray:
        return bootstrap_weights(count, Location.MEAN, resamples=resamples, generator=generator)

    firsts = draw(len(one))
    seconds = firsts if is_paired else draw(len(other))
    tail = (1.0 - confidence) / 2.0
    freedom = len(one) - 1 if is_paired else len(one) + len(other) - 2
    # One run a side: the only A12 there are, 0, 1 and a tie, need no tail.
    outer = float(special.ndtr(special.stdtrit(max(freedom, 1), tail)))
    found = []
    for column in range(one.shape[1]):
        seen = one[:, column, np.newaxis]
        wins = (other[:, column] > seen) + (other[:, column] == seen) / 2.0
        value = float(wins.mean())
        if value in (0.0, 1.0):
            found.append(_never_seen(value, min(wins.shape), tail))
            continue
        blocks = row_blocks(resamples, len(other))
        drawn = np.concatenate(
            [np.einsum("ij,ij->i", firsts[rows] @ wins, seconds[rows]) for rows in blocks]
        )
        low, high = np.quantile(drawn, [outer, 1.0 - outer]).tolist()
        found.append(Estimate(value, low, high, "percentile bootstrap, tails of Student's t"))
    return found


def _never_seen(value: float, pairs: int, tail: float) -> Estimate:
    least = tail ** (1.0 / pairs)
    low, high = (least, 1.0) if value else (0.0, 1.0 - least)
    return Estimate(value, low, high, "bound of an outcome never seen")
