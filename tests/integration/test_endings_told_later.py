"""
Ends that the sidecar learns from the kernel, against stores that fail and sidecars that die.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from allele_mlflow.clock import now_ns
from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import FlushAsked, ProcessEnd, RunEnded, RunId, RunStatus
from allele_mlflow.sidecar import heartbeat
from allele_mlflow.sidecar.process_end import ProcessWatch
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking, assert_ledger_balanced
from allele_mlflow.testing.memory_tracking import MemoryRun
from tests.integration.spooled_runs import (
    ACCEPTED,
    end_run,
    final_state,
    log_everything,
    make_worker,
    present_state,
    serve,
    start_run,
    the_run,
    until,
)

pytestmark = pytest.mark.process

Owner = subprocess.Popen[bytes]


@pytest.fixture
def owner() -> Iterator[Owner]:
    """A process that owns a run; it ends as it is told on its stdin."""
    body = "import os, sys; exec(sys.stdin.readline())"
    with subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def start_owned(folder: Path, owner: Owner, **more: Any) -> tuple[Path, StreamWriter]:
    """A run with everything in it that the process owns."""
    run, writer = start_run(
        folder, owner_pid=owner.pid, owner_start=process_start_time(owner.pid), **more
    )
    log_everything(writer)
    return run, writer


def end(owner: Owner, how: str) -> None:
    """Have the owner end; nobody reaps it."""
    assert owner.stdin is not None
    owner.stdin.write(how.encode() + b"\n")
    owner.stdin.flush()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)


def say_farewell(writer: StreamWriter) -> None:
    """What the hook at the interpreter's exit writes, before the exit code is known."""
    writer.close(
        lambda slots: RunEnded(
            timestamp_ns=now_ns(), status="FINISHED", slots=slots, ended_by="exit"
        )
    )


def errors_of(stored: MemoryRun) -> list[str]:
    """The types of the errors in `allele/errors.json`."""
    document = msgspec.json.decode(stored.artifacts["allele/errors.json"])
    assert document["count"] == len(document["errors"])
    return [error["error_type"] for error in document["errors"]]


@pytest.mark.parametrize("method", ["create_run", "log_batch", "end_run", "log_artifact"])
async def test_end_is_told_once_though_the_sidecar_dies(
    tmp_path: Path, owner: Owner, method: str
) -> None:
    """A sidecar that knows the signal dies at any call; the next one, which could not ask any
    more, ends the run by it, with one error.
    """
    run, writer = start_owned(tmp_path, owner)
    writer.phase_edge("open", 9)
    tracking = MemoryTracking()
    is_ended = False
    flaky = FlakyTracking(
        tracking, lambda name, _: Fault.transient() if is_ended and name == method else None
    )
    async with anyio.create_task_group() as group:
        group.start_soon(make_worker(run, flaky).serve)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).sidecar_pid != 0)
            is_ended = True
            end(owner, "os.kill(os.getpid(), 15)")
            writer._stream.release()  # type: ignore[union-attr]  # as a kill does
            await until(lambda: present_state(run).end is not None)
            if method in ("end_run", "log_artifact"):
                calls = flaky.calls[method]
                await until(lambda: flaky.calls[method] > calls)
        group.cancel_scope.cancel()
    owner.wait()
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert (stored.status, stored.tags["allele.ended_by"]) == ("KILLED", "SIGTERM")
    assert errors_of(stored) == ["ZeroDivisionError", "SIGTERM"]
    assert stored.tags["allele.error.type"] == "SIGTERM"
    assert stored.tags["allele.error.count"] == "2"
    assert_ledger_balanced(final_state(run).ledger, accepted=ACCEPTED + 1)
    assert final_state(run).ledger.delivered["error"] == 1


@pytest.mark.parametrize(
    ("how", "status", "ended_by"),
    [
        ("os._exit(3)", "FAILED", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "KILLED", "SIGKILL"),
        ("os._exit(0)", "FINISHED", "exit"),
    ],
)
async def test_farewell_is_corrected_after_the_run_is_done(
    tmp_path: Path, owner: Owner, how: str, status: RunStatus, ended_by: str
) -> None:
    """Who waits in `close` is let go first; then the exit code is known, and stands everywhere."""
    run, writer = start_owned(tmp_path, owner)
    say_farewell(writer)
    tracking = MemoryTracking()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(20):
            await until(lambda: present_state(run).done)
        assert the_run(tracking).status == "FINISHED"
        assert run.exists()
        end(owner, how)
    stored, state = the_run(tracking), final_state(run)
    assert (stored.status, stored.tags["allele.ended_by"]) == (status, ended_by)
    assert state.end is not None
    assert (state.status, state.end.ended_by) == (status, ended_by)
    assert stored.end_ms == state.end.timestamp_ns // 1_000_000
    expected = ["ZeroDivisionError"] + ([ended_by] if status != "FINISHED" else [])
    assert errors_of(stored) == expected
    assert_ledger_balanced(state.ledger, accepted=ACCEPTED)


