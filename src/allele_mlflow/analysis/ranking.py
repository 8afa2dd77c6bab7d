"""
More than two configurations over several problems: who is better than whom?

Each problem ranks the configurations, so that no problem's scale weighs more than another's.
Friedman's test says whether any differ; pairs are then told apart by Wilcoxon's signed-rank test
with Holm's correction, whose answer on two configurations does not depend on the others. The
critical difference is Nemenyi's, for the diagram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from allele_mlflow.analysis.differences import ARRANGEMENTS, Significance, rank_tests
from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.analysis.multiplicity import adjust_holm
from allele_mlflow.analysis.resampling import EXACT_LIMIT
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError
from allele_mlflow.units import Direction

FEWEST_CONFIGURATIONS = 3
FEWEST_PROBLEMS = 2
#: Ranks of random arrangements held at once.
_CHUNK_RANKS = 4_000_000


@dataclass(frozen=True)
class PairOfRanks:
    """
    Two configurations: the one with the better mean rank first.
    """

    better: str
    worse: str
    rank_difference: float
    p_value: float
    p_holm: float
    is_different: bool


@dataclass(frozen=True)
class Ranking:
    """
    Attributes:
        names: Best mean rank first.
        mean_ranks: Of each; 1 is best.
        friedman: Whether any differ; exact or by permutation.
        pairs: All pairs. `is_different` needs Friedman's p and Holm's below alpha.
        critical_difference: Of mean ranks, by Nemenyi.
        groups: Names whose mean ranks are within the critical difference, each as large as can be:
            the bars of the diagram.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    friedman: Significance
    pairs: tuple[PairOfRanks, ...]
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def rank_configurations(
    scores: ArrayLike,
    names: Sequence[str],
    direction: Direction,
    *,
    alpha: float = 0.05,
    arrangements: int = ARRANGEMENTS,
    seed: int = 0,
) -> Ranking:
    """
    The configurations by their mean rank over the problems, and which of them differ.

    Args:
        scores: Shape (problems, configurations): one number each, as the mean of the repeats. NaN
            is a configuration that gave none: it ranks last on that problem.
        names: Of the configurations.
        direction: Which way is better.
        alpha: Of Friedman's test and of all pairs together.
        arrangements: Random ones, where all would be too many.
        seed: Of those.
    Raises:
        TooFewPointsError: fewer than three configurations or two problems.
        AnalysisError: the names are not as many, or the direction is none.

    Source: Friedman 1937, JASA 32(200); Demsar 2006, JMLR 7 (critical difference); Benavoli,
    Corani, Mangili 2016, JMLR 17(5) (why pairs are not compared by mean ranks).
    """
    oriented = _oriented(scores, names, direction)
    ranks = stats.rankdata(oriented, axis=1)
    means = ranks.mean(axis=0)
    order = [int(place) for place in np.argsort(means, kind="stable")]
    friedman = friedman_test(ranks, arrangements=arrangements, seed=seed)
    difference = critical_difference(ranks.shape[1], ranks.shape[0], alpha=alpha)
    ordered = tuple(names[place] for place in order)
    return Ranking(
        ordered,
        tuple(float(means[place]) for place in order),
        friedman,
        _pairs(oriented[:, order], means[order], ordered, friedman.p_value, alpha),
        difference,
        _groups(means[order], ordered, difference),
    )


