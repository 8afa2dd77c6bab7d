"""
What one repetition of a drill counted, and what many of them add up to. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allele_mlflow.drill.place import Place

#: Problems of one drill that are kept in words; the rest are counted.
MAX_PROBLEMS = 20


class Verdict(StrEnum):
    """
    How a drill came out, from the best to the worst.
    """

    HELD = "held"
    #: It could not be tried here; the reason says why.
    NOT_RUN = "not run"
    #: Nothing was lost, but something else that is promised was not kept.
    BROKEN = "broken"
    LOST = "lost"


class NotHereError(Exception):
    """
    This machine cannot run the drill, e.g. for want of full mlflow; the text says why.
    """


@dataclass(frozen=True, kw_only=True)
class Trial:
    """
    One repetition.

    `accepted` counts records whose call returned, `delivered` those of them that MLflow holds (or
    the ledger accounts for as it must, where the drill is about that), `lost` the rest;
    `duplicated` are rows that stand there more than once. `statuses` are the ends of the runs in
    MLflow.
    """

    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    statuses: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class Tally:
    """
    All repetitions of one drill. Units: `elapsed_s` of the clock.
    """

    drill: str
    repetitions: int = 0
    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    not_run: str | None = None
    elapsed_s: float = 0.0
    is_over: bool = False

    def add(self, trial: Trial) -> None:
        """
        Take in one repetition.
        """
        self.repetitions += 1
        self.accepted += trial.accepted
        self.delivered += trial.delivered
        self.lost += trial.lost
        self.duplicated += trial.duplicated
        self.statuses.update(trial.statuses)
        self.problem_count += len(trial.problems)
        self.problems += trial.problems[: MAX_PROBLEMS - len(self.problems)]

    @property
    def verdict(self) -> Verdict:
        """
        The worst of what happened; a drill that counted nothing has not held.
        """
        if self.lost:
            return Verdict.LOST
        if self.not_run is not None:
            return Verdict.NOT_RUN
        is_broken = self.duplicated or self.problem_count or not self.repetitions
        return Verdict.BROKEN if is_broken else Verdict.HELD

    def status_text(self) -> str:
        """
        The ends of the runs and how often each came, e.g. "KILLED 200".
        """
        return ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))


@dataclass(frozen=True, kw_only=True)
class Drill:
    """
    One attack on one promise.

    Args:
        name: What the command line calls it: words with hyphens.
        promise: What must hold, in one line.
        guarantee: Number of the guarantee in docs/understanding/guarantees.md.
        run: Does one repetition.
        short: Repetitions in `make test`; 0: only in the full set.
        full: Repetitions in `make drill`.
    """

    name: str
    promise: str
    guarantee: int
    run: Callable[[Place], Trial]
    short: int
    full: int
