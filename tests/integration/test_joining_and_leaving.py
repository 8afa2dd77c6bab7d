"""
Processes that join a run while it is archived, runs that begin again under their uid, archiving
that is cut short, another store: nothing lost, nothing counted twice.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from allele_mlflow import snapshots
from allele_mlflow.clock import now_ns
from allele_mlflow.queue import archive, run_reader, spool
from allele_mlflow.queue.archive import is_being_archived, is_over
from allele_mlflow.queue.locks import try_lock_folder
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import ArtifactAdded, Reading, RunId, StreamEnded
from allele_mlflow.testing import FlakyTracking, MemoryTracking
from tests.integration.runs import Station
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
from tests.queue_tools import make_writer


class JoinedMeanwhile(FlakyTracking):
    """
    A store during whose second call for the last tags a process joins the run.
    """

    def __init__(self, inner: MemoryTracking, run: Path) -> None:
        super().__init__(inner, {})
        self.run = run
        self.tagged = 0
        self.joined: StreamWriter | None = None

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """As the inner store's."""
        if "allele.delivery" in (tags or {}):
            self.tagged += 1
            if self.tagged == 2:
                self.joined = make_writer(self.run)
                for step in range(10):
                    self.joined.metric("joined", float(step), step)
        super().log_batch(run_id, readings=readings, params=params, tags=tags)


async def test_who_joins_at_the_last_moment_is_delivered(tmp_path: Path) -> None:
    """While the last tags are written a process joins: the run is not archived under it."""
    run, owner = start_run(tmp_path)
    late = make_writer(run)
    tracking = MemoryTracking()
    store = JoinedMeanwhile(tracking, run)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, store))
        with anyio.fail_after(30):
            await until(lambda: bool(tracking.runs))
            end_run(owner)
            await until(lambda: present_state(run).done)
            late.metric("late", 1.0, 1)
            late.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
            await until(lambda: store.joined is not None)
            await until(lambda: len(the_run(tracking).rows("joined")) == 10)
            assert store.joined is not None
            store.joined.metric("joined", 10.0, 10)
            store.joined.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
    assert len(the_run(tracking).rows("joined")) == 11
    assert final_state(run).ledger.delivered == {"metric": 12}


@pytest.mark.parametrize("is_over_already", [False, True])
async def test_archiving_that_is_killed_counts_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_over_already: bool
) -> None:
    """Killed before or after the rename that ends the run: the next sidecar's ledger is equal."""
    run, writer = start_run(tmp_path)
    log_everything(writer)
    snapshot = snapshots.snapshot_bytes(b"x", "a.txt", run / spool.ARTIFACTS)
    writer.event(ArtifactAdded(timestamp_ns=1, artifact_path="a.txt", **snapshot._asdict()))
    end_run(writer)
    tracking = MemoryTracking()
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == spool.STREAMS and not is_over_already:
            raise KeyboardInterrupt
        return real(path, target)

    def rmtree(path: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        if is_over_already:
            patch.setattr(shutil, "rmtree", rmtree)
        with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
            await make_worker(run, tracking).serve()
    await serve(make_worker(run, tracking))
    done = run.parent.parent / spool.DONE / run.name
    kept = {spool.RUN_FILE, spool.STATE_FILE, spool.LIVE_FILE}
    assert {entry.name for entry in done.iterdir()} == kept
    ledger = final_state(run).ledger
    assert (ledger.accepted, ledger.lost) == (ACCEPTED + 1, 0)
    assert ledger.delivered["artifact"] == 1
    assert f'"accepted":{ACCEPTED + 1}' in the_run(tracking).tags["allele.delivery"]


async def test_part_left_in_done_is_read_with_the_next(tmp_path: Path) -> None:
    """A run begins again while an earlier part of it, not read to its end, stands in `done/`."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 0.0, 0)
    end_run(writer)
    done = run.parent.parent / spool.DONE / run.name
    done.parent.mkdir(exist_ok=True)
    run.rename(done)
    again, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(again, tracking))
    assert sorted(row.step for row in the_run(tracking).rows("m")) == [0, 1]


async def test_run_between_its_places_is_known(tmp_path: Path) -> None:
    """Who starts a run again can tell one that is over from one that lives or is being moved."""
    run, writer = start_run(tmp_path)
    writer.metric("m", 0.0, 0)
    assert not is_over(run)
    done = run.parent.parent / spool.DONE / run.name
    done.parent.mkdir(exist_ok=True)
    run.rename(done)
    lock = try_lock_folder(done)
    assert lock is not None
    assert is_being_archived(run)
    lock.release()
    assert not is_being_archived(run), "nobody archives it: it is brought back"
    assert run.is_dir()
    end_run(writer)
    assert not is_over(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_reader, "tidy_up", lambda _: None)
        await serve(make_worker(run, MemoryTracking()))
    assert (done / archive.RUBBISH).is_dir()
    archive.bring_back(run.parent.parent)
    assert not (done / archive.RUBBISH).exists()


@pytest.mark.process
def test_job_may_start_again_at_once(station: Station) -> None:
    """The same uid, right after close said complete: each start owns its part, all arrive."""
    for step in range(12):
        log = station.start(run_uid="job-1")
        log.metric("m", float(step), step)
        report = log.close()
        assert report.is_complete
        assert report.ledger.delivered == {"metric": 1}
    kept = station.kept(str(report.run_id))
    assert sorted(row.step for row in kept.rows("m")) == list(range(12))


@pytest.mark.process
def test_same_uid_in_another_store_is_a_run_of_its_own(
    station: Station, sqlite_store: str, tmp_path: Path
) -> None:
    """An id of the first store means nothing in the second; nor does one of a deleted database."""
    for store in (station.tracking_uri, sqlite_store):
        with station.start(run_uid="job-2", tracking_uri=store, idle_timeout_s=0.0) as log:
            log.metric("m", 1.0, 1)
        assert log.close().is_complete, log.close().last_error
    with closing(sqlite3.connect(sqlite_store.removeprefix("sqlite:///"))) as database:
        assert database.execute("SELECT count(*) FROM metrics WHERE key = 'm'").fetchone() == (1,)


@pytest.mark.process
def test_resumed_run_gets_the_tags_of_its_start(station: Station) -> None:
    """What is given with `run_id` is set, and where the run came from stays."""
    with station.start() as log:
        log.metric("m", 1.0, 0)
    first = log.close()
    run_id = str(first.run_id)
    origin = station.kept(run_id).tags["mlflow.source.name"]
    with station.start(run_id=run_id, tags={"part": "two"}, correlation_id="c1") as log:
        log.metric("m", 2.0, 1)
    assert log.close().run_id == run_id
    tags = station.kept(run_id).tags
    assert (tags["part"], tags["allele.correlation_id"]) == ("two", "c1")
    assert tags["allele.run_uid"] == log.run_uid
    assert tags["mlflow.source.name"] == origin
