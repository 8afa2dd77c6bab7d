"""
The commands `sync` and `status`, on a real store.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import start_logger
from allele_mlflow.queue import spool
from tests.integration.spooled_runs import end_run, start_run
from tests.queue_tools import make_run

pytestmark = pytest.mark.process
STEPS = 150
NOBODY = "http://127.0.0.1:1"
COMMAND = [sys.executable, "-c", "from allele_mlflow.cli.main import main; main()"]
#: No command may wait for an answer: one that does runs into the test's time-out.
HTTP_TIMEOUT_S = 600
DEADLINE_S = 50


def environ_for(folder: Path, **more: str) -> dict[str, str]:
    """
    The environment of a command: a wide terminal, a state folder and an HTTP time-out of its own.
    """
    return {
        **os.environ,
        "COLUMNS": "200",
        "XDG_STATE_HOME": str(folder / "state"),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(HTTP_TIMEOUT_S),
        **more,
    }


def run_command(
    *arguments: str, folder: Path, stdout: Any = subprocess.PIPE, **environ: str
) -> subprocess.CompletedProcess[str]:
    """
    `allele-mlflow` with these arguments, in a folder.
    """
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=environ_for(folder, **environ),
    )


def leave_run(spool_dir: Path, name: str, store: str, **more: Any) -> Path:
    """
    A run as it waits when its sidecar is gone, or when there never was one.
    """
    run, writer = start_run(
        spool_dir,
        name,
        tracking_uri_masked=store,
        offline=store == "offline",
        artifact_location=str(spool_dir / "artifacts") if store.startswith("sqlite") else None,
        **more,
    )
    for step in range(STEPS):
        writer.metric("m", float(step), step)
    end_run(writer)
    return run


def steps_in(store: str) -> list[int]:
    """
    The steps of all readings in a SQLite store, in order.
    """
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as database:
        rows = database.execute("SELECT step FROM metrics WHERE key = 'm' ORDER BY step").fetchall()
    return [row[0] for row in rows]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """
    A folder that is not the benchmark's.
    """
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def silent_server() -> Iterator[tuple[str, socket.socket]]:
    """
    The address of a server that takes connections and never answers, and its socket.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


@pytest.fixture
def waiting_spool(tmp_path: Path) -> Path:
    """
    A spool with an offline run in it.
    """
    with start_logger(
        "offline",
        run_name="the run",
        tracking_uri="offline",
        spool_dir=tmp_path / "spool",
        params={"a": 1},
    ) as log:
        for step in range(STEPS):
            log.metric("m", float(step), step)
        log.text("hello", "greeting.txt")
    return tmp_path / "spool"


def test_offline_run_is_delivered_by_sync(waiting_spool: Path, sqlite_store: str) -> None:
    """What was logged without a store is counted by status and delivered by sync, once."""
    folder = waiting_spool.parent
    before = run_command("status", str(waiting_spool), "--json", folder=folder)
    (run,) = json.loads(before.stdout)["runs"]
    assert (run["accepted"], run["ledger"]["pending"]) == (STEPS + 2, STEPS + 2)
    synced = run_command("sync", str(waiting_spool), "--tracking-uri", sqlite_store, folder=folder)
    assert synced.returncode == 0, synced.stderr
    assert f"FINISHED, {STEPS} metrics delivered, 0 pending" in synced.stdout
    with closing(sqlite3.connect(sqlite_store.removeprefix("sqlite:///"))) as database:
        status = database.execute("SELECT status FROM runs").fetchall()
    assert steps_in(sqlite_store) == list(range(STEPS))
    assert status == [("FINISHED",)]
    again = run_command("sync", str(waiting_spool), "--tracking-uri", sqlite_store, folder=folder)
    assert again.returncode == 0
    assert "nothing to deliver" in again.stdout
    table = run_command("status", str(waiting_spool), "--all", folder=folder)
    assert "the run" in table.stdout


