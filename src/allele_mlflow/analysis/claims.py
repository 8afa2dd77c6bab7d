"""
Whether a score that a search claimed is one that fresh measurements make likely.

A search reports the best that it met, which is too good on two grounds: chance helped the winner
(the winner's curse), and what it kept may not be what it measured (a genome that was changed after
it was scored). Fresh measurements of what was kept tell the second from the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from allele_mlflow.analysis.intervals import CONFIDENCE
from allele_mlflow.errors import ErrorKind, TooFewPointsError
from allele_mlflow.units import Direction

FEWEST_VALUES = 2
#: Relative: a deterministic evaluation may round otherwise on another machine.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Earned:
    """
    Fresh measurements, and what they say of a claim.

    Attributes:
        count: How many there are.
        mean, low, high: With the 95 % interval of the mean.
        claimed: None where nothing was claimed.
        limit: The best that a measurement of the same thing is likely to be.
        is_verified: Whether the claim is not better than that; nothing claimed is nothing to doubt.
    """

    count: int
    mean: float
    low: float
    high: float
    claimed: float | None
    limit: float
    is_verified: bool


def check_claim(
    values: Sequence[float],
    direction: Direction,
    *,
    claimed: float | None,
    chosen_from: int = 1,
) -> Earned:
    """
    What fresh measurements say of a claimed one.

    The limit is the end of the prediction interval of one more value, so wide that of claims which
    are true one in forty is beyond it, also where the claim is the best of several: then each of
    those has its part of the one in forty. Values that do not scatter must be met as they are.

    Args:
        values: Shape (n,), finite, of independent seeds.
        direction: Which way is better.
        claimed: None where nothing was.
        chosen_from: Of how many claims this one is the best.
    Raises:
        TooFewPointsError: fewer than two values.

    Source: Hahn, Meeker, Escobar 2017, Statistical Intervals (prediction of one observation of a
    normal distribution); Bonferroni's inequality for the best of several.
    """
    count = len(values)
    if count < FEWEST_VALUES:
        raise TooFewPointsError(
            f"{count} fresh values: want at least {FEWEST_VALUES}", kind=ErrorKind.TOO_FEW_POINTS
        )
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    scatter = float(found.std(ddof=1)) if np.ptp(found) > 0.0 else 0.0
    tail = (1.0 - CONFIDENCE) / 2
    half = float(special.stdtrit(count - 1, 1.0 - tail)) * scatter / math.sqrt(count)
    reach = float(special.stdtrit(count - 1, 1.0 - tail / chosen_from))
    reach *= scatter * math.sqrt(1.0 + 1.0 / count)
    limit = mean - reach if direction is Direction.LOWER else mean + reach
    return Earned(
        count=count,
        mean=mean,
        low=mean - half,
        high=mean + half,
        claimed=claimed,
        limit=limit,
        is_verified=claimed is None or not _is_beyond(claimed, limit, direction),
    )


def _is_beyond(claimed: float, limit: float, direction: Direction) -> bool:
    if math.isclose(claimed, limit, rel_tol=ROUNDING):
        return False
    return claimed < limit if direction is Direction.LOWER else claimed > limit