def friedman_test(
    ranks: FloatArray, *, arrangements: int = ARRANGEMENTS, seed: int = 0
) -> Significance:
    """
    Whether any columns differ, from ranks within each row; ties have mean ranks.

    Every order of a row's ranks is as likely if none differ: all are tried, or many random ones.

    Args:
        ranks: Shape (problems, configurations).
        arrangements: Random ones, where all would be more than `EXACT_LIMIT`.
        seed: Of those.
    """
    problems, configurations = ranks.shape
    observed = float((ranks.sum(axis=0) ** 2).sum())
    least = observed * (1.0 - 1e-12)
    possible = math.factorial(configurations) ** (problems - 1)
    if possible <= EXACT_LIMIT:
        # The order of the first row only renames the columns.
        orders = np.array(list(permutations(range(configurations))))
        rows = [ranks[row, orders] for row in range(1, problems)]
        sums = ranks[0] + np.array([np.sum(chosen, axis=0) for chosen in product(*rows)])
        reached = int(np.count_nonzero((sums**2).sum(axis=1) >= least))
        return Significance(reached / possible, "Friedman test", True, problems)
    generator = np.random.default_rng([seed, problems, configurations])
    reached = 0
    largest = max(1, _CHUNK_RANKS // ranks.size)
    for start in range(0, arrangements, largest):
        count = min(largest, arrangements - start)
        shuffled = generator.permuted(np.broadcast_to(ranks, (count, *ranks.shape)), axis=2)
        reached += int(np.count_nonzero((shuffled.sum(axis=1) ** 2).sum(axis=1) >= least))
    p_value = (reached + 1) / (arrangements + 1)
    return Significance(p_value, "Friedman test", False, problems)


def critical_difference(configurations: int, problems: int, *, alpha: float = 0.05) -> float:
    """
    By how much two mean ranks must differ to be told apart, over all pairs, after Nemenyi.

    Source: Demsar 2006, JMLR 7, section 3.2.2.
    """
    quantile = float(stats.studentized_range.ppf(1.0 - alpha, configurations, np.inf))
    width = configurations * (configurations + 1) / (6.0 * problems)
    return quantile / math.sqrt(2.0) * math.sqrt(width)


def _oriented(scores: ArrayLike, names: Sequence[str], direction: Direction) -> FloatArray:
    """
    The scores with lower as better and a missing one as the worst.
    """
    values = np.asarray(scores, dtype=np.float64)
    if direction is Direction.NONE:
        message = "direction 'none': want 'higher' or 'lower' to rank"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    if values.ndim != 2 or values.shape[1] != len(names):
        message = f"got shape {values.shape} and {len(names)} names, want problems x names"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    if values.shape[1] < FEWEST_CONFIGURATIONS or values.shape[0] < FEWEST_PROBLEMS:
        message = (
            f"{values.shape[1]} configurations on {values.shape[0]} problems: want at least "
            f"{FEWEST_CONFIGURATIONS} on {FEWEST_PROBLEMS}; two are what `compare` is for"
        )
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS)
    oriented = -values if direction is Direction.HIGHER else values
    return np.where(np.isnan(oriented), np.inf, oriented)


def _pairs(
    oriented: FloatArray,
    means: FloatArray,
    names: tuple[str, ...],
    p_friedman: float,
    alpha: float,
) -> tuple[PairOfRanks, ...]:
    places = list(combinations(range(len(names)), 2))
    p_values = [_signed_rank_p(oriented[:, one], oriented[:, other]) for one, other in places]
    adjusted = adjust_holm(p_values).tolist()
    return tuple(
        PairOfRanks(
            names[one],
            names[other],
            float(means[other] - means[one]),
            p_value,
            p_holm,
            p_holm < alpha and p_friedman < alpha,
        )
        for (one, other), p_value, p_holm in zip(places, p_values, adjusted, strict=True)
    )


def _signed_rank_p(first: FloatArray, second: FloatArray) -> float:
    # A missing score is put so far out that it loses by more than any other difference.
    finite = np.concatenate([side[np.isfinite(side)] for side in (first, second)])
    far = 2.0 + 4.0 * float(np.abs(finite).max(initial=0.0))
    one, other = (np.where(np.isfinite(side), side, far) for side in (first, second))
    (found,) = rank_tests(one, other, is_paired=True)
    return found.p_value


def _groups(
    means: FloatArray, names: tuple[str, ...], difference: float
) -> tuple[tuple[str, ...], ...]:
    groups: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = int(np.searchsorted(means, means[start] + difference, side="right"))
        if end - start > 1 and not any(end <= known for _, known in groups):
            groups.append((start, end))
    return tuple(names[start:end] for start, end in groups)
