"""
Which runs a sidecar takes up, and when: many that are over are delivered in turn, and nobody who
lives waits behind them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import msgspec
import pytest

from allele_mlflow.clock import now_ns
from allele_mlflow.errors import ErrorKind, TransientTrackingError
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import RunSpec, StreamEnded
from allele_mlflow.sidecar import descriptors, turns
from allele_mlflow.sidecar.turns import Candidate, Served, Turns
from allele_mlflow.sidecar.worker import Worker
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking
from tests.integration.spooled_runs import (
    end_run,
    make_worker,
    most_served_at_once,
    serve,
    start_run,
    until,
)
from tests.queue_tools import SMALL_SERIES_SEGMENT, make_writer

#: A process id that no process has: beyond what Linux gives out.
NOBODY = 2**22 + 1


@pytest.fixture(autouse=True)
def _three_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "AT_ONCE", 3)


def over(folder: Path, name: str, **more: Any) -> Path:
    """
    A run whose process said farewell and is gone.
    """
    run, writer = start_run(folder, name, **({"owner_pid": NOBODY} | more))
    writer.metric("m", 1.0, 1)
    end_run(writer)
    return run


def living(folder: Path, name: str, **more: Any) -> tuple[Path, StreamWriter]:
    """
    A run of this process.
    """
    start = process_start_time(os.getpid())
    return start_run(folder, name, **({"owner_pid": os.getpid(), "owner_start": start} | more))


def delivered(tracking: MemoryTracking) -> int:
    """
    How many runs have their reading.
    """
    return sum(len(one.rows("m")) for one in tracking.runs.values())


def candidate(run: Path) -> Candidate:
    """
    A run as the worker finds it.
    """
    spec = spool.read_struct(run / spool.RUN_FILE, RunSpec)
    assert spec is not None
    return Candidate(run, spec, spool.identity_of(run / spool.RUN_FILE))


class PartlyAway(FlakyTracking):
    """
    A store that has trouble with one experiment.
    """

    def ensure_experiment(self, name: str, *, artifact_location: str | None) -> str:
        if name == "away":
            raise TransientTrackingError("away", kind=ErrorKind.STORE_BUSY)
        return super().ensure_experiment(name, artifact_location=artifact_location)


@pytest.mark.parametrize("is_drain", [False, True])
async def test_runs_that_are_over_are_delivered_by_and_by(tmp_path: Path, is_drain: bool) -> None:
    """However many wait, only so many are open at once, and all are delivered."""
    runs = [over(tmp_path, f"r{number}") for number in range(10)]
    tracking = MemoryTracking()
    sidecar = make_worker(runs[0], tracking, is_drain=is_drain)
    most = await most_served_at_once(sidecar)
    assert delivered(tracking) == 10
    assert 0 < most <= 3


async def test_oldest_come_first(tmp_path: Path) -> None:
    """Whatever order the folder has."""
    now = now_ns()
    ages = [5, 1, 9, 3, 7, 2, 8]
    runs = [over(tmp_path, f"r{age}", created_ns=now - age * 10**9) for age in ages]
    tracking = MemoryTracking()
    await serve(make_worker(runs[0], tracking))
    order = [int(one.tags["allele.run_uid"][1:]) for one in tracking.runs.values()]
    first, then, last = set(order[:3]), set(order[3:6]), set(order[6:])
    assert (first, then, last) == ({9, 8, 7}, {5, 3, 2}, {1})


async def test_children_that_wait_for_their_parent_let_it_pass(tmp_path: Path) -> None:
    """A clock that went back made the parent the youngest; its children take no turn from it."""
    now = now_ns()
    runs = [
        over(tmp_path, f"child{number}", parent_run_uid="parent", created_ns=now - 10**9)
        for number in range(6)
    ]
    over(tmp_path, "parent", created_ns=now)
    tracking = MemoryTracking()
    await serve(make_worker(runs[0], tracking, is_drain=True))
    by_uid = {one.tags["allele.run_uid"]: run_id for run_id, one in tracking.runs.items()}
    parents = {
        one.tags.get("mlflow.parentRunId")
        for uid, one in zip(by_uid, tracking.runs.values(), strict=True)
        if uid != "parent"
    }
    assert len(by_uid) == 7
    assert parents == {by_uid["parent"]}


async def test_who_cannot_be_delivered_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that the store refuses again and again stand aside."""
    monkeypatch.setattr(turns, "PATIENCE_S", 0.3)
    now = now_ns()
    for number in range(4):
        over(tmp_path, f"bad{number}", experiment="away", created_ns=now - 10**10)
    good = [over(tmp_path, f"good{number}", created_ns=now - 10**9) for number in range(5)]
    tracking = MemoryTracking()
    sidecar = make_worker(good[0], PartlyAway(tracking, lambda name, number: None))
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: not any(run.exists() for run in good))
        sidecar.stop()
    assert delivered(tracking) == 5


