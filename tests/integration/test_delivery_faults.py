"""
What goes wrong around the sidecar's coroutine: others that deliver too, files that cannot be
written or removed, a machine that cannot be looked at. Nothing lost, nothing twice, true endings.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest

from allele_mlflow import snapshots
from allele_mlflow.clock import now_ns, pause_s
from allele_mlflow.errors import ErrorKind, PermanentTrackingError, TransientTrackingError
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.cursor import CursorFile
from allele_mlflow.queue.run_reader import RunReader, count_ledger
from allele_mlflow.queue.stream_files import StreamFiles
from allele_mlflow.queue.stream_segments import StreamSegments
from allele_mlflow.queue.uploads import UploadList
from allele_mlflow.records import (
    ArtifactAdded,
    ErrorLogged,
    FlushAsked,
    RunId,
    StreamEnded,
    TagSet,
)
from allele_mlflow.sampling.sampler import ResourceSampler
from allele_mlflow.sidecar import retry, run_sampler, worker
from allele_mlflow.sidecar.delivery import PUBLISH_EVERY_S
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking, assert_ledger_balanced
from tests.integration.spooled_runs import (
    ACCEPTED,
    READINGS,
    assert_all_there,
    end_run,
    end_run_as,
    final_state,
    log_everything,
    make_worker,
    present_state,
    serve,
    start_run,
    the_run,
    until,
)
from tests.queue_tools import make_writer


def steps_of(tracking: MemoryTracking, key: str) -> list[int]:
    """
    The steps of a key in the store's only run, in order.
    """
    return sorted(row.step for row in the_run(tracking).rows(key))


async def test_two_deliverers_do_not_share_a_run(tmp_path: Path) -> None:
    """Two that find one run at once, as two `sync` commands: one delivers it, once."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    workers = [make_worker(run, tracking), make_worker(run, tracking)]
    async with anyio.create_task_group() as group:
        for one in workers:
            group.start_soon(serve, one)
    assert_all_there(run, tracking)
    assert not any(one.has_gaps for one in workers)


async def test_end_does_not_wait_for_others(tmp_path: Path) -> None:
    """A process that goes on logging without a pause does not hold up the end of the run."""
    run, owner = start_run(tmp_path)
    other = make_writer(run)
    tracking = MemoryTracking()

    async def chatter() -> None:
        step = 0
        while not present_state(run).done:
            for _ in range(20):
                other.metric("other", 1.0, step)
                step += 1
            await anyio.sleep(0.005)
        other.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))

    owner.metric("m", 1.0, 1)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(serve, make_worker(run, tracking))
            group.start_soon(chatter)
            await until(lambda: present_state(run).ledger.delivered.get("metric", 0) > 100)
            end_run(owner)
    assert the_run(tracking).status == "FINISHED"
    assert_ledger_balanced(final_state(run).ledger)
    assert steps_of(tracking, "other") == list(range(len(steps_of(tracking, "other"))))


