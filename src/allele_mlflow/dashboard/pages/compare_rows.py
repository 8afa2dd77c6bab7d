"""
Comparisons and rankings as rows of tables. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from allele_mlflow.analysis.comparison import Comparison
from allele_mlflow.analysis.comparison_lines import VERDICT_ORDER, ranking_lines
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.selection import Selection
from allele_mlflow.analysis.suite_comparison import SuiteComparison, SuiteRanking
from allele_mlflow.analysis.verdicts import Verdict
from allele_mlflow.units import Direction

#: What a row is of where no cell tells runs apart.
ALL_RUNS = "all runs"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """
    Runs that were compared. `selection` is as it was written, `label` says what it means now.
    """

    role: str
    selection: str
    label: str
    runs: int
    failed: int
    running: int
    environments: int


class DifferenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    One metric of one cell, of a candidate against the baseline. `difference` is candidate minus
    baseline in the metric's unit, `ratio` candidate / baseline, each with its interval; `a12` how
    likely a run of the candidate has the higher value. None is what could not be computed.
    """

    candidate_name: str
    cell: str
    metric: str
    unit: str
    direction: Direction
    verdict: Verdict
    reason: str
    is_paired: bool
    baseline: float | None
    baseline_runs: int
    candidate: float | None
    candidate_runs: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    a12: float | None
    p_holm: float | None

    @property
    def quantity(self) -> str:
        """
        The metric with its unit.
        """
        is_said = not self.unit or self.metric.endswith(self.unit)
        return self.metric if is_said else f"{self.metric} ({self.unit})"

    @property
    def change(self) -> str | None:
        """
        The ratio as a difference in percent, with its interval.
        """
        parts = (self.ratio, self.ratio_low, self.ratio_high)
        if None in parts:
            return None
        texts = [_percent(part) for part in parts if part is not None]
        return f"{texts[0]} % [{texts[1]}, {texts[2]}]"

    @property
    def runs(self) -> str:
        """
        Of both sides, and whether they are compared in pairs.
        """
        paired = ", in pairs" if self.is_paired else ""
        return f"{self.baseline_runs} and {self.candidate_runs}{paired}"


class RankedRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    One of several selections. `mean_rank` is over cells, 1 is best; `improvement` how likely a run
    of it is better than one of the baseline.
    """

    configuration: str
    mean_rank: float | None
    iqm: float
    iqm_low: float | None
    iqm_high: float | None
    improvement: float | None
    improvement_low: float | None
    improvement_high: float | None


class RankedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """
    Selections by one metric, the best first. `lines` say Friedman's test and which pairs differ.
    """

    metric: str
    direction: Direction
    note: str
    friedman_p: float | None
    critical_difference: float | None
    rows: list[RankedRow]
    lines: list[str]


def side_of(selection: Selection, role: str) -> Side:
    """
    What stands on one side.
    """
    runs = selection.frames.runs
    return Side(
        role=role,
        selection=selection.target.text,
        label=selection.label,
        runs=len(runs),
        failed=int(runs["is_failed"].astype(bool).sum()),
        running=selection.running_count,
        environments=len(selection.environment_ids),
    )


def difference_rows(compared: SuiteComparison) -> list[DifferenceRow]:
    """
    A row a cell and metric, in the order in which they were compared.
    """
    rows = compared.found.rows if compared.found is not None else ()
    return [_difference_row(row, compared) for row in rows]


def ranked_metric(ranked: SuiteRanking) -> RankedMetric:
    """
    A ranking as a table.
    """
    ranking = ranked.ranking
    by_label = {one.label: one for one in ranked.aggregates}
    ranks = dict(zip(ranking.names, ranking.mean_ranks, strict=True)) if ranking else {}
    return RankedMetric(
        metric=ranked.metric,
        direction=ranked.direction,
        note=ranked.note,
        friedman_p=ranking.friedman.p_value if ranking else None,
        critical_difference=ranking.critical_difference if ranking else None,
        rows=[
            RankedRow(
                configuration=label,
                mean_rank=ranks.get(label),
                **_parts("iqm", by_label[label].iqm),
                **_parts("improvement", by_label[label].improvement),
            )
            for label in (ranks or by_label)
        ],
        lines=list(ranking_lines(ranked)),
    )


def sort_value(row: DifferenceRow, name: str) -> Any:
    """
    By what a row stands in a table that is sorted by a column.
    """
    if name == "verdict":
        return VERDICT_ORDER.index(row.verdict)
    return row.ratio if name == "change" else getattr(row, name)


def _difference_row(row: Comparison, compared: SuiteComparison) -> DifferenceRow:
    return DifferenceRow(
        candidate_name=compared.candidate.target.text,
        cell=row.cell or ALL_RUNS,
        metric=row.metric,
        unit=compared.units.get(row.metric, ""),
        direction=row.direction,
        verdict=row.verdict,
        reason=row.reason,
        is_paired=row.is_paired,
        baseline=row.baseline.centre,
        baseline_runs=row.baseline.runs,
        candidate=row.candidate.centre,
        candidate_runs=row.candidate.runs,
        **_parts("difference", row.difference),
        **_parts("ratio", row.ratio),
        a12=row.a12.value if row.a12 is not None else None,
        p_holm=row.p_holm,
    )


def _parts(name: str, one: Estimate | None) -> dict[str, Any]:
    value, low, high = (one.value, one.low, one.high) if one is not None else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _percent(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    return f"{percent:+.2f}" if abs(percent) < 10 else f"{percent:+.0f}"
