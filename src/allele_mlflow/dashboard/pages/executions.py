"""
Executions of suites, and how each did: what several pages show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.numerals import whole_number
from allele_mlflow.tracking.frames import Reader, RunFrames

#: Executions that did not say their counts, of which the runs are counted, at most.
MOST_COUNTED = 20
ALERTS_TAG = "allele.alerts.active"
_TAGS = (
    *(tags.RUN_UID, tags.SUITE, tags.COMMIT, tags.ENVIRONMENT, tags.HOST, ALERTS_TAG),
    *(tags.FINISHED_COUNT, tags.FAILED_COUNT, tags.NOT_RUN_COUNT),
)


class Health(StrEnum):
    """
    How an execution did, in a word.
    """

    GOOD = "good"
    RUNNING = "running"
    FAILURES = "failures"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """
    One execution of a suite. Counts are of trials; None where nobody said them.
    """

    run_id: str
    run_uid: str | None
    experiment_id: str
    name: str
    status: str
    started_ms: int | None
    seconds: float | None
    finished: int | None = None
    failed: int | None = None
    not_run: int | None = None
    active_alerts: int | None = None
    commit: str | None = None
    environment: str | None = None
    host: str | None = None
    health: Health = Health.UNKNOWN


def read_executions(reader: Reader, experiment_ids: Sequence[str] | None = None) -> list[Execution]:
    """
    Every execution of a suite in these experiments, newest first.

    Raises:
        TrackingError: the store does not answer.
    """
    told = reader.runs(
        experiment_ids,
        with_tags={tags.KIND: tags.RunKind.SUITE},
        tag_keys=_TAGS,
        param_keys=[],
        metric_keys=[],
    )
    return executions_of(told)


def executions_of(told: RunFrames) -> list[Execution]:
    """
    Runs of suites as executions.
    """
    by_run = tags_by_run(told.tags)
    return [_judged(_execution(row, by_run.get(row.run_id, {}))) for row in told.runs.itertuples()]


def with_counts(reader: Reader, executions: Iterable[Execution]) -> list[Execution]:
    """
    The same, those that did not say their counts with the runs that MLflow has of them.

    Raises:
        TrackingError: the store does not answer.
    """
    found, counted = [], 0
    for one in executions:
        if one.finished is None and one.run_uid is not None and counted < MOST_COUNTED:
            counted += 1
            runs = reader.runs(
                [one.experiment_id],
                with_tags={tags.EXECUTION: one.run_uid, tags.KIND: tags.RunKind.CELL},
                tag_keys=[],
                param_keys=[],
                metric_keys=[],
            ).runs
            states = runs["status"].value_counts()
            one = _judged(
                msgspec.structs.replace(
                    one,
                    finished=int(states.get("FINISHED", 0)),
                    failed=int(states.get("FAILED", 0) + states.get("KILLED", 0)),
                )
            )
        found.append(one)
    return found


def with_alerts(reader: Reader, one: Execution) -> Execution:
    """
    The same with the active alerts of its cells beside its own; None where no run says a number.

    Raises:
        TrackingError: the store does not answer.
    """
    if one.run_uid is None:
        return one
    told = reader.runs(
        [one.experiment_id],
        with_tags={tags.EXECUTION: one.run_uid, tags.KIND: tags.RunKind.CELL},
        tag_keys=[ALERTS_TAG],
        param_keys=[],
        metric_keys=[],
    ).tags
    counts = [one.active_alerts, *map(whole_number, told["value"])]
    known = [count for count in counts if count is not None]
    return msgspec.structs.replace(one, active_alerts=sum(known) if known else None)


def tags_by_run(pairs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """
    Tags, or params, of each run.
    """
    found: dict[str, dict[str, str]] = {}
    for run_id, key, value in pairs[["run_id", "key", "value"]].itertuples(index=False):
        found.setdefault(run_id, {})[key] = value
    return found


def milliseconds(moment: Any) -> int | None:
    """
    A moment of a frame in ms since 1970; None for NaT.
    """
    return None if pd.isna(moment) else int(moment.value // 1_000_000)


def seconds_between(start: Any, end: Any) -> float | None:
    """
    From one moment of a frame to another; None where one is not known.
    """
    return None if pd.isna(start) or pd.isna(end) else float((end - start).total_seconds())


def _judged(one: Execution) -> Execution:
    """
    The same with its health.
    """
    if one.status == "RUNNING":
        health = Health.RUNNING
    elif one.failed:
        health = Health.FAILURES
    elif one.not_run or one.status == "KILLED":
        health = Health.INTERRUPTED
    elif one.finished is None or one.status != "FINISHED":
        health = Health.UNKNOWN
    else:
        health = Health.GOOD
    return msgspec.structs.replace(one, health=health)


def _execution(row: Any, told: dict[str, str]) -> Execution:
    return Execution(
        run_id=row.run_id,
        run_uid=told.get(tags.RUN_UID),
        experiment_id=row.experiment_id,
        name=row.name or row.run_id,
        status=row.status,
        started_ms=milliseconds(row.start_time),
        seconds=seconds_between(row.start_time, row.end_time),
        finished=whole_number(told.get(tags.FINISHED_COUNT)),
        failed=whole_number(told.get(tags.FAILED_COUNT)),
        not_run=whole_number(told.get(tags.NOT_RUN_COUNT)),
        active_alerts=whole_number(told.get(ALERTS_TAG)),
        commit=told.get(tags.COMMIT),
        environment=told.get(tags.ENVIRONMENT),
        host=told.get(tags.HOST),
    )
