"""
Runs that go on after a crash or a preemption: one run in MLflow, every part of it, and the end of
the last one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import ErrorLogged, RecordRejected, RunId, RunSpec, StreamEnded
from allele_mlflow.sidecar.dead_letters import DeadLetters
from allele_mlflow.sidecar.run_summary import STARTED_TAG
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking, assert_ledger_balanced
from allele_mlflow.tracking.client import RUN_UID_TAG
from tests.integration.runs import Station, wait_for
from tests.integration.spooled_runs import (
    end_run,
    end_run_as,
    final_state,
    make_worker,
    present_state,
    serve,
    start_run,
    the_run,
    until,
)
from tests.queue_tools import make_writer

CRASH = """
import os, signal, sys
from allele_mlflow import start_logger
log = start_logger("resumed", run_uid="job", params={"a": 1})
for step in range(10):
    log.metric("m", float(step), step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def vanish(writer: StreamWriter) -> None:
    """
    What a kill leaves of a writer: a free lock, and no farewell.
    """
    assert writer._stream is not None
    writer._stream.release()


def resume(run: Path) -> StreamWriter:
    """
    A new owner of the run, as a start under its uid is one.
    """
    writer = make_writer(run)
    spec = spool.read_struct(run / spool.RUN_FILE, RunSpec)
    assert spec is not None
    spec = msgspec.structs.replace(spec, created_ns=now_ns(), owner_stream=writer.stream_id)
    spool.write_struct(run / spool.RUN_FILE, spec)
    return writer


async def test_resumed_run_ends_as_its_last_part(tmp_path: Path) -> None:
    """The owner dies while another process lives on; a new owner comes: one run, its end."""
    run, owner = start_run(tmp_path)
    rank = make_writer(run)
    tracking = MemoryTracking()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(30):
            owner.metric("m", 0.0, 0)
            await until(lambda: bool(tracking.runs))
            vanish(owner)
            await until(lambda: the_run(tracking).status == "KILLED")
            again = resume(run)
            again.metric("m", 1.0, 1)
            await until(lambda: the_run(tracking).status == "RUNNING")
            rank.metric("rank", 1.0, 1)
            end_run_as(again, "FAILED")
            await until(lambda: the_run(tracking).status == "FAILED")
        rank.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
    stored = the_run(tracking)
    assert [row.step for row in stored.rows("m")] == [0, 1]
    assert [row.step for row in stored.rows("rank")] == [1]
    assert stored.status == "FAILED"
    assert_ledger_balanced(final_state(run).ledger, accepted=3)


@pytest.mark.parametrize("has_farewell", [False, True])
async def test_end_of_an_earlier_part_is_no_end(tmp_path: Path, has_farewell: bool) -> None:
    """A run that ended while its store was away is resumed: the earlier end is not its end."""
    run, owner = start_run(tmp_path)
    owner.metric("m", 0.0, 0)
    if has_farewell:
        end_run(owner)
    else:
        vanish(owner)
    is_down = True
    tracking = MemoryTracking()
    flaky = FlakyTracking(tracking, lambda *_: Fault.transient() if is_down else None)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, flaky))
        with anyio.fail_after(30):
            await until(lambda: present_state(run).end is not None)
            again = resume(run)
            again.metric("m", 1.0, 1)
            await until(lambda: present_state(run).end is None)
            is_down = False
            await until(lambda: bool(tracking.runs) and len(the_run(tracking).rows("m")) == 2)
            assert the_run(tracking).status == "RUNNING"
            end_run_as(again, "FAILED")
    assert the_run(tracking).status == "FAILED"
    assert_ledger_balanced(final_state(run).ledger, accepted=2)


async def test_dead_letters_of_an_earlier_part_stay(tmp_path: Path) -> None:
    """A run that was delivered goes on under its uid: what its first part was refused is kept."""
    tracking = MemoryTracking()
    for reason in ("first", "second"):
        run, owner = start_run(tmp_path)
        letter = {"call": "metric", "key": "m", "value": "x", "wanted": "a number"}
        owner.event(RecordRejected(timestamp_ns=1, reason=reason, **letter))
        end_run(owner)
        await serve(make_worker(run, tracking))
    letters = DeadLetters(run.parent.parent / "done" / run.name).letters
    assert [letter.line.reason for letter in letters] == ["first", "second"]
    found = [data for name, data in the_run(tracking).artifacts.items() if "rejected" in name]
    assert [data.count(b"reason") for data in found] == [1, 2]


