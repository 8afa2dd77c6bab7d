"""
Which parameters of a matrix matter, by how much, and which pairs of them act together.

Every effect is tested against the scatter between runs of one cell, each beside all others of its
kind, and p-values are Holm's over all effects on all objectives. Cells may scatter differently: of
two levels the test is Welch's, with matched seeds the paired t test. Intervals are Scheffe's, so
they hold though the levels that differ most were looked up in the data. What the runs cannot tell
is said, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from allele_mlflow.analysis.factor_model import (
    FactorModel,
    MatrixRuns,
    Scatter,
    Term,
    Variance,
    compare_models,
    scheffe_factor,
)
from allele_mlflow.analysis.frames import params_by_run
from allele_mlflow.analysis.intervals import CONFIDENCE, Estimate
from allele_mlflow.analysis.locations import BoolArray, FloatArray
from allele_mlflow.analysis.multiplicity import adjust_holm
from allele_mlflow.analysis.selection import Selection, run_table
from allele_mlflow.analysis.sides import IS_FAILED, SEED
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction

#: Level of a run that lacks a parameter, as cells of a suite's `include` may.
UNSET = "unset"
#: Levels that a size is of: from and to, of each axis.
Between = tuple[tuple[Any, Any], ...]


class Support(NamedTuple):
    """
    What an answer rests on: runs that gave a value, cells and seeds they are of, and runs that gave
    none. `seeds` is 0 where runs are not matched by seed.
    """

    runs: int
    cells: int
    seeds: int
    failed: int


class LevelMean(NamedTuple):
    """
    Mean of the metric at one level, over all levels of the other axes alike.
    """

    level: Any
    runs: int
    mean: Estimate


@dataclass(frozen=True)
class Effect:
    """
    What an axis, or two axes together, do to a metric.

    Attributes:
        metric: Of the matrix.
        term: One axis, or two.
        levels: Of one axis, each with its mean.
        size: Of one axis, the best level minus the worst (where no way is better: the highest minus
            the lowest); of two, by how much the step of the first differs over the second, where
            that is most. None where the runs do not tell.
        between: The levels that `size` is of: two of each axis.
        p_value: Of its test; None where it was not tested.
        p_holm: The same over all effects that were looked at together.
        variance_ratio: Part of all scatter that it explains (omega squared, 0 to 1).
        support: What it rests on.
        is_clear: Whether p_holm is below alpha.
        reason: Why it is not clear; empty where it is.
    """

    metric: str
    term: Term
    levels: tuple[LevelMean, ...]
    size: Estimate | None
    between: Between
    p_value: float | None
    p_holm: float | None
    variance_ratio: float | None
    support: Support
    is_clear: bool
    reason: str


def matrix_runs(selection: Selection, *, by: Sequence[str] = ()) -> MatrixRuns:
    """
    The runs of a selection over the axes of its suite.

    Args:
        selection: Runs.
        by: Parameters that are the axes, for runs of no suite.
    Raises:
        AnalysisError: there are no axes, or one that no run has. A run that lacks one of them has
            the level "unset" there.
    """
    axes = tuple(by) or selection.facts.axes
    if not axes:
        raise _bad("no axes are known: name the parameters (--by), or take a suite")
    table = run_table(selection.frames)
    told = params_by_run(selection.frames.params)
    points = pd.DataFrame(
        {
            name: pd.Series([told.get(run, {}).get(name) for run in table.index], dtype="object")
            for name in axes
        }
    ).set_axis(table.index)
    unknown = [name for name in axes if points[name].isna().all()]
    if unknown:
        raise _bad(f"no run has a parameter {unknown[0]!r}")
    points = points.where(points.notna(), UNSET)
    values = table.drop(columns=[SEED, IS_FAILED]).astype(np.float64)
    is_good = np.isfinite(values).mul(~table[IS_FAILED], axis=0)
    return MatrixRuns(points, values.where(is_good), table[SEED])


def estimate_effects(
    runs: MatrixRuns,
    objectives: Mapping[str, Direction],
    *,
    alpha: float = 0.05,
    confidence: float = CONFIDENCE,
) -> list[Effect]:
    """
    Main effects of each axis and interactions of each two, on each objective.

    Args:
        runs: Of a matrix.
        objectives: Metrics, and which way is better.
        alpha: Chance of calling one effect or more clear where there is none at all.
        confidence: Of the intervals.
    Returns:
        By objective: the axes, then the pairs.
    Raises:
        AnalysisError: no axis has two levels, or no run has the metric.

    Cost: a singular value decomposition of runs x levels for each effect.
    Source: Searle 1987, Linear Models for Unbalanced Data (each effect beside the others);
    Olejnik, Algina 2003, Psychological Methods 8(4) (omega squared); `compare_models`.
    """
    if not runs.axes:
        raise _bad("every run has the same parameters: want an axis with two values or more")
    found: list[Effect] = []
    for metric, direction in objectives.items():
        if metric not in runs.values or runs.values[metric].isna().all():
            known = ", ".join(map(str, runs.values.columns)) or "none"
            raise _bad(f"no run has a value of {metric!r}; there are {known}")
        found += _Effects(runs, metric, direction, confidence).all()
    p_values = [np.nan if one.p_value is None else one.p_value for one in found]
    tested = sum(one.p_value is not None for one in found)
    adjusted = adjust_holm(p_values)
    return [_judged(one, float(p), tested, alpha) for one, p in zip(found, adjusted, strict=True)]


def support_of(runs: MatrixRuns, metric: str, *, among: BoolArray | None = None) -> Support:
    """
    What is said of a metric rests on these runs, all by default.
    """
    is_there = runs.values[metric].notna().to_numpy()
    is_meant = np.ones_like(is_there) if among is None else among
    is_good = is_there & is_meant
    cells = {cell for cell, good in zip(runs.cells, is_good, strict=True) if good}
    seeds = runs.seeds.nunique() if runs.is_blocked else 0
    return Support(int(is_good.sum()), len(cells), seeds, int((is_meant & ~is_there).sum()))


def _judged(one: Effect, p_holm: float, tested: int, alpha: float) -> Effect:
    if one.p_value is None:
        return one
    if p_holm < alpha:
        return replace(one, p_holm=p_holm, is_clear=True)
    reason = f"p = {p_holm:.2g} after Holm over {tested} hypotheses"
    return replace(one, p_holm=p_holm, reason=reason)


class _Step(NamedTuple):
    """
    A difference between levels, as the model makes it; no row where one of them has no run.
    """

    row: FloatArray | None
    between: Between


class _Effects:
    """
    Those on one metric.
    """

    def __init__(
        self, runs: MatrixRuns, metric: str, direction: Direction, confidence: float
    ) -> None:
        self._runs, self._metric, self._direction = runs, metric, direction
        self._confidence = confidence
        self._support = support_of(runs, metric)
        self._mains: list[Term] = [(name,) for name in runs.axes]
        self._pairs: list[Term] = list(combinations(runs.axes, 2))
        self._models: dict[tuple[Term, ...], FactorModel] = {}
        self._cells = self._model([runs.axes])
        self._scatter = self._cells.scatter(good_cells(runs, metric))

    def all(self) -> Iterator[Effect]:
        """
        Main effects, then interactions.
        """
        both = [*self._mains, *self._pairs]
        for term in self._mains:
            yield self._effect(term, self._mains)
        for term in self._pairs:
            yield self._effect(term, both)

    def _model(self, terms: Sequence[Term]) -> FactorModel:
        key = tuple(terms)
        if key not in self._models:
            self._models[key] = FactorModel(self._runs, self._metric, terms)
        return self._models[key]

    def _effect(self, term: Term, terms: list[Term]) -> Effect:
        nothing = Effect(
            self._metric, term, (), None, (), None, None, None, self._support, False, ""
        )
        if self._scatter is None:
            return replace(nothing, reason="one run a cell: how far runs scatter is not known")
        model = self._model(terms)
        less = self._model([one for one in terms if one != term])
        found = compare_models(model, less, self._scatter)
        if found is None:
            return replace(nothing, reason=_confounded(term))
        steps = self._steps(model, term) if len(term) == 1 else self._turns(model, term)
        size, between = self._largest(model, steps, self._scatter, found.freedom)
        total = self._cells.total + (self._cells.mean_square or 0.0)
        share = max(found.squares - found.by_chance, 0.0) / total if total > 0.0 else 0.0
        return replace(
            nothing,
            levels=tuple(self._levels(model, term[0], self._scatter)) if len(term) == 1 else (),
            size=size,
            between=between,
            p_value=found.p_value,
            variance_ratio=share,
        )

    def _levels(self, model: FactorModel, axis: str, scatter: Scatter) -> Iterator[LevelMean]:
        """
        Each level's mean, at levels of the other axes that count alike.
        """
        is_there = self._runs.values[self._metric].notna()
        for level in self._runs.levels_of(axis):
            row = self._mean_row(model, axis, level)
            count = int((is_there & (self._runs.points[axis] == level)).sum())
            if row is not None:
                variance = model.variance(row, scatter)
                estimate = interval_of(model.value(row), variance, 1, self._confidence)
                yield LevelMean(level, count, estimate)

    def _mean_row(self, model: FactorModel, axis: str, level: Any) -> FloatArray | None:
        weights: dict[Term, dict[tuple[Any, ...], float]] = {}
        for name in self._runs.axes:
            levels = [level] if name == axis else self._runs.levels_of(name)
            weights[(name,)] = {(one,): 1.0 / len(levels) for one in levels}
        return model.weighted(weights, base=1.0)

    def _steps(self, model: FactorModel, term: Term) -> Iterator[_Step]:
        """
        From each level of an axis to each other.
        """
        for low, high in permutations(self._runs.levels_of(term[0]), 2):
            yield _Step(model.weighted({term: {(high,): 1.0, (low,): -1.0}}), ((low, high),))

    def _turns(self, model: FactorModel, term: Term) -> Iterator[_Step]:
        """
        How each step of the first axis differs between any two levels of the second.
        """
        one, other = (list(combinations(self._runs.levels_of(name), 2)) for name in term)
        for (a, b), (c, d) in product(one, other):
            corners = {(b, d): 1.0, (b, c): -1.0, (a, d): -1.0, (a, c): 1.0}
            yield _Step(model.weighted({term: corners}), ((a, b), (c, d)))

    def _largest(
        self, model: FactorModel, steps: Iterator[_Step], scatter: Scatter, dimensions: int
    ) -> tuple[Estimate | None, Between]:
        """
        The one that is most, of those that the runs tell.
        """
        sign = -1.0 if self._direction is Direction.LOWER else 1.0
        best: tuple[float, FloatArray, Between] | None = None
        for row, between in steps:
            if row is None or model.variance(row, scatter) is None:
                continue
            value = model.value(row)
            rank = sign * value if len(between) == 1 else abs(value)
            if best is None or rank > best[0]:
                best = rank, row, between
        if best is None:
            return None, ()
        variance = model.variance(best[1], scatter)
        size = interval_of(model.value(best[1]), variance, dimensions, self._confidence)
        return size, best[2]


def good_cells(runs: MatrixRuns, metric: str) -> list[tuple[Any, ...]]:
    """
    The cell of each run that gave a value.
    """
    is_there = runs.values[metric].notna()
    return [cell for cell, good in zip(runs.cells, is_there, strict=True) if good]


def interval_of(
    value: float,
    variance: Variance | None,
    dimensions: int,
    confidence: float,
    *,
    questions: int = 1,
) -> Estimate:
    """
    An estimate that holds for every question in so many dimensions, and in as many such spaces as
    there are questions (Bonferroni).
    """
    if variance is None:
        return Estimate(value, None, None, "no interval: the runs do not tell it")
    method = "Student's t" if dimensions == 1 else "Scheffe"
    method += f", Bonferroni over {questions}" if questions > 1 else ""
    part = 1.0 - (1.0 - confidence) / questions
    half = math.sqrt(variance.value) * scheffe_factor(dimensions, variance.freedom, part)
    return Estimate(value, value - half, value + half, method)


def _confounded(term: Term) -> str:
    what = "its levels" if len(term) == 1 else "its pairs"
    return f"{what} always come with those of other axes: no run tells them apart"


def _bad(what: str) -> AnalysisError:
    return AnalysisError(what, kind=ErrorKind.BAD_DATA)
