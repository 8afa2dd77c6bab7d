"""
Runs as a logger leaves them in a spool, delivered by the sidecar's coroutine to stores in memory.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import (
    ErrorLogged,
    ParamLogged,
    RunEnded,
    RunSpec,
    RunState,
    RunStatus,
    TagSet,
)
from allele_mlflow.sidecar.worker import Worker
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking, assert_ledger_balanced
from allele_mlflow.testing.memory_tracking import MemoryRun
from allele_mlflow.tracking.protocol import Tracking
from tests.queue_tools import SMALL_SERIES_SEGMENT, make_run, make_writer

READINGS = 700
#: Readings, a param, a tag, two phase edges, an error.
ACCEPTED = READINGS + 5


def start_run(folder: Path, name: str = "run", **more: Any) -> tuple[Path, StreamWriter]:
    """
    A run as a logger leaves it: a spec and an open stream.
    """
    run = make_run(folder, name)
    writer = make_writer(run, segment_bytes=SMALL_SERIES_SEGMENT)
    values: dict[str, Any] = {
        "run_uid": name,
        "experiment": "e",
        "created_ns": now_ns(),
        "profile": "p",
        "owner_stream": writer.stream_id,
        "owner_pid": 1,
        "batch_size": 50,
        "flush_interval_s": 0.05,
        "sidecar_cpu_percent": 100.0,
    }
    spool.write_struct(run / spool.RUN_FILE, RunSpec(**(values | more)))
    return run, writer


def log_everything(writer: StreamWriter) -> None:
    """
    Records of every kind, `ACCEPTED` in all.
    """
    instance = writer.phase_edge("select", 3)
    for step in range(READINGS - 100):
        writer.metric(f"m/{step % 3}", float(step), step)
    writer.series("s", [float(i) for i in range(100)])
    writer.phase_edge("select", 3, instance)
    writer.event(ParamLogged(timestamp_ns=1, key="p", value="v"))
    writer.event(TagSet(timestamp_ns=1, key="t", value="v"))
    writer.event(
        ErrorLogged(
            timestamp_ns=1,
            category="numeric",
            error_type="ZeroDivisionError",
            message="division by zero",
            traceback="...",
            fingerprint="abc",
        )
    )


def end_run(writer: StreamWriter) -> None:
    """
    The owner's farewell.
    """
    end_run_as(writer, "FINISHED")


def end_run_as(writer: StreamWriter, status: RunStatus) -> bool:
    """
    The owner's farewell with a status; whether it is in the log.
    """
    return writer.close(lambda slots: RunEnded(timestamp_ns=now_ns(), status=status, slots=slots))


def make_worker(run: Path, tracking: Tracking, **more: Any) -> Worker:
    """
    A sidecar of the run's scope that leaves when it has nothing to do.
    """
    values: dict[str, Any] = {"idle_timeout_s": 0.0} | more
    return Worker(run.parent.parent, "p", connect=lambda: tracking, **values)


def final_state(run: Path) -> RunState:
    """
    What the sidecar said last of a run that it archived.
    """
    state = spool.read_struct(run.parent.parent / "done" / run.name / spool.STATE_FILE, RunState)
    assert state is not None, "the run was not archived"
    return state


def the_run(tracking: MemoryTracking) -> MemoryRun:
    """
    The only run of a store.
    """
    assert len(tracking.runs) == 1, "a run was created twice"
    return next(iter(tracking.runs.values()))


def assert_all_there(run: Path, tracking: MemoryTracking) -> None:
    """
    Every record is in the store once, the run has ended, and the ledger says so.
    """
    stored = the_run(tracking)
    for third in range(3):
        expected = list(range(third, READINGS - 100, 3))
        assert sorted(row.step for row in stored.rows(f"m/{third}")) == expected
    assert sorted(row.step for row in stored.rows("s")) == list(range(100))
    assert stored.params["p"] == stored.tags["t"] == "v"
    assert stored.status == "FINISHED"
    assert stored.tags["allele.error.category"] == "numeric"
    assert {"allele/phases.json", "allele/errors.json"} <= set(stored.artifacts)
    state = final_state(run)
    assert state.done
    assert_ledger_balanced(state.ledger, accepted=ACCEPTED)
    assert state.ledger.delivered == {
        "metric": READINGS,
        "phase": 2,
        "param": 1,
        "tag": 1,
        "error": 1,
    }


def present_state(run: Path) -> RunState:
    """
    What the sidecar says of a run that it serves.
    """
    return spool.read_struct(run / spool.STATE_FILE, RunState) or RunState(
        run_uid=run.name, updated_ns=0
    )


async def until(is_true: Callable[[], bool]) -> None:
    """
    Wait for something that only the file system or another thread tells.
    """
    while not is_true():  # noqa: ASYNC110 - no event reaches us from there
        await anyio.sleep(0.002)


async def serve(worker: Worker) -> None:
    """
    Serve to the end, within a deadline.
    """
    with anyio.fail_after(40):
        await worker.serve()


async def most_served_at_once(sidecar: Worker) -> int:
    """
    The most deliveries that were open together while the sidecar served to its end.
    """
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(sidecar.deliveries))
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await serve(sidecar)
        group.cancel_scope.cancel()
    return most


async def serve_until_a_call(run: Path, tracking: MemoryTracking, chance: random.Random) -> None:
    """
    Serve until some call, which hangs or whose answer is lost; there the sidecar dies.
    """
    stop_at = chance.randrange(12)
    calls = 0
    hold = threading.Event()
    entered = threading.Event()

    def plan(method: str, number: int) -> Fault | None:
        nonlocal calls
        calls += 1
        if calls <= stop_at:
            return None
        is_answer_lost = chance.random() < 0.5
        if is_answer_lost:
            return Fault(Fault.transient().error, is_answer_lost=True, entered=entered)
        return Fault(Fault.transient().error, hold=hold, entered=entered)

    async def cut_off() -> None:
        await until(lambda: entered.is_set() or not run.exists())
        group.cancel_scope.cancel()

    worker = make_worker(run, FlakyTracking(tracking, plan))
    async with anyio.create_task_group() as group:
        group.start_soon(cut_off)
        with anyio.fail_after(30):
            await worker.serve()
        group.cancel_scope.cancel()
    hold.set()
