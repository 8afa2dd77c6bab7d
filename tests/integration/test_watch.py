"""
`allele-mlflow watch` on runs of the real sidecar, in pipes and on a real pseudo-terminal.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from allele_mlflow import RunLogger
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.live import LiveView, read_live
from allele_mlflow.settings import environment
from allele_mlflow.sidecar import live_view
from allele_mlflow.testing import Fault, FlakyTracking, MemoryTracking
from tests.integration.runs import DEADLINE_S, Station, wait_for
from tests.integration.spooled_runs import (
    end_run,
    final_state,
    make_worker,
    serve,
    start_run,
    until,
)

pytestmark = pytest.mark.process

NOBODY = "http://127.0.0.1:1"
COMMAND = "from allele_mlflow.cli.main import main; main()"
#: Ctrl-C reaches who has the terminal as its own.
ON_TERMINAL = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {COMMAND}"
LINES, COLUMNS = 30, 100
ALTERNATE, MAIN_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


def folder_of(log: RunLogger) -> Path:
    """
    The run's folder in the spool.
    """
    return Path(log.handle())


def until_shown(log: RunLogger, key: str, value: float) -> LiveView:
    """
    The view once the newest value of a key is in it.
    """

    def look() -> LiveView | None:
        view = read_live(folder_of(log))
        return view if view is not None and view.last(key) == value else None

    return wait_for(look, f"{key}={value} in the view")


def watch_json(station: Station, *arguments: str) -> dict[str, Any]:
    """
    What `watch --once --json` says.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "watch", "--once", "--json", *arguments],
        env=environment() | {"ALLELE_MLFLOW_SPOOL_DIR": str(station.folder / "spool")},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def values_in(document: dict[str, Any]) -> dict[str, Any]:
    """
    The newest value of each of the user's keys.
    """
    return {key["key"]: key["value"] for key in document["keys"] if not key["resource"]}


class Terminal:
    """
    `allele-mlflow watch` on a terminal of its own.
    """

    def __init__(self, station: Station, *arguments: str) -> None:
        self.near, far = pty.openpty()
        termios.tcsetwinsize(far, (LINES, COLUMNS))
        self.before = termios.tcgetattr(self.near)
        self.written = b""
        environ = environment() | {
            "ALLELE_MLFLOW_SPOOL_DIR": str(station.folder / "spool"),
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
        }
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, "watch", "--interval", "0.1", *arguments],
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            env=environ,
        )
        self._far = far  # kept: its modes are looked at when the command is gone

    def read_until(self, text: str) -> None:
        """
        Read until a text is on the screen that was not there before this call.
        """
        start, until_s = len(self.written), now_monotonic_s() + DEADLINE_S
        while text.encode() not in self.written[start:]:
            assert now_monotonic_s() < until_s, f"no {text!r} in {self.written[-3000:]!r}"
            self._read(0.1)

    def end(self) -> int:
        """
        Read to the end; the exit code.
        """
        until_s = now_monotonic_s() + DEADLINE_S
        while self.process.poll() is None:
            assert now_monotonic_s() < until_s, "it did not end"
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.process.returncode

    def close(self) -> None:
        """
        End the command, however it is.
        """
        with suppress(OSError):
            self.process.kill()
        self.process.wait()
        os.close(self._far)
        os.close(self.near)

    def assert_sane(self) -> None:
        """
        The screen of before is there, with its cursor and its modes.
        """
        assert self.written.count(ALTERNATE) == self.written.count(MAIN_SCREEN) == 1
        assert self.written.rfind(SHOW_CURSOR) > self.written.rfind(HIDE_CURSOR) >= 0
        assert termios.tcgetattr(self.near) == self.before

    @property
    def left(self) -> str:
        """
        What stands on the screen of before.
        """
        return self.written.rpartition(MAIN_SCREEN)[2].decode()

    def _read(self, wait_s: float) -> bool:
        if not select.select([self.near], [], [], wait_s)[0]:
            return False
        with suppress(OSError):
            data = os.read(self.near, 65536)
            self.written += data
            return bool(data)
        return False


