"""
Isolated points: one execution that stands apart from those before and after it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allele_mlflow.analysis.shift_evidence import FloatArray

#: Neighbours on each side that a point is compared with.
NEIGHBOURS = 3
#: How far from both sides a point stands apart, in standard deviations of the noise.
OUTLIER_SIGMA = 5.0

#: Of normal noise: its standard deviation over the median and the mean of its absolute value.
_SIGMA_PER_MEDIAN, _SIGMA_PER_MEAN = 1.4826, 1.2533


def find_outliers(
    values: FloatArray, *, spreads: FloatArray | None = None, limit_sigma: float = OUTLIER_SIGMA
) -> npt.NDArray[np.bool_]:
    """
    Which points are isolated.

    A point is, when it is far above, or far below, the median of the three before it and that of
    the three after it alike. The first point of a new level is not, for those after it are where it
    is; the newest point of all has nothing after it, so it counts as isolated until others follow.

    Args:
        values: Shape (n,), oldest first, finite.
        spreads: Shape (n,), standard deviation of the repeats behind each value, NaN where it is
            not known. What a point's own spread explains is not isolated.
        limit_sigma: How far a point stands apart, in standard deviations of the noise.

    Units: as the values.
    """
    if len(values) <= NEIGHBOURS:
        return np.zeros(len(values), dtype=bool)
    distance = np.abs([_distance(values, index) for index in range(len(values))])
    limit = np.full(len(values), limit_sigma * noise_sigma(values))
    if spreads is not None:
        limit = np.fmax(limit, limit_sigma * spreads)
    found: npt.NDArray[np.bool_] = distance > limit
    return found


def noise_sigma(values: FloatArray) -> float:
    """
    Standard deviation of the noise around a level that may shift: from the differences of
    neighbours, robustly; 0 for a constant series.
    """
    jumps = np.abs(np.diff(values)) / np.sqrt(2)
    median = float(np.median(jumps))
    # more than half of the neighbours are equal: coarse values, or hardly any noise
    return _SIGMA_PER_MEDIAN * median if median else _SIGMA_PER_MEAN * float(jumps.mean())


def _distance(values: FloatArray, index: int) -> float:
    """
    From the nearer of the two sides; 0 between them.
    """
    sides = (values[max(0, index - NEIGHBOURS) : index], values[index + 1 : index + 1 + NEIGHBOURS])
    apart = [float(values[index]) - _median(side) for side in sides if len(side)]
    if min(apart) < 0 < max(apart):
        return 0.0
    return min(apart, key=abs)


def _median(side: FloatArray) -> float:
    ordered: list[float] = sorted(side.tolist())  # np.median takes longer than the rest together
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
