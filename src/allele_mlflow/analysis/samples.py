"""
What the tests and intervals take: two sides, a row a run, a column a metric; checked in one place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError

IntArray = np.ndarray[Any, np.dtype[np.intc]]


class Samples(NamedTuple):
    """
    Two sides, shapes (n, m) and (k, m), finite; of pairs, row i is one pair and n == k.
    """

    first: FloatArray
    second: FloatArray
    is_paired: bool

    def scaled(self) -> tuple[Samples, IntArray]:
        """
        The same with the largest value of each column between 1/2 and 1, and the powers of two
        that give the values back. Loses nothing, and nothing computed from it can overflow: bad
        runs are often given the largest float there is.
        """
        largest = np.abs(np.concatenate([self.first, self.second])).max(axis=0)
        exponents = np.frexp(largest)[1]
        first, second = np.ldexp(self.first, -exponents), np.ldexp(self.second, -exponents)
        return Samples(first, second, self.is_paired), exponents

    @property
    def differences(self) -> FloatArray:
        """
        Shape (n, m): second minus first of each pair.
        """
        return self.second - self.first


def check_samples(
    first: ArrayLike, second: ArrayLike, *, is_paired: bool, is_finite: bool = True
) -> Samples:
    """
    The two sides as they can be computed with; a list becomes one column.

    Args:
        first: Shape (n,) or (n, m).
        second: Shape (k,) or (k, m).
        is_paired: Whether row i of both is one pair.
        is_finite: Whether values must be finite, or may be infinite.
    Raises:
        TooFewPointsError: a side is empty.
        AnalysisError: shapes do not fit each other, or a value is NaN or may not be infinite.
    """
    sides = [_columns(side, is_finite=is_finite) for side in (first, second)]
    counts = [len(side) for side in sides]
    if not min(counts):
        message = f"{counts[0]} and {counts[1]} values: want at least one on each side"
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS, counts=counts)
    shapes = f"got shapes {sides[0].shape} and {sides[1].shape}"
    if sides[0].shape[1] != sides[1].shape[1]:
        raise AnalysisError(f"{shapes}, want as many columns", kind=ErrorKind.BAD_DATA)
    if is_paired and counts[0] != counts[1]:
        raise AnalysisError(f"pairs: {shapes}, want as many rows", kind=ErrorKind.BAD_DATA)
    return Samples(sides[0], sides[1], is_paired)


def _columns(side: ArrayLike, *, is_finite: bool) -> FloatArray:
    values = np.asarray(side, dtype=np.float64)
    values = values[:, np.newaxis] if values.ndim == 1 else values
    if values.ndim != 2:
        message = f"got {values.ndim} dimensions, want runs, or runs x metrics"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    is_wrong = ~np.isfinite(values) if is_finite else np.isnan(values)
    if is_wrong.any():
        wrong = values[is_wrong][0]
        message = f"got {wrong:g} among the values, want numbers: take failed runs out first"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    return values