def test_unreachable_store_leaves_everything_where_it_is(waiting_spool: Path) -> None:
    """Sync against a server that nobody runs gives up with exit code 6 and loses nothing."""
    folder = waiting_spool.parent
    synced = run_command(
        "sync",
        str(waiting_spool),
        "--tracking-uri",
        NOBODY,
        "--give-up-after",
        "1",
        folder=folder,
    )
    assert synced.returncode == 6, synced.stdout + synced.stderr
    after = run_command("status", str(waiting_spool), "--json", folder=folder)
    (run,) = json.loads(after.stdout)["runs"]
    assert run["ledger"]["pending"] == STEPS + 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("sync", "--tracking-uri", "offline"), "want a store to deliver to"),
        (("sync", "--tracking-uri", "sqlite://"), "in memory"),
        (("statu",), "No such command"),
        (("status", "nowhere"), "SPOOL_DIR='nowhere' is not there: want a spool"),
    ],
)
def test_wrong_use_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    """A mistake on the command line is one clear text on stderr and exit code 2."""
    done = run_command(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_empty_spool_is_no_error(tmp_path: Path) -> None:
    """Where nothing waits the commands say so."""
    make_run(tmp_path / "spool")
    for command in ("status", "sync"):
        done = run_command(command, str(tmp_path / "spool"), folder=tmp_path)
        assert (done.returncode, done.stdout.startswith("nothing")) == (0, True), done


def test_run_goes_to_its_own_store(tmp_path: Path, elsewhere: Path, sqlite_store: str) -> None:
    """
    The command that `close` prints delivers to where the run was started for, from any folder.
    """
    leave_run(tmp_path / "spool", "unreachable", NOBODY)
    leave_run(tmp_path / "spool", "reachable", sqlite_store)
    synced = run_command("sync", str(tmp_path / "spool"), "--give-up-after", "8", folder=elsewhere)
    assert synced.returncode == 6, synced.stderr
    assert f"{NOBODY}: left, no progress for 8 s" in synced.stderr
    assert f"to {NOBODY}:\ne unreachable: still waiting, 0 metrics delivered" in synced.stdout
    assert f"to {sqlite_store}:\ne reachable: FINISHED, {STEPS} metrics" in synced.stdout
    assert steps_in(sqlite_store) == list(range(STEPS))
    assert list(elsewhere.iterdir()) == []


def test_run_with_a_secret_store_is_left(
    tmp_path: Path, elsewhere: Path, sqlite_store: str
) -> None:
    """
    Whose address the spool does not hold is delivered nowhere, and the others are.
    """
    masked = "postgresql://me:***@host/db"
    secret = leave_run(tmp_path / "spool", "secret", masked)
    leave_run(tmp_path / "spool", "open", sqlite_store)
    synced = run_command("sync", str(tmp_path / "spool"), folder=elsewhere)
    assert synced.returncode == 2, synced.stderr
    assert f"e secret: left, for the secrets of its store {masked} are not in" in synced.stderr
    assert "give --tracking-uri" in synced.stderr
    assert steps_in(sqlite_store) == list(range(STEPS))
    assert (secret / spool.RUN_FILE).exists()
    assert list(elsewhere.iterdir()) == []


def test_explicit_store_is_for_all_runs(tmp_path: Path, elsewhere: Path, sqlite_store: str) -> None:
    """
    `--tracking-uri` wins over the runs' own stores, and artifacts go where the settings say.
    """
    leave_run(tmp_path / "spool", "remote", NOBODY)
    leave_run(tmp_path / "spool", "secret", "https://***@host")
    synced = run_command(
        "sync", str(tmp_path / "spool"), "--tracking-uri", sqlite_store, folder=elsewhere
    )
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert steps_in(sqlite_store) == sorted([*range(STEPS), *range(STEPS)])
    assert [path.name for path in elsewhere.iterdir()] == ["mlflow_artifacts"]


def test_run_without_a_description_is_left(tmp_path: Path, sqlite_store: str) -> None:
    """
    What nobody can deliver is not called delivered: sync names its folder and ends with 7.
    """
    run = leave_run(tmp_path / "spool", "lost", sqlite_store)
    (run / spool.RUN_FILE).unlink()
    synced = run_command("sync", str(tmp_path / "spool"), folder=tmp_path)
    assert synced.returncode == 7
    assert f"{run}: left with {STEPS} records, for its description is missing" in synced.stderr


def test_fallback_spool_is_delivered(tmp_path: Path, sqlite_store: str) -> None:
    """
    Without a path, sync delivers too what had to go to the user's state folder.
    """
    leave_run(tmp_path / "state/allele-mlflow/spool", "run", sqlite_store)
    synced = run_command("sync", folder=tmp_path)
    assert synced.returncode == 0, synced.stderr
    assert "FINISHED" in synced.stdout
    assert steps_in(sqlite_store) == list(range(STEPS))


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("sync",)])
def test_ascii_output_escapes_names(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    Where the output's encoding lacks a character of a name, its escape is written.
    """
    leave_run(tmp_path / "spool", "run", "offline", run_name="naïve 🦋")
    done = run_command(
        *arguments,
        str(tmp_path / "spool"),
        folder=tmp_path,
        PYTHONIOENCODING="ascii",
        ALLELE_MLFLOW_TRACKING_URI="offline",
    )
    assert "Traceback" not in done.stderr
    if "--json" in arguments:
        assert json.loads(done.stdout)["runs"][0]["run_name"] == "naïve 🦋"
    else:
        assert "na\\xefve \\U0001f98b" in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("--help",)])
def test_output_that_nobody_takes(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    A full disk is one line on stderr, a reader who has left is none, and neither is a traceback.
    """
    leave_run(tmp_path / "spool", "run", "offline")
    arguments = arguments if "--help" in arguments else (*arguments, str(tmp_path / "spool"))
    with open("/dev/full", "wb") as full:
        done = run_command(*arguments, folder=tmp_path, stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = run_command(*arguments, folder=tmp_path, stdout=pipe)
    assert (done.returncode, done.stderr) == (1, "")
    closed = subprocess.run(
        ["bash", "-c", 'exec "$@" >&-', "bash", *COMMAND, *arguments],
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environ_for(tmp_path),
        timeout=DEADLINE_S,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (0, b"")


def on_terminal(*arguments: str, folder: Path) -> str:
    """
    What stands on a terminal after a command: later text over earlier in the same line.
    """
    near, far = pty.openpty()
    command = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdin=far,
        stdout=far,
        stderr=far,
        env=environ_for(folder),
    )
    os.close(far)
    written = b""
    with open(near, "rb", buffering=0) as terminal, suppress(OSError):  # EIPIO at its end
        while data := terminal.read(4096):
            written += data
    command.wait(DEADLINE_S)
    lines = []
    for line in written.decode().replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return "\n".join(lines)


def test_progress_leaves_no_trace(tmp_path: Path, sqlite_store: str) -> None:
    """
    On a terminal the progress is gone when the results are written, each at its line's beginning.
    """
    leave_run(tmp_path / "spool", "run", sqlite_store)
    leave_run(tmp_path / "spool", "other", NOBODY)
    seen = on_terminal("sync", str(tmp_path / "spool"), "--give-up-after", "8", folder=tmp_path)
    assert "dealt with" not in seen
    assert f"to {sqlite_store}:\ne run: FINISHED, {STEPS} metrics delivered" in seen
    assert f"to {NOBODY}:\ne other: still waiting" in seen


def test_silent_server_is_not_waited_for(
    tmp_path: Path, silent_server: tuple[str, socket.socket]
) -> None:
    """
    Sync leaves a server that never answers when it has said so, and not when MLflow gives up.
    """
    store, _ = silent_server
    leave_run(tmp_path / "spool", "run", store)
    arguments = (str(tmp_path / "spool"), "--tracking-uri", store, "--give-up-after", "1")
    synced = run_command("sync", *arguments, folder=tmp_path)
    assert synced.returncode == 6
    assert "still waiting, 0 metrics delivered" in synced.stdout


def test_interrupted_sync_ends_at_once(
    tmp_path: Path, silent_server: tuple[str, socket.socket]
) -> None:
    """
    Ctrl-C in the middle of a call that hangs: sync says what waits and ends with 130.
    """
    store, listener = silent_server
    leave_run(tmp_path / "spool", "run", store)
    listener.settimeout(DEADLINE_S)
    with subprocess.Popen(
        [*COMMAND, "sync", str(tmp_path / "spool"), "--tracking-uri", store],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ_for(tmp_path),
    ) as command:
        try:
            with listener.accept()[0]:
                command.send_signal(signal.SIGINT)
                output, errors = command.communicate(timeout=DEADLINE_S)
        finally:
            command.kill()
    assert command.returncode == 130, errors
    assert "still waiting, 0 metrics delivered" in output
    assert "Traceback" not in errors
