"""
Who waits for the sidecar, and what it does without: flushes across restarts, uploads that hang,
steady programs, full disks, many runs. Nobody waits for ever, nobody waits for another.
"""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from unittest import mock

import anyio
import pytest

from allele_mlflow import attach, snapshots
from allele_mlflow.clock import now_monotonic_s, now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.cursor import CursorFile
from allele_mlflow.queue.lines import LineFile
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.queue.stream_reader import StreamReader
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import ArtifactAdded, FlushAsked
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.sidecar import descriptors, worker
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking, assert_ledger_balanced
from tests.integration.spooled_runs import (
    ACCEPTED,
    READINGS,
    assert_all_there,
    end_run,
    final_state,
    log_everything,
    make_worker,
    most_served_at_once,
    present_state,
    serve,
    start_run,
    the_run,
    until,
)
from tests.queue_tools import make_writer, outcome_of


def keep_artifact(run: Path, writer: StreamWriter, name: str, data: bytes = b"x") -> None:
    """
    What `log.text` does.
    """
    snapshot = snapshots.snapshot_bytes(data, name, run / spool.ARTIFACTS)
    writer.event(ArtifactAdded(timestamp_ns=1, artifact_path=name, **snapshot._asdict()))


async def test_flush_that_a_dead_sidecar_heard_is_answered(tmp_path: Path) -> None:
    """Its frame is behind the cursor, its artifact is not in MLflow: the next sidecar knows."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    keep_artifact(run, writer, "a.txt")
    writer.event(FlushAsked(timestamp_ns=now_ns(), flush_id=77), counts=False)
    tracking = MemoryTracking()
    away = FlakyTracking(
        tracking, lambda name, _: Fault.transient() if name == "log_artifact" else None
    )
    first = make_worker(run, away)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, first)
        with anyio.fail_after(30):
            await until(lambda: away.calls["log_artifact"] >= 2)
        first.stop()
    assert present_state(run).flushed_id == 0
    second = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, second)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).flushed_id == 77)
        second.stop()
    assert the_run(tracking).artifacts["a.txt"] == b"x"


async def test_flush_after_the_owners_end_waits_for_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that outlives the owner is told the truth, though the run is done in MLflow."""
    monkeypatch.setattr(RunLogger, "_respawn", lambda self, **_: None)
    run, owner = start_run(tmp_path)
    log = attach(str(run))
    log.metric("mine", 0.0, 0)
    tracking = MemoryTracking()
    is_away = threading.Event()
    store = FlakyTracking(tracking, lambda *_: Fault.transient() if is_away.is_set() else None)
    sidecar = make_worker(run, store)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: bool(tracking.runs))
            end_run(owner)
            await until(lambda: present_state(run).done)
        is_away.set()
        log.metric("mine", 1.0, 1)
        assert not await anyio.to_thread.run_sync(log.flush, 0.5)
        is_away.clear()
        assert await anyio.to_thread.run_sync(log.flush, 30.0)
        assert len(the_run(tracking).rows("mine")) == 2
        log.close()


@pytest.mark.parametrize("ids", [(90, 100), (100, 90)])
async def test_quiet_is_quiet_again_after_any_flush(tmp_path: Path, ids: tuple[int, int]) -> None:
    """A flush whose id is lower than one that was answered is answered too, and over."""
    run, writer = start_run(tmp_path, delivery="quiet")
    sidecar = make_worker(run, MemoryTracking())
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: run.name in sidecar.deliveries)
            delivery = sidecar.deliveries[run.name]
            for number, flush_id in enumerate(ids):
                writer.metric("m", 1.0, number)
                writer.event(FlushAsked(timestamp_ns=1, flush_id=flush_id), counts=False)
                await until(lambda: not delivery.plan.is_urgent and not delivery.reader.pending())
        assert present_state(run).flushed_id == 100
        sidecar.stop()


