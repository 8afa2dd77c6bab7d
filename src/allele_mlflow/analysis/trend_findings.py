"""
What a scan of histories finds: its class, whether it is for the worse, where, and how to know it
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from allele_mlflow.units import Direction, describe

#: A shift found at one execution is the same as one known at most so many executions away.
LOCATION_SLACK = 2


class FindingKind(StrEnum):
    """
    Classes of findings: an outlier is one execution, a change lasts, a drift goes on; an
    environment change is a change that came with another machine or other software.
    """

    OUTLIER = "outlier"
    CHANGE = "change"
    DRIFT = "drift"
    ENVIRONMENT_CHANGE = "environment change"


class Outcome(StrEnum):
    """
    Whether it is for worse or better; neutral where the metric has no better direction.
    """

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NEUTRAL = "neutral"


class FindingKey(NamedTuple):
    """
    What makes two findings of two scans the same. A drift has no place: `execution_id` is "".
    """

    cell: str
    metric: str
    kind: FindingKind
    execution_id: str


@dataclass(frozen=True, kw_only=True)
class TrendFinding:
    """
    One finding in one series.

    Attributes:
        key: Stays the same in later scans.
        outcome: For better or worse.
        index: Position in the series: of the outlier, of the first point of the new level, of the
            newest point of a drift.
        execution_id: That execution.
        started_ms: When it started.
        level_before: What the value was: before the shift, beside the outlier, at the start of the
            drift's line.
        level_after: What it became; of an outlier its value, of a drift the line's end.
        sigma: Standard deviation of the noise around it.
        spread: Median standard deviation of the repeats behind one value, None where not known.
        p: None for an outlier.
        slope_per_step: Of a drift, a step being an execution; else None.
        environments: Fingerprints before and after, of an environment change; else None.
        is_newest: Of an outlier: whether it is the newest execution.
        is_alone: Of an outlier: whether no other value is on its side of the middle between the two
            levels.

    Units: levels, sigma and spread as the metric.
    """

    key: FindingKey
    outcome: Outcome
    index: int
    execution_id: str
    started_ms: int
    level_before: float
    level_after: float
    sigma: float
    spread: float | None = None
    p: float | None = None
    slope_per_step: float | None = None
    environments: tuple[str, str] | None = None
    is_newest: bool = False
    is_alone: bool = True

    @property
    def kind(self) -> FindingKind:
        """
        Its class.
        """
        return self.key.kind

    @property
    def delta_ratio(self) -> float | None:
        """
        The difference as part of the level before; None where that is 0.
        """
        delta = self.level_after - self.level_before
        return delta / abs(self.level_before) if self.level_before else None

    @property
    def words(self) -> str:
        """
        The finding in a line, as in "regression: loss of a=1 rose by 12 % from 1 to 1.12".
        """
        rose = "rose" if self.level_after > self.level_before else "fell"
        ratio = self.delta_ratio
        by = "" if ratio is None else f" by {100 * abs(ratio):.3g} %"
        what = f"{self.key.metric} of {self.key.cell}"
        levels = f"from {self.level_before:.6g} to {self.level_after:.6g}"
        sure = "" if self.p is None else f", p = {self.p:.2g}"
        match self.kind:
            case FindingKind.OUTLIER:
                value, usual = f"{self.level_after:.6g}", f"{self.level_before:.6g}"
                if self.is_newest:
                    where = f"in the newest execution, beside {usual} of those before"
                    return f"outlier: {what} is {value} {where}"
                once = " once" if self.is_alone else ""
                return f"outlier: {what} was {value}{once}, beside {usual}"
            case FindingKind.DRIFT:
                return f"{self.outcome}: {what} drifts and {rose}{by} {levels}{sure}"
            case FindingKind.CHANGE:
                return f"{self.outcome}: {what} {rose}{by} {levels}{sure}"
            case FindingKind.ENVIRONMENT_CHANGE:
                return f"environment change: {what} {rose}{by} {levels} with it{sure}"


def outcome_of(metric: str, delta: float, *, direction: Direction | None) -> Outcome:
    """
    Whether a rise (or fall) is for better or worse.

    Args:
        metric: Its name says the direction where it is one of ours.
        delta: After minus before.
        direction: What the caller knows of it; None: nothing.
    """
    if direction is None:
        row = describe(metric)
        direction = Direction.NONE if row is None else row.direction
    if direction is Direction.NONE or delta == 0:
        return Outcome.NEUTRAL
    is_better = (delta > 0) == (direction is Direction.HIGHER)
    return Outcome.IMPROVEMENT if is_better else Outcome.REGRESSION


def key_of(
    cell: str,
    metric: str,
    kind: FindingKind,
    *,
    index: int,
    executions: Sequence[str],
    known: Iterable[FindingKey],
) -> FindingKey:
    """
    The key of a finding: that of a known one in the same series, of the same class and at most
    LOCATION_SLACK executions away, the nearest if there are several; else one of its own.
    """
    if kind is FindingKind.DRIFT:
        return FindingKey(cell, metric, kind, "")
    places = {one: position for position, one in enumerate(executions)}
    near = [
        (abs(places[key.execution_id] - index), key)
        for key in known
        if key[:3] == (cell, metric, kind) and key.execution_id in places
    ]
    own = FindingKey(cell, metric, kind, executions[index])
    distance, nearest = min(near, default=(LOCATION_SLACK + 1, own))
    return nearest if distance <= LOCATION_SLACK else own
