"""
Where a learning curve will end, from its beginning alone.

A curve is `end + drop * shape(step)`, with a shape that falls from 1 at the first step to 0 at the
last: exponentials and powers of many speeds. How fast a curve flattens is what its beginning hardly
tells, so no shape is chosen: each predicts by least squares, and counts as much as the data speak
for it. Readings that follow each other closely count as fewer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from allele_mlflow.analysis.locations import FloatArray

#: Time constants of the exponentials as parts of the whole curve, and exponents of the powers.
_TIME_CONSTANTS = np.geomspace(0.02, 1.0, 18)
_EXPONENTS = np.linspace(0.1, 2.0, 10)
#: Fewer readings say nothing of a shape.
FEWEST_READINGS = 5
_BISECTIONS = 60


class _Fits(NamedTuple):
    """
    What each shape predicts, shapes (s,): a Student's t around `centres`.
    """

    centres: FloatArray
    scales: FloatArray
    freedom: float
    weights: FloatArray


def end_quantiles(
    steps: FloatArray, values: FloatArray, last_step: float, parts: FloatArray
) -> FloatArray:
    """
    Quantiles of the reading at the last step.

    Args:
        steps: Shape (n,), n >= FEWEST_READINGS, rising, before `last_step`.
        values: Shape (n,), finite.
        last_step: Where the curve ends.
        parts: Which quantiles, as of 0.5.
    Returns:
        Shape of `parts`.

    Source: Bayesian linear regression with the usual flat prior, averaged over the shapes (Gelman
    et al. 2013, Bayesian Data Analysis, sections 14.2 and 7.4); the effective number of readings
    for a lag-one correlation, Bayley, Hammersley 1946, JRSS Supplement 8.
    """
    fits = _fit(steps, values, last_step)
    low = np.full(len(parts), float((fits.centres - 1e3 * fits.scales).min()))
    high = np.full(len(parts), float((fits.centres + 1e3 * fits.scales).max()))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_below = _probability(fits, middle) < parts
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return _not_turning((low + high) / 2, values)


def _probability(fits: _Fits, values: FloatArray) -> FloatArray:
    away = (values[:, np.newaxis] - fits.centres) / fits.scales
    found: FloatArray = special.stdtr(fits.freedom, away) @ fits.weights
    return found


def _not_turning(found: FloatArray, values: FloatArray) -> FloatArray:
    """
    A curve that only ever rose, or fell, such as of the best so far, does not turn.
    """
    steps = np.diff(values)
    if (steps >= 0).all():
        found = np.maximum(found, values[-1])
    if (steps <= 0).all():
        found = np.minimum(found, values[-1])
    return found


def _fit(steps: FloatArray, values: FloatArray, last_step: float) -> _Fits:
    shapes = _shapes(steps, last_step)
    count = len(values)
    # least squares of every shape at once: a line over shape(step), whose height at 0 is the end
    means = shapes.mean(axis=1)
    centred = shapes - means[:, np.newaxis]
    spread = (centred**2).sum(axis=1)
    drops = centred @ values / spread
    ends = values.mean() - drops * means
    rest = values - ends[:, np.newaxis] - drops[:, np.newaxis] * shapes
    floor = 1e-24 * max(float((values**2).sum()), 1e-300)
    squares = np.maximum((rest**2).sum(axis=1), floor)
    crowding = _crowding(rest[int(squares.argmin())])
    freedom = max(count / crowding - 2.0, 1.0)
    mean_squares = squares / max(count - 2, 1)
    unsure = (1.0 / count + means**2 / spread) * crowding
    logs = -0.5 * np.log(count * spread) - freedom / 2 * np.log(squares)
    weights = np.exp(logs - logs.max())
    return _Fits(ends, np.sqrt(mean_squares * (1.0 + unsure)), freedom, weights / weights.sum())


def _shapes(steps: FloatArray, last_step: float) -> FloatArray:
    """
    Shape (s, n): each shape at each step, from 1 at step 0 to 0 at the last.
    """
    part = steps / last_step
    constants, exponents = _TIME_CONSTANTS[:, np.newaxis], _EXPONENTS[:, np.newaxis]
    falling = np.concatenate([np.exp(-part / constants), (1.0 + steps) ** -exponents])
    ends = np.concatenate([np.exp(-1.0 / constants), (1.0 + last_step) ** -exponents])
    found: FloatArray = (falling - ends) / (1.0 - ends)
    return found


def _crowding(rest: FloatArray) -> float:
    """
    How many readings in a row count as one.
    """
    whole = float((rest**2).sum())
    if whole == 0.0:
        return 1.0
    correlation = min(max(float((rest[1:] * rest[:-1]).sum()) / whole, 0.0), 0.95)
    return (1.0 + correlation) / (1.0 - correlation)
