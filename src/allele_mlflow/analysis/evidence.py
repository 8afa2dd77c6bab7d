"""
What is known of each cell and metric before the rows are corrected for each other.

Rows with as many runs on both sides share their resamples and arrangements, so that fifty metrics
cost little more than one; their figures are what each would have alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from scipy import stats

from allele_mlflow.analysis.differences import (
    Significance,
    permutation_tests,
    pooled_ranks,
    signed_ranks,
    smallest_p_value,
)
from allele_mlflow.analysis.effects import estimate_a12
from allele_mlflow.analysis.intervals import (
    Estimate,
    difference_of_rates,
    estimate_differences,
    estimate_ratios,
    success_rate,
)
from allele_mlflow.analysis.locations import FloatArray, centres_of
from allele_mlflow.analysis.options import CompareOptions
from allele_mlflow.analysis.sides import CellRuns, Measured
from allele_mlflow.units import Direction

#: The metric of a cell's success rates.
SUCCESS_METRIC = "run/success_ratio"
#: Rows whose resamples are held at once.
CHUNK_ROWS = 256

Found = TypeVar("Found")
TwoSides = tuple[FloatArray, FloatArray]


class Side(NamedTuple):
    """
    One side of one metric. `centre` is None where no run gave a value, `success` the part of the
    runs that gave one.
    """

    runs: int
    values: int
    centre: float | None
    success: Estimate


class RowEvidence(NamedTuple):
    """
    One row. What could not be computed is None.

    `a12` counts runs without a value as the worst where the metric has a direction (then
    `is_penalised`), else it is of the values there are. `margin` is in the metric's unit.
    """

    cell: str
    metric: str
    direction: Direction
    is_paired: bool
    is_penalised: bool
    baseline: Side
    candidate: Side
    difference: Estimate | None
    ratio: Estimate | None
    a12: Estimate | None
    significance: Significance | None
    smallest_p: float
    margin: float


class _Row(NamedTuple):
    """
    One metric of one cell, as it goes into the computations; None where it does not.

    `values` are finite, `plain` the same where they are what is tested, `ranks` what is tested
    where runs without a value count as the worst, `seen` what A12 looks at.
    """

    measured: Measured
    direction: Direction
    values: TwoSides | None
    plain: TwoSides | None
    ranks: TwoSides | None
    seen: TwoSides | None


def gather_evidence(measured: Sequence[Measured], options: CompareOptions) -> list[RowEvidence]:
    """
    Tests, intervals and effects of all rows.
    """
    rows = [_prepare(one, options.direction_of(one.metric)) for one in measured]
    pairs = [one.is_paired for one in measured]
    tries = {"arrangements": options.arrangements, "seed": options.seed}
    draws = {
        "resamples": options.resamples,
        "seed": options.seed,
        "confidence": options.confidence,
    }
    here = {"location": options.location}
    values = [row.values for row in rows]
    plain = _in_groups(permutation_tests, [row.plain for row in rows], pairs, **tries, **here)
    ranked = _in_groups(permutation_tests, [row.ranks for row in rows], pairs, **tries)
    found = zip(
        rows,
        (one or _penalised(other) for one, other in zip(plain, ranked, strict=True)),
        _in_groups(estimate_differences, values, pairs, **draws, **here),
        _in_groups(estimate_ratios, values, pairs, **draws, **here),
        _in_groups(estimate_a12, [row.seen for row in rows], pairs, **draws),
        strict=True,
    )
    return [_row_evidence(*one, options) for one in found]


def success_evidence(cell: CellRuns, options: CompareOptions) -> RowEvidence:
    """
    The success rates of a cell: Fisher's exact test, Newcombe's interval of their difference.
    """
    finished, runs = cell[2], cell[1]
    others, other_runs = cell[4], cell[3]
    table = [[finished, runs - finished], [others, other_runs - others]]
    p_value = float(stats.fisher_exact(table).pvalue)
    rates = [
        success_rate(done, of, confidence=options.confidence)
        for done, of in ((finished, runs), (others, other_runs))
    ]
    return RowEvidence(
        cell.cell,
        SUCCESS_METRIC,
        Direction.HIGHER,
        is_paired=False,
        is_penalised=False,
        baseline=Side(runs, runs, rates[0].value, rates[0]),
        candidate=Side(other_runs, other_runs, rates[1].value, rates[1]),
        difference=difference_of_rates(
            finished, runs, others, other_runs, confidence=options.confidence
        ),
        ratio=None,
        a12=None,
        significance=Significance(p_value, "Fisher's exact test", True, runs + other_runs),
        smallest_p=smallest_p_value(runs, other_runs, is_paired=False),
        margin=options.margin_of(SUCCESS_METRIC, rates[0].value),
    )


def _prepare(measured: Measured, direction: Direction) -> _Row:
    if not measured.is_measured or not (len(measured.baseline) and len(measured.candidate)):
        return _Row(measured, direction, None, None, None, None)
    finite = measured.finite()
    values = finite if len(finite[0]) and len(finite[1]) else None
    if measured.is_complete or direction is Direction.NONE:
        return _Row(measured, direction, values, values, None, values)
    one, other = measured.penalised(direction)
    if not np.isfinite(np.concatenate([one, other])).any():
        return _Row(measured, direction, None, None, None, None)
    if measured.is_paired:
        both_failed = np.isinf(one) & np.isinf(other)
        ranks = signed_ranks(np.where(both_failed, 0.0, other) - np.where(both_failed, 0.0, one))
    else:
        ranks = pooled_ranks(one, other)
    return _Row(measured, direction, values, None, ranks, (one, other))


def _penalised(significance: Significance | None) -> Significance | None:
    return significance and significance._replace(method="permutation test of penalised ranks")


def _row_evidence(
    row: _Row,
    significance: Significance | None,
    difference: Estimate | None,
    ratio: Estimate | None,
    a12: Estimate | None,
    options: CompareOptions,
) -> RowEvidence:
    measured = row.measured
    counts = [
        len(one) for one in (row.plain or row.ranks or (measured.baseline, measured.candidate))
    ]
    baseline = _side(measured.baseline, options)
    return RowEvidence(
        measured.cell,
        measured.metric,
        row.direction,
        measured.is_paired,
        row.ranks is not None,
        baseline,
        _side(measured.candidate, options),
        difference,
        ratio,
        a12,
        significance,
        smallest_p_value(*counts, is_paired=measured.is_paired, arrangements=options.arrangements),
        options.margin_of(measured.metric, baseline.centre or 0.0),
    )


def _side(values: FloatArray, options: CompareOptions) -> Side:
    finite = values[~np.isnan(values)]
    centre = float(centres_of(finite, options.location)) if len(finite) else None
    rate = success_rate(len(finite), len(values), confidence=options.confidence)
    return Side(len(values), len(finite), centre, rate)


def _in_groups(
    function: Callable[..., Sequence[Found]],
    rows: Sequence[TwoSides | None],
    pairs: Sequence[bool],
    **how: Any,
) -> list[Found | None]:
    """
    The function's answer for each row, with all rows of one shape as columns of one call.
    """
    groups = defaultdict[tuple[int, int, bool], list[int]](list)
    for place, (sides, is_paired) in enumerate(zip(rows, pairs, strict=True)):
        if sides is not None:
            groups[len(sides[0]), len(sides[1]), is_paired].append(place)
    found: list[Found | None] = [None] * len(rows)
    for (_, _, is_paired), places in groups.items():
        for start in range(0, len(places), CHUNK_ROWS):
            chunk = places[start : start + CHUNK_ROWS]
            taken = [one for one in (rows[place] for place in chunk) if one]
            first = np.column_stack([one for one, _ in taken])
            second = np.column_stack([other for _, other in taken])
            answers = function(first, second, is_paired=is_paired, **how)
            for place, answer in zip(chunk, answers, strict=True):
                found[place] = answer
    return found