@contextmanager
def terminal(station: Station, *arguments: str) -> Iterator[Terminal]:
    """
    A terminal that is closed at the end of the block.
    """
    opened = Terminal(station, *arguments)
    try:
        yield opened
    finally:
        opened.close()


def test_snapshot_has_the_newest_values(station: Station) -> None:
    """While a run logs, a look from outside has its newest values, phases, resources, status."""
    with station.start("watched", run_name="newest") as log, log.phase("train", step=3):
        for step in range(500):
            log.metric("loss", float(step), step)
            log.metric("odd", float("nan"), step)
        log.series("genomes", [float(i) for i in range(300)])
        until_shown(log, "genomes", 299.0)
        until_shown(log, "loss", 499.0)
        wait_for(
            lambda: read_live(folder_of(log)).keys.keys() > {"system/process_cpu_percent"},  # type: ignore[union-attr] # it was there
            "a resource",
        )
        found = watch_json(station, "newest")
        assert values_in(found) == {"loss": 499.0, "odd": "NaN", "genomes": 299.0}
        (loss,) = (key for key in found["keys"] if key["key"] == "loss")
        assert (loss["step"], loss["count"], len(loss["window"])) == (499, 500, 120)
        assert [phase["name"] for phase in found["phases"]["open"]] == ["train"]
        assert found["run"]["benchmark_alive"]
        assert found["sidecar"]["alive"]
        assert any(key["resource"] for key in found["keys"])
    station.finished(log.run_uid)
    found = watch_json(station, log.run_uid)
    assert (found["run"]["status"], found["run"]["over"]) == ("FINISHED", True)
    assert found["ledger"]["pending"] == 0
    assert [phase["name"] for phase in found["phases"]["closed"]] == ["train"]


def test_last_values_are_there_at_close(station: Station) -> None:
    """When `close` returns, the view has the last reading of each key."""
    log = station.start("watched")
    for step in range(1000):
        log.metric("m", float(step), step)
    assert log.close().is_complete
    view = read_live(folder_of(log))
    assert view is not None
    assert (view.last("m"), view.keys["m"].count) == (999.0, 1000)


@pytest.mark.parametrize("uri", [NOBODY, "offline"])
def test_newest_values_while_nothing_is_delivered(tmp_path: Path, uri: str) -> None:
    """With the store away, or none at all, the newest values are shown, and that they wait."""
    station = Station(tmp_path / "station", uri)
    station.folder.mkdir()
    log = station.start("away", exit_timeout_s=0.1, artifact_location=None)
    try:
        for step in range(5000):
            log.metric("loss", float(step), step)
        with log.phase("waits", step=1):
            until_shown(log, "loss", 4999.0)
            log.metric("late", 1.0, 1)
            until_shown(log, "late", 1.0)
            found = watch_json(station)
            assert (found["ahead"], found["ledger"]["delivered"]) == (True, {})
            assert found["ledger"]["pending"] >= 5001
            assert values_in(found) == {"loss": 4999.0, "late": 1.0}
            assert [phase["name"] for phase in found["phases"]["open"]] == ["waits"]
    finally:
        log.close()
        station.stop()


@pytest.mark.parametrize("is_delivered", [True, False])
def test_view_goes_on_after_a_killed_sidecar(
    tmp_path: Path, sqlite_store: str, is_delivered: bool
) -> None:
    """A sidecar that is killed leaves a view that its successor goes on with."""
    station = Station(tmp_path / "station", sqlite_store if is_delivered else "offline")
    station.folder.mkdir()
    log = station.start("killed")
    try:
        log.metric("m", 1.0, 1)
        until_shown(log, "m", 1.0)
        if is_delivered:
            assert log.flush()
        (pid,) = wait_for(station.sidecars, "a sidecar")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not station.sidecars(), "its end")
        log.metric("m", 2.0, 2)
        found = watch_json(station, log.run_uid)  # nobody serves it: read from the streams
        assert (found["served"], values_in(found)) == (False, {"m": 2.0})
        numbers = count()
        # the logger looks after its sidecar now and then

        def look() -> dict[int, Path]:
            log.param(f"p{next(numbers)}", 1)
            return station.sidecars()

        wait_for(look, "another sidecar")
        view = until_shown(log, "m", 2.0)
        assert [point.value for point in view.window("m")] == [1.0, 2.0]
        assert view.keys["m"].count == (2 if is_delivered else 0)
        assert pid not in station.sidecars()
    finally:
        log.close()
        station.stop()


