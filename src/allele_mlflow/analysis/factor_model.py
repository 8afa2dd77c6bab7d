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
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from allele_mlflow.analysis.locations import BoolArray, FloatArray

#: The axes of a term, one or more.
Term = tuple[str, ...]
#: Sums of squares below this part of the whole are what rounding leaves of zero.
_ROUNDING = 1e-18
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


class ErrorTerm(NamedTuple):
    """
    How far runs of one cell scatter: their mean square, and its degrees of freedom.
    """

    mean_square: float
    freedom: int

    def p_value(self, sum_of_squares: float, freedom: int) -> float:
        """
        Chance of as large a sum of squares, or a larger, where there is no effect (F test).
        """
        if self.mean_square == 0.0:
            return 0.0 if sum_of_squares > 0.0 else 1.0
        ratio = sum_of_squares / freedom / self.mean_square
        return float(special.fdtrc(freedom, self.freedom, ratio))


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
        self.rank = int(is_kept.sum())
        self._space = right[is_kept]
        self._scaled = self._space / sizes[is_kept, np.newaxis]
        along = left[:, is_kept].T @ values
        self._solution = self._scaled.T @ along
        left_over = values - left[:, is_kept] @ along
        self.run_count = len(values)
        self.total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
        rounding = _ROUNDING * max(float((values**2).sum()), 1e-300) * max(len(values), 1)
        rest = float((left_over**2).sum())
        self.rest = 0.0 if rest <= rounding * 1e3 else rest

    @property
    def error(self) -> ErrorTerm | None:
        """
        What the model leaves; None where it leaves no degree of freedom.
        """
        freedom = self.run_count - self.rank
        return ErrorTerm(self.rest / freedom, freedom) if freedom > 0 else None

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

    def standard_error(self, row: FloatArray, error: ErrorTerm) -> float | None:
        """
        Of `value`; None where the runs do not tell it.
        """
        along = self._space @ row
        if np.abs(row - along @ self._space).max() > _SAME:
            return None
        return math.sqrt(error.mean_square * float(((self._scaled @ row) ** 2).sum()))


@lru_cache(maxsize=1024)
def scheffe_factor(dimensions: int, freedom: int, confidence: float) -> float:
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