async def test_what_we_wrote_about_an_earlier_part_stays(tmp_path: Path) -> None:
    """Phases and errors of a part that was delivered are not written over by those of the next."""
    tracking = MemoryTracking()
    for message in ("first", "second"):
        run, owner = start_run(tmp_path)
        owner.event(
            ErrorLogged(
                timestamp_ns=1,
                category="numeric",
                error_type="E",
                message=message,
                traceback="",
                fingerprint="f",
            )
        )
        end_run(owner)
        await serve(make_worker(run, tracking))
    artifacts = the_run(tracking).artifacts
    names = sorted(name for name in artifacts if name.endswith("errors.json"))
    assert names[0] == "allele/errors.json"
    assert names[1].startswith("allele/parts/20")
    assert [b"second" in artifacts[name] for name in names] == [False, True]
    assert b"first" in artifacts["allele/errors.json"]


async def test_earlier_part_that_comes_late_ends_nothing(tmp_path: Path) -> None:
    """The part before a preemption, delivered after the one behind it: its records, not its end."""
    first, owner = start_run(tmp_path / "host_1")
    owner.metric("m", 0.0, 0)
    vanish(owner)
    second, owner = start_run(tmp_path / "host_2")
    owner.metric("m", 1.0, 1)
    end_run(owner)
    tracking = MemoryTracking()
    await serve(make_worker(second, tracking))
    await serve(make_worker(first, tracking))
    stored = the_run(tracking)
    assert [row.step for row in sorted(stored.rows("m"))] == [0, 1]
    assert (stored.status, stored.tags["allele.ended_by"]) == ("FINISHED", "close")
    assert tracking.calls["reopen_run"] == 0


async def test_earlier_part_does_not_end_one_that_runs(tmp_path: Path) -> None:
    """What one host left is delivered while the run goes on at another: it stays RUNNING."""
    first, owner = start_run(tmp_path / "host_1")
    owner.metric("m", 0.0, 0)
    vanish(owner)
    second, owner = start_run(tmp_path / "host_2")
    owner.metric("m", 1.0, 1)
    tracking = MemoryTracking()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(second, tracking))
        with anyio.fail_after(30):
            await until(lambda: bool(tracking.runs) and len(the_run(tracking).rows("m")) == 1)
        await serve(make_worker(first, tracking))
        assert len(the_run(tracking).rows("m")) == 2
        assert the_run(tracking).status == "RUNNING"
        end_run(owner)
    assert the_run(tracking).status == "FINISHED"


async def test_sidecar_killed_while_it_opens_a_run_again_is_no_later_part(tmp_path: Path) -> None:
    """A sidecar dies between two words to MLflow, then the owner dies: the run still ends."""
    created_ns = now_ns()
    run, owner = start_run(tmp_path / "first", created_ns=created_ns)
    scope, kept = run.parent.parent, tmp_path / "at the kill"

    class Watched(MemoryTracking):
        def log_batch(self, run_id: RunId, **more: Any) -> None:
            super().log_batch(run_id, **more)
            if STARTED_TAG in (more.get("tags") or {}) and not kept.exists():
                shutil.copytree(scope, kept)

    tracking = Watched()
    experiment_id = tracking.ensure_experiment("e", artifact_location=None)
    # by a sidecar that was killed before it could note the run
    tags = {RUN_UID_TAG: run.name, STARTED_TAG: str(created_ns)}
    tracking.create_run(experiment_id, run_name=None, start_ms=1, tags=tags)
    owner.metric("m", 1.0, 1)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(30):
            await until(kept.exists)
            end_run(owner)
    (stored,) = tracking.runs.values()
    stored.status = "RUNNING"
    await serve(make_worker(kept / "runs" / run.name, tracking))
    assert stored.status != "RUNNING"
    assert not [name for name in stored.artifacts if name.startswith("allele/parts")]


