"""
How two sides are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from allele_mlflow.analysis.differences import ARRANGEMENTS
from allele_mlflow.analysis.intervals import CONFIDENCE, RESAMPLES
from allele_mlflow.analysis.locations import Location
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction, describe


@dataclass(frozen=True)
class CompareOptions:
    """
    What counts as a difference, and how it is looked for.

    Attributes:
        alpha: Chance of one false verdict or more in all that is compared at once.
        confidence: Of the intervals.
        location: What stands for the runs of a side.
        equivalence_ratio: A difference of up to this part of the baseline's location makes no
            practical difference.
        equivalences: The same in a metric's own unit, by its name; goes before the ratio.
        directions: Which way is better, by metric; those in `units` are known.
        resamples: Of each bootstrap.
        arrangements: Of each permutation test that cannot try all.
        seed: Of both.
    Raises:
        AnalysisError: a value is out of its range.
    """

    alpha: float = 0.05
    confidence: float = CONFIDENCE
    location: Location = Location.MEAN
    equivalence_ratio: float = 0.02
    equivalences: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    resamples: int = RESAMPLES
    arrangements: int = ARRANGEMENTS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "confidence"):
            _check(name, getattr(self, name), 0.0 < getattr(self, name) < 1.0, "between 0 and 1")
        margins = {f"equivalences[{name!r}]": value for name, value in self.equivalences.items()}
        for name, value in {"equivalence_ratio": self.equivalence_ratio, **margins}.items():
            _check(name, value, value >= 0.0, "0 or more")
        for name in ("resamples", "arrangements"):
            _check(name, getattr(self, name), getattr(self, name) >= 100, "100 or more")

    def direction_of(self, metric: str) -> Direction:
        """
        Which way is better; `none` for a metric of which nothing is known.
        """
        known = describe(metric)
        return self.directions.get(metric, known.direction if known else Direction.NONE)

    def margin_of(self, metric: str, baseline: float) -> float:
        """
        The difference that makes none in practice, in the metric's unit.
        """
        return self.equivalences.get(metric, self.equivalence_ratio * abs(baseline))


def _check(name: str, value: float, is_fine: bool, wanted: str) -> None:
    if not is_fine:
        message = f"{name}={value:g}: want a number {wanted}"
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA, option=name)
