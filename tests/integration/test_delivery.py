"""
The sidecar's coroutine against stores that fail: nothing lost, nothing twice, every run with its
end.
"""

from __future__ import annotations

import random
import threading
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest

from allele_mlflow.clock import now_ns, thread_cpu_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.queue.stream_reader import Chunk, StreamReader
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import (
    FlushAsked,
    ParamLogged,
    RunId,
)
from allele_mlflow.sidecar import delivery
from allele_mlflow.testing import (
    Fault,
    FlakyTracking,
    MemoryTracking,
    assert_ledger_balanced,
)
from tests.integration.spooled_runs import (
    ACCEPTED,
    READINGS,
    assert_all_there,
    end_run,
    final_state,
    log_everything,
    make_worker,
    present_state,
    serve,
    serve_until_a_call,
    start_run,
    the_run,
    until,
)
from tests.queue_tools import make_writer


class ForgetfulTracking(MemoryTracking):
    """
    A store that keeps no reading, so that only the sidecar's own memory is seen.
    """

    def log_batch(self, run_id: RunId, **rest: Any) -> None:
        """
        Take it and forget it.
        """


def peak_bytes(folder: Path, readings: int) -> int:
    """
    The most memory that delivering a backlog took.
    """
    run, writer = start_run(folder)
    for step in range(readings):
        writer.metric("a", 1.0, step)
    end_run(writer)
    tracemalloc.start()
    anyio.run(make_worker(run, ForgetfulTracking()).serve)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert final_state(run).ledger.delivered == {"metric": readings}
    return peak


def test_memory_does_not_grow_with_the_backlog(tmp_path: Path) -> None:
    """Ten times the pending records take the same memory: what waits, waits in the files."""
    peak_bytes(tmp_path / "first", 100)  # what is imported and cached once
    small = peak_bytes(tmp_path / "small", 4_000)
    large = peak_bytes(tmp_path / "large", 40_000)
    assert large - small < 500_000


async def test_run_arrives_whole(tmp_path: Path) -> None:
    """Records of every kind are delivered, the run is ended, its folder archived."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert_all_there(run, tracking)
    assert not run.exists()
    assert not (run.parent.parent / "done" / "run" / spool.STREAMS).exists()


@pytest.mark.parametrize("fault", [Fault.transient(), Fault.answer_lost()], ids=["down", "lost"])
@pytest.mark.parametrize(
    "method",
    ["ensure_experiment", "find_run", "create_run", "log_batch", "log_artifact", "end_run"],
)
async def test_failing_call_is_repeated(tmp_path: Path, method: str, fault: Fault) -> None:
    """Each call of the store's may fail, or commit and lose its answer: all is there, once."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    flaky = FlakyTracking(tracking, {method: [fault, None, fault, fault]})
    await serve(make_worker(run, flaky))
    assert_all_there(run, tracking)


async def test_store_that_is_down_delays_and_loses_nothing(tmp_path: Path) -> None:
    """While every call fails the state says why; when the store is back all arrives."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    is_down = True
    flaky = FlakyTracking(tracking, lambda *_: Fault.transient() if is_down else None)
    worker = make_worker(run, flaky)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, worker)
        with anyio.fail_after(20):
            await until(lambda: flaky.calls["ensure_experiment"] >= 3)
            await until(lambda: bool(present_state(run).last_error))
        state = present_state(run)
        assert_ledger_balanced(state.ledger, accepted=ACCEPTED)
        assert not state.done
        is_down = False
    assert_all_there(run, tracking)


async def test_hung_call_holds_up_its_own_run_only(tmp_path: Path) -> None:
    """A call that never returns keeps its run waiting; the others go on."""
    hold = threading.Event()
    hung, hung_writer = start_run(tmp_path, "hung")
    other, other_writer = start_run(tmp_path, "other")
    tracking = MemoryTracking()

    class HangsForOne(FlakyTracking):
        def log_batch(self, run_id, **rest):  # type: ignore[no-untyped-def]
            if tracking.runs[run_id].tags["allele.run_uid"] == "hung":
                hold.wait(30)
            self.inner.log_batch(run_id, **rest)

    for writer in (hung_writer, other_writer):
        writer.metric("a", 1.0, 1)
        end_run(writer)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(hung, HangsForOne(tracking, {})))
        with anyio.fail_after(20):
            await until(lambda: not other.exists())
        assert hung.exists()
        hold.set()
    assert final_state(hung).done


async def test_bad_record_is_set_aside_and_the_rest_arrives(tmp_path: Path) -> None:
    """A changed param is refused for good: it is in the dead letters with the store's words."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    writer.event(ParamLogged(timestamp_ns=1, key="p", value="changed"))
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert the_run(tracking).params["p"] == "v"
    ledger = final_state(run).ledger
    assert ledger.rejected == {"store": 1}
    assert_ledger_balanced(ledger, accepted=ACCEPTED + 1)
    letters = the_run(tracking).artifacts["allele/rejected.jsonl"].decode()
    assert "changed" in letters


