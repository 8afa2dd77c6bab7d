"""
`worker="thread"`: the sidecar's work in the benchmark's own process, with the same results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from allele_mlflow.queue import spool
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.records import RunState
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import DEADLINE_S, Station, wait_for

pytestmark = pytest.mark.process

THREAD = {"worker": "thread", "idle_timeout_s": 0.0}


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "allele-mlflow"]


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    for thread in workers():
        thread.join(DEADLINE_S)
    assert workers() == []


def test_thread_delivers_the_same(station: Station, tmp_path: Path) -> None:
    """
    Readings, params, artifacts, phases, samples, errors and the ledger, as from the sidecar.
    """
    with station.start("thread", params={"p": 1}, sample_interval_s=0.05, **THREAD) as log:
        assert [thread.daemon for thread in workers()] == [True]
        for step in range(3):
            with log.phase("work", step=step):
                log.metric("loss", 0.5 + step, step)
        log.series("many", [0.25] * 1000)
        log.text("hello", "a.txt")
        log.error(ValueError("survived"))
        assert log.flush()
        assert len(station.kept(str(log.run_id)).rows("many")) == 1000
    report = log.close()
    expected = {"metric": 1003, "param": 1, "artifact": 1, "phase": 6, "error": 1}
    assert report.ledger.delivered == expected
    assert_ledger_balanced(report.ledger, accepted=sum(expected.values()))
    kept = station.finished(log.run_uid)
    assert kept.info.status == "FINISHED"
    assert [row[:2] for row in kept.rows("loss")] == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert kept.artifact("a.txt", tmp_path) == b"hello"
    assert kept.latest["phase/work/count"] == 3
    assert len(kept.rows("system/process_rss_megabytes")) >= 2
    assert kept.delivery["delivered"] == expected


def test_delivered_run_is_out_of_the_way(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After `close` nothing is left to be done by a thread that ends with the program.
    """
    archive = RunReader.archive

    def archive_slowly(self: RunReader) -> bool:
        time.sleep(0.3)
        return archive(self)

    monkeypatch.setattr(RunReader, "archive", archive_slowly)
    with station.start("thread", **THREAD) as log:
        log.metric("a", 1.0, 0)
    assert [path.parent.name for path in (station.folder / "spool").glob(f"*/*/{log.run_uid}")] == [
        "done"
    ]


def test_thread_serves_several_runs(station: Station) -> None:
    """
    One thread delivers all runs of the process, and comes back for a later one.
    """
    with station.start("thread", **THREAD) as parent, parent.child("c") as child:
        assert len(workers()) == 1
        child.metric("a", 1.0, 0)
        parent.metric("a", 2.0, 0)
    wait_for(lambda: not workers(), "the thread to leave")
    with station.start("thread", **THREAD) as later:
        later.metric("a", 3.0, 0)
    values = [station.finished(log.run_uid).latest["a"] for log in (parent, child, later)]
    assert values == [2.0, 1.0, 3.0]


def test_exception_with_a_thread(station: Station) -> None:
    """
    An exception marks the run FAILED here too.
    """
    log = station.start("thread", **THREAD)
    log.metric("a", 1.0, 0)
    with pytest.raises(ZeroDivisionError), log:
        raise ZeroDivisionError
    kept = station.finished(log.run_uid)
    assert (kept.info.status, kept.tags["allele.error.category"]) == ("FAILED", "numeric")
    assert_ledger_balanced(log.close().ledger, accepted=2)


def test_script_without_close(station: Station, tmp_path: Path) -> None:
    """
    At exit the thread still delivers: the script's end waits for it, and no process is left.
    """
    body = """
    from allele_mlflow import start_logger
    log = start_logger("thread")
    log.metric("a", 1.0, 0)
    print(log.run_uid)
    """
    before = station.sidecars()
    run_uid = station.run_script(tmp_path, body, environ=THREAD).strip()
    state = station.state(run_uid)
    assert state is not None
    assert state.done
    kept = station.kept(str(state.run_id))
    assert (kept.info.status, kept.latest["a"]) == ("FINISHED", 1.0)
    assert station.sidecars() == before


def test_slow_store_is_waited_for(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `close` uses up its time where a sidecar would be left to go on: the thread ends with us.
    """
    write_struct = spool.write_struct

    def write_as_slow(path: Path, value: msgspec.Struct) -> None:
        if isinstance(value, RunState):
            value.delivered_per_s = 1e-9
        write_struct(path, value)

    monkeypatch.setattr(spool, "write_struct", write_as_slow)
    with station.start("thread", flush_interval_s=0.01, metrics_batch_size=10, **THREAD) as log:
        for step in range(2000):
            log.metric("a", 1.0, step)
    report = log.close()
    assert (report.is_complete, report.ledger.delivered["metric"]) == (True, 2000)
