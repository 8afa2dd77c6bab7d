"""
Where a sample lies: its mean, its median, or the mean of its middle half.

All three are the same thing, a weighted sum of the sorted values, and so is each of them after a
resample or a permutation. `resampling` makes ten thousand of those one matrix product.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


class Location(StrEnum):
    """
    What stands for a sample. `iqm` is the interquartile mean: a quarter of the values, rounded
    down, is cut off at each end, as by `scipy.stats.trim_mean(values, 0.25)`.
    """

    MEAN = "mean"
    MEDIAN = "median"
    IQM = "iqm"


def weights_of(location: Location, count: int) -> FloatArray:
    """
    Shape (count,): what each of the sorted values counts for. They add up to 1.
    """
    cut = {Location.MEAN: 0, Location.MEDIAN: (count - 1) // 2, Location.IQM: count // 4}[location]
    weights = np.zeros(count)
    weights[cut : count - cut] = 1.0 / (count - 2 * cut)
    return weights


def centres_of(values: FloatArray, location: Location) -> FloatArray:
    """
    The location of each column.

    Args:
        values: Shape (n, m), n >= 1, finite.
        location: Which.
    Returns:
        Shape (m,).
    """
    centres: FloatArray = weights_of(location, len(values)) @ np.sort(values, axis=0)
    return centres
