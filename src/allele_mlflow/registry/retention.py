"""
Which runs give up their artifacts: what is reached stays, and of the rest what is young, or what a
rule keeps. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from allele_mlflow.registry.reachability import KnownRun, KnownRuns
from allele_mlflow.registry.retention_files import going_files, unsafe_roots
from allele_mlflow.suite_tags import RunKind
from allele_mlflow.units import Direction

MS_PER_DAY = 86_400_000
#: Clocks of two machines may differ by so much; a run that ended later from now is a wrong clock.
CLOCK_TOLERANCE_MS = 600_000
#: What MLflow says of runs that are over.
OVER = frozenset({"FINISHED", "FAILED", "KILLED"})
_FINISHED = "FINISHED"
_EXECUTIONS = frozenset({RunKind.SUITE, RunKind.CONFIRMATION})


class Verdict(StrEnum):
    """
    What becomes of a run's artifacts. Append only: scripts know the words.
    """

    DELETED = "deleted"
    REACHED = "reached"
    REPORT = "report"
    GOES_ON = "goes_on"
    FOREIGN = "foreign"
    YOUNG = "young"
    LAST = "last"
    BEST = "best"
    SMALL = "small"
    EMPTY = "empty"
    CLEANED = "cleaned"
    UNCLEAR = "unclear"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """
    What may go.

    Attributes:
        older_than_days: Runs that ended longer ago.
        larger_than_bytes: Of these only runs with more artifacts than that.
        keep_last: Executions of each suite that stay, newest first; of runs of no suite, runs of an
            experiment.
        keep_best: Runs of each cell that stay, best first, by each metric that says what is best.
        metrics: By which the best are found, instead of the objectives of each suite.
        is_foreign: Runs that we did not make too.
    """

    older_than_days: float
    larger_than_bytes: int = 0
    keep_last: int = 0
    keep_best: int = 0
    metrics: Mapping[str, Direction] | None = None
    is_foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class Decision:
    """
    What becomes of a run's artifacts, and why.

    Attributes:
        files, size_bytes: Of what goes; None where that was not looked at.
    """

    run: KnownRun
    verdict: Verdict
    why: str
    files: int | None = None
    size_bytes: int | None = None

    @property
    def is_deleted(self) -> bool:
        """
        Whether artifacts go.
        """
        return self.verdict is Verdict.DELETED


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run says of its clean-up, in the tag `allele.retention`.

    Attributes:
        state: "begun" before anything is deleted, "done" afterwards.
        time: When it began, UTC.
        files, size_bytes: What went.
        why: By which rule.
    """

    state: Literal["begun", "done"]
    time: str
    files: int
    size_bytes: int
    why: str
    format: int = 1


def read_mark(text: str | None) -> Mark | None:
    """
    The mark in a tag; None where there is none, or it is none of ours.
    """
    try:
        return msgspec.json.decode(text, type=Mark) if text is not None else None
    except msgspec.MsgspecError:
        return None


def begin_mark(before: Mark | None, sizes_bytes: Mapping[str, int], *, why: str, time: str) -> Mark:
    """
    What is said before the files of a run that go are deleted: all that goes and that went before.

    Args:
        before: What the run says. Of a clean-up that was interrupted it tells what there was.
        sizes_bytes: Of the run's files by path.
        why: By which rule they go.
        time: UTC, ISO 8601.
    """
    going = going_files(sizes_bytes)
    files, size_bytes = len(going), sum(sizes_bytes[path] for path in going)
    if before is not None and before.state == "begun":
        files, size_bytes = before.files, before.size_bytes
    elif before is not None:
        files, size_bytes = files + before.files, size_bytes + before.size_bytes
    return Mark(state="begun", time=time, files=files, size_bytes=size_bytes, why=why)


def decide(
    runs: KnownRuns,
    wanted: Iterable[KnownRun],
    reached: Mapping[str, str],
    rules: Rules,
    *,
    now_ms: int,
    best: Mapping[str, str] | None = None,
) -> list[Decision]:
    """
    A decision for each run that is looked at.

    Args:
        runs: All of the store.
        wanted: Those that are looked at.
        reached: Why, by node, as of `reach`.
        rules: What may go.
        now_ms: Wall clock.
        best: Runs that are kept for being the best, and of what.
    """
    chosen = [run for run in wanted if run.is_active]
    last = last_runs(chosen, rules.keep_last)
    unsafe = unsafe_roots(runs.by_id.values())

    def judge(run: KnownRun) -> tuple[Verdict, str]:
        why = reached.get(run.run_id)
        if why is not None:
            return Verdict.REACHED, why
        early = _early(run, runs, rules, now_ms)
        if early is not None:
            return early
        if run.run_id in last:
            return Verdict.LAST, f"of the last {rules.keep_last}"
        if best is not None and run.run_id in best:
            return Verdict.BEST, best[run.run_id]
        if _is_cleaned(run):
            return Verdict.CLEANED, "an earlier clean-up has done it"
        if run.run_id in unsafe:
            return Verdict.UNCLEAR, unsafe[run.run_id]
        return Verdict.DELETED, f"ended {_age_days(run, now_ms):.1f} days ago"

    return [Decision(run=run, verdict=one[0], why=one[1]) for run in chosen for one in [judge(run)]]


