"""
The evidence model: is the candidate better than the baseline, cell by cell and metric by metric?

A verdict of better or worse needs two things: a p-value below alpha after Holm's correction over
all that is compared at once, and an interval of the difference without zero. Equivalent needs an
interval within what makes no practical difference. All else is inconclusive, with the reason.

Failures are data. A failed run, and a run without a finite value of a metric, ranks as the worst
value there is: a configuration that crashes cannot win by its good runs alone. The success rates of
each cell with failures are one more hypothesis of the same family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from allele_mlflow.analysis.effects import Magnitude, magnitude_of
from allele_mlflow.analysis.evidence import (
    SUCCESS_METRIC,
    RowEvidence,
    Side,
    gather_evidence,
    success_evidence,
)
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.multiplicity import adjust_holm
from allele_mlflow.analysis.options import CompareOptions
from allele_mlflow.analysis.sides import match_sides
from allele_mlflow.analysis.verdicts import Case, Verdict, judge
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction, describe

__all__ = [
    "SUCCESS_METRIC",
    "CompareOptions",
    "Comparison",
    "Comparisons",
    "Estimate",
    "Side",
    "Verdict",
    "compare",
]


@dataclass(frozen=True)
class Comparison:
    """
    One metric of one cell: everything its verdict was made from.

    `difference` is candidate minus baseline, `ratio` candidate / baseline, both of the runs that
    gave a value. `a12` is the probability that a run of the candidate has the higher value; where
    the metric has a direction, runs without a value count as the worst. What could not be computed
    is None.
    """

    cell: str
    metric: str
    unit: str | None
    direction: Direction
    is_paired: bool
    baseline: Side
    candidate: Side
    difference: Estimate | None
    ratio: Estimate | None
    a12: Estimate | None
    magnitude: Magnitude | None
    p_value: float | None
    p_holm: float | None
    test: str | None
    is_exact: bool | None
    smallest_p: float
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Comparisons:
    """
    All that was compared at once. `family_count` is how many hypotheses Holm's correction is over;
    cells of one side only were not compared.
    """

    rows: tuple[Comparison, ...]
    family_count: int
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    options: CompareOptions

    def count(self, verdict: Verdict) -> int:
        """
        Rows with this verdict.
        """
        return sum(row.verdict is verdict for row in self.rows)

    def frame(self) -> pd.DataFrame:
        """
        One row for each cell and metric in plain columns; NaN or None where there is nothing.
        """
        return pd.DataFrame([_flat(row) for row in self.rows])


def compare(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    options: CompareOptions | None = None,
) -> Comparisons:
    """
    Every metric of every cell that both sides have.

    Args:
        baseline: One row a run; `cell`, `seed` and `is_failed` where there are such columns, and
            every other column of numbers is a metric.
        candidate: Likewise.
        metrics: Those that are compared; by default all.
        options: How.
    Returns:
        Rows by cell and metric, then the success rates of cells with failed runs.
    Raises:
        AnalysisError: a metric is in neither table, or no cell is on both sides.

    Runs are paired where both sides of a cell have the same seeds, each once, and enough of them
    (`fewest_pairs`): fewer can never be significant after Holm's correction, while the same runs
    taken as independent can; and that errs on the safe side where a seed pulls both sides the same
    way.

    A row's figures depend on the other rows by their number alone.
    Cost: in benchmarks/results/statistics.json for 200 runs of 50 metrics.
    """
    chosen = options or CompareOptions()
    sides = match_sides(baseline, candidate, metrics, alpha=chosen.alpha)
    if not sides.cells:
        message = (
            f"no cell on both sides: the baseline has {sides.only_baseline or 'no runs'}, "
            f"the candidate {sides.only_candidate or 'no runs'}"
        )
        raise AnalysisError(message, kind=ErrorKind.BAD_DATA)
    found = gather_evidence(sides.measured, chosen)
    found += [success_evidence(cell, chosen) for cell in sides.cells if cell.has_failures]
    return Comparisons(
        rows=_judge_all(found, chosen),
        family_count=_family_count(found),
        only_baseline=tuple(sides.only_baseline),
        only_candidate=tuple(sides.only_candidate),
        options=chosen,
    )


def _family_count(found: list[RowEvidence]) -> int:
    return sum(row.significance is not None for row in found)


def _judge_all(found: list[RowEvidence], options: CompareOptions) -> tuple[Comparison, ...]:
    p_values = [row.significance.p_value if row.significance else np.nan for row in found]
    smallest = [row.smallest_p if row.significance else np.nan for row in found]
    adjusted = zip(found, adjust_holm(p_values), adjust_holm(smallest), strict=True)
    count = _family_count(found)
    return tuple(
        _judged(row, _case(row, float(p_holm), float(least), count, options.alpha))
        for row, p_holm, least in adjusted
    )


def _case(
    row: RowEvidence, p_holm: float, smallest_holm: float, family_count: int, alpha: float
) -> Case:
    tested = row.significance
    sides = row.baseline, row.candidate
    return Case(
        direction=row.direction,
        counts=(sides[0].runs, sides[1].runs),
        missing=(sides[0].runs - sides[0].values, sides[1].runs - sides[1].values),
        difference=row.difference,
        a12=row.a12 if row.is_penalised else None,
        p_value=tested.p_value if tested else None,
        p_holm=p_holm if tested else None,
        smallest_p=row.smallest_p,
        smallest_holm=smallest_holm,
        family_count=family_count,
        margin=row.margin,
        alpha=alpha,
    )


def _judged(row: RowEvidence, case: Case) -> Comparison:
    verdict, reason = judge(case)
    known = describe(row.metric)
    return Comparison(
        cell=row.cell,
        metric=row.metric,
        unit=known.unit if known else None,
        direction=row.direction,
        is_paired=row.is_paired,
        baseline=row.baseline,
        candidate=row.candidate,
        difference=row.difference,
        ratio=row.ratio,
        a12=row.a12,
        magnitude=magnitude_of(row.a12.value) if row.a12 else None,
        p_value=case.p_value,
        p_holm=case.p_holm,
        test=row.significance.method if row.significance else None,
        is_exact=row.significance.is_exact if row.significance else None,
        smallest_p=row.smallest_p,
        verdict=verdict,
        reason=reason,
    )


def _flat(row: Comparison) -> dict[str, Any]:
    flat: dict[str, Any] = {
        name: getattr(row, name) for name in ("cell", "metric", "unit", "direction", "is_paired")
    }
    for name, side in (("baseline", row.baseline), ("candidate", row.candidate)):
        flat |= {f"{name}_runs": side.runs, f"{name}_values": side.values}
        flat |= {name: _number(side.centre), f"{name}_success_ratio": side.success.value}
        flat |= {f"{name}_success_low": side.success.low, f"{name}_success_high": side.success.high}
    for name, one in (("difference", row.difference), ("ratio", row.ratio), ("a12", row.a12)):
        value, low, high, method = one or (None, None, None, None)
        flat |= {name: _number(value), f"{name}_low": _number(low), f"{name}_high": _number(high)}
        flat[f"{name}_method"] = method
    for name in ("p_value", "p_holm", "smallest_p"):
        flat[name] = _number(getattr(row, name))
    names = (
        "magnitude",
        "p_value",
        "p_holm",
        "test",
        "is_exact",
        "smallest_p",
        "verdict",
        "reason",
    )
    return flat | {name: getattr(row, name) for name in names}


def _number(value: float | None) -> float:
    return np.nan if value is None else value