async def test_uploads_that_hang_keep_no_number_waiting(tmp_path: Path) -> None:
    """As many runs as there may be calls in flight, each with an upload that hangs."""
    count = worker.PARALLEL_CALLS
    runs = [start_run(tmp_path, f"r{number}") for number in range(count)]
    for run, writer in runs:
        keep_artifact(run, writer, "a.txt")
    tracking, hold = MemoryTracking(), threading.Event()
    store = FlakyTracking(
        tracking, lambda name, _: Fault(hold=hold) if name == "log_artifact" else None
    )
    sidecar = make_worker(runs[0][0], store)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: store.calls["log_artifact"] >= worker.PARALLEL_UPLOADS)
            for _, writer in runs:
                for step in range(100):
                    writer.metric("m", float(step), step)
            await until(
                lambda: sum(len(r.rows("m")) for r in tracking.runs.values()) == 100 * count
            )
        hold.set()
        sidecar.stop()


async def test_last_content_of_a_path_stands(tmp_path: Path) -> None:
    """An upload that failed once does not overwrite a later one of its path when it is retried."""
    run, writer = start_run(tmp_path)
    keep_artifact(run, writer, "report.txt", b"old")
    keep_artifact(run, writer, "other.txt")
    keep_artifact(run, writer, "report.txt", b"new")
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, FlakyTracking(tracking, {"log_artifact": [Fault.transient()]})))
    assert the_run(tracking).artifacts["report.txt"] == b"new"
    assert final_state(run).ledger.delivered == {"artifact": 3}


async def test_run_is_not_done_without_its_files(tmp_path: Path) -> None:
    """While the store for files is away, nobody is told that all is in MLflow."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking, is_away = MemoryTracking(), threading.Event()
    is_away.set()
    store = FlakyTracking(
        tracking,
        lambda name, _: Fault.transient() if name == "log_artifact" and is_away.is_set() else None,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, store))
        with anyio.fail_after(30):
            await until(lambda: store.calls["log_artifact"] >= 3)
        assert the_run(tracking).status == "FINISHED"
        assert not present_state(run).done
        is_away.clear()
    assert_all_there(run, tracking)


async def test_steady_program_does_not_lag(tmp_path: Path) -> None:
    """Somebody who logs all the time is not behind: the CPU limit stays."""
    run, writer = start_run(tmp_path, max_lag_s=1.5)
    sidecar = make_worker(run, MemoryTracking())
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: run.name in sidecar.deliveries)
        began_s, step = now_monotonic_s(), 0
        while now_monotonic_s() - began_s < 3.0:
            writer.metric("m", 1.0, step)
            step += 1
            await anyio.sleep(0.0005)
        assert not sidecar.deliveries[run.name]._limit.is_lifted
        assert present_state(run).lag_s < 1.5
        sidecar.stop()


async def test_full_disk_ends_the_run_all_the_same(tmp_path: Path) -> None:
    """No line, cursor or file can be written: numbers, status and end are in MLflow; then files."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    keep_artifact(run, writer, "a.txt")
    end_run(writer)
    tracking = MemoryTracking()
    full = OSError(errno.ENOSPC, "No space left on device")
    async with anyio.create_task_group() as group:
        with (
            mock.patch("allele_mlflow.queue.lines.spool.write_all", side_effect=full),
            mock.patch.object(spool, "write_whole", side_effect=full),
            mock.patch.object(CursorFile, "store", side_effect=full),
        ):
            group.start_soon(serve, make_worker(run, tracking))
            with anyio.fail_after(30):
                await until(lambda: bool(tracking.runs))
                await until(lambda: the_run(tracking).status == "FINISHED")
                await until(lambda: "a.txt" in the_run(tracking).artifacts)
            assert sum(len(the_run(tracking).rows(f"m/{n}")) for n in range(3)) == READINGS - 100
            assert run.exists(), "its phases and errors are in our memory only"
    assert {"allele/phases.json", "allele/errors.json"} <= set(the_run(tracking).artifacts)
    assert_ledger_balanced(final_state(run).ledger, accepted=ACCEPTED + 1)