async def test_who_lives_passes_the_queue(tmp_path: Path) -> None:
    """A run with a process is served beside those whose turn it is, also an old one."""
    for number in range(8):
        over(tmp_path, f"r{number}", created_ns=now_ns() - 10**10)
    run, writer = living(tmp_path, "alive", created_ns=now_ns() - 2 * turns.YOUNG_NS)
    writer.metric("m", 1.0, 1)
    hold = anyio.Event()
    tracking = MemoryTracking()
    sidecar = make_worker(run, tracking)

    async def watch() -> None:
        await until(lambda: "alive" in sidecar.deliveries)
        assert sidecar._turns.has_any, "the others were all taken up before"
        hold.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await hold.wait()
        end_run(writer)
    assert delivered(tracking) == 9


def test_a_young_run_has_a_moment_to_end_where_others_wait(tmp_path: Path) -> None:
    """And is taken up at once where nobody waits, or after that moment."""
    young, _ = living(tmp_path, "young")
    old, _ = living(tmp_path, "old", created_ns=now_ns() - 2 * turns.YOUNG_NS)
    of_tomorrow, _ = living(tmp_path, "of tomorrow", created_ns=now_ns() + 86_400 * 10**9)
    waiting = Turns(is_drain=False)
    assert waiting.is_due(candidate(young))
    assert not waiting.is_due(candidate(over(tmp_path, "over")))
    assert not waiting.is_due(candidate(young))
    assert waiting.is_due(candidate(old))
    assert waiting.is_due(candidate(of_tomorrow)), "a clock that went back keeps nobody out"
    assert not waiting.is_waiting("young"), "it is looked at again"


def test_a_process_that_writes_after_its_owner_keeps_the_run_alive(tmp_path: Path) -> None:
    """A worker of a pool goes on, and may flush."""
    run, writer = start_run(tmp_path, owner_pid=NOBODY)
    waiting = Turns(is_drain=False)
    assert waiting.is_due(candidate(run))
    end_run(writer)
    assert not waiting.is_due(candidate(run))


def test_a_run_that_is_resumed_while_it_waits_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its description is new."""
    monkeypatch.setattr(turns, "LOOK_EVERY_S", 0.0)
    run = over(tmp_path, "run")
    waiting = Turns(is_drain=False)
    known = candidate(run)
    assert not waiting.is_due(known)
    waiting.keep({"run"})
    assert waiting.is_waiting("run")
    resumed = msgspec.structs.replace(known.spec, owner_pid=os.getpid())
    spool.write_struct(run / spool.RUN_FILE, resumed)
    waiting.keep({"run"})
    assert not waiting.is_waiting("run")
    assert waiting.is_due(candidate(run))
    assert list(waiting.next({})) == [], "it has left the queue"


def test_a_run_that_is_joined_while_it_waits_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lives has a stream of its own."""
    monkeypatch.setattr(turns, "LOOK_EVERY_S", 0.0)
    run = over(tmp_path, "run")
    waiting = Turns(is_drain=False)
    assert not waiting.is_due(candidate(run))
    joined = make_writer(run, segment_bytes=SMALL_SERIES_SEGMENT)
    waiting.keep({"run"})
    assert not waiting.is_waiting("run")
    assert waiting.is_due(candidate(run))
    joined.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))


async def test_a_child_that_lives_waits_for_no_queue(tmp_path: Path) -> None:
    """Its parent is over and the youngest of all, and has the next turn."""
    runs = [over(tmp_path, f"r{number}", created_ns=now_ns() - 10**10) for number in range(12)]
    over(tmp_path, "parent")
    child, writer = living(
        tmp_path, "child", parent_run_uid="parent", created_ns=now_ns() - 2 * turns.YOUNG_NS
    )
    writer.metric("m", 1.0, 1)
    end_run(writer)
    tracking = MemoryTracking()
    sidecar = make_worker(child, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: any("mlflow.parentRunId" in r.tags for r in tracking.runs.values()))
        assert sidecar._turns.has_any, "others were before it"
    assert delivered(tracking) == len(runs) + 2