async def test_living_part_is_the_last_whatever_the_clocks_say(tmp_path: Path) -> None:
    """A run resumed on a machine whose clock is behind still says how the run ends."""
    first, owner = start_run(tmp_path / "host_1", created_ns=now_ns() + 3600 * 10**9)
    end_run_as(owner, "FAILED")
    tracking = MemoryTracking()
    await serve(make_worker(first, tracking))
    second, owner = start_run(tmp_path / "host_2")
    owner.metric("m", 1.0, 1)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(second, tracking))
        with anyio.fail_after(30):
            await until(lambda: the_run(tracking).status == "RUNNING")
        end_run(owner)
    assert the_run(tracking).status == "FINISHED"


@pytest.mark.process
def test_crashed_job_goes_on_under_its_uid(station: Station, tmp_path: Path) -> None:
    """Killed and started again at once: one run, overlapping steps and params, its own ending."""
    with station.start_script(tmp_path, CRASH) as script:
        script.communicate(timeout=60)
    assert script.returncode == -signal.SIGKILL
    with station.start("resumed", run_uid="job", params={"a": 1, "b": 2}) as log:
        for step in range(5, 15):
            log.metric("m", float(step), step)
        assert log.flush()
    report = log.close()
    assert report.is_complete
    kept = station.kept(str(report.run_id))
    assert {row.step for row in kept.rows("m")} == set(range(15))
    assert len(kept.rows("m")) == 20
    assert kept.info.status == "FINISHED"
    assert kept.params == {"a": "1", "b": "2"}
    found = kept.client.search_runs([kept.info.experiment_id], "tags.`allele.run_uid` = 'job'")
    assert len(found) == 1


@pytest.mark.process
def test_crashed_run_goes_on_under_its_id(station: Station, tmp_path: Path) -> None:
    """The same by MLflow's own id: how the crashed part ended is not how the run ends."""
    body = CRASH.replace('run_uid="job"', 'run_uid="job-by-id"').replace(
        "os.kill", "print(log.run_id, flush=True)\nos.kill"
    )
    with station.start_script(tmp_path, body) as script:
        stdout, _ = script.communicate(timeout=60)
    run_id = stdout.strip()
    with station.start("resumed", run_id=run_id) as log:
        log.metric("m", 10.0, 10)
    assert log.close().run_id == run_id
    station.finished("job-by-id")
    kept = station.kept(run_id)
    assert len(kept.rows("m")) == 11
    assert kept.info.status == "FINISHED"


@pytest.mark.process
def test_of_many_that_resume_one_owns(offline: Station, tmp_path: Path) -> None:
    """Eight ranks are started again at once after a crash: one owns the run, all log into it."""
    with offline.start_script(tmp_path, CRASH) as script:
        script.communicate(timeout=60)
    body = """
        import os, sys
        from allele_mlflow import start_logger
        print("ready", flush=True)
        sys.stdin.readline()
        log = start_logger("resumed", run_uid="job")
        log.metric("rank", 1.0, 1)
        print(int(log._is_owner), flush=True)
        sys.stdin.readline()
        log.close()
    """
    ranks = []
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        ranks.append(offline.start_script(folder, body, stdin=subprocess.PIPE))
    try:
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline() == "ready\n"
        for rank in ranks:
            assert rank.stdin is not None
            rank.stdin.write("\n")
            rank.stdin.flush()
        owners = [rank.stdout.readline().strip() for rank in ranks if rank.stdout]
        assert sorted(owners) == ["0"] * 7 + ["1"]
        for rank in ranks:
            rank.communicate("\n", timeout=60)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    run = offline.scope / spool.RUNS / "job"
    streams = [name for name in os.listdir(run / spool.STREAMS) if not name.startswith(".")]
    assert len(streams) >= 9


def test_start_that_died_before_its_description_is_taken_over(offline: Station) -> None:
    """A process was killed between its folder and its description: the next start owns the run."""
    run = offline.scope / spool.RUNS / "half"
    run.mkdir(parents=True)
    log = offline.start("resumed", run_uid="half")
    log.metric("m", 1.0, 1)
    log.close()
    spec = spool.read_struct(run / spool.RUN_FILE, RunSpec)
    assert spec is not None
    assert spec.owner_pid == os.getpid()
    state = wait_for(lambda: offline.state("half"), "the state")
    assert state.part_ns == spec.created_ns