async def test_owner_without_farewell_is_killed(tmp_path: Path) -> None:
    """A benchmark that vanished ends as KILLED, by nobody knows what, with all that it had
    logged.
    """
    run, writer = start_run(tmp_path)
    log_everything(writer)
    writer.close()  # the lock goes, no farewell is written
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert stored.status == "KILLED"
    assert stored.tags["allele.ended_by"] == "unknown"
    assert_ledger_balanced(final_state(run).ledger, accepted=ACCEPTED)


async def test_lagging_delivery_shows_the_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far behind, the newest reading of each key is shown early, and every reading still comes."""
    monkeypatch.setattr(delivery, "LIVE_VIEW_EVERY_S", 0.0)
    monkeypatch.setattr(delivery, "LAG_BATCHES", 2)
    run, writer = start_run(tmp_path)
    for step in range(READINGS):
        writer.metric("m", float(step), step)
    seen: list[int] = []

    class Watched(MemoryTracking):
        def log_batch(self, run_id: RunId, **rest: Any) -> None:
            super().log_batch(run_id, **rest)
            seen.extend(r.step for r in rest.get("readings", ()) if r.key == "m")

    tracking = Watched()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(30):
            await until(lambda: len(seen) > 60)
        assert READINGS - 1 in seen[:150]
        end_run(writer)
    rows = the_run(tracking).rows("m")
    assert sorted(row.step for row in rows) == list(range(READINGS))
    assert_ledger_balanced(final_state(run).ledger, accepted=READINGS)


class CostlyTracking(MemoryTracking):
    """
    A store whose every call takes much CPU, so that a small allowance means a pause of minutes.
    """

    def log_batch(self, run_id: RunId, **rest: Any) -> None:
        """
        Take it, slowly.
        """
        until_s = thread_cpu_s() + 0.1
        while thread_cpu_s() < until_s:
            pass
        super().log_batch(run_id, **rest)


async def test_limited_sidecar_hears_the_end(tmp_path: Path) -> None:
    """A sidecar that has used up its CPU for minutes to come ends the run as soon as it may."""
    run, writer = start_run(tmp_path, sidecar_cpu_percent=0.05)
    for step in range(READINGS):
        writer.metric("m", float(step), step)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, CostlyTracking()))
        with anyio.fail_after(30):
            await until(lambda: present_state(run).ledger.delivered.get("metric", 0) > 0)
        end_run(writer)
    assert_ledger_balanced(final_state(run).ledger, accepted=READINGS)


async def test_flush_waits_for_a_process_that_has_just_come_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that appears while the flush is being read was there before it, so it counts."""
    run, owner = start_run(tmp_path)
    read = StreamReader.read

    def read_late(self: StreamReader, limit: int) -> Chunk:
        if self.stream_id == owner.stream_id and not seen:
            seen.append(0)
            visitor = make_writer(run)
            visitor.metric("m", 1.0, 1)
            visitor.close()
            owner.event(FlushAsked(timestamp_ns=1, flush_id=7), counts=False)
        return read(self, limit)

    class Watched(MemoryTracking):
        def log_batch(self, run_id: RunId, **rest: Any) -> None:
            seen.append(present_state(run).flushed_id)
            super().log_batch(run_id, **rest)

    seen: list[int] = []
    monkeypatch.setattr(StreamReader, "read", read_late)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, Watched()))
        with anyio.fail_after(30):
            await until(lambda: present_state(run).flushed_id == 7)
        end_run(owner)
    assert seen[:2] == [0, 0], "the flush was over before the reading was sent"


