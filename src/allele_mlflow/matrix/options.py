"""
How a suite is run this time: what the command line says, and what a display is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from allele_mlflow import suite_tags as tags
from allele_mlflow.matrix.cells import Trial
from allele_mlflow.matrix.messages import CellResult


@dataclass(frozen=True)
class RunOptions:
    """
    Attributes:
        executor: Instead of the suite's.
        only: An expression that selects cells.
        is_resumed: Go on with the last execution: run what is missing or failed there.
        retries_failed: Go on with the last execution: run only what failed there.
        fails_fast: Stop at the first failure.
        is_exclusive: As of a suite, or because the command line says so.
        is_tracked: Whether runs go to MLflow; None: as the setting `auto_experiment_tracking`.
        kind: What it is: of another kind than a suite's it is no execution of the suite.
        run_name: Of its own run, instead of the suite's name.
        told: More tags of its own run.
    """

    executor: str | None = None
    only: str | None = None
    is_resumed: bool = False
    retries_failed: bool = False
    fails_fast: bool = False
    is_exclusive: bool = False
    is_tracked: bool | None = None
    kind: tags.RunKind = tags.RunKind.SUITE
    run_name: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Beginning:
    """
    What is about to be run.
    """

    suite: str
    cell_count: int
    total_count: int
    reused_count: int
    executor: str
    width: int
    spool_runs: Path | None
    is_adaptive: bool


class SuiteView(Protocol):
    """
    A display of a suite while it runs. Called in the thread that runs the suite.
    """

    def begin(self, beginning: Beginning) -> None:
        """
        The first trial is about to be submitted.
        """

    def submitted(self, trial: Trial, attempt: int) -> None:
        """
        An attempt was handed to the executor.
        """

    def finished(self, trial: Trial, result: CellResult, *, is_retried: bool, total: int) -> None:
        """
        An attempt ended; `total` trials are planned by now.
        """

    def tick(self) -> None:
        """
        Nothing happened for a moment.
        """

    def say(self, text: str) -> None:
        """
        Something that a person should know now.
        """


class SilentView:
    """
    A display that shows nothing.
    """

    def begin(self, beginning: Beginning) -> None:
        """
        See `SuiteView`.
        """

    def submitted(self, trial: Trial, attempt: int) -> None:
        """
        See `SuiteView`.
        """

    def finished(self, trial: Trial, result: CellResult, *, is_retried: bool, total: int) -> None:
        """
        See `SuiteView`.
        """

    def tick(self) -> None:
        """
        See `SuiteView`.
        """

    def say(self, text: str) -> None:
        """
        See `SuiteView`.
        """