async def test_view_is_written_while_a_call_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of the store's that never returns keeps nobody from seeing the newest values."""
    monkeypatch.setattr(live_view, "VIEW_EVERY_S", 0.02)
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    hold, entered = threading.Event(), threading.Event()
    tracking = FlakyTracking(
        MemoryTracking(),
        {"log_batch": [Fault(Fault.transient().error, hold=hold, entered=entered)]},
    )
    async with anyio.create_task_group() as group:
        group.start_soon(serve, make_worker(run, tracking))
        with anyio.fail_after(30):
            await until(entered.is_set)
            for step in range(200):
                writer.metric("m", float(step), step)
            await until(lambda: (read_live(run) or no_view()).last("m") == 199.0)
        hold.set()
        end_run(writer)
    view = read_live(run)
    assert view is not None
    assert (view.is_ahead, view.last("m"), view.keys["m"].count) == (False, 199.0, 201)
    assert final_state(run).done


def no_view() -> LiveView:
    """
    What is shown of a run of which nothing is known.
    """
    return LiveView(run_uid="", updated_ns=0)


async def test_full_disk_costs_the_view_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the view cannot be written, everything is delivered all the same."""
    real = spool.write_struct

    def refuse(path: Path, value: Any) -> None:
        if path.name == spool.LIVE_FILE:
            raise OSError(28, "No space left on device")
        real(path, value)

    monkeypatch.setattr(spool, "write_struct", refuse)
    run, writer = start_run(tmp_path)
    writer.metric("m", 1.0, 1)
    end_run(writer)
    await serve(make_worker(run, MemoryTracking()))
    assert final_state(run).ledger.delivered == {"metric": 1}
    assert read_live(run) is None


def test_terminal_is_redrawn_until_the_run_ends(station: Station) -> None:
    """On a terminal the values change in place, and when the run has ended the last frame stays."""
    log = station.start("watched", run_name="drawn")
    log.metric("first", 0.125, 1)
    with terminal(station, "drawn") as seen:
        seen.read_until("0.125")
        log.metric("second", 0.375, 2)
        seen.read_until("0.375")
        seen.read_until("RUNNING")
        log.close()
        assert seen.end() == 0
        seen.assert_sane()
        assert "drawn" in seen.left
        assert "FINISHED" in seen.left
        assert "0.375" in seen.left
        assert "Traceback" not in seen.left


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_interrupted_watch_leaves_the_terminal_sane(offline: Station, how: str) -> None:
    """Ctrl-C ends the watching with 130, SIGTERM with 143; cursor, screen, modes are as before."""
    with offline.start("watched") as log:
        log.metric("m", 0.625, 1)
        with terminal(offline) as seen:
            seen.read_until("0.625")
            if how == "Ctrl-C":
                os.write(seen.near, b"\x03")
            else:
                seen.process.terminate()
            assert seen.end() == (130 if how == "Ctrl-C" else 143)
            seen.assert_sane()
            assert "0.625" in seen.left
            assert "Traceback" not in seen.left


def test_spool_that_goes_away_ends_the_watching(offline: Station) -> None:
    """Who deletes the spool while it is watched is told what went, with exit code 1."""
    log = offline.start("watched")
    log.metric("m", 0.625, 1)
    with terminal(offline, "--stay") as seen:
        seen.read_until("0.625")
        offline.stop()
        shutil.rmtree(offline.folder / "spool", ignore_errors=True)
        assert seen.end() == 1
        seen.assert_sane()
        assert f"run {log.run_uid} is gone from" in seen.left
    log.detach()


def test_watching_stays_after_the_end_where_it_is_told_to(station: Station) -> None:
    """With `--stay` the end of the run is shown and the watching goes on."""
    with station.start("watched", run_name="stays") as log:
        log.metric("m", 0.625, 1)
    with terminal(station, log.run_uid, "--stay") as seen:
        seen.read_until("FINISHED")
        seen.read_until("FINISHED")
        os.write(seen.near, b"\x03")
        assert seen.end() == 130
