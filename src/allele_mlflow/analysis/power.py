"""
Before any run: can this design ever show a difference, and which ones will it see?

Two limits hold. A test of few runs has few arrangements, so its p-value has a smallest value, and
where Holm's correction asks for less, no data can be significant. And of a true difference noise
hides a part. The second is computed for normal values with Student's tests, which permutation tests
of the mean equal in power but for their coarse p-values: alpha is first lowered to the largest
p-value that this many runs can give. tests/unit/analysis/test_power.py holds that against
simulated permutation tests.

Units: an effect is the difference of the means in standard deviations of a run, with pairs of the
difference of a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from allele_mlflow.analysis.differences import ARRANGEMENTS, smallest_p_value
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError

POWER = 0.8
#: More runs a side than this are not looked for.
MOST_RUNS = 10_000
#: Larger effects than this many standard deviations are not looked for.
LARGEST_EFFECT = 1000.0


@dataclass(frozen=True)
class Design:
    """
    So many runs on each side, for so many hypotheses at once.

    Attributes:
        runs: On each side; with pairs, pairs.
        hypotheses: Cells times metrics.
        alpha: For all of them together.
        is_paired: Whether both sides have the same seeds.
        arrangements: Random ones of a permutation test that cannot try all.
    Raises:
        AnalysisError: a number is out of its range.
    """

    runs: int
    hypotheses: int = 1
    alpha: float = 0.05
    is_paired: bool = False
    arrangements: int = ARRANGEMENTS

    def __post_init__(self) -> None:
        for name in ("runs", "hypotheses", "arrangements"):
            if getattr(self, name) < 1:
                message = f"{name}={getattr(self, name)}: want at least 1"
                raise AnalysisError(message, kind=ErrorKind.BAD_DATA, option=name)
        if not 0.0 < self.alpha < 1.0:
            message = f"alpha={self.alpha:g}: want a number between 0 and 1"
            raise AnalysisError(message, kind=ErrorKind.BAD_DATA, option="alpha")

    @property
    def smallest_p(self) -> float:
        """
        The smallest p-value that this many runs can give; the same for values and for ranks.
        """
        return smallest_p_value(
            self.runs, self.runs, is_paired=self.is_paired, arrangements=self.arrangements
        )

    @property
    def own_alpha(self) -> float:
        """
        What a p-value must stay below if no other hypothesis is rejected: Holm's first step.
        """
        return self.alpha / self.hypotheses

    @property
    def is_reachable(self) -> bool:
        """
        Whether any data at all can be significant in this design.
        """
        return self.smallest_p < self.own_alpha

    @property
    def attainable_alpha(self) -> float:
        """
        The largest p-value below `own_alpha` that this many runs can give; 0 where there is none.
        """
        steps = math.ceil(self.own_alpha / self.smallest_p) - 1
        return steps * self.smallest_p

    def power(self, effect: float) -> float:
        """
        Probability that a true difference of this size is found significant, on its own side.
        """
        freedom = self.runs - 1 if self.is_paired else 2 * self.runs - 2
        if freedom < 1 or not self.attainable_alpha:
            return 0.0
        shift = abs(effect) * math.sqrt(self.runs if self.is_paired else self.runs / 2)
        return _students_power(freedom, shift, self.attainable_alpha)

    def detectable_effect(self, power: float = POWER) -> float | None:
        """
        The smallest true difference that is found with this probability; None where none is.
        """
        _check_power(power)
        if self.power(LARGEST_EFFECT) <= power:
            return None
        if self.power(0.0) >= power:
            return 0.0
        return float(
            optimize.brentq(lambda effect: self.power(effect) - power, 0.0, LARGEST_EFFECT)
        )


def runs_to_reach(
    hypotheses: int = 1,
    *,
    alpha: float = 0.05,
    is_paired: bool = False,
    arrangements: int = ARRANGEMENTS,
) -> int | None:
    """
    The fewest runs a side (or pairs) with which any data can be significant; None where even many
    cannot, because random arrangements are too few for so many hypotheses.
    """
    for runs in range(1, 100):  # past 20, arrangements are random, and their smallest p is fixed
        if Design(runs, hypotheses, alpha, is_paired, arrangements).is_reachable:
            return runs
    return None


def runs_for_power(
    effect: float,
    hypotheses: int = 1,
    *,
    power: float = POWER,
    alpha: float = 0.05,
    is_paired: bool = False,
    arrangements: int = ARRANGEMENTS,
) -> int | None:
    """
    The fewest runs a side (or pairs) that find such a difference with this probability; None where
    `MOST_RUNS` do not.
    """
    _check_power(power)

    def is_enough(runs: int) -> bool:
        return Design(runs, hypotheses, alpha, is_paired, arrangements).power(effect) >= power

    if not is_enough(MOST_RUNS):
        return None
    few, enough = 0, MOST_RUNS
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if is_enough(middle) else (middle, enough)
    # Coarse p-values make power no straight line: a few runs fewer may do as well.
    return next(runs for runs in range(max(1, enough - 10), enough + 1) if is_enough(runs))


def past_deviation(groups: list[ArrayLike]) -> float:
    """
    Standard deviation of a run, pooled over cells; what turns a difference into an effect.

    Args:
        groups: Values of the repeats of each cell; those that are not finite are left out.
    Raises:
        TooFewPointsError: no cell has two values.
    """
    kept = [np.asarray(group, dtype=np.float64) for group in groups]
    kept = [group[np.isfinite(group)] for group in kept]
    freedom = sum(max(len(group) - 1, 0) for group in kept)
    if not freedom:
        message = f"{len(kept)} cells, none with two values: want repeats to see their scatter"
        raise TooFewPointsError(message, kind=ErrorKind.TOO_FEW_POINTS)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in kept if len(group))
    return math.sqrt(squares / freedom)


def _students_power(freedom: int, shift: float, alpha: float) -> float:
    quantile = float(special.stdtrit(freedom, 1.0 - alpha / 2))
    return float(1.0 - special.nctdtr(freedom, shift, quantile))


def _check_power(power: float) -> None:
    if not 0.0 < power < 1.0:
        message = f"power={power:g}: want a number between 0 and 1"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA, option="power")
