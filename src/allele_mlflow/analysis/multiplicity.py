"""
p-values of a whole family of hypotheses: Holm for verdicts, Benjamini-Hochberg for exploring.

An entry that is NaN was not tested: it stays NaN and does not count for the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.errors import AnalysisError, ErrorKind


def adjust_holm(p_values: Sequence[float] | FloatArray) -> FloatArray:
    """
    Adjusted p-values: rejecting those below alpha makes one false rejection or more with a
    probability of at most alpha, however the tests depend on each other.

    Args:
        p_values: Shape (m,), 0 to 1 or NaN.
    Raises:
        AnalysisError: a value is outside 0 to 1.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    family, is_tested = _tested(p_values)
    order = np.argsort(family, kind="stable")
    factors = np.arange(len(family), 0, -1)
    adjusted = np.empty_like(family)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(family[order] * factors))
    return _spread(adjusted, is_tested)


def adjust_bh(p_values: Sequence[float] | FloatArray) -> FloatArray:
    """
    Adjusted p-values: of those rejected below alpha, a part of at most alpha is false on average,
    where the tests are independent or depend positively.

    Args:
        p_values: Shape (m,), 0 to 1 or NaN.
    Raises:
        AnalysisError: a value is outside 0 to 1.

    Source: Benjamini, Hochberg 1995, JRSS B 57(1).
    """
    family, is_tested = _tested(p_values)
    adjusted = stats.false_discovery_control(family, method="bh") if len(family) else family
    return _spread(adjusted, is_tested)


def _tested(p_values: Sequence[float] | FloatArray) -> tuple[FloatArray, np.ndarray]:
    values = np.asarray(p_values, dtype=np.float64)
    is_tested = ~np.isnan(values)
    family = values[is_tested]
    wrong = family[(family < 0.0) | (family > 1.0)]
    if values.ndim != 1 or len(wrong):
        got = f"{wrong[0]:g}" if len(wrong) else f"{values.ndim} dimensions"
        message = f"p-values: got {got}, want a list of numbers from 0 to 1, or NaN"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    return family, is_tested


def _spread(adjusted: FloatArray, is_tested: np.ndarray) -> FloatArray:
    whole = np.full(len(is_tested), np.nan)
    whole[is_tested] = adjusted
    return whole