def test_lines_wait_in_memory_for_room(tmp_path: Path) -> None:
    """What a full disk does not take is read all the same, and written when there is room."""
    lines = LineFile(tmp_path / "lines.jsonl", is_checked=False)
    lines.append([1])

    def waits() -> bool:
        return lines.has_unwritten

    with mock.patch("allele_mlflow.queue.lines.spool.write_all", side_effect=OSError(28, "full")):
        lines.append([2])
        assert waits()
    assert list(lines.read(list)) == [[1], [2]]
    assert list(LineFile(tmp_path / "lines.jsonl", is_checked=False).read(list)) == [[1]]
    with mock.patch("allele_mlflow.queue.lines.RETRY_S", 0.0):
        lines._retry_at_s = 0.0
        lines.append([3])
    assert not waits()
    assert list(LineFile(tmp_path / "lines.jsonl", is_checked=False).read(list)) == [[1], [2], [3]]


@pytest.mark.parametrize("name", ["cursor", "lock"])
async def test_shortage_while_a_stream_is_opened_costs_nothing(tmp_path: Path, name: str) -> None:
    """No descriptor left, once: the run is taken up again, from its cursor and without damage."""
    run, writer = start_run(tmp_path)
    for step in range(300):
        writer.metric("m", 1.0, step)
    tracking = MemoryTracking()
    first = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, first)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).ledger.delivered.get("metric") == 300)
        first.stop()
    stream = writer.stream_id
    for step in range(300, 700):
        writer.metric("m", 1.0, step)
    end_run(writer)
    real = Path.read_bytes
    failed: list[Path] = []

    def read_bytes(path: Path) -> bytes:
        if path.name == name and path.parent.name == stream and not failed:
            failed.append(path)
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    with (
        mock.patch.object(Path, "read_bytes", read_bytes),
        mock.patch.object(worker, "RETAKE_S", 0.1),
    ):
        await serve(make_worker(run, tracking, idle_timeout_s=1.0))
    assert failed
    state = final_state(run)
    assert (state.ledger.delivered, state.damage) == ({"metric": 700}, [])
    assert state.ledger.recounted_from is None


async def test_few_descriptors_serve_many_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sidecar that may open few files takes up runs by and by, and loses none."""
    monkeypatch.setattr(descriptors, "is_room_for_another", lambda runs: runs < 2)
    runs = []
    for number in range(8):
        run, writer = start_run(tmp_path, f"r{number}")
        writer.metric("m", 1.0, number)
        end_run(writer)
        runs.append(run)
    tracking = MemoryTracking()
    sidecar = make_worker(runs[0], tracking)
    most = await most_served_at_once(sidecar)
    assert sum(len(one.rows("m")) for one in tracking.runs.values()) == 8
    assert 0 < most <= 2


@pytest.mark.parametrize(
    ("used", "limit", "runs", "wanted"),
    [(20, 1024, 1, True), (900, 1024, 3, False), (20, 1024, 70, False), (30, 128, 2, True)],
)
def test_room_for_a_run(used: int, limit: int, runs: int, wanted: bool) -> None:
    """A part of the descriptors is left for MLflow, whatever the runs have opened so far."""
    assert descriptors.is_room(used=used, limit=limit, runs=runs) is wanted


def test_finished_stream_keeps_nothing_open(tmp_path: Path) -> None:
    """A pool with a process a task has thousands of them."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    end_run(writer)
    reader = StreamReader(run / spool.STREAMS / writer.stream_id)
    while not reader.is_finished:
        chunk = reader.read(100)
        if not chunk.is_empty:
            reader.commit(outcome_of(chunk))
    assert reader._cursor._descriptor < 0


def test_backlog_is_counted_once(tmp_path: Path) -> None:
    """Full segments that nobody began to read are not opened for every status."""
    run, _ = start_run(tmp_path)
    writer = make_writer(run)
    for step in range(64 * 20):
        writer.metric("m", 1.0, step)
    reader = RunReader(run, None)  # type: ignore[arg-type]
    reader.discover()
    assert reader.pending() == 64 * 20
    with mock.patch("allele_mlflow.queue.stream_segments.count_unread") as count:
        count.return_value.record_count = 0
        count.return_value.is_full = False
        reader.pending()
    assert count.call_count <= 2
    reader.close()