async def test_segment_that_cannot_be_removed_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a read segment stays (somebody changed the folder's mode), nothing comes again."""
    run, writer = start_run(tmp_path)
    for step in range(READINGS):
        writer.metric("m", float(step), step)
    monkeypatch.setattr(StreamSegments, "_unlink", lambda self, names: None)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert_ledger_balanced(final_state(run).ledger, accepted=READINGS)
    assert final_state(run).ledger.delivered == {"metric": READINGS}


async def test_failed_run_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that failed in the sidecar is taken up again by it, though it never waits for work."""
    monkeypatch.setattr(worker, "RETAKE_S", 0.05)
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    tracking, failures = MemoryTracking(), [OSError(errno.ENOSPC, "No space left on device")] * 3
    archive = RunReader.archive

    def fail_first(self: RunReader) -> bool:
        if failures:
            raise failures.pop()
        return archive(self)

    monkeypatch.setattr(RunReader, "archive", fail_first)
    await serve(make_worker(run, tracking))
    assert not failures
    assert_all_there(run, tracking)


@pytest.mark.parametrize(
    "line",
    [b"{}\n", b'{"begin": {"name": 1}}\n', b'{"row": 3}\n', b"[1]\n", b"\xff\n", b'{"row": {"sp'],
)
async def test_odd_line_in_a_runs_files_keeps_nobody(tmp_path: Path, line: bytes) -> None:
    """A line that is damaged, or cut short, is passed over: that run and all others arrive."""
    run, writer = start_run(tmp_path)
    (run / spool.PHASES_FILE).write_bytes(line)
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert_all_there(run, tracking)
    assert b'"select"' in the_run(tracking).artifacts["allele/phases.json"]


async def test_run_that_cannot_be_opened_keeps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run whose files raise is noted and rests; the others of the spool are delivered."""
    monkeypatch.setattr(worker, "RETAKE_S", 0.05)
    bad, _ = start_run(tmp_path, "bad")
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    find = RunReader.__init__

    def refuse(self: RunReader, folder: Path, spec: Any) -> None:
        if folder == bad:
            raise PermissionError(errno.EACCES, "Permission denied")
        find(self, folder, spec)

    monkeypatch.setattr(RunReader, "__init__", refuse)
    tracking = MemoryTracking()
    sidecar = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until((run.parent.parent / spool.DONE / run.name).exists)
        sidecar.stop()
    assert_all_there(run, tracking)


async def test_damaged_description_keeps_nobody(tmp_path: Path) -> None:
    """A run whose description is no text any more is left, and ends neither the sidecar nor the
    other runs.
    """
    bad, bad_writer = start_run(tmp_path, "bad")
    end_run(bad_writer)
    data = (bad / spool.RUN_FILE).read_bytes()
    data = data[: -spool.CHECK_BYTES].replace(b"bad", b"\xb8ad")  # as from before there were checks
    (bad / spool.RUN_FILE).write_bytes(data)
    run, writer = start_run(tmp_path, "good")
    log_everything(writer)
    end_run(writer)
    tracking = MemoryTracking()
    worker = make_worker(run, tracking)
    await serve(worker)
    assert_all_there(run, tracking)
    assert bad.exists()
    assert not worker.failures


async def test_artifact_copy_stays_until_the_cursor_says_so(tmp_path: Path) -> None:
    """A full disk keeps the cursor from being written: the copy waits for who sends it again."""
    run, writer = start_run(tmp_path)
    snapshot = snapshots.snapshot_bytes(b"hello", "a.txt", run / spool.ARTIFACTS)
    writer.event(ArtifactAdded(timestamp_ns=1, artifact_path="a.txt", **snapshot._asdict()))
    tracking = MemoryTracking()
    is_full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(CursorFile, "store", side_effect=is_full):
        sidecar = make_worker(run, tracking)
        async with anyio.create_task_group() as group:
            group.start_soon(serve, sidecar)
            with anyio.fail_after(30):
                await until(lambda: bool(tracking.runs) and bool(the_run(tracking).artifacts))
            await anyio.sleep(0.2)
            sidecar.stop()
    end_run(writer)
    await serve(make_worker(run, tracking))
    ledger = final_state(run).ledger
    assert (ledger.delivered, ledger.rejected) == ({"artifact": 1}, {})
    assert the_run(tracking).artifacts["a.txt"] == b"hello"


async def test_nothing_is_counted_twice_while_the_store_is_away(tmp_path: Path) -> None:
    """An artifact that was read and not sent is one: to the sidecar, and to who counts files."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    accepted = ACCEPTED + 2
    for name in ("a.txt", "b.txt"):
        snapshot = snapshots.snapshot_bytes(b"hello", name, run / spool.ARTIFACTS)
        writer.event(ArtifactAdded(timestamp_ns=1, artifact_path=name, **snapshot._asdict()))
    nobody = FlakyTracking(MemoryTracking(), lambda *_: Fault.transient())
    sidecar = make_worker(run, nobody)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: "made by a test" in (present_state(run).last_error or ""))
            await until(lambda: len(UploadList(run).waiting()) == 2)
        await anyio.sleep(2 * PUBLISH_EVERY_S)
        counted, published = count_ledger(run), present_state(run).ledger
        sidecar.stop()
    assert counted is not None
    assert_ledger_balanced(counted, accepted=accepted)
    assert_ledger_balanced(published, accepted=accepted)


async def test_what_comes_after_the_end_is_summed_up_too(tmp_path: Path) -> None:
    """Errors, phases and numbers of a process that outlives the owner reach MLflow, and the tag."""
    run, owner = start_run(tmp_path)
    other = make_writer(run)
    tracking = MemoryTracking()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        owner.metric("m", 1.0, 1)
        end_run(owner)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).done)
        other.phase_edge("late", 7, other.phase_edge("late", 7))
        other.event(
            ErrorLogged(
                timestamp_ns=1,
                category="numeric",
                error_type="ZeroDivisionError",
                message="m",
                traceback="t",
                fingerprint="f",
            )
        )
        other.metric("late", 1.0, 2)
        other.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
    stored = the_run(tracking)
    assert stored.rows("phase/late/count")
    assert b"ZeroDivisionError" in stored.artifacts["allele/errors.json"]
    assert '"metric":2' in stored.tags["allele.delivery"]
    assert_ledger_balanced(final_state(run).ledger, accepted=1 + 2 + 1 + 1)


async def test_end_is_found_in_the_log_when_the_state_is_lost(tmp_path: Path) -> None:
    """The farewell was read by a sidecar whose state could not be written: it is not forgotten."""
    run, owner = start_run(tmp_path)
    other = make_writer(run)  # keeps the run from being archived
    owner.metric("m", 1.0, 1)
    tracking = MemoryTracking()
    first = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, first)
        end_run(owner)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).done)
        first.stop()
    (run / spool.STATE_FILE).unlink()
    other.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
    await serve(make_worker(run, tracking))
    assert the_run(tracking).status == "FINISHED"
    assert the_run(tracking).tags["allele.ended_by"] == "close"


async def test_farewell_survives_a_full_disk(tmp_path: Path) -> None:
    """The last frame finds no room: the run ends as the benchmark said, for the page has it too."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    with mock.patch.object(StreamFiles, "append", side_effect=OSError(errno.ENOSPC, "full")):
        assert not end_run_as(writer, "FAILED")
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert the_run(tracking).status == "FAILED"
    assert_ledger_balanced(final_state(run).ledger, accepted=1)


async def test_artifact_that_a_server_cannot_keep_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server says 500 of one name for ever and takes the others: that one is refused, counted."""
    monkeypatch.setattr(retry, "delay_s", lambda *_, **__: 0.01)

    class Picky(MemoryTracking):
        def log_artifact(self, run_id: RunId, file: Path, artifact_path: str) -> None:
            if artifact_path == "bad.txt":
                raise TransientTrackingError(
                    "500", kind=ErrorKind.STORE_UNREACHABLE, http_status=500
                )
            super().log_artifact(run_id, file, artifact_path)

    run, writer = start_run(tmp_path)
    for name in ("bad.txt", "good.txt"):
        snapshot = snapshots.snapshot_bytes(b"x", name, run / spool.ARTIFACTS)
        writer.event(ArtifactAdded(timestamp_ns=1, artifact_path=name, **snapshot._asdict()))
    end_run(writer)
    tracking = Picky()
    await serve(make_worker(run, tracking))
    ledger = final_state(run).ledger
    assert (ledger.delivered, ledger.rejected) == ({"artifact": 1}, {"store": 1})
    assert "allele/rejected.jsonl" in the_run(tracking).artifacts


async def test_vanished_benchmark_ended_when_it_last_logged(tmp_path: Path) -> None:
    """A run whose benchmark died without a sidecar ends at its last record, not when one comes."""
    run, writer = start_run(tmp_path, created_ns=1_000)
    writer.metric("m", 1.0, 1)
    logged_ns = now_ns()
    writer._stream.release()  # type: ignore[union-attr]  # as a kill does
    await anyio.sleep(0.3)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert stored.status == "KILLED"
    assert stored.end_ms is not None
    assert abs(stored.end_ms - logged_ns // 1_000_000) <= 100


async def test_slots_taken_last_are_counted_as_torn(tmp_path: Path) -> None:
    """A page whose head was begun shows what the killed call held, also behind the last record."""
    run, writer = start_run(tmp_path)
    writer.series("s", [1.0] * 508)
    offset = next(writer._series_lane[1])
    layout.SERIES_HEAD.pack_into(writer._series_lane[3], offset, 1, 508, 300, 0)
    writer._stream.release()  # type: ignore[union-attr]  # as a kill does
    await serve(make_worker(run, MemoryTracking()))
    ledger = final_state(run).ledger
    assert (ledger.torn, ledger.delivered) == (300, {"metric": 508})


async def test_slot_taken_by_a_call_that_never_returned_is_torn(tmp_path: Path) -> None:
    """The farewell says how many slots were given out; the last of them may never be written."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    next(writer._lane[1])
    next(writer._lane[1])
    with mock.patch.object(layout, "KIND_VOID", 0):  # close's own slot stays empty too
        end_run(writer)
    await serve(make_worker(run, MemoryTracking()))
    ledger = final_state(run).ledger
    assert (ledger.torn, ledger.delivered) == (2, {"metric": 1})


async def test_damaged_file_outlives_every_reader(tmp_path: Path) -> None:
    """What could not be read is kept and told of, however often the run is taken up."""
    run, writer = start_run(tmp_path)
    for step in range(300):
        writer.metric("m", float(step), step)
    (stream,) = (run / spool.STREAMS).iterdir()
    (stream / "m-00000001.seg").write_bytes(b"not a segment")
    end_run(writer)
    archive = RunReader.archive
    stop: list[Callable[[], None]] = []

    def stop_instead(self: RunReader) -> bool:
        stop.pop()()
        raise OSError(errno.EINTR, "stopped here")

    tracking = MemoryTracking()
    with mock.patch.object(RunReader, "archive", stop_instead):
        sidecar = make_worker(run, tracking)
        stop.append(sidecar.stop)
        await serve(sidecar)
    assert RunReader.archive is archive
    assert count_ledger(run) is not None  # as `status` does
    await serve(make_worker(run, tracking))
    state = final_state(run)
    assert any("m-00000001.seg" in text for text in state.damage)
    (kept,) = (run.parent.parent / spool.DONE / run.name / "damaged").iterdir()
    assert kept.read_bytes() == b"not a segment"


async def test_missing_done_folder_is_made_again(tmp_path: Path) -> None:
    """Somebody removed the folder of delivered runs: the run is delivered and put there."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    end_run(writer)
    (run.parent.parent / spool.DONE).rmdir()
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert_all_there(run, tracking)


async def test_archiving_cut_short_is_done_again(tmp_path: Path) -> None:
    """A sidecar died between moving a run away and seeing that somebody had joined it."""
    run, owner = start_run(tmp_path)
    owner.metric("m", 1.0, 1)
    end_run(owner)
    joined = make_writer(run)
    joined.metric("late", 1.0, 1)
    run.rename(run.parent.parent / spool.DONE / run.name)
    joined.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert steps_of(tracking, "late") == [1]
    assert_ledger_balanced(final_state(run).ledger, accepted=2)


async def test_close_does_not_wait_out_a_long_pause(tmp_path: Path) -> None:
    """The store is back; what waits for the next try after many failures is tried at the end."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    tracking = FlakyTracking(MemoryTracking(), {"log_batch": [Fault.transient()] * 4})
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with (
            anyio.fail_after(30),
            mock.patch("allele_mlflow.sidecar.retry.delay_s", return_value=3600.0),
        ):
            await until(lambda: (present_state(run).last_error or "") != "")
        end_run(writer)
    assert_ledger_balanced(final_state(run).ledger, accepted=1)


async def test_failing_sampler_costs_only_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that cannot be looked at while the run is being created: one run, all records."""

    class Slow(MemoryTracking):
        def create_run(self, *arguments: Any, **more: Any) -> RunId:
            pause_s(0.5)
            return super().create_run(*arguments, **more)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files: '/proc'")

    monkeypatch.setattr(run_sampler, "ResourceSampler", refuse)
    run, writer = start_run(tmp_path, owner_pid=os.getpid())
    tracking = Slow()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        log_everything(writer)
        with anyio.fail_after(30):
            await until(lambda: bool(tracking.runs))
        end_run(writer)
    assert_all_there(run, tracking)


async def test_hung_driver_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the machine that never comes back: the run is delivered and ends without it."""
    monkeypatch.setattr(run_sampler, "LOOK_LIMIT_S", 0.2)
    may_end = threading.Event()
    monkeypatch.setattr(ResourceSampler, "sample", lambda self: may_end.wait())
    run, writer = start_run(tmp_path, owner_pid=os.getpid(), sample_interval_s=0.05)
    tracking = MemoryTracking()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(serve, make_worker(run, tracking))
            log_everything(writer)
            with anyio.fail_after(30):
                await until(lambda: bool(tracking.runs))
            end_run(writer)
    finally:
        may_end.set()
    assert_all_there(run, tracking)


async def test_deleted_run_costs_one_call_a_batch(tmp_path: Path) -> None:
    """Records of a run that somebody deleted in MLflow are set aside whole, and counted."""
    calls: list[int] = []

    class Deleted(MemoryTracking):
        def log_batch(self, run_id: RunId, **rest: Any) -> None:
            if (readings := rest.get("readings")) and readings[0].key == "m":
                calls.append(len(readings))
                raise PermanentTrackingError(
                    "The run must be in the 'active' state",
                    kind=ErrorKind.REFUSED,
                    reason="run_deleted",
                    is_of_the_run=True,
                )

    run, writer = start_run(tmp_path)
    for step in range(500):
        writer.metric("m", 1.0, step)
    end_run(writer)
    await serve(make_worker(run, Deleted()))
    assert final_state(run).ledger.rejected == {"run_deleted": 500}
    assert len(calls) == 10


async def test_quiet_run_holds_nothing_in_memory(tmp_path: Path) -> None:
    """Thousands of events of a quiet run wait in its files; its end is heard behind them all."""
    run, writer = start_run(tmp_path, delivery="quiet")
    for number in range(5000):
        writer.event(TagSet(timestamp_ns=1, key=f"t{number}", value="v"))
    tracking = MemoryTracking()
    sidecar = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sidecar)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).ledger.pending == 5000)
        (delivery,) = sidecar.deliveries.values()
        assert delivery.plan.in_flight == 0
        end_run(writer)
    assert_ledger_balanced(final_state(run).ledger, accepted=5000)
    assert final_state(run).ledger.delivered == {"tag": 5000}


async def test_flush_behind_a_frame_cut_short_is_answered(tmp_path: Path) -> None:
    """Half a frame at the end of a living process's log is no record, and may stay for ever."""
    run, owner = start_run(tmp_path)
    other = make_writer(run)
    log = run / spool.STREAMS / other.stream_id / layout.EVENT_LOG
    with log.open("ab") as file:
        file.write(layout.FRAME_HEAD.pack(layout.FRAME_MAGIC, 100, 0) + b"half")
    owner.event(FlushAsked(timestamp_ns=1, flush_id=7), counts=False)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, MemoryTracking()))
        with anyio.fail_after(30):
            await until(lambda: present_state(run).flushed_id == 7)
        other.close()
        end_run(owner)
