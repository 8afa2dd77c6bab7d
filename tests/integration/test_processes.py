"""
One run, many processes; and a host process that never notices the logger.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import DEADLINE_S, KeptRun, Station

pytestmark = pytest.mark.process

WORKER = """
import os, sys
from allele_mlflow import attach

def work(rank, handle=None):
    with attach(handle) as log:
        for step in range(100):
            log.metric(f"rank_{rank}", float(step), step)
        log.metric("rank", float(rank), rank)
    return os.getpid()
"""


def assert_ranks(kept: KeptRun, ranks: list[int], *, more: int = 0) -> None:
    """
    All that the workers of these ranks logged has arrived, and all is delivered.
    """
    assert kept.info.status == "FINISHED"
    assert [row.step for row in kept.rows("rank")] == ranks
    for rank in ranks:
        assert [row.value for row in kept.rows(f"rank_{rank}")] == [float(i) for i in range(100)]
    assert kept.delivery["delivered"] == {"metric": 101 * len(ranks) + more}
    assert kept.delivery["accepted"] == 101 * len(ranks) + more


def test_subprocess_finds_the_run(station: Station, tmp_path: Path) -> None:
    """
    `attach()` in a subprocess finds the run through the environment, and adds to it.
    """
    log = station.start()
    log.metric("rank", 7.0, 7)
    station.run_script(tmp_path, f"{WORKER}\nwork(1)")
    state = log.status()
    assert state is None or state.end is None, "only its owner ends a run"
    log.metric("rank", 8.0, 8)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=103)
    kept = station.finished(log.run_uid)
    assert [row.step for row in kept.rows("rank")] == [1, 7, 8]
    assert len(kept.rows("rank_1")) == 100


def test_handle_leads_to_its_run(station: Station, tmp_path: Path) -> None:
    """
    A handle that is given explicitly counts more than the run in the environment.
    """
    wanted = station.start()
    with station.start() as other:
        station.run_script(tmp_path, f"{WORKER}\nwork(1, {wanted.handle()!r})")
    wanted.close()
    assert_ranks(station.finished(wanted.run_uid), [1])
    assert "rank" not in station.finished(other.run_uid).latest


def test_environment_names_the_open_run(station: Station) -> None:
    """
    Children inherit the run that was started last and is open, in whatever order runs close.
    """
    name = "ALLELE_MLFLOW_RUN"
    first = station.start()
    second = station.start()
    assert os.environ[name] == second.handle()
    first.detach()
    assert os.environ[name] == second.handle()
    third = station.start()
    third.detach()
    assert os.environ[name] == second.handle()
    second.detach()
    assert name not in os.environ


def test_nothing_to_attach_to(station: Station, tmp_path: Path) -> None:
    """
    `attach()` without a run says what is missing.
    """
    body = """
    from allele_mlflow import QueueError, attach
    for handle in (None, "/nowhere"):
        try:
            attach(handle)
        except QueueError as error:
            print(error)
    """
    said = station.run_script(tmp_path, body).splitlines()
    assert said == [
        "no run to attach to: ALLELE_MLFLOW_RUN is not set",
        "no run to attach to: /nowhere is no run of a spool here",
    ]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(station: Station, tmp_path: Path, method: str) -> None:
    """
    Workers of every start method attach to the run of their parent, each with a stream of its own.
    """
    body = f"""
    {WORKER.replace(chr(10), chr(10) + "    ")}
    import multiprocessing
    from allele_mlflow import start_logger

    if __name__ == "__main__":
        with start_logger("processes") as log:
            log.metric("owner", 1.0, 0)
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                pids = set(pool.map(work, [0, 1, 2], chunksize=1))
                pool.close()
                pool.join()
            assert os.getpid() not in pids
            log.metric("owner", 2.0, 1)
        print(log.run_uid)
    """
    stdout = station.run_script(tmp_path, body)
    kept = station.finished(stdout.strip())
    assert [row.value for row in kept.rows("owner")] == [1.0, 2.0]
    assert_ranks(kept, [0, 1, 2], more=2)


def test_fork_inside_with(station: Station, tmp_path: Path) -> None:
    """
    A forked child goes on with its parent's logger: its records arrive too, and when it leaves the
    block, by whatever way, the run does not end.
    """
    body = """
    import os, sys
    from allele_mlflow import start_logger

    owner = os.getpid()
    try:
        with start_logger("forks") as log:
            log.metric("who", 0.0, 0)
            log.metric("unnumbered", 0.0)
            children = []
            for number in (1, 2, 3):
                pid = os.fork()
                children.append(pid)
                if pid == 0:
                    log.metric("who", float(number), number)
                    log.metric("unnumbered", float(number))
                    log.param(f"child_{number}", number)
                    with log.phase("in child", step=number):
                        pass
                    if number == 1:
                        os._exit(0)
                    if number == 2:
                        raise RuntimeError("only the child's")
                    break  # leaves the block
            if os.getpid() == owner:
                for pid in children:
                    os.waitpid(pid, 0)
                state = log.status()
                assert state is None or state.end is None
                log.metric("who", 9.0, 9)
        if os.getpid() == owner:
            print(log.run_uid)
    except RuntimeError:
        assert os.getpid() != owner
    """
    kept = station.finished(station.run_script(tmp_path, body).strip())
    assert [row.value for row in kept.rows("who")] == [0.0, 1.0, 2.0, 3.0, 9.0]
    # each process numbers for itself
    assert sorted(row[:2] for row in kept.rows("unnumbered")) == [(0, i / 1) for i in range(4)]
    assert kept.params == {"child_1": "1", "child_2": "2", "child_3": "3"}
    assert kept.info.status == "FINISHED"
    assert kept.tags["allele.ended_by"] == "close"
    delivered = {"metric": 9, "param": 3, "phase": 6, "error": 1}
    assert kept.delivery["delivered"] == delivered
    assert kept.delivery["accepted"] == sum(delivered.values())
    assert kept.latest["phase/in child/count"] == 3


FORBIDDEN = ("mlflow", "pandas", "numpy", "anyio", "psutil", "plotly", "rich")


def test_host_stays_light(station: Station, tmp_path: Path) -> None:
    """
    Starting, logging and closing bring no thread and none of the heavy modules into the host.
    """
    body = f"""
    import os, sys, threading
    from allele_mlflow import start_logger

    def look(where):
        assert threading.enumerate() == [threading.main_thread()], where
        assert len(os.listdir("/proc/self/task")) == 1, where
        assert not set({FORBIDDEN!r}) & set(sys.modules), where

    log = start_logger("light", params={{"a": 1}})
    look("after the start")
    with log.phase("p", step=0):
        log.metrics({{"a": 1.0, "b": 2}}, 0)
    log.series("s", [1.0] * 1000)
    log.text("x", "a.txt")
    log.json({{"a": 1}}, "a.json")
    log.error(ValueError("x"))
    log.child("c").detach()
    look("after the calls")
    assert log.run_id and log.flush()
    look("after the waiting")
    assert log.close().is_complete
    look("after the close")
    """
    station.run_script(tmp_path, body)


def test_nobody_meets_the_sidecar(offline: Station, tmp_path: Path) -> None:
    """
    The sidecar is no child of the benchmark's: `os.wait()` finds nobody, before and after.
    """
    body = """
    import os
    from allele_mlflow import start_logger

    def meets_nobody():
        try:
            os.wait()
        except ChildProcessError:
            return True

    log = start_logger("waits")
    assert meets_nobody()
    log.metric("a", 1.0, 0)
    log.close()
    assert meets_nobody()
    """
    offline.run_script(tmp_path, body)
    assert list(offline.scope.glob("sidecar-*.log")), "a sidecar was started"


def test_ctrl_c_of_the_terminal_spares_the_sidecar(station: Station, tmp_path: Path) -> None:
    """
    SIGINT to the benchmark's whole process group reaches no sidecar, which ends the run.
    """
    folder = tmp_path / "own"
    folder.mkdir()
    own = Station(folder, "offline")
    body = """
    import time
    from allele_mlflow import start_logger
    log = start_logger("group")
    while log.status() is None:  # the sidecar's first word
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(600)  # for its signal
    """
    try:
        script = own.start_script(tmp_path, body, start_new_session=True)
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        (sidecar,) = own.sidecars()
        os.killpg(script.pid, signal.SIGINT)
        script.communicate(timeout=DEADLINE_S)
        assert os.getpgid(sidecar) != script.pid
        assert sidecar in own.sidecars()
    finally:
        own.stop()


def test_no_descriptor_is_leaked(offline: Station, tmp_path: Path) -> None:
    """
    Twenty runs leave as many open files, maps and threads as one.
    """
    body = """
    import gc, os
    from allele_mlflow import start_logger

    def look():
        gc.collect()
        with open("/proc/self/maps") as maps:
            mapped = sum("spool" in line for line in maps)
        return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in range(200)
                      if os.path.exists(f"/proc/self/fd/{fd}")), mapped

    def one_run(number):
        log = start_logger("leaks", params={"a": 1})
        log.metric("a", 1.0, number)
        log.series("s", [1.0] * 2000)
        with log.phase("p"):
            log.text("x", "a.txt")
        log.close()

    one_run(0)
    before = look()
    for number in range(20):
        one_run(number)
    assert look() == before, (before, look())
    """
    offline.run_script(tmp_path, body)
