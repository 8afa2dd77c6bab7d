"""
Between which values a median lies, whatever the distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from allele_mlflow.analysis.intervals import CONFIDENCE

#: With fewer values even the whole range holds the median too seldom, at 95 %.
FEWEST = 6


@dataclass(frozen=True)
class MedianInterval:
    """
    A median of `count` finite values, and the interval of it; None where there is none.
    """

    count: int
    median: float | None
    low: float | None
    high: float | None


def median_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> MedianInterval:
    """
    The median, and two of the values that hold the true one at least as often as was asked.

    Args:
        values: Shape (n,); those that are not finite count for nothing.
        confidence: As of 0.95.

    Source: the sign test's interval; Hahn, Meeker 1991, Statistical Intervals, 5.3.
    """
    found = np.asarray(values, dtype=np.float64)
    found = np.sort(found[np.isfinite(found)])
    if not len(found):
        return MedianInterval(0, None, None, None)
    median = 2.0 * float(np.median(found / 2.0))  # the sum of two may be too large for a number
    rank = _rank(len(found), confidence)
    if rank is None:
        return MedianInterval(len(found), median, None, None)
    return MedianInterval(len(found), median, float(found[rank]), float(found[-1 - rank]))


@lru_cache(maxsize=1024)
def _rank(count: int, confidence: float) -> int | None:
    """
    How many values may be left out at each end; None where not even none.
    """
    # the chance that at most `rank` of the values are below the median
    rank = int(stats.binom.ppf((1 - confidence) / 2, count, 0.5))
    while rank >= 0 and stats.binom.cdf(rank, count, 0.5) > (1 - confidence) / 2:
        rank -= 1
    return rank if rank >= 0 else None
