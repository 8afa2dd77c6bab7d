"""
By how much two sides differ, as a difference and as a ratio, each with its interval.

The kind of interval is the one that holds: over the distributions of benchmarks/evidence.py each
contains the true value in at least 93 % of samples at nominal 95 %, from ten runs on. Of means that
is Student's (with Welch's degrees of freedom where there are no pairs): BCa is too narrow for them,
as the same program shows. Of medians and interquartile means it is BCa, read as far out as
Student's quantile and not the normal one, which for ten to thirty pairs is too near. What an
interval was made by is always said.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from allele_mlflow.analysis.locations import BoolArray, FloatArray, Location, centres_of
from allele_mlflow.analysis.resampling import bootstrap_weights, jackknife_weights
from allele_mlflow.analysis.samples import IntArray, Samples, check_samples

CONFIDENCE = 0.95
RESAMPLES = 10_000
#: Fewer runs on a side than this: medians get no interval, for all resamples lie within the values.
FEWEST_FOR_BOOTSTRAP = 5
BCA = "BCa bootstrap, tails of Student's t"
#: From here on BCa holds; below, percentiles are taken further out, as far as Student's would be.
FEWEST_FOR_BCA = 10


class Estimate(NamedTuple):
    """
    One difference or ratio. `low`, `high` are None where there is no interval; `method` says why.
    """

    value: float
    low: float | None
    high: float | None
    method: str

    def excludes(self, value: float) -> bool:
        """
        Whether there is an interval, and the value is outside it.
        """
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def is_within(self, low: float, high: float) -> bool:
        """
        Whether there is an interval, and all of it is between these two.
        """
        return (
            self.low is not None and self.high is not None and low <= self.low <= self.high <= high
        )


def estimate_differences(
    first: ArrayLike,
    second: ArrayLike,
    *,
    is_paired: bool = False,
    location: Location = Location.MEAN,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Estimate]:
    """
    Location of the second side minus that of the first, of each column; with pairs, the location of
    their differences.

    Args:
        first: Shape (n,) or (n, m), finite.
        second: Shape (k,) or (k, m), finite.
        is_paired: Whether row i of both is one pair.
        location: What stands for a side.
        confidence: As of 0.95.
        resamples: Of the bootstrap.
        seed: Of those.
    Raises:
        AnalysisError: a side is empty, not finite, or does not fit the other.

    Cost: resamples * (n + k) * m multiplications.
    Source: Efron 1987, JASA 82(397) (BCa); Hesterberg 2015, The American Statistician 69(4)
    (percentiles further out for small samples); Welch 1947, Biometrika 34.
    """
    samples, exponents = check_samples(first, second, is_paired=is_paired).scaled()
    values = _differences(samples, location)
    fewest = min(len(samples.first), len(samples.second))
    needed = 2 if location is Location.MEAN else FEWEST_FOR_BOOTSTRAP
    if fewest < needed:
        method = f"no interval: want at least {needed} runs a side, got {fewest}"
        return [Estimate(value, None, None, method) for value in _unscaled(values, exponents)]
    spread = _spread(samples, location, confidence)
    if location is Location.MEAN:
        half = spread.student * spread.standard_error
        method = f"Student's t of the {'pairs' if is_paired else 'means (Welch)'}"
        low, high, methods = values - half, values + half, [method] * len(values)
    else:
        generator = np.random.default_rng(
            [seed, len(samples.first), len(samples.second), is_paired]
        )
        drawn = _resampled(samples, location, resamples, generator)
        low, high, methods = _bootstrap_ends(values, drawn, spread, fewest)
    for column in np.flatnonzero(~spread.has_scatter):
        low[column] = high[column] = values[column]
        methods[column] = "no scatter on either side"
    columns = (_unscaled(one, exponents) for one in (values, low, high))
    return [Estimate(*one) for one in zip(*columns, methods, strict=True)]


def estimate_ratios(
    first: ArrayLike,
    second: ArrayLike,
    *,
    is_paired: bool = False,
    location: Location = Location.MEAN,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Estimate | None]:
    """
    How many times the first side the second is: the difference of the logarithms, taken back.

    Of means that is the ratio of geometric means, with pairs the geometric mean of their ratios.
    None for a column where not all values are above zero. Arguments and errors are those of
    `estimate_differences`.
    """
    samples = check_samples(first, second, is_paired=is_paired)
    is_positive = (samples.first > 0.0).all(axis=0) & (samples.second > 0.0).all(axis=0)
    found: list[Estimate | None] = [None] * samples.first.shape[1]
    if not is_positive.any():
        return found
    on_logs = estimate_differences(
        np.log(samples.first[:, is_positive]),
        np.log(samples.second[:, is_positive]),
        is_paired=is_paired,
        location=location,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    for column, one in zip(np.flatnonzero(is_positive), on_logs, strict=True):
        ends = [None if end is None else _exp(end) for end in (one.low, one.high)]
        found[column] = Estimate(_exp(one.value), ends[0], ends[1], f"{one.method}, on logarithms")
    return found


def wilson_interval(successes: int, runs: int, *, confidence: float) -> tuple[float, float]:
    """
    Where the rate of so many successes lies; runs >= 1.

    Source: Wilson 1927, JASA 22(158).
    """
    found = stats.binomtest(successes, runs).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def success_rate(successes: int, runs: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """
    Part of the runs that succeeded, with Wilson's interval; runs >= 1.
    """
    return Estimate(
        successes / runs, *wilson_interval(successes, runs, confidence=confidence), "Wilson"
    )


def difference_of_rates(
    first_successes: int,
    first_runs: int,
    second_successes: int,
    second_runs: int,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """
    Success rate of the second side minus that of the first, with Newcombe's interval.

    Source: Newcombe 1998, Statistics in Medicine 17(8), method 10.
    """
    one, other = first_successes / first_runs, second_successes / second_runs
    lowest, highest = wilson_interval(first_successes, first_runs, confidence=confidence)
    low, high = wilson_interval(second_successes, second_runs, confidence=confidence)
    down = math.hypot(other - low, highest - one)
    up = math.hypot(high - other, one - lowest)
    return Estimate(other - one, other - one - down, other - one + up, "Newcombe")


def _exp(value: float) -> float:
    return float(np.exp(min(value, 700.0)))  # 700: e to more than that is no float


def _unscaled(scaled: FloatArray, exponents: IntArray) -> list[float]:
    with np.errstate(over="ignore"):  # the end of an interval may be beyond the largest float
        found: list[float] = np.ldexp(scaled, exponents).tolist()
    return found


def _differences(samples: Samples, location: Location) -> FloatArray:
    if samples.is_paired:
        return centres_of(samples.differences, location)
    return centres_of(samples.second, location) - centres_of(samples.first, location)


def _resampled(
    samples: Samples, location: Location, resamples: int, generator: np.random.Generator
) -> FloatArray:
    def draw(side: FloatArray) -> FloatArray:
        weights = bootstrap_weights(len(side), location, resamples=resamples, generator=generator)
        found: FloatArray = weights @ np.sort(side, axis=0)
        return found

    if samples.is_paired:
        return draw(samples.differences)
    return -draw(samples.first) + draw(samples.second)


class _Spread(NamedTuple):
    """
    What the values of both sides, taken away one at a time, say of the estimate. Shapes (m,).

    `widening` is by how much the bootstrap's spread is too small for few runs, `student` the
    quantile of Student's distribution, `acceleration` the skewness as BCa takes it.
    """

    has_scatter: BoolArray
    standard_error: FloatArray
    student: FloatArray
    widening: FloatArray
    acceleration: FloatArray


def _spread(samples: Samples, location: Location, confidence: float) -> _Spread:
    sides = [samples.differences] if samples.is_paired else [-samples.first, samples.second]
    has_scatter: BoolArray = np.any([np.ptp(side, axis=0) > 0.0 for side in sides], axis=0)
    pulls = [_influences(side, location) for side in sides]
    plain = np.sum([(pull**2).sum(axis=0) for pull in pulls], axis=0)
    parts = [(pull**2).sum(axis=0) * len(pull) / (len(pull) - 1) for pull in pulls]
    total = np.sum(parts, axis=0)
    # Where nothing scatters, ones: what is made of them is replaced.
    shares = [part / np.where(total > 0.0, total, 1.0) for part in parts]
    squares = [share**2 / (len(pull) - 1) for share, pull in zip(shares, pulls, strict=True)]
    fewest = min(len(pull) for pull in pulls) - 1
    freedom = 1.0 / np.where(total > 0.0, np.sum(squares, axis=0), 1.0 / fewest)
    cubes = np.sum([(pull**3).sum(axis=0) for pull in pulls], axis=0)
    safe = np.where(plain > 0.0, plain, 1.0)
    return _Spread(
        has_scatter,
        np.sqrt(total),
        special.stdtrit(freedom, 0.5 + confidence / 2),
        np.sqrt(np.where(plain > 0.0, total, 1.0) / safe),
        np.where(plain > 0.0, cubes, 0.0) / (6.0 * safe**1.5),
    )


def _influences(side: FloatArray, location: Location) -> FloatArray:
    """
    Shape (n, m): what each value pulls the location by, from the jackknife.
    """
    without = jackknife_weights(len(side), location) @ np.sort(side, axis=0)
    pulls: FloatArray = (without.mean(axis=0) - without) * ((len(side) - 1) / len(side))
    return pulls


def _bootstrap_ends(
    values: FloatArray, drawn: FloatArray, spread: _Spread, fewest: int
) -> tuple[FloatArray, FloatArray, list[str]]:
    """
    Both ends of each column's interval, and what it was made by.
    """
    drawn.sort(axis=0)
    if fewest < FEWEST_FOR_BCA:
        far = spread.student * spread.widening
        tails = np.stack([-far, far])
        methods = ["percentile bootstrap, widened for few runs"] * len(values)
    else:
        tails, is_defined = _bca_tails(values, drawn, spread)
        methods = [BCA if ok else "percentile bootstrap" for ok in is_defined]
    low, high = (_quantiles(drawn, special.ndtr(tail)) for tail in tails)
    return low, high, methods


def _bca_tails(
    values: FloatArray, drawn: FloatArray, spread: _Spread
) -> tuple[FloatArray, BoolArray]:
    """
    Where BCa reads the resamples, shape (2, m) as normal quantiles; the plain percentiles for a
    column in which it is not defined.
    """
    slack = 1e-12 * np.abs(drawn).max(axis=0)
    below = np.count_nonzero(drawn < values - slack, axis=0)
    ties = np.count_nonzero(np.abs(drawn - values) <= slack, axis=0)
    part = (below + ties / 2) / len(drawn)
    is_defined = (part > 0.0) & (part < 1.0)
    bias = special.ndtri(np.where(is_defined, part, 0.5))
    ends = np.stack([-spread.student, spread.student])
    shifted = bias + ends
    divisor = 1.0 - spread.acceleration * shifted
    is_defined &= (divisor > 0.0).all(axis=0)
    tails = bias + shifted / np.where(divisor > 0.0, divisor, 1.0)
    return np.where(is_defined, tails, ends), is_defined


def _quantiles(drawn: FloatArray, parts: FloatArray) -> FloatArray:
    """
    Of each sorted column the quantile that belongs to it.
    """
    places = parts * (len(drawn) - 1)
    lower = np.floor(places).astype(np.intp)
    upper = np.minimum(lower + 1, len(drawn) - 1)
    columns = np.arange(drawn.shape[1])
    share = places - lower
    found: FloatArray = drawn[lower, columns] * (1.0 - share) + drawn[upper, columns] * share
    return found
