"""
All that a cell has started ends with it, also what has left its group and session.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.suites import Place, await_that, document

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(150),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="hardware: what left a cell is Linux's"),
]

#: No test waits for its sleeps of 600 s: these cells and daemons hang, to be ended by a time-out, a
#: memory limit or a signal.
BENCHMARK = '''
import atexit
import os
import signal
import subprocess
import threading
import time

from allele_mlflow import start_logger


def start_daemon(path, *, eats_bytes=0, stays=True):
    """A process that has left its parent, group and session, and is deaf to all but SIGKILL."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        with open(path + ".part", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".part", path)
        kept = bytearray(eats_bytes)
        time.sleep(600 if stays else 0)
        os._exit(0)
    os.wait()
    while not os.path.exists(path):
        time.sleep(0.01)
    return int(open(path).read())


def run(number, mode, told):
    """Start a daemon, then do what the mode says."""
    path = os.path.join(told, "daemon")
    if mode == "delegate":
        log = start_logger("elsewhere", spool_dir=os.path.join(told, "spool"), exit="detach")
        log.metric("far", 1.0)
        log.close()
        return {"score": 1}
    if mode == "plain":
        return {"score": 1}
    if mode == "later":
        def note(name, after_s=0.0):
            time.sleep(after_s)
            with open(os.path.join(told, name), "w") as file:
                file.write("done")
        atexit.register(note, "at_exit")
        atexit.register(lambda: 1 / 0)
        threading.Thread(target=note, args=("by_thread", 0.3)).start()
        return {"score": 1}
    if mode == "orphan":
        child = subprocess.Popen(["sleep", "600"])
        with open(path + ".part", "w") as file:
            file.write(str(child.pid))
        os.rename(path + ".part", path)
        os.kill(os.getppid(), 9)
        time.sleep(600)
    pid = start_daemon(path, eats_bytes=(700 << 20) * (mode == "eat"), stays=mode != "look")
    if mode == "die":
        os.kill(os.getpid(), 9)
    while mode == "look":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    if mode in ("hang", "eat"):
        time.sleep(600)
    return {"score": 1}
'''


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """
    A folder of its own; a daemon that a failed test has left is killed.
    """
    place = Place(tmp_path)
    yield place
    pid = daemon_of(place)
    if pid is not None and psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)


def write_suite(place: Place, mode: str, more: str = "") -> Path:
    """
    A suite of one cell.
    """
    path = place.write(
        f"{mode}.toml",
        f'{more}\n[params]\ntold = "{place.folder}"\n[matrix]\nnumber = [1]\nmode = ["{mode}"]',
    )
    (place.folder / "bench.py").write_text(BENCHMARK)
    return path


def daemon_of(place: Place) -> int | None:
    """
    The daemon's process id, None before it has said so.
    """
    path = place.folder / "daemon"
    return int(path.read_text()) if path.exists() else None


@pytest.mark.parametrize(
    ("mode", "more", "category"),
    [
        ("return", "", None),
        ("die", "", "unknown"),
        ("hang", "timeout_s = 3", "timeout"),
        ("eat", "timeout_s = 60\nmemory_limit_bytes = 500_000_000", "out_of_memory"),
    ],
)
def test_daemon_ends_with_its_cell(
    place: Place, mode: str, more: str, category: str | None
) -> None:
    """
    However a cell ends (by itself, by a signal, by our time-out, by our memory limit, to which the
    daemon's memory counts), its daemon is gone when the suite is over.
    """
    done = place.run("run", str(write_suite(place, mode, more)), "--json")
    (row,) = document(done)["results"]
    assert row["category"] == category, done.stderr
    pid = daemon_of(place)
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("whole_group", [False, True])
def test_daemon_ends_with_the_runner(place: Place, whole_group: bool) -> None:
    """
    Kill -9 of the runner, or of its whole process group, ends a cell's daemon.
    """
    runner = place.start("run", str(write_suite(place, "hang")))
    await_that(lambda: daemon_of(place) is not None)
    pid = daemon_of(place)
    assert pid is not None
    assert psutil.pid_exists(pid)
    if whole_group:
        os.killpg(runner.pid, signal.SIGKILL)
    else:
        os.kill(runner.pid, signal.SIGKILL)
    runner.communicate()
    await_that(lambda: not psutil.pid_exists(pid))


def test_children_end_where_the_process_that_cells_come_from_is_killed(place: Place) -> None:
    """
    Kill -9 of that process, as the kernel does when memory runs short: the cell has failed, its
    children are gone, and the next cell runs.
    """
    suite = write_suite(place, "orphan")
    suite.write_text(suite.read_text().replace('mode = ["orphan"]', 'mode = ["orphan", "plain"]'))
    done = place.run("run", str(suite), "--json")
    assert done.returncode == 3, done.stderr
    found = {row["param.mode"]: row["status"] for row in document(done)["results"]}
    assert found == {"orphan": "failed", "plain": "finished"}
    assert not psutil.pid_exists(int((place.folder / "daemon").read_text()))


def test_daemon_that_has_ended_is_seen_to_be_gone(place: Place) -> None:
    """
    A cell that waits for its daemon's process id to vanish, as tools that stop a server do, is not
    kept waiting by a zombie.
    """
    done = place.run("run", str(write_suite(place, "look", "timeout_s = 20")))
    assert done.returncode == 0, done.stderr


def test_sidecar_that_a_cell_started_lives_on(place: Place) -> None:
    """
    A logger of the benchmark's own, left to its sidecar: that sidecar is no part of the cell, and
    delivers after its end.
    """
    done = place.run("run", str(write_suite(place, "delegate")))
    assert done.returncode == 0, done.stderr

    def is_delivered() -> bool:
        found = [run for run in place.runs() if "far" in run.metrics]
        return [run.status for run in found] == ["FINISHED"]

    await_that(is_delivered)


def test_cell_ends_as_a_program_does(place: Place) -> None:
    """
    Threads that go on are waited for and `atexit` callbacks run, one that fails among them.
    """
    done = place.run("run", str(write_suite(place, "later")), "--json")
    (row,) = document(done)["results"]
    assert row["category"] is None, done.stderr
    assert (place.folder / "by_thread").read_text() == "done"
    assert (place.folder / "at_exit").read_text() == "done"
