"""
What MLflow knows of a suite: its executions, and what became of their trials. From any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from allele_mlflow import suite_tags as tags
from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.matrix.plan import PastTrial
from allele_mlflow.matrix.trial import SECONDS_METRIC
from allele_mlflow.numerals import whole_number
from allele_mlflow.queue import spool
from allele_mlflow.records import RunSpec
from allele_mlflow.tracking.frames import Reader

_POLL_S = 0.05
_TRIAL_TAGS = (
    tags.KIND,
    tags.EXECUTION,
    tags.CELL_KEY,
    tags.REPEAT,
    tags.ATTEMPT,
    tags.RUN_UID,
)


class PastRun(NamedTuple):
    """
    One attempt as MLflow has it; `metrics` of the keys that were asked for.
    """

    run_id: str
    run_uid: str
    cell_key: str
    repeat: int
    attempt: int
    status: str
    metrics: Mapping[str, float]

    @property
    def is_finished(self) -> bool:
        """
        Whether it is the one that counts.
        """
        return self.status == "FINISHED"


class Execution(NamedTuple):
    """
    One execution of a suite: its own run, and those below it.
    """

    run_id: str
    run_uid: str
    runs: Sequence[PastRun]

    def past_trials(self) -> dict[tuple[str, int], PastTrial]:
        """
        What there is of each trial, whatever attempt.
        """
        found: dict[tuple[str, int], PastTrial] = {}
        for run in self.runs:
            before = found.get((run.cell_key, run.repeat), PastTrial(0, False, {}))
            takes = run.is_finished and not before.is_finished
            found[run.cell_key, run.repeat] = PastTrial(
                max(before.attempts, run.attempt + 1),
                before.is_finished or run.is_finished,
                run.metrics if takes else before.metrics,
            )
        return found


def last_execution(
    reader: Reader, experiment: str, suite: str, *, metric_keys: Sequence[str]
) -> Execution | None:
    """
    The newest execution of a suite with all its attempts, None where there is none.

    Args:
        reader: Of the store.
        experiment: Its full name.
        suite: The suite's name.
        metric_keys: Which metrics to read.
    Raises:
        TrackingError: the store does not answer.
    """
    experiment_id = reader.experiment_id_of(experiment)
    if experiment_id is None:
        return None
    frames = reader.runs(
        [experiment_id],
        with_tags={tags.SUITE: suite},
        tag_keys=_TRIAL_TAGS,
        param_keys=[],
        metric_keys=list(metric_keys),
    )
    told: dict[str, dict[str, str]] = {run_id: {} for run_id in frames.runs.run_id}
    for run_id, key, value in frames.tags.itertuples(index=False):
        told[run_id][key] = value
    metrics: dict[str, dict[str, float]] = {}
    for run_id, key, value in frames.metrics[["run_id", "key", "value"]].itertuples(index=False):
        metrics.setdefault(run_id, {})[key] = value
    # newest first
    parent = next(
        (r for r in frames.runs.run_id if told[r].get(tags.KIND) == tags.RunKind.SUITE), None
    )
    if parent is None:
        return None
    uid = told[parent][tags.RUN_UID]
    runs = [
        PastRun(
            run_id,
            told[run_id].get(tags.RUN_UID, ""),
            told[run_id].get(tags.CELL_KEY, ""),
            _number(told[run_id].get(tags.REPEAT)),
            _number(told[run_id].get(tags.ATTEMPT)),
            status,
            metrics.get(run_id, {}),
        )
        for run_id, status in zip(frames.runs.run_id, frames.runs.status, strict=True)
        if told[run_id].get(tags.EXECUTION) == uid
        and told[run_id].get(tags.KIND) == tags.RunKind.CELL
    ]
    return Execution(parent, uid, runs)


def seconds_by_cell(runs: Sequence[PastRun]) -> dict[str, float]:
    """
    Mean length of the finished trials of each cell, by its key.

    Units: seconds.
    """
    sums: dict[str, tuple[float, int]] = {}
    for run in runs:
        seconds = run.metrics.get(SECONDS_METRIC)
        if run.is_finished and seconds is not None:
            total, count = sums.get(run.cell_key, (0.0, 0))
            sums[run.cell_key] = total + seconds, count + 1
    return {key: total / count for key, (total, count) in sums.items()}


def await_spooled(
    scope: Path,
    told: Mapping[str, str],
    *,
    timeout_s: float,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """
    Wait until what this machine's spool holds of certain runs is in MLflow.

    Args:
        scope: Of the spool; somebody delivers from it.
        told: Tags of the runs.
        timeout_s: Longest wait.
        tick: Called while it waits.
    Returns:
        How many runs still wait.
    """
    deadline_s = now_monotonic_s() + timeout_s
    waiting = list(spooled_runs(scope, told))
    while waiting and now_monotonic_s() < deadline_s:
        tick()
        pause_s(_POLL_S)
        waiting = [folder for folder in waiting if folder.exists()]
    return len(waiting)


def spooled_runs(scope: Path, told: Mapping[str, str]) -> dict[Path, dict[str, str]]:
    """
    The runs with these tags that wait in this machine's spool: folders, and all their tags.
    """
    found = {}
    for folder in sorted((scope / spool.RUNS).glob("*")):
        spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
        if spec is not None and told.items() <= spec.tags.items():
            found[folder] = spec.tags
    return found


def _number(text: str | None) -> int:
    return whole_number(text) or 0
