"""
Which cells to try next, of a matrix that was run: only where the data say that it pays.

    beyond    the best level of an axis of numbers is the last: one step further
    between   it is an inner one: the top of the parabola through it and its neighbours
    untested  a combination of known levels that was never run

Each is compared with the best cell that was run, both as the model of the axes predicts them. One
is recommended where the interval of its gain is above zero, and the interval holds for every cell
of its kind that could have been looked at along the same axes. Axes of which `factors` found
nothing clear are never moved: where nothing has an effect, nothing is recommended but with a
probability of at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

import numpy as np

from allele_mlflow.analysis.factor_model import (
    FactorModel,
    MatrixRuns,
    Scatter,
    Term,
    is_number,
)
from allele_mlflow.analysis.factors import Effect, Support, good_cells, interval_of, support_of
from allele_mlflow.analysis.intervals import CONFIDENCE, Estimate
from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.analysis.next_levels import step_between, step_beyond
from allele_mlflow.units import Direction

#: Combinations that are looked through; of more, none is.
MOST_COMBINATIONS = 10_000
#: Levels at which a larger part of the runs gave no value are not recommended.
MOST_FAILED_RATIO = 0.5
MOST_CELLS = 3


class NextKind(StrEnum):
    """
    Where a cell lies, seen from those that were run.
    """

    BEYOND = "beyond"
    BETWEEN = "between"
    UNTESTED = "untested"


@dataclass(frozen=True)
class NextCell:
    """
    A cell that should be better than all that were run.

    Attributes:
        kind: Where it lies.
        params: All axes of it.
        changed: The axes in which it differs from `best`.
        best: The best cell that was run, by the same model.
        best_value: Its predicted mean.
        value: The predicted mean here.
        gain: How much better that is than `best_value`: above zero is better, whichever way the
            metric goes.
        support: Runs that the prediction rests on, at the levels that it is made of.
    """

    kind: NextKind
    params: Mapping[str, Any]
    changed: tuple[str, ...]
    best: Mapping[str, Any]
    best_value: float
    value: Estimate
    gain: Estimate
    support: Support


@dataclass(frozen=True)
class NextCells:
    """
    What to try for one metric, the surest first; where nothing, `reason` says why.
    """

    metric: str
    direction: Direction
    cells: tuple[NextCell, ...]
    reason: str


def propose_cells(
    runs: MatrixRuns,
    effects: Sequence[Effect],
    metric: str,
    direction: Direction,
    *,
    confidence: float = CONFIDENCE,
    most: int = MOST_CELLS,
) -> NextCells:
    """
    The next cells to try for a metric.

    Args:
        runs: Of the matrix.
        effects: What `estimate_effects` found of them.
        metric: One of its objectives.
        direction: Which way is better.
        confidence: Of the intervals, each over all cells along the same axes.
        most: So many at most.
    """
    own = [one for one in effects if one.metric == metric]
    clear = [one.term for one in own if one.is_clear]
    if direction is Direction.NONE:
        return NextCells(metric, direction, (), "which way is better is not known")
    if not clear:
        reason = _why_nothing(own)
        return NextCells(metric, direction, (), f"not enough evidence: {reason}")
    search = _Search(runs, metric, direction, clear, confidence)
    return search.found(most)


def _why_nothing(effects: Sequence[Effect]) -> str:
    tested = [one for one in effects if one.p_holm is not None]
    if not tested:
        return effects[0].reason if effects else "no effect was looked at"
    nearest = min(tested, key=lambda one: one.p_holm or 0.0)
    return f"no effect is clear; the nearest is {' x '.join(nearest.term)}, {nearest.reason}"


#: Cells that were run and what each counts for the value of another.
_Mix = list[tuple[dict[str, Any], float]]
_Candidate = tuple[NextKind, dict[str, Any], _Mix]


class _Search:
    """
    Candidates for one metric, and what the model says of them.
    """

    def __init__(
        self,
        runs: MatrixRuns,
        metric: str,
        direction: Direction,
        clear: Sequence[Term],
        confidence: float,
    ) -> None:
        self._runs, self._metric, self._direction = runs, metric, direction
        self._sign = 1.0 if direction is Direction.HIGHER else -1.0
        self._active = tuple(name for name in runs.axes if any(name in term for term in clear))
        pairs = [term for term in clear if len(term) == 2]
        terms: list[Term] = [*((name,) for name in runs.axes), *pairs]
        self._model = FactorModel(runs, metric, terms)
        self._scatter = _scatter(FactorModel(runs, metric, [runs.axes]), self._model, runs, metric)
        self._confidence = confidence
        self._barred = {name: _failing(runs, metric, name) for name in runs.axes}

    def found(self, most: int) -> NextCells:
        """
        Those that pay, else why none does.
        """
        best = self._best_tested()
        if best is None or self._scatter is None:
            return self._nothing("in every cell most runs failed")
        candidates = [*self._along_axes(best), *self._untested(best)]
        judged = [one for each in candidates if (one := self._judged(best, *each)) is not None]
        judged.sort(key=lambda one: one.gain.low or 0.0, reverse=True)
        sure = [one for one in judged if one.gain.low is not None and one.gain.low > 0.0]
        if sure:
            return NextCells(self._metric, self._direction, tuple(sure[:most]), "")
        if not judged:
            return self._nothing("the best cell was run, and none beside it can be judged")
        first = judged[0]
        where = " ".join(f"{name}={first.params[name]}" for name in first.changed)
        low, high = first.gain.low, first.gain.high
        return self._nothing(
            f"not enough evidence: the surest, {where} ({first.kind}), "
            f"would gain {first.gain.value:.4g} [{low:.4g}, {high:.4g}]"
        )

    def _nothing(self, reason: str) -> NextCells:
        return NextCells(self._metric, self._direction, (), reason)

    def _best_tested(self) -> dict[str, Any] | None:
        is_there = self._runs.values[self._metric].notna()
        tested = {one for one, good in zip(self._runs.cells, is_there, strict=True) if good}
        best: tuple[float, dict[str, Any]] | None = None
        for one in sorted(tested, key=repr):
            cell = dict(zip(self._runs.axes, one, strict=True))
            row = self._model.row(cell)
            if row is None or self._is_barred(cell):
                continue
            value = self._sign * self._model.value(row)
            if best is None or value > best[0] + 1e-12 * abs(best[0]):
                best = value, cell
        return None if best is None else best[1]

    def _is_barred(self, cell: Mapping[str, Any]) -> bool:
        return any(cell[name] in self._barred[name] for name in self._runs.axes)

    def _along_axes(self, best: dict[str, Any]) -> Iterator[_Candidate]:
        for axis in self._active:
            levels = self._runs.levels_of(axis)
            if not all(map(is_number, levels)):
                continue
            means = [self._sign * self._value_at(best, axis, level) for level in levels]
            place = levels.index(best[axis])
            found = step_beyond(levels, place) or step_between(levels, means, place)
            if found is not None:
                level, weights = found
                kind = NextKind.BEYOND if place in (0, len(levels) - 1) else NextKind.BETWEEN
                mix = [({**best, axis: one}, weight) for one, weight in weights.items()]
                yield kind, {**best, axis: level}, mix

    def _value_at(self, best: dict[str, Any], axis: str, level: Any) -> float:
        row = self._model.row({**best, axis: level})
        return math.nan if row is None else self._model.value(row)

    def _untested(self, best: dict[str, Any]) -> Iterator[_Candidate]:
        levels = [self._runs.levels_of(name) for name in self._active]
        if math.prod(map(len, levels)) > MOST_COMBINATIONS:
            return
        tested = set(self._runs.cells)
        for one in product(*levels):
            cell = {**best, **dict(zip(self._active, one, strict=True))}
            is_tested = tuple(cell[name] for name in self._runs.axes) in tested
            if not is_tested and not self._is_barred(cell):
                yield NextKind.UNTESTED, cell, [(cell, 1.0)]

    def _judged(
        self, best: dict[str, Any], kind: NextKind, cell: dict[str, Any], mix: _Mix
    ) -> NextCell | None:
        model, scatter = self._model, self._scatter
        rows = [(model.row(one), weight) for one, weight in mix]
        start = model.row(best)
        if scatter is None or start is None or any(row is None for row, _ in rows):
            return None
        row: FloatArray = np.sum([weight * one for one, weight in rows if one is not None], axis=0)
        changed = tuple(name for name in self._runs.axes if cell[name] != best[name])
        dimensions, questions = self._family(kind, changed)
        variances = [model.variance(one, scatter) for one in (row, row - start)]
        if None in variances:
            return None
        value, start_value = model.value(row), model.value(start)
        gain = self._sign * (value - start_value)
        part = self._confidence
        return NextCell(
            kind,
            cell,
            changed,
            best,
            start_value,
            interval_of(value, variances[0], dimensions + 1, part, questions=questions),
            interval_of(gain, variances[1], dimensions, part, questions=questions),
            self._support(changed, mix),
        )

    def _family(self, kind: NextKind, changed: Sequence[str]) -> tuple[int, int]:
        """
        Dimensions of what could have been asked along these axes, and in how many places: a step
        at either end; a parabola around each inner level; any difference of two cells. Where other
        axes act together with this one, all that for each of their levels.
        """
        counts = {name: len(self._runs.levels_of(name)) for name in self._runs.axes}
        terms = [term for term in self._model.terms if any(name in changed for name in term)]
        if kind is NextKind.UNTESTED:
            return sum(math.prod(counts[name] - 1 for name in term) for term in terms), 1
        others = {name for term in terms for name in term} - set(changed)
        places = math.prod(counts[name] for name in others)
        if kind is NextKind.BEYOND:
            return 1, 2 * places
        return 2, (counts[changed[0]] - 2) * places

    def _support(self, changed: Sequence[str], mix: _Mix) -> Support:
        if len(changed) > 1:
            return support_of(self._runs, self._metric)
        levels = self._runs.points[changed[0]]
        is_near = levels.isin([cell[changed[0]] for cell, _ in mix]).to_numpy()
        return support_of(self._runs, self._metric, among=is_near)


def _failing(runs: MatrixRuns, metric: str, axis: str) -> set[Any]:
    failed = runs.values[metric].isna().groupby(runs.points[axis]).mean()
    return set(failed[failed > MOST_FAILED_RATIO].index)


def _scatter(
    cells: FactorModel, model: FactorModel, runs: MatrixRuns, metric: str
) -> Scatter | None:
    """
    That of runs within their cells; more where the model leaves more than that besides.
    """
    found = cells.scatter(good_cells(runs, metric))
    own, left = cells.mean_square, model.mean_square
    if found is None or not own or left is None:
        return found
    return found.scaled(max(left / own, 1.0))
