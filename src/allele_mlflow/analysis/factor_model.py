"""
Least squares over the axes of a matrix: what each level adds to a metric.

A model is a sum of terms. A term of one axis gives each of its levels a number, a term of two each
pair of levels, a term of all axes each cell; where every cell has the same seeds, each seed has one
too. What the runs cannot tell apart is not estimated: every question is first asked whether the
data answer it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from allele_mlflow.analysis.locations import BoolArray, FloatArray

#: The axes of a term, one or more.
Term = tuple[str, ...]
#: Below this part of the largest value a residual is what rounding leaves of zero.
_ROUNDING = 1e-12
_SAME = 1e-7


@dataclass(frozen=True)
class MatrixRuns:
    """
    The runs of a matrix; the three have one row a run, in one order.

    Attributes:
        points: A column an axis, with the run's level.
        values: A column a metric; NaN where the run failed or gave no finite value.
        seeds: Of the runs; missing where they have none.
    """

    points: pd.DataFrame
    values: pd.DataFrame
    seeds: pd.Series[Any]

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """
        Those with several levels.
        """
        return tuple(name for name, levels in self._levels.items() if len(levels) > 1)

    def levels_of(self, axis: str) -> list[Any]:
        """
        In order where they have one, else as they first come.
        """
        return self._levels[axis]

    @cached_property
    def _levels(self) -> dict[str, list[Any]]:
        found = {name: list(dict.fromkeys(self.points[name])) for name in self.points}
        return {
            name: sorted(levels) if all(map(is_number, levels)) else levels
            for name, levels in found.items()
        }

    @cached_property
    def cells(self) -> list[tuple[Any, ...]]:
        """
        The cell of each run, over `axes`.
        """
        return list(zip(*(self.points[name] for name in self.axes), strict=True))

    @cached_property
    def is_blocked(self) -> bool:
        """
        Whether every cell has the same seeds, each once, and more than one: then a seed that pulls
        all cells the same way hides no difference between them.
        """
        if self.seeds.isna().any() or self.seeds.nunique() < 2:
            return False
        by_cell: dict[tuple[Any, ...], list[Any]] = {}
        for cell, seed in zip(self.cells, self.seeds, strict=True):
            by_cell.setdefault(cell, []).append(seed)
        wanted = sorted(set(self.seeds))
        return all(sorted(seeds) == wanted for seeds in by_cell.values())


class Variance(NamedTuple):
    """
    How far an estimate scatters, and by how many degrees of freedom that is known.
    """

    value: float
    freedom: float


@dataclass(frozen=True)
class Scatter:
    """
    How far runs of one cell scatter, each cell for itself: a level at which runs scatter more makes
    nothing clear by that.

    Attributes:
        cells: Shape (runs,), the number of each run's cell.
        variances: Shape (cells,).
        freedoms: Shape (cells,), degrees of freedom of each; with seeds as blocks no whole numbers.
    """

    cells: np.ndarray[Any, np.dtype[np.intp]]
    variances: FloatArray
    freedoms: FloatArray

    @property
    def of_runs(self) -> FloatArray:
        """
        Shape (runs,): the variance of each.
        """
        found: FloatArray = self.variances[self.cells]
        return found

    def variance(self, weights: FloatArray) -> Variance:
        """
        Of a sum of independent parts, each run's variance times its weight.

        Source: Satterthwaite 1946, Biometrics Bulletin 2(6) (degrees of freedom).
        """
        by_cell = np.bincount(self.cells, weights, minlength=len(self.variances))
        parts = by_cell * self.variances
        total = float(parts.sum())
        spread = float((parts**2 / self.freedoms).sum())
        return Variance(total, total**2 / spread if spread > 0.0 else float(self.freedoms.sum()))

    def scaled(self, factor: float) -> Scatter:
        """
        So many times the variances.
        """
        return replace(self, variances=self.variances * factor)


class EffectTest(NamedTuple):
    """
    What a term explains beside all others, against what scatter alone explains on average.
    """

    squares: float
    by_chance: float
    freedom: int
    p_value: float


class FactorModel:
    """
    A model of one metric, fitted to the runs that gave a value.

    Args:
        runs: Of the matrix.
        metric: One of its values.
        terms: What the metric is a sum of.
    """

    def __init__(self, runs: MatrixRuns, metric: str, terms: Sequence[Term]) -> None:
        values = runs.values[metric].to_numpy(dtype=np.float64)
        is_there: BoolArray = np.isfinite(values)
        points = runs.points[is_there]
        self.terms = tuple(terms)
        seeds = list(runs.seeds[is_there]) if runs.is_blocked else []
        self._seeds = dict(zip(dict.fromkeys(seeds), range(1, len(seeds) + 1), strict=False))
        width = 1 + len(self._seeds)
        self._places: list[dict[Hashable, int]] = []
        for term in self.terms:
            labels = dict.fromkeys(_labels(points, term))
            self._places.append(dict(zip(labels, range(width, width + len(labels)), strict=True)))
            width += len(labels)
        design = np.zeros((len(points), width))
        design[:, 0] = 1.0
        rows = np.arange(len(points))
        if seeds:
            design[rows, [self._seeds[seed] for seed in seeds]] = 1.0
        for term, places in zip(self.terms, self._places, strict=True):
            design[rows, [places[label] for label in _labels(points, term)]] = 1.0
        self._fit(design, values[is_there])

    def _fit(self, design: FloatArray, values: FloatArray) -> None:
        # by the singular values: what the design cannot tell apart has none, and no share
        left, sizes, right = np.linalg.svd(design, full_matrices=False)
        is_kept = sizes > (sizes[0] if len(sizes) else 0.0) * 1e-10
        self.left: FloatArray = left[:, is_kept]
        self._space = right[is_kept]
        self._scaled = self._space / sizes[is_kept, np.newaxis]
        along = self.left.T @ values
        self._solution = self._scaled.T @ along
        left_over = values - self.left @ along
        # what rounding leaves of zero
        left_over[np.abs(left_over) <= _ROUNDING * np.abs(values).max(initial=0.0)] = 0.0
        self.left_over: FloatArray = left_over
        self.rest = float((left_over**2).sum())
        self.total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0

    @property
    def rank(self) -> int:
        """
        How many numbers the runs determine.
        """
        return int(self.left.shape[1])

    @property
    def mean_square(self) -> float | None:
        """
        What the model leaves, for each degree of freedom; None where it leaves none.
        """
        freedom = len(self.left) - self.rank
        return self.rest / freedom if freedom > 0 else None

    def scatter(self, cells: Sequence[Hashable]) -> Scatter | None:
        """
        What the model leaves in each cell; None where it leaves no degree of freedom. A cell of one
        run has the scatter of all.

        Args:
            cells: Of each run that gave a value.
        """
        pooled = self.mean_square
        if pooled is None:
            return None
        numbers = dict(zip(dict.fromkeys(cells), range(len(cells)), strict=False))
        places = np.array([numbers[one] for one in cells], dtype=np.intp)
        freedoms = np.bincount(places, 1.0 - (self.left**2).sum(axis=1))
        squares = np.bincount(places, self.left_over**2)
        is_alone = freedoms < _SAME
        safe = np.where(is_alone, 1.0, freedoms)
        variances = np.where(is_alone, pooled, squares / safe)
        whole = float(len(self.left) - self.rank)
        return Scatter(places, variances, np.where(is_alone, whole, freedoms))

    def row(self, cell: Mapping[str, Any]) -> FloatArray | None:
        """
        How the metric's mean in a cell is made of the model's numbers, shape (numbers,); None where
        a level, or a pair that is a term, was in no run.
        """
        return self.weighted(
            {term: {tuple(cell[name] for name in term): 1.0} for term in self.terms}, base=1.0
        )

    def weighted(
        self, weights: Mapping[Term, Mapping[tuple[Any, ...], float]], *, base: float = 0.0
    ) -> FloatArray | None:
        """
        The same for any sum: what each level of a term counts, and `base` what all runs share.
        """
        row = np.zeros(self._space.shape[1])
        row[0] = base
        row[1 : 1 + len(self._seeds)] = base / max(len(self._seeds), 1)
        for term, by_label in weights.items():
            places = self._places[self.terms.index(term)]
            for label, weight in by_label.items():
                if label not in places:
                    return None
                row[places[label]] = weight
        return row

    def value(self, row: FloatArray) -> float:
        """
        The estimate of a sum of the model's numbers.
        """
        return float(row @ self._solution)

    def variance(self, row: FloatArray, scatter: Scatter) -> Variance | None:
        """
        Of `value`; None where the runs do not tell it.
        """
        along = self._space @ row
        if np.abs(row - along @ self._space).max() > _SAME:
            return None
        weights = self.left @ (self._scaled @ row)
        return scatter.variance(weights**2)


def compare_models(whole: FactorModel, less: FactorModel, scatter: Scatter) -> EffectTest | None:
    """
    Whether a term explains more than scatter does; None where no run tells it from other terms.

    Args:
        whole: A model with the term.
        less: The same without.
        scatter: Of runs within their cells.

    Source: Brunner, Dette, Munk 1997, JASA 92(440) (the ANOVA-type statistic), with Satterthwaite's
    degrees of freedom. Of two levels it is Welch's test, with matched seeds the paired t test.
    """
    freedom = whole.rank - less.rank
    if not freedom:
        return None
    squares = max(less.rest - whole.rest, 0.0)
    gap = whole.left - less.left @ (less.left.T @ whole.left)
    # the space of one model holds that of the other: all singular values of the rest are 1 or 0
    own = np.linalg.svd(gap, full_matrices=False)[0][:, :freedom]
    chance = scatter.variance((own**2).sum(axis=1))
    if chance.value == 0.0:
        return EffectTest(squares, 0.0, freedom, 0.0 if squares > 0.0 else 1.0)
    spread = own.T @ (scatter.of_runs[:, np.newaxis] * own)
    among = chance.value**2 / float((spread**2).sum())
    p_value = float(special.fdtrc(among, chance.freedom, squares / chance.value))
    return EffectTest(squares, chance.value, freedom, p_value)


@lru_cache(maxsize=1024)
def scheffe_factor(dimensions: int, freedom: float, confidence: float) -> float:
    """
    By how many standard errors an interval reaches, so that it holds for every question that can be
    asked in so many dimensions, whichever was chosen after the data were seen.

    Source: Scheffe 1953, Biometrika 40. In one dimension it is Student's t.
    """
    return math.sqrt(dimensions * float(stats.f.ppf(confidence, dimensions, freedom)))


def is_number(value: Any) -> bool:
    """
    Whether a level has a place among others.
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _labels(points: pd.DataFrame, term: Term) -> list[tuple[Any, ...]]:
    return list(zip(*(points[name] for name in term), strict=True))
