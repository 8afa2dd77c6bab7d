"""
What to run next: a state machine without I/O. Results in, instructions out.

    plan = SuitePlan(...)
    while (step := plan.next()) is not None: Submit(...) | WAIT

Trials go in randomised complete blocks: every cell once, in an order of its own, before any cell is
run again. So slow drift of the machine falls on all cells alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from allele_mlflow.failures import Category
from allele_mlflow.matrix.adaptive import is_known_well
from allele_mlflow.matrix.cells import Cell, Trial, block_order
from allele_mlflow.matrix.messages import CellResult
from allele_mlflow.matrix.suite import Suite

#: Fewer values than that say nothing of how they scatter.
LEAST_REPEATS = 3


class Submit(NamedTuple):
    """
    Run this attempt now. Attempts count from 0, over all executions of the trial.
    """

    trial: Trial
    attempt: int


#: Nothing to submit until a result comes in.
WAIT: Literal["wait"] = "wait"


class PastTrial(NamedTuple):
    """
    What an earlier execution knows of a trial.

    Attributes:
        attempts: How many there were.
        is_finished: Whether one finished.
        metrics: Of that one.
    """

    attempts: int
    is_finished: bool
    metrics: Mapping[str, float]


@dataclass
class SuitePlan:
    """
    The trials of one execution. Not thread-safe.

    Attributes:
        suite: Its repeats, retries, adaptive rule.
        cells: The cells to run.
        width: Attempts at once.
        past: By (cell key, repeat): what is not to be run again, or counts as an attempt.
        fails_fast: Submit nothing after the first failure.
        only_failed: Run only trials of `past` that did not finish.
    """

    suite: Suite
    cells: Sequence[Cell]
    width: int
    past: Mapping[tuple[str, int], PastTrial] = field(default_factory=dict)
    fails_fast: bool = False
    only_failed: bool = False

    def __post_init__(self) -> None:
        self._waiting: deque[Submit] = deque()
        self._running: set[tuple[str, int]] = set()
        #: Failures of this execution by trial and category.
        self._failures: dict[tuple[tuple[str, int], Category], int] = {}
        self._values: dict[str, list[float]] = {cell.key: [] for cell in self.cells}
        self._repeat = 0
        self._order = 0
        self.is_stopped = False
        #: Trials that were finished before, and so are not run.
        self.reused_count = 0

    @property
    def total_count(self) -> int:
        """
        Trials of this execution as far as they are known: adaptive repeats may bring more.
        """
        if self.only_failed:
            cells = {cell.key for cell in self.cells}
            return sum(
                1 for (key, _), past in self.past.items() if key in cells and not past.is_finished
            )
        return max(len(self.cells) * self.suite.repeats, self._order)

    def next(self) -> Submit | Literal["wait"] | None:
        """
        The next attempt, WAIT, or None when all is done.
        """
        while not self.is_stopped and not self._waiting and self._begin_block():
            pass
        if self._waiting and not self.is_stopped and len(self._running) < self.width:
            step = self._waiting.popleft()
            self._running.add(step.trial.identity)
            return step
        return WAIT if self._running else None

    def finished(self, trial: Trial, result: CellResult) -> bool:
        """
        Take in what became of an attempt; whether the trial is tried again.
        """
        self._running.discard(trial.identity)
        if result.failure is None:
            self._note(trial.identity, result.metrics)
            return False
        category = result.failure.category
        count = self._failures.get((trial.identity, category), 0) + 1
        self._failures[trial.identity, category] = count
        if not self.is_stopped and count <= self.suite.retries.get(category, 0):
            self._waiting.append(Submit(trial, result.attempt + 1))
            return True
        if self.fails_fast:
            self.stop()
        return False

    def stop(self) -> None:
        """
        Submit nothing more; what runs is waited for.
        """
        self.is_stopped = True
        self._waiting.clear()

    def _note(self, identity: tuple[str, int], metrics: Mapping[str, float]) -> None:
        objective = self._watched_metric()
        if objective is not None and objective in metrics:
            self._values[identity[0]].append(metrics[objective])

    def _watched_metric(self) -> str | None:
        adaptive = self.suite.adaptive
        if adaptive is None:
            return None
        return adaptive.metric or next(iter(self.suite.objectives))

    def _begin_block(self) -> bool:
        """
        Queue the next block; whether there is one, be it that nothing of it is to be run.
        """
        repeat = self._repeat
        if repeat >= self.suite.repeats and self._running:
            return False  # how well an objective is known is decided when the block is over
        wanted = self._wanted_cells(repeat)
        if not wanted:
            return False
        self._repeat += 1
        for cell in block_order(wanted, repeat=repeat, seed=self.suite.seed):
            trial = Trial(cell, repeat, self._order)
            self._order += 1
            past = self.past.get(trial.identity)
            if past is not None and past.is_finished:
                self.reused_count += 1
                self._note(trial.identity, past.metrics)
            elif past is not None or not self.only_failed:
                self._waiting.append(Submit(trial, past.attempts if past is not None else 0))
        return True

    def _wanted_cells(self, repeat: int) -> Collection[Cell]:
        if repeat < self.suite.repeats:
            return self.cells
        adaptive = self.suite.adaptive
        if adaptive is None or repeat >= adaptive.most_repeats:
            return ()
        return [
            cell for cell in self.cells if self._values[cell.key] and not self._is_known(cell.key)
        ]

    def _is_known(self, key: str) -> bool:
        adaptive = self.suite.adaptive
        assert adaptive is not None
        values = self._values[key]
        return len(values) >= LEAST_REPEATS and is_known_well(
            values, half_width_ratio=adaptive.half_width_ratio, confidence=adaptive.confidence
        )