async def test_correction_survives_the_sidecar(tmp_path: Path, owner: Owner) -> None:
    """A sidecar that knows the exit code and dies before the store does leaves it to the next."""
    run, writer = start_owned(tmp_path, owner)
    say_farewell(writer)
    tracking = MemoryTracking()
    is_down = False
    flaky = FlakyTracking(tracking, lambda *_: Fault.transient() if is_down else None)
    async with anyio.create_task_group() as group:
        group.start_soon(make_worker(run, flaky).serve)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).done)
            is_down = True
            end(owner, "os._exit(3)")
            await until(lambda: getattr(present_state(run).end, "ended_by", "") == "exit code 3")
        group.cancel_scope.cancel()
    assert the_run(tracking).status == "FINISHED"
    owner.wait()
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert (stored.status, stored.tags["allele.ended_by"]) == ("FAILED", "exit code 3")
    assert errors_of(stored) == ["ZeroDivisionError", "exit code 3"]


async def test_process_that_lingers_keeps_its_farewell(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that goes on for long after its farewell does not keep its run in the spool."""
    monkeypatch.setattr("allele_mlflow.sidecar.owner_watch.EXIT_PATIENCE_S", 0.2)
    run, writer = start_owned(tmp_path, owner)
    say_farewell(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert owner.poll() is None
    assert the_run(tracking).tags["allele.ended_by"] == "exit"
    assert final_state(run).done


async def test_drain_waits_for_the_word_of_a_process_that_dies(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sync` that meets a benchmark as it dies ends its run by the signal too."""
    run, writer = start_owned(tmp_path, owner)
    writer._stream.release()  # type: ignore[union-attr]  # as a kill does
    tell, asked = ProcessWatch.find_end, 0

    def tell_late(watch: ProcessWatch) -> ProcessEnd | None:
        nonlocal asked
        asked += 1
        if asked == 3:
            end(owner, "os.kill(os.getpid(), 9)")
        return tell(watch)

    monkeypatch.setattr(ProcessWatch, "find_end", tell_late)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking, is_drain=True))
    assert asked >= 3
    assert the_run(tracking).tags["allele.ended_by"] == "SIGKILL"
    assert final_state(run).done


# --- the heartbeat --------------------------------------------------------------------------------


class Beats(MemoryTracking):
    """A store that notes every heartbeat, and takes it or not, one call at a time."""

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__()
        self.beats: list[str] = []
        self._fault = Fault.transient() if refuses else None
        self._in_flight = 0

    def log_batch(self, run_id: RunId, **rest: Any) -> None:
        """As usual."""
        self._in_flight += 1
        assert self._in_flight == 1, "two calls of one run at once"
        try:
            if set(rest.get("tags") or ()) == {"allele.heartbeat"}:
                self.beats.append(rest["tags"]["allele.heartbeat"])
                if self._fault is not None and self._fault.error is not None:
                    raise self._fault.error
            super().log_batch(run_id, **rest)
        finally:
            self._in_flight -= 1


async def test_heartbeat_beats_while_the_run_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Created with the first one, set again and again, and left at the last when the run ends."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    tracking = Beats()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(20):
            await until(lambda: len(tracking.beats) >= 3)
        end_run(writer)
    tag = the_run(tracking).tags["allele.heartbeat"]
    assert tracking.beats == sorted(tracking.beats)
    assert tag == tracking.beats[-1]
    assert the_run(tracking).status == "FINISHED"


async def test_failing_heartbeat_is_no_error_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the store refuses changes nothing, and is not tried again before the next is due."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.2)
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    tracking = Beats(refuses=True)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(20):
            await until(lambda: len(tracking.beats) >= 1)
            monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 1000.0)
            tried = len(tracking.beats)
            for step in range(50):
                writer.metric("m", 1.0, step)
            await until(lambda: present_state(run).ledger.delivered.get("metric", 0) >= 50)
        assert len(tracking.beats) <= tried + 1  # which was due before that
        assert present_state(run).last_error is None
        end_run(writer)
    assert the_run(tracking).status == "FINISHED"


async def test_quiet_delivery_has_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that owns every core is left alone, after a flush too: no call until it ends."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.01)
    run, writer = start_run(tmp_path, delivery="quiet")
    writer.metric("m", 1.0, 1)
    writer.event(FlushAsked(timestamp_ns=now_ns(), flush_id=1))
    tracking = Beats()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(20):
            await until(lambda: present_state(run).flushed_id == 1)
            calls, before = dict(tracking.calls), present_state(run).updated_ns
            await until(lambda: present_state(run).updated_ns > before + 1_000_000_000)
        assert tracking.calls == calls
        end_run(writer)
    assert the_run(tracking).tags["allele.heartbeat"]
