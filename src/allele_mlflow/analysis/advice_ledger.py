"""
The ledger of recommendations: what was advised, who followed it, what it brought, against what it
was to bring; and for each source how far its word can be relied on.

A gain is a part of what was there before, above zero where it became better, whichever way the
metric goes. It comes from `comparison.compare`: verdict and interval are those of any comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from allele_mlflow.analysis.comparison import CompareOptions, Comparison, Verdict, compare
from allele_mlflow.analysis.intervals import Estimate, success_rate
from allele_mlflow.analysis.sides import CELL
from allele_mlflow.analysis.told_advice import Recommendation
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction

#: Too few to say anything of a source.
FEWEST_TO_JUDGE = 5


@dataclass(frozen=True)
class LedgerEntry:
    """
    A recommendation, and what became of it.

    Attributes:
        recommendation: As it was told.
        metric: What it is judged by; None where that is not known.
        follow_ups: Runs that tried it.
        gain: Realised, as a part of the baseline; None where it is not known.
        found: The comparison behind it.
        reason: Why there is no gain, or what the verdict says of it.
    """

    recommendation: Recommendation
    metric: str | None
    follow_ups: tuple[str, ...]
    gain: Estimate | None
    found: Comparison | None
    reason: str

    @property
    def is_as_expected(self) -> bool | None:
        """
        Whether realised minus expected may be zero, by the intervals of both (an expected gain
        without one counts as exact); None where a gain is missing.

        Source: Zou, Donner 2008, Statistics in Medicine 27 (interval of a difference from those of
        its parts).
        """
        told, gain = self.recommendation, self.gain
        if told.expected is None or gain is None or gain.low is None or gain.high is None:
            return None
        low = told.expected if told.expected_low is None else told.expected_low
        high = told.expected if told.expected_high is None else told.expected_high
        difference = gain.value - told.expected
        down = math.hypot(gain.value - gain.low, high - told.expected)
        up = math.hypot(gain.high - gain.value, told.expected - low)
        return difference - down <= 0.0 <= difference + up


@dataclass(frozen=True)
class Calibration:
    """
    How far the word of a source can be relied on.

    Attributes:
        source: Who recommends.
        told: Recommendations.
        followed: Those that somebody tried.
        judged: Those of which the gain is known.
        better, worse: Verdicts of those; all others are inconclusive, equivalent or different.
        direction_right: Part of the judged that gained anything at all, with Wilson's interval.
        expected, realised: Mean gains over those that have both.
        realised_ratio: realised / expected: 1 is an honest source, below it a boastful one.
        coverage: Part of those with both that came as expected, see `LedgerEntry`.
    """

    source: str
    told: int
    followed: int
    judged: int
    better: int
    worse: int
    direction_right: Estimate | None
    expected: float | None
    realised: float | None
    realised_ratio: float | None
    coverage: Estimate | None

    @property
    def verdict(self) -> str:
        """
        In words.
        """
        if self.judged < FEWEST_TO_JUDGE:
            return f"not enough evidence: {self.judged} judged, want {FEWEST_TO_JUDGE}"
        right = self.direction_right
        if right is not None and right.low is not None and right.low > 0.5:
            return "mostly right"
        if right is not None and right.high is not None and right.high < 0.5:
            return "mostly wrong"
        return "no better than a coin, as far as can be told"


def enter(
    recommendation: Recommendation,
    baseline: pd.DataFrame,
    follow_up: pd.DataFrame,
    *,
    metric: str | None,
    options: CompareOptions | None = None,
) -> LedgerEntry:
    """
    One line of the ledger.

    Args:
        recommendation: What was advised.
        baseline: Runs it was made on, as `compare` takes them, indexed by run id; cells do not
            count, for a follow-up is another cell.
        follow_up: Runs that tried it, likewise.
        metric: What was to become better.
        options: How they are compared; whose direction of the metric counts.
    """
    chosen = options or CompareOptions()
    follow_ups = tuple(map(str, follow_up.index))

    def open_because(reason: str) -> LedgerEntry:
        return LedgerEntry(recommendation, metric, follow_ups, None, None, reason)

    if not follow_ups:
        return open_because("nobody has tried it")
    if metric is None:
        return open_because("it does not say of which metric (--metric)")
    direction = chosen.direction_of(metric)
    if direction is Direction.NONE:
        return open_because(f"which way is better is not known of {metric}: --higher, --lower")
    if not len(baseline):
        return open_because("the runs that it was made on are not there")
    sides = [table.drop(columns=CELL, errors="ignore") for table in (baseline, follow_up)]
    try:
        found = compare(*sides, metrics=[metric], options=chosen).rows[0]
    except AnalysisError as exc:
        return open_because(str(exc))
    return LedgerEntry(
        recommendation, metric, follow_ups, realised_gain(found), found, found.reason
    )


def realised_gain(found: Comparison) -> Estimate | None:
    """
    By which part of the baseline the candidate is better; None where the baseline is zero, or
    nothing was measured.
    """
    centre, difference = found.baseline.centre, found.difference
    if difference is None or not centre:
        return None
    sign = (1.0 if found.direction is Direction.HIGHER else -1.0) / abs(centre)
    ends = [None if end is None else sign * end for end in (difference.low, difference.high)]
    low, high = ends if sign > 0 else reversed(ends)
    return Estimate(sign * difference.value, low, high, difference.method)


def calibrate(entries: Sequence[LedgerEntry]) -> list[Calibration]:
    """
    A line for each source, in the order in which they first come.
    """
    by_source: dict[str, list[LedgerEntry]] = {}
    for one in entries:
        by_source.setdefault(one.recommendation.source, []).append(one)
    return [_calibrate(source, found) for source, found in by_source.items()]


def _calibrate(source: str, entries: Sequence[LedgerEntry]) -> Calibration:
    judged = [one for one in entries if one.gain is not None]
    gains = [one.gain.value for one in judged if one.gain is not None]
    both = [
        (one.recommendation.expected, one.gain.value)
        for one in judged
        if one.gain is not None and one.recommendation.expected is not None
    ]
    expected = sum(one for one, _ in both) / len(both) if both else None
    realised = sum(one for _, one in both) / len(both) if both else None
    held = [one.is_as_expected for one in judged if one.is_as_expected is not None]
    verdicts = [one.found.verdict for one in judged if one.found is not None]
    return Calibration(
        source,
        told=len(entries),
        followed=sum(bool(one.follow_ups) for one in entries),
        judged=len(judged),
        better=verdicts.count(Verdict.BETTER),
        worse=verdicts.count(Verdict.WORSE),
        direction_right=success_rate(sum(one > 0.0 for one in gains), len(gains))
        if gains
        else None,
        expected=expected,
        realised=realised,
        realised_ratio=realised / expected if expected and realised is not None else None,
        coverage=success_rate(sum(held), len(held)) if held else None,
    )
