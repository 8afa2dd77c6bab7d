"""
Drift of one series: whether it rises or falls steadily, and by how much a step.

Mann-Kendall asks whether later points tend to be higher (or lower) than earlier ones; Theil-Sen
says by how much. Both go by ranks and medians, so single points do not carry them. Where what is
left after the slope is autocorrelated, the test counts fewer points than there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import theilslopes

from allele_mlflow.analysis.shift_evidence import FloatArray
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError

#: Below it the normal approximation of the test is poor.
MIN_DRIFT_POINTS = 8
CONFIDENCE = 0.95
#: One-sided 5 % point of the normal distribution.
_SIGNIFICANT = 1.645


@dataclass(frozen=True, kw_only=True)
class Drift:
    """
    The trend of one series.

    Attributes:
        slope_per_step: Theil-Sen: the median of the slopes of all pairs.
        slope_low: Lower end of its 95 % interval.
        slope_high: Upper end.
        intercept: Of the line at position 0.
        tau: Kendall's: concordant less discordant pairs over all pairs, -1 to 1.
        p: Mann-Kendall, two-sided, with the correction.
        autocorrelation: Lag 1, of what the slope leaves, where it is significant; else 0.

    Units: slopes as the values, for each execution.
    """

    slope_per_step: float
    slope_low: float
    slope_high: float
    intercept: float
    tau: float
    p: float
    autocorrelation: float


def measure_drift(values: FloatArray, *, positions: FloatArray | None = None) -> Drift:
    """
    The trend of one series.

    Args:
        values: Shape (n,), oldest first, finite.
        positions: Shape (n,), rising; 0, 1, 2, ... where none are given.
    Raises:
        AnalysisError: a value that is not finite.
        TooFewPointsError: fewer than MIN_DRIFT_POINTS values.

    Cost: O(n^2).
    Source: Mann 1945, Econometrica 13; Kendall 1975 (variance with ties); Sen 1968, JASA 63; Yue
        and Wang 2004, Water Resources Management 18 (effective sample size after detrending).
    """
    count = len(values)
    if not np.isfinite(values).all():
        raise AnalysisError("a value that is not finite: leave it out", kind=ErrorKind.BAD_VALUE)
    if count < MIN_DRIFT_POINTS:
        raise TooFewPointsError(
            f"{count} points: want at least {MIN_DRIFT_POINTS} to tell a drift",
            kind=ErrorKind.TOO_FEW_POINTS,
            got=count,
            wanted=MIN_DRIFT_POINTS,
        )
    at = np.arange(count, dtype=np.float64) if positions is None else positions
    line = theilslopes(values, at, alpha=CONFIDENCE)
    rho = _significant_autocorrelation(values - line.slope * at)
    concordant = count_concordant(values)
    return Drift(
        slope_per_step=float(line.slope),
        slope_low=float(line.low_slope),
        slope_high=float(line.high_slope),
        intercept=float(line.intercept),
        tau=2 * concordant / (count * (count - 1)),
        p=_mann_kendall_p(concordant, variance_of_concordant(values) * _inflation(count, rho)),
        autocorrelation=rho,
    )


def count_concordant(values: FloatArray) -> int:
    """
    Pairs in which the later value is higher, less those in which it is lower: Mann-Kendall's S.
    """
    return int(np.sign(np.triu(values[None, :] - values[:, None], k=1)).sum())


def variance_of_concordant(values: FloatArray) -> float:
    """
    Its variance where there is no trend; equal values take some away.
    """
    count = len(values)
    ties = np.unique(values, return_counts=True)[1]
    tied = int((ties * (ties - 1) * (2 * ties + 5)).sum())
    return (count * (count - 1) * (2 * count + 5) - tied) / 18


def _mann_kendall_p(concordant: int, variance: float) -> float:
    if variance <= 0:
        return 1.0  # all values are equal
    # one pair less: S moves in steps of two, the normal distribution does not
    z = max(0, abs(concordant) - 1) / math.sqrt(variance)
    return float(2 * ndtr(-z))


def _significant_autocorrelation(rest: FloatArray) -> float:
    """
    Lag 1, corrected for its bias in short series; 0 where it may be chance, or is negative: then
    the test without a correction is on the safe side.
    """
    count = len(rest)
    centred = rest - rest.mean()
    total = float(centred @ centred)
    if total <= 0:
        return 0.0
    raw = float(centred[1:] @ centred[:-1]) / total
    if raw * math.sqrt(count) < _SIGNIFICANT:
        return 0.0
    return min(0.95, (count * raw + 2) / (count - 4))


def _inflation(count: int, rho: float) -> float:
    """
    How much more the count of pairs varies under AR(1) noise.
    """
    lags = np.arange(1, count)
    return float(1 + 2 * ((1 - lags / count) * rho**lags).sum())