def weigh(decision: Decision, sizes_bytes: Mapping[str, int], rules: Rules) -> Decision:
    """
    The decision once it is known what would go.

    Args:
        decision: To delete.
        sizes_bytes: Of the run's files by path.
        rules: What may go.
    """
    going = going_files(sizes_bytes)
    size_bytes = sum(sizes_bytes[path] for path in going)
    known = replace(decision, files=len(going), size_bytes=size_bytes)
    mark = read_mark(decision.run.retention)
    if mark is not None and mark.state == "begun":
        return known  # it was interrupted: whatever is left goes, be it nothing
    if not going:
        return replace(known, verdict=Verdict.EMPTY, why="it has nothing to delete")
    if rules.larger_than_bytes and size_bytes <= rules.larger_than_bytes:
        why = f"{size_bytes:,} bytes, not more than {rules.larger_than_bytes:,}"
        return replace(known, verdict=Verdict.SMALL, why=why)
    return known


def clock_problem(wanted: Iterable[KnownRun], now_ms: int) -> str | None:
    """
    Which run began or ended in the future, so that a clock is wrong; None where none did.
    """
    for run in wanted:
        latest = max(run.started_ms or 0, run.ended_ms or 0)
        if latest > now_ms + CLOCK_TOLERANCE_MS:
            hours = (latest - now_ms) / 3_600_000
            return f"run {run.run_id} is of {hours:.1f} hours from now: a clock is wrong"
    return None


def last_runs(runs: Sequence[KnownRun], count: int) -> set[str]:
    """
    The ids of the runs of the last executions of each suite; of no suite, of the last runs.
    """
    if not count:
        return set()
    began: dict[tuple[object, ...], dict[str, int]] = {}
    for run in runs:
        series = began.setdefault(_series(run), {})
        execution = run.execution or run.run_id
        series[execution] = max(series.get(execution, 0), run.started_ms or 0)
    newest = {
        (series, one)
        for series, known in began.items()
        for one in sorted(known, key=lambda one: (-known[one], one))[:count]
    }
    return {run.run_id for run in runs if (_series(run), run.execution or run.run_id) in newest}


def best_runs(
    runs: Iterable[KnownRun],
    values: Mapping[str, Mapping[str, float]],
    direction_of: Callable[[KnownRun, str], Direction],
    count: int,
) -> dict[str, str]:
    """
    The best finished runs of each cell by each metric, and of what they are.

    Args:
        runs: Those that are looked at.
        values: By metric, of each run.
        direction_of: Which way a metric is better, for a run; NONE where it does not count.
        count: How many of a cell.
    """
    scores: dict[tuple[str, tuple[object, ...]], list[tuple[float, int, str]]] = {}
    for run in runs:
        for metric, told in values.items() if run.status == _FINISHED else ():
            direction, value = direction_of(run, metric), told.get(run.run_id, math.nan)
            if direction is not Direction.NONE and not math.isnan(value):
                score = -value if direction is Direction.HIGHER else value
                place = scores.setdefault((metric, (*_series(run), run.cell)), [])
                place.append((score, -(run.started_ms or 0), run.run_id))
    found: dict[str, str] = {}
    for (metric, _), place in scores.items():
        for _, _, run_id in sorted(place)[:count]:
            found.setdefault(run_id, f"of the best {count} of its cell by {metric}")
    return found


def _early(run: KnownRun, runs: KnownRuns, rules: Rules, now_ms: int) -> tuple[Verdict, str] | None:
    if run.kind in _EXECUTIONS:
        return Verdict.REPORT, "a suite's own run: report, tables and figures stay"
    if run.status not in OVER:
        return Verdict.GOES_ON, "it is not over"
    above = [runs.by_id[one] for one in runs.above(run) if one in runs.by_id]
    if any(one.status not in OVER for one in above):
        return Verdict.GOES_ON, "the run above it is not over"
    if run.uid is None and not rules.is_foreign:
        return Verdict.FOREIGN, "not made by allele-mlflow"
    if run.ended_ms is None:
        return Verdict.UNCLEAR, "when it ended is not known"
    age_days = _age_days(run, now_ms)
    if age_days <= rules.older_than_days:
        return Verdict.YOUNG, f"ended {age_days:.1f} days ago"
    return None


def _is_cleaned(run: KnownRun) -> bool:
    """
    Whether an earlier clean-up was the last thing that happened to the run.
    """
    mark = read_mark(run.retention)
    if mark is None or mark.state != "done" or run.ended_ms is None:
        return False
    return datetime.fromisoformat(mark.time).timestamp() * 1000 >= run.ended_ms


def _age_days(run: KnownRun, now_ms: int) -> float:
    assert run.ended_ms is not None
    return (now_ms - run.ended_ms) / MS_PER_DAY


def _series(run: KnownRun) -> tuple[object, ...]:
    """
    What the runs have in common of which the last or the best are looked for.
    """
    return (run.experiment, run.suite, run.kind)