async def test_runs_that_meet_errors_hold_few_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a store is away, and after a restart too, for the error then is an old one."""
    monkeypatch.setattr(turns, "PATIENCE_S", 0.3)
    runs = [over(tmp_path, f"r{number}") for number in range(12)]
    tracking = MemoryTracking()
    away = FlakyTracking(tracking, lambda name, number: Fault.transient())
    first = make_worker(runs[0], away)
    most = 0
    async with anyio.create_task_group() as group:
        group.start_soon(serve, first)
        for _ in range(150):
            await anyio.sleep(0.01)
            most = max(most, len(first.deliveries))
        first.stop()
    assert 0 < most <= 3
    assert sum(first._turns._given_up.values()) > 3, "they take turns"
    assert await most_served_at_once(make_worker(runs[0], tracking)) <= 3
    assert delivered(tracking) == 12


@pytest.mark.parametrize("is_drain", [False, True])
def test_who_gave_up_a_turn_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_drain: bool
) -> None:
    """Twice as long each time, for its trouble may be for good; a drain ends before that."""
    clock = mock.Mock(return_value=1000.0)
    monkeypatch.setattr(turns, "now_monotonic_s", clock)
    runs = {name: over(tmp_path, name) for name in ("a", "b", "c", "d")}
    waiting = Turns(is_drain=is_drain)
    for run in runs.values():
        waiting.is_due(candidate(run))
    counts = []
    for _ in range(8):
        served: dict[str, Served] = {}
        for one in waiting.next(served):
            served[one.folder.name] = mock.Mock(is_in_trouble=True)
        waiting.given_up(served)
        clock.return_value += turns.PATIENCE_S
        for name in served.keys() - waiting.given_up(served):
            served.pop(name)
        for name in runs:
            if not waiting.is_waiting(name):
                waiting.is_due(candidate(runs[name]))
        counts.append(len(served))
    assert counts[0] == 3
    assert (0 in counts) is not is_drain


async def test_few_descriptors_leave_room_for_who_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are over take half of the room at most, whatever they meet."""
    monkeypatch.setattr(turns, "AT_ONCE", 50)
    monkeypatch.setattr(descriptors, "most_runs", lambda: 4)
    monkeypatch.setattr(descriptors, "is_room_for_another", lambda runs: runs < 4)
    for number in range(6):
        over(tmp_path, f"bad{number}", experiment="away", created_ns=now_ns() - 10**10)
    run, writer = living(tmp_path, "alive", created_ns=now_ns() - 2 * turns.YOUNG_NS)
    writer.metric("m", 1.0, 1)
    tracking = MemoryTracking()
    sidecar = make_worker(run, PartlyAway(tracking, lambda name, number: None))
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: delivered(tracking) == 1)
        sidecar.stop()
    end_run(writer)


async def test_a_parent_is_taken_up_where_its_children_have_all_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits in a circle for descriptors either."""
    monkeypatch.setattr(descriptors, "is_room_for_another", lambda runs: runs < 2)
    runs = [
        over(tmp_path, f"child{number}", parent_run_uid="parent", created_ns=now_ns() - 10**10)
        for number in range(5)
    ]
    over(tmp_path, "parent")
    tracking = MemoryTracking()
    await serve(make_worker(runs[0], tracking, is_drain=True))
    assert delivered(tracking) == 6


async def test_a_spool_that_went_away_is_no_work(tmp_path: Path) -> None:
    """The sidecar leaves."""
    run = over(tmp_path, "run")
    sidecar: Worker = make_worker(run, MemoryTracking())
    sidecar._turns.is_due(candidate(run))
    shutil.rmtree(run.parent.parent)
    assert not sidecar.has_work()


def test_a_run_that_went_away_is_forgotten(tmp_path: Path) -> None:
    """Another sidecar delivered it."""
    waiting = Turns(is_drain=True)
    for name in ("a", "b"):
        waiting.is_due(candidate(over(tmp_path, name)))
    waiting.keep({"b"})
    assert [one.folder.name for one in waiting.next({})] == ["b"]


async def test_runs_that_wait_are_work(tmp_path: Path) -> None:
    """The second look of a sidecar that leaves."""
    run = over(tmp_path, "run")
    sidecar: Worker = make_worker(run, MemoryTracking())
    sidecar._turns.is_due(candidate(run))
    assert sidecar.has_work()