async def test_flush_leaves_no_debt(tmp_path: Path) -> None:
    """What a flush has cost is not taken off the sidecar's allowance afterwards."""
    run, writer = start_run(tmp_path, sidecar_cpu_percent=1.0)
    for step in range(READINGS):
        writer.metric("m", float(step), step)
    writer.event(FlushAsked(timestamp_ns=1, flush_id=7), counts=False)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, CostlyTracking()))
        with anyio.fail_after(30):
            await until(lambda: present_state(run).flushed_id == 7)
            writer.metric("m", float(READINGS), READINGS)  # the flush alone would pause for 140 s
            await until(lambda: present_state(run).ledger.delivered["metric"] == READINGS + 1)
        end_run(writer)
    assert_ledger_balanced(final_state(run).ledger, accepted=READINGS + 1)


async def test_rate_at_the_end_is_that_of_the_end(tmp_path: Path) -> None:
    """A store that was slow while the benchmark ran does not make `close` give up on it."""
    run, writer = start_run(tmp_path)
    for step in range(READINGS):
        writer.metric("m", float(step), step)
    after: list[float | None] = []

    class Watched(MemoryTracking):
        def log_batch(self, run_id: RunId, **rest: Any) -> None:
            super().log_batch(run_id, **rest)
            state = present_state(run)
            if state.end is not None:
                after.append(state.delivered_per_s)

    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, Watched()))
        with anyio.fail_after(30):
            await until(lambda: present_state(run).delivered_per_s is not None)
        for step in range(READINGS, 2 * READINGS):
            writer.metric("m", float(step), step)
        end_run(writer)
    assert after[0] is None
    assert_ledger_balanced(final_state(run).ledger, accepted=2 * READINGS)


async def test_run_does_not_end_before_its_start(tmp_path: Path) -> None:
    """A clock that was set back while the benchmark ran makes no negative duration."""
    created_ns = now_ns() + 3600 * 10**9
    run, writer = start_run(tmp_path, created_ns=created_ns)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert (stored.status, stored.end_ms) == ("FINISHED", created_ns // 1_000_000)


async def test_damaged_segment_is_reported_and_the_rest_arrives(tmp_path: Path) -> None:
    """A segment whose header is gone is named in the state; the other records are delivered."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    end_run(writer)
    stream = next((run / spool.STREAMS).iterdir())
    (stream / "m-00000007.seg").write_bytes(b"rubbish" * 1000)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert [row.step for row in the_run(tracking).rows("m")] == [1]
    assert any("m-00000007.seg: not a segment" in text for text in final_state(run).damage)
    kept = list((run.parent.parent / "done" / "run" / "damaged").iterdir())
    assert [path.name for path in kept] == [f"{stream.name}-m-00000007.seg"]


async def test_process_that_joins_at_the_last_moment_is_delivered(tmp_path: Path) -> None:
    """A stream that appears while the run is being archived brings the run back, and arrives."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    end_run(writer)
    tracking = MemoryTracking()
    worker = make_worker(run, tracking)
    archive = RunReader.archive

    def join_then_archive(self: RunReader) -> bool:
        if not joined:
            late = make_writer(run)
            late.metric("late", 2.0, 2)
            late.close()
            joined.append(late)
        return archive(self)

    joined: list[StreamWriter] = []
    with mock.patch.object(RunReader, "archive", join_then_archive):
        await serve(worker)
    assert [row.step for row in the_run(tracking).rows("late")] == [2]
    assert_ledger_balanced(final_state(run).ledger, accepted=2)
    assert not run.exists()


async def test_run_may_come_again_by_its_uid(tmp_path: Path) -> None:
    """A run that was delivered and is started again by its uid is served by the same sidecar."""
    tracking = MemoryTracking()
    for step in range(2):
        run, writer = start_run(tmp_path)
        writer.metric("m", 1.0, step)
        end_run(writer)
        await serve(make_worker(run, tracking))
        assert not run.exists()
    assert sorted(row.step for row in the_run(tracking).rows("m")) == [0, 1]


@pytest.mark.parametrize("seed", range(8))
async def test_sidecar_stopped_anywhere_loses_and_repeats_nothing(
    tmp_path: Path, seed: int
) -> None:
    """Sidecars cut off at random calls, before and after the store has it, one after the other."""
    chance = random.Random(seed)
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    for _ in range(30):
        if not run.exists():
            break
        await serve_until_a_call(run, tracking, chance)
    await serve(make_worker(run, tracking))
    assert_all_there(run, tracking)
