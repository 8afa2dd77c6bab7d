"""
How much a series speaks for one shift of its level: the logarithm of a Bayes factor.

Two stories are compared. One: a level with noise around it. Two: the same with one shift at some
point. In both the noise may be autocorrelated (AR(1)), how much is not known, and all that is not
known is averaged out: level and size of the noise without a preference, the autocorrelation over
four values, the place of the shift over all splits, its size over a normal distribution. Averaging
is what tells a shift from a wandering series: where autocorrelation explains the series as well as
a shift does, the two stories weigh the same.

The score is a statistic like any other: what a score is worth is known from series without a shift
(shift_null.py) and from the series' own permutations (changes.py), not from the choices below. They
only decide where it is strong.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Fewest points on either side of a shift.
MIN_SEGMENT = 3
#: A shift with at most so many points after it is recent.
RECENT_POINTS = 11
#: Weight of all recent shifts together: an older one was recent in an earlier look.
RECENT_WEIGHT = 0.9
#: Standard deviation of the size of shifts that are looked for, in that of the noise.
SHIFT_SIZE_SIGMA = 3.0
#: Autocorrelations of the noise, and what each weighs without a shift and with one: of a series
#: that wanders, it is sooner believed that it wanders than that it shifted.
AUTOCORRELATIONS = (0.0, 0.25, 0.5, 0.75)
_WEIGHTS_WITHOUT = (0.2, 0.25, 0.45, 0.1)
_WEIGHTS_WITH = (0.7, 0.15, 0.1, 0.05)


class ShiftScores(NamedTuple):
    """
    Of each series its score, and the likeliest first point of the new level.
    """

    score: FloatArray
    split: IntArray


class _Design(NamedTuple):
    """
    What of the comparison depends on the number of points and the autocorrelation alone.
    """

    whitener: FloatArray
    steps: FloatArray
    log_base: float
    log_without: float
    log_with: FloatArray
    shrink: FloatArray


def score_shifts(series: FloatArray) -> ShiftScores:
    """
    What series speak for one shift each.

    Args:
        series: Shape (m, n), n >= 2 * MIN_SEGMENT, oldest first, finite, none of them constant.

    Units: scores are natural logarithms, free of the unit of the values.
    Cost: O(m n^2) multiplications in BLAS, O(m n) memory.
    Source: normal shift with integrated mean and variance, e.g. Zellner 1971, chapter 3; the
        mixture over splits as in Barry and Hartigan 1993, JASA 88(421).
    """
    scaled = _scaled(series)
    densities = [_densities(scaled, design) for design in _designs(series.shape[1])]
    without = logsumexp(np.stack([one for one, _ in densities]), axis=0)
    by_split = logsumexp(np.stack([one for _, one in densities]), axis=0)
    score = logsumexp(by_split, axis=1) - without
    return ShiftScores(score, by_split.argmax(axis=1) + MIN_SEGMENT)


def score_best_splits(series: FloatArray) -> FloatArray:
    """
    What series speak for the best of all single splits, the noise taken to be independent.

    Of two orders of the same values that have the same points on either side of the split, neither
    scores higher: this is the statistic for shuffled series.

    Args:
        series: As for score_shifts.
    """
    without, by_split = _densities(_scaled(series), _designs(series.shape[1])[0])
    best: FloatArray = by_split.max(axis=1) - without
    return best


def _scaled(series: FloatArray) -> FloatArray:
    centred = series - series.mean(axis=1, keepdims=True)
    scaled: FloatArray = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))
    return scaled


def _densities(scaled: FloatArray, design: _Design) -> tuple[FloatArray, FloatArray]:
    """
    Logarithms of the weighted densities without a shift, shape (m,), and with one at each split.
    """
    half = (scaled.shape[1] - 1) / 2
    white = scaled @ design.whitener.T
    total = (white**2).sum(axis=1)
    explained = (white @ design.steps.T) ** 2 * design.shrink
    without = design.log_without + design.log_base - half * np.log(total)
    by_split = design.log_with + design.log_base - half * np.log(total[:, None] - explained)
    return without, by_split


@lru_cache(maxsize=32)  # 2.5 MB each at 200 points
def _designs(count: int) -> tuple[_Design, ...]:
    rows = zip(AUTOCORRELATIONS, _WEIGHTS_WITHOUT, _WEIGHTS_WITH, strict=True)
    return tuple(_design(count, *row) for row in rows)


def _design(count: int, rho: float, weight_without: float, weight_with: float) -> _Design:
    """
    One autocorrelation. Whitened, AR(1) noise is independent; the constant is then taken out.
    """
    whitener = np.eye(count) - rho * np.eye(count, k=-1)
    whitener[0, 0] = np.sqrt(1 - rho**2)
    constant = whitener.sum(axis=1)
    length = float(np.linalg.norm(constant))
    constant /= length
    whitener -= np.outer(constant, constant @ whitener)
    splits = np.arange(MIN_SEGMENT, count - MIN_SEGMENT + 1)
    steps = (np.arange(count) >= splits[:, None]) @ whitener.T
    power = (steps**2).sum(axis=1)
    steps /= np.sqrt(power)[:, None]
    gain = SHIFT_SIZE_SIGMA**2 * power
    return _Design(
        whitener=whitener,
        steps=steps,
        log_base=0.5 * np.log(1 - rho**2) - np.log(length),
        log_without=np.log(weight_without),
        log_with=np.log(weight_with) + np.log(_split_weights(count - splits)) - np.log1p(gain) / 2,
        shrink=gain / (1 + gain),
    )


def _split_weights(after: IntArray) -> FloatArray:
    """
    What each split weighs, by the number of points after it.
    """
    is_recent = after <= RECENT_POINTS
    recent: FloatArray = is_recent / is_recent.sum()
    if is_recent.all():
        return recent
    older: FloatArray = ~is_recent / (~is_recent).sum()
    return RECENT_WEIGHT * recent + (1 - RECENT_WEIGHT) * older
