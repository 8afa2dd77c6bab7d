"""
From numbers to a verdict, and the reason in words. Pure.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.units import Direction


class Verdict(StrEnum):
    """
    What the evidence says of the candidate. `different` is of a metric that is better in neither
    direction: the sides differ, and that is all that can be said.
    """

    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


class Case(NamedTuple):
    """
    What a verdict is made from.

    Attributes:
        direction: Which way is better.
        counts: Runs of the baseline and of the candidate.
        missing: How many of them gave no value.
        difference: Candidate minus baseline; None where a side has no value.
        a12: With failed runs as the worst, where some failed and the verdict is on all runs.
        p_value: Raw; None where nothing was tested.
        p_holm: After correction.
        smallest_p: That this many runs can give.
        smallest_holm: The same after correction, if all hypotheses had their smallest.
        family_count: Hypotheses that are corrected for.
        margin: A difference up to this makes no practical difference; in the metric's unit.
        alpha: What p is held against.
    """

    direction: Direction
    counts: tuple[int, int]
    missing: tuple[int, int]
    difference: Estimate | None
    a12: Estimate | None
    p_value: float | None
    p_holm: float | None
    smallest_p: float
    smallest_holm: float
    family_count: int
    margin: float
    alpha: float


def judge(case: Case) -> tuple[Verdict, str]:
    """
    The verdict and its reason. Equivalence goes first: a difference may be certain and not matter.
    """
    if case.p_value is None or case.p_holm is None:
        return Verdict.INCONCLUSIVE, _untested(case)
    difference = case.difference
    is_complete = not any(case.missing)
    if is_complete and difference and difference.is_within(-case.margin, case.margin):
        return Verdict.EQUIVALENT, _equivalent(case, difference)
    shown, neutral = (case.a12, 0.5) if case.a12 else (difference, 0.0)
    tail = _failures(case)
    if case.p_holm >= case.alpha:
        return Verdict.INCONCLUSIVE, _insignificant(case) + tail
    if shown is None or not shown.excludes(neutral):
        words = f"{_p(case)}, but {_interval(shown, case)}"
        return Verdict.INCONCLUSIVE, words + tail
    reason = f"{_interval(shown, case)}, {_p(case)}{tail}"
    return _side_of(shown.value > neutral, case.direction), reason


def _side_of(is_higher: bool, direction: Direction) -> Verdict:
    if direction is Direction.NONE:
        return Verdict.DIFFERENT
    return Verdict.BETTER if is_higher is (direction is Direction.HIGHER) else Verdict.WORSE


def _untested(case: Case) -> str:
    for side, runs, missing in zip(
        ("baseline", "candidate"), case.counts, case.missing, strict=True
    ):
        if runs == missing:
            return (
                f"no run of the {side} gave a finite value ({runs} run{'' if runs == 1 else 's'})"
            )
    return "no seed gave a finite value on both sides"


def _equivalent(case: Case, difference: Estimate) -> str:
    ends = f"[{difference.low:.4g}, {difference.high:.4g}]"
    return f"the difference {ends} is within {case.margin:.4g}, which makes none in practice"


def _insignificant(case: Case) -> str:
    if case.smallest_holm < case.alpha:
        return _p(case)
    counts = case.counts
    runs = f"n={counts[0]} per side" if counts[0] == counts[1] else f"n={counts[0]} and {counts[1]}"
    reason = f"{runs}: smallest reachable p is {case.smallest_p:.2g}"
    if case.family_count > 1:
        reason += f", {case.smallest_holm:.2g} after Holm over {case.family_count}"
    return f"{reason}; want more repeats"


def _p(case: Case) -> str:
    text = f"p = {case.p_value:.2g}"
    if case.family_count > 1:
        text += f", {case.p_holm:.2g} after Holm over {case.family_count}"
    return text


def _interval(shown: Estimate | None, case: Case) -> str:
    if shown is None:
        return "there is no difference of values to show"
    name = "A12" if case.a12 else "the difference"
    if shown.low is None or shown.high is None:
        return f"{name} has {shown.method}"
    return f"{name} is {shown.value:.4g} [{shown.low:.4g}, {shown.high:.4g}]"


def _failures(case: Case) -> str:
    if not any(case.missing):
        return ""
    parts = [
        f"{missing} of {runs} of the {side}"
        for side, runs, missing in zip(
            ("baseline", "candidate"), case.counts, case.missing, strict=True
        )
        if missing
    ]
    taken = "counted as the worst" if case.a12 else "left out"
    return f"; {' and '.join(parts)} gave no value, {taken}"
