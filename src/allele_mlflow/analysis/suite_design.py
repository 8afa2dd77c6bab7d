"""
What a suite can show before any of it is run: which differences between two of its executions, with
what probability, and with how many repeats.

Both executions of a suite have the same seeds, so with enough repeats (`sides.fewest_pairs`) they
are compared in pairs. How much of the scatter a seed explains is not known before: effects in the
metric's unit are computed as if it explained none, which asks for more repeats, never fewer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from allele_mlflow.analysis.power import (
    POWER,
    Design,
    past_deviation,
    runs_for_power,
    runs_to_reach,
)
from allele_mlflow.analysis.sides import fewest_pairs
from allele_mlflow.errors import TooFewPointsError

#: Repeats that a reader wants to see beside the suite's own.
USUAL_REPEATS = (3, 5, 6, 8, 10, 15, 20, 30)


@dataclass(frozen=True)
class PastMetric:
    """
    One metric as the last execution measured it: mean over cells, and standard deviation of a run
    around its cell's mean; both None where it did not tell.
    """

    name: str
    mean: float | None = None
    deviation: float | None = None

    def ratio_of(self, effect: float | None) -> float | None:
        """
        An effect as a part of the mean.
        """
        if effect is None or self.deviation is None or not self.mean:
            return None
        return effect * self.deviation / abs(self.mean)


@dataclass(frozen=True)
class DesignRow:
    """
    So many repeats of each cell.

    Attributes:
        repeats: Of each cell, in each of two executions.
        is_paired: Whether they are compared in pairs.
        smallest_p: That any data can give.
        is_reachable: Whether that is enough after Holm's correction.
        effect: Smallest difference that is found with the wanted power, in standard deviations of a
            run; None where none is.
        ratios: The same as a part of each metric's mean, where its scatter is known.
        seconds: Predicted length of an execution; None where no trial's is known.
    """

    repeats: int
    is_paired: bool
    smallest_p: float
    is_reachable: bool
    effect: float | None
    ratios: Mapping[str, float | None]
    seconds: float | None


@dataclass(frozen=True)
class SuiteDesign:
    """
    The answer for a suite.

    Attributes:
        cells: Of the suite.
        metrics: What is compared in each cell.
        hypotheses: Cells times metrics: what Holm corrects for.
        alpha, power: As asked.
        own_alpha: What the smallest p has to be below.
        repeats: The suite's.
        rows: The suite's repeats and others.
        repeats_to_reach: Fewest with which anything can be significant; None where never.
        wanted_ratio: The difference that was asked for, as a part of the mean.
        repeats_for: By metric, the fewest repeats that find it; None where unknown or too many.
    """

    cells: int
    metrics: tuple[PastMetric, ...]
    hypotheses: int
    alpha: float
    power: float
    own_alpha: float
    repeats: int
    rows: tuple[DesignRow, ...]
    repeats_to_reach: int | None
    wanted_ratio: float
    repeats_for: Mapping[str, int | None]

    @property
    def own_row(self) -> DesignRow:
        """
        The row of the suite's own repeats.
        """
        return next(row for row in self.rows if row.repeats == self.repeats)


def design_suite(
    cells: int,
    repeats: int,
    metrics: Sequence[PastMetric],
    *,
    trial_seconds: float | None = None,
    wanted_ratio: float = 0.05,
    alpha: float = 0.05,
    power: float = POWER,
) -> SuiteDesign:
    """
    What the suite can show.

    Args:
        cells: Of the suite.
        repeats: Of each cell.
        metrics: What will be compared.
        trial_seconds: Mean length of a trial.
        wanted_ratio: The difference that should be found, as a part of the mean.
        alpha: Of all hypotheses together.
        power: Wanted probability of finding what is there.
    Raises:
        AnalysisError: a number is out of its range.
    """
    hypotheses = max(1, cells * len(metrics))
    fewest = _repeats_to_reach(hypotheses, alpha)
    shown = sorted({repeats, *USUAL_REPEATS, *([fewest] if fewest is not None else [])})
    rows = [
        _row(count, cells, hypotheses, metrics, trial_seconds, alpha=alpha, power=power)
        for count in shown
    ]
    return SuiteDesign(
        cells,
        tuple(metrics),
        hypotheses,
        alpha,
        power,
        alpha / hypotheses,
        repeats,
        tuple(rows),
        fewest,
        wanted_ratio,
        {one.name: _repeats_for(one, wanted_ratio, hypotheses, alpha, power) for one in metrics},
    )


def past_metrics(table: pd.DataFrame, names: Sequence[str]) -> list[PastMetric]:
    """
    What the runs of an execution tell of metrics.

    Args:
        table: As of `selection.side_table`.
        names: The metrics.
    """
    found = []
    good = table[~table["is_failed"]]
    for name in names:
        groups = []
        if name in good:
            groups = [group.to_numpy() for _, group in good.groupby("cell")[name]]
        try:
            deviation = past_deviation(groups)
        except TooFewPointsError:
            deviation = None
        mean = float(good[name].mean()) if name in good else math.nan
        found.append(PastMetric(name, mean if math.isfinite(mean) else None, deviation))
    return found


def _row(
    repeats: int,
    cells: int,
    hypotheses: int,
    metrics: Sequence[PastMetric],
    trial_seconds: float | None,
    *,
    alpha: float,
    power: float,
) -> DesignRow:
    design = _design(repeats, hypotheses, alpha)
    effect = design.detectable_effect(power)
    if effect is not None and design.is_paired:
        effect *= math.sqrt(2.0)  # of a run; that of a difference of two is larger
    return DesignRow(
        repeats,
        design.is_paired,
        design.smallest_p,
        design.is_reachable,
        effect,
        {one.name: one.ratio_of(effect) for one in metrics},
        None if trial_seconds is None else trial_seconds * cells * repeats,
    )


def _design(repeats: int, hypotheses: int, alpha: float) -> Design:
    return Design(repeats, hypotheses, alpha, is_paired=repeats >= fewest_pairs(hypotheses, alpha))


def _repeats_to_reach(hypotheses: int, alpha: float) -> int | None:
    few = runs_to_reach(hypotheses, alpha=alpha)
    enough = fewest_pairs(hypotheses, alpha)
    if few is not None and few < enough:
        return few
    many = runs_to_reach(hypotheses, alpha=alpha, is_paired=True)
    return None if many is None else max(many, enough)


def _repeats_for(
    metric: PastMetric, wanted_ratio: float, hypotheses: int, alpha: float, power: float
) -> int | None:
    if not metric.deviation or not metric.mean:
        return None
    effect = wanted_ratio * abs(metric.mean) / metric.deviation
    few = runs_for_power(effect, hypotheses, power=power, alpha=alpha)
    enough = fewest_pairs(hypotheses, alpha)
    if few is not None and few < enough:
        return few
    many = runs_for_power(
        effect / math.sqrt(2.0), hypotheses, power=power, alpha=alpha, is_paired=True
    )
    return None if many is None else max(many, enough)
