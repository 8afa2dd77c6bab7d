"""
Series whose truth is known: without a shift, of several kinds of noise, and with one.

Series number `seed` of a kind and a length is always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

FloatArray = npt.NDArray[np.float64]

LEVEL, NOISE_RATIO, LOG_SIGMA, SPIKE_RATIO = 1.0, 0.03, 0.25, 0.6


class Shift(NamedTuple):
    """
    A shift at the end of a series: its size in standard deviations, and the points after it.
    """

    size_sigma: float
    points_after: int

    @property
    def name(self) -> str:
        """
        As in "2 sigma, 10 after".
        """
        return f"{self.size_sigma:g} sigma, {self.points_after} after"


def gaussian(rng: np.random.Generator, count: int) -> FloatArray:
    """
    Normal noise of 3 % around 1.
    """
    return LEVEL + NOISE_RATIO * rng.standard_normal(count)


def log_normal(rng: np.random.Generator, count: int) -> FloatArray:
    """
    Skewed noise: the logarithm has a standard deviation of 0.25.
    """
    return np.exp(LOG_SIGMA * rng.standard_normal(count))


def spiked(rng: np.random.Generator, count: int) -> FloatArray:
    """
    Normal noise, and one point somewhere that is 60 % higher.
    """
    values = gaussian(rng, count)
    values[rng.integers(count)] *= 1 + SPIKE_RATIO
    return values


def autocorrelated(rho: float) -> Callable[[np.random.Generator, int], FloatArray]:
    """
    AR(1) noise of 3 % around 1, stationary from the first point.
    """

    def draw(rng: np.random.Generator, count: int) -> FloatArray:
        noise = rng.standard_normal(count)
        noise[1:] *= np.sqrt(1 - rho**2)
        return LEVEL + NOISE_RATIO * np.asarray(lfilter([1.0], [1.0, -rho], noise))

    return draw


def heavy_tailed(rng: np.random.Generator, count: int) -> FloatArray:
    """
    Noise of Student's distribution with three degrees of freedom.
    """
    return LEVEL + NOISE_RATIO * rng.standard_t(3, count)


#: Noise without a shift. Thresholds are set on the first group; the second is only looked at.
NULLS = {
    "gaussian": gaussian,
    "log-normal": log_normal,
    "one spike": spiked,
    "AR(1) 0.5": autocorrelated(0.5),
}
OTHER_NULLS = {
    "AR(1) 0.25": autocorrelated(0.25),
    "AR(1) 0.7": autocorrelated(0.7),
    "Student t3": heavy_tailed,
}
SHIFTS = (
    Shift(2, 3),
    Shift(2, 10),
    Shift(3, 3),
    Shift(3, 10),
    Shift(1, 10),
    Shift(2, 20),
    Shift(3, 20),
)


def draw_null(name: str, count: int, seed: int) -> FloatArray:
    """
    One series without a shift.
    """
    drawn = {**NULLS, **OTHER_NULLS}
    rng = np.random.default_rng([seed, count, list(drawn).index(name)])
    return drawn[name](rng, count)


def draw_shifted(shift: Shift, count: int, seed: int) -> FloatArray:
    """
    One series of normal noise with one shift.
    """
    after = shift.points_after
    key = [seed, count, 1_000 + round(10 * shift.size_sigma), after]
    values = gaussian(np.random.default_rng(key), count)
    values[count - after :] += shift.size_sigma * NOISE_RATIO
    return values
