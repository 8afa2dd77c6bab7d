"""
Tests of difference between two sides: by permutation of the values, or of their ranks.

Nothing is assumed of the distribution. Without pairs: if it made no difference on which side a run
stood, every way to deal the runs out would be as likely. With pairs: every choice of the signs of
their differences. All ways are tried where they are few, else many random ones, always the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from allele_mlflow.analysis.locations import FloatArray, Location, centres_of
from allele_mlflow.analysis.resampling import (
    EXACT_LIMIT,
    count_flips,
    count_splits,
    flip_weights,
    split_weights,
)
from allele_mlflow.analysis.samples import Samples, check_samples

#: Random arrangements where not all are tried: the smallest p is 2 / (ARRANGEMENTS + 1) = 0.00002.
ARRANGEMENTS = 99_999
#: Up to here SciPy has the exact distribution of the rank statistics at hand.
EXACT_RANK_COUNT = 50
#: Sums of the same values in another order differ by less than this part of the largest.
_ROUNDING_RATIO = 1e-12


class Significance(NamedTuple):
    """
    One two-sided test. `sample_count` is pairs, or runs of both sides; `is_exact` says that every
    arrangement was counted, not a random choice of them.
    """

    p_value: float
    method: str
    is_exact: bool
    sample_count: int


def permutation_tests(
    first: ArrayLike,
    second: ArrayLike,
    *,
    is_paired: bool = False,
    location: Location = Location.MEAN,
    arrangements: int = ARRANGEMENTS,
    seed: int = 0,
) -> list[Significance]:
    """
    Of each column whether the location differs between the sides, with pairs that of their
    differences from zero.

    Args:
        first: Shape (n,) or (n, m), finite.
        second: Shape (k,) or (k, m), finite.
        is_paired: Whether row i of both is one pair.
        location: What is compared.
        arrangements: Random ones, where all would be more than `EXACT_LIMIT`.
        seed: Of those.
    Raises:
        AnalysisError: a side is empty, not finite, or does not fit the other.

    The p-value is twice the smaller of the two one-sided ones, as in `scipy.stats`.
    Cost: arrangements * (n + k) * m multiplications.
    Source: Phipson, Smyth 2010 (the one added to random counts: no p-value is zero).
    """
    samples, _ = check_samples(first, second, is_paired=is_paired).scaled()
    generator = np.random.default_rng([seed, len(samples.first), len(samples.second), is_paired])
    possible = _count_arrangements(samples)
    is_exact = possible <= EXACT_LIMIT
    above, below = _count_extremes(samples, location, arrangements, generator)
    added = 0 if is_exact else 1
    total = possible if is_exact else arrangements + 1
    p_values = np.minimum(1.0, 2.0 * (np.minimum(above, below) + added) / total)
    count = len(samples.first) if is_paired else len(samples.first) + len(samples.second)
    method = f"{'sign-flip' if is_paired else 'permutation'} test of the {location}"
    return [Significance(float(p), method, is_exact, count) for p in p_values]


def rank_tests(
    first: ArrayLike,
    second: ArrayLike,
    *,
    is_paired: bool = False,
    arrangements: int = ARRANGEMENTS,
    seed: int = 0,
) -> list[Significance]:
    """
    Mann-Whitney's test of each column, with pairs Wilcoxon's signed-rank test.

    Exact at any size up to 50 where no values tie; else (ties, differences of zero, more runs) the
    ranks are permuted as `permutation_tests` permutes values. Arguments and errors are the same.
    """
    samples = check_samples(first, second, is_paired=is_paired)
    columns = zip(samples.first.T, samples.second.T, strict=True)
    found = [_exact_rank_test(one, other, is_paired=is_paired) for one, other in columns]
    left = [place for place, tested in enumerate(found) if tested is None]
    if left:
        one, other = samples.first[:, left], samples.second[:, left]
        sides = signed_ranks(other - one) if is_paired else pooled_ranks(one, other)
        permuted = permutation_tests(
            *sides, is_paired=is_paired, arrangements=arrangements, seed=seed
        )
        for place, tested in zip(left, permuted, strict=True):
            found[place] = tested._replace(method=f"{_rank_method(is_paired)}, ranks permuted")
    return [tested for tested in found if tested is not None]


def pooled_ranks(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Ranks of both sides among all values, the mean of theirs for ties. Infinite values may tie.
    """
    ranks = stats.rankdata(np.concatenate([first, second]), axis=0)
    return ranks[: len(first)], ranks[len(first) :]


def signed_ranks(differences: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Zeros, and the ranks of the differences by size with their signs: sides whose pairs differ by
    Wilcoxon's signed ranks. Infinite differences may tie; those of zero rank among the others and
    count for neither sign.
    """
    ranks = np.sign(differences) * stats.rankdata(np.abs(differences), axis=0)
    return np.zeros_like(ranks), ranks


def smallest_p_value(
    first_count: int, second_count: int, *, is_paired: bool, arrangements: int = ARRANGEMENTS
) -> float:
    """
    The smallest p-value that `permutation_tests` can give for these sizes, whatever the values: 0.1
    for three runs against three. 1 where a side is empty.
    """
    if not min(first_count, second_count):
        return 1.0
    possible = count_flips(first_count) if is_paired else count_splits(first_count, second_count)
    return min(1.0, 2.0 / (possible if possible <= EXACT_LIMIT else arrangements + 1))


def _count_arrangements(samples: Samples) -> int:
    if samples.is_paired:
        return count_flips(len(samples.first))
    return count_splits(len(samples.first), len(samples.second))


def _count_extremes(
    samples: Samples, location: Location, arrangements: int, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """
    Arrangements at least as high, and at least as low, as what was seen; of each column.
    """
    if samples.is_paired:
        observed = centres_of(samples.differences, location)
        values = np.sort(np.abs(samples.differences), axis=0)
        chunks = flip_weights(len(values), location, arrangements=arrangements, generator=generator)
    else:
        observed = centres_of(samples.second, location) - centres_of(samples.first, location)
        values = np.sort(np.concatenate([samples.first, samples.second]), axis=0)
        values -= values.mean(axis=0)
        chunks = split_weights(
            len(samples.first),
            len(samples.second),
            location,
            arrangements=arrangements,
            generator=generator,
        )
    slack = _ROUNDING_RATIO * np.abs(values).max(axis=0)
    above = np.zeros(len(observed))
    below = np.zeros(len(observed))
    for weights in chunks:
        found = weights @ values
        above += np.count_nonzero(found >= observed - slack, axis=0)
        below += np.count_nonzero(found <= observed + slack, axis=0)
    return above, below


def _exact_rank_test(
    first: FloatArray, second: FloatArray, *, is_paired: bool
) -> Significance | None:
    """
    SciPy's exact test; None where it has none: too many runs, ties, or differences of zero.
    """
    differences = np.abs(second - first) if is_paired else np.concatenate([first, second])
    has_ties = len(np.unique(differences)) < len(differences)
    has_zeros = is_paired and not differences.all()
    if has_ties or has_zeros or max(len(first), len(second)) > EXACT_RANK_COUNT:
        return None
    if is_paired:
        p_value = stats.wilcoxon(second - first, method="exact").pvalue
    else:
        p_value = stats.mannwhitneyu(first, second, method="exact").pvalue
    return Significance(float(p_value), _rank_method(is_paired), True, len(differences))


def _rank_method(is_paired: bool) -> str:
    return "Wilcoxon signed-rank test" if is_paired else "Mann-Whitney test"
