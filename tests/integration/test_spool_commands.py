"""
The commands `status`, `stop` and `rejected` on spools with real sidecars and a real store.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import settings as settings_module
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import spool, spool_index
from allele_mlflow.queue.locks import (
    is_locked,
    process_start_time,
    try_lock,
    try_lock_folder,
)
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import ParamLogged, RunState
from allele_mlflow.sidecar.profile import lock_path, profile_of
from tests.integration.runs import Station, wait_for
from tests.integration.spooled_runs import end_run, start_run
from tests.integration.test_commands import (
    STEPS,
    environ_for,
    run_command,
    silent_server,
    steps_in,
)
from tests.queue_tools import make_run

__all__ = ["silent_server"]  # a fixture

pytestmark = pytest.mark.process
SLEEPER = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """
    A process that is no sidecar.
    """
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def the_sidecar(station: Station) -> tuple[int, Path]:
    """
    Pid and lock of a station's only sidecar, which serves.
    """
    wait_for(station.sidecars, "a sidecar")
    ((pid, lock),) = station.sidecars().items()
    return pid, lock


def test_stop_ends_the_sidecar_and_says_what_waits(offline: Station, tmp_path: Path) -> None:
    """
    `stop` waits for the sidecar's end and names the records that wait; with none it is fine too.
    """
    with offline.start() as log:
        log.metric("m", 1.0)
    pid, lock = the_sidecar(offline)
    place = str(offline.folder / "spool")
    done = run_command("stop", place, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"stopped sidecar {pid} of {place}" in done.stdout
    assert "1 run with 1 records, logged offline" in done.stdout
    assert f"allele-mlflow sync {place} --tracking-uri" in done.stdout
    assert not is_locked(lock)
    assert process_start_time(pid) == 0
    again = run_command("stop", place, "--json", folder=tmp_path)
    assert again.returncode == 0
    (found,) = json.loads(again.stdout)["spools"]
    assert found == {"spool": place, "sidecars": [], "waiting_runs": 1, "pending": 1}


def test_stop_finds_the_spools_of_the_index(offline: Station, tmp_path: Path) -> None:
    """
    `--all` ends the sidecars of every spool of this user, from any folder.
    """
    offline.start().close()
    pid, _ = the_sidecar(offline)
    state_home = str(spool_index.state_folder().parent)
    assert offline.folder / "spool" in spool_index.registered()
    elsewhere = run_command("stop", folder=tmp_path, XDG_STATE_HOME=state_home)
    assert (elsewhere.returncode, "no sidecar in" in elsewhere.stdout) == (0, True)
    assert the_sidecar(offline)[0] == pid
    # an index of its own: that of the session knows the spools of all tests
    (tmp_path / "state/allele-mlflow/spools").mkdir(parents=True)
    for entry in (spool_index.state_folder() / "spools").iterdir():
        if entry.read_text() == str(offline.folder / "spool"):
            (tmp_path / "state/allele-mlflow/spools" / entry.name).write_bytes(entry.read_bytes())
    done = run_command("stop", "--all", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"stopped sidecar {pid}" in done.stdout
    assert process_start_time(pid) == 0


def test_sidecar_in_a_hung_call_leaves_at_once_and_loses_nothing(
    tmp_path: Path, silent_server: tuple[str, socket.socket], sqlite_store: str
) -> None:
    """
    SIGTERM in the middle of a call that never returns: the process ends, every record waits.
    """
    store, listener = silent_server
    listener.settimeout(50)
    station = Station(tmp_path / "station", store)
    station.folder.mkdir()
    try:
        log = station.start("e", exit="detach")
        for step in range(STEPS):
            log.metric("m", float(step), step)
        log.close()
        with listener.accept()[0]:
            pid, lock = the_sidecar(station)
            began_s = now_monotonic_s()
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not is_locked(lock), "the sidecar's end", deadline_s=10)
            assert now_monotonic_s() - began_s < 5
            wait_for(lambda: process_start_time(pid) == 0, "its process", deadline_s=10)
        place = str(station.folder / "spool")
        synced = run_command("sync", place, "--tracking-uri", sqlite_store, folder=tmp_path)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert steps_in(sqlite_store) == list(range(STEPS))
    finally:
        station.stop()


def test_sidecar_that_does_not_leave_is_named(offline: Station, tmp_path: Path) -> None:
    """
    A stopped process cannot leave: exit code 1 with its pid after the time-out, status calls it
    held, and it leaves when it wakes.
    """
    offline.start().close()
    pid, lock = the_sidecar(offline)
    os.kill(pid, signal.SIGSTOP)
    try:
        place = str(offline.folder / "spool")
        done = run_command("stop", place, "--timeout", "0.2", folder=tmp_path)
        assert done.returncode == 1
        assert f"sidecar {pid} did not end within 0.2 s" in done.stderr
        looked = run_command("status", place, "--json", folder=tmp_path)
        (found,) = json.loads(looked.stdout)["sidecars"]
        assert (found["pid"], found["alive"]) == (pid, True)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not is_locked(lock), "the sidecar's end", deadline_s=10)


@pytest.mark.parametrize("claims", ["its lock", "its file"])
def test_stop_touches_no_other_process(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], claims: str
) -> None:
    """
    A pid in a file that is no sidecar, of that scope, with that lock, gets no signal.
    """
    run = make_run(tmp_path / "spool")
    scope = run.parent.parent
    status = {"pid": sleeper.pid, "profile": "p", "updated_ns": 1, "started_ns": 1, "runs": []}
    text = json.dumps(status | {"cpu_s": 0.0})
    (scope / "sidecar-p.json").write_text(text, encoding="ascii")
    lock = try_lock(lock_path(scope, "p"))
    assert lock is not None
    if claims == "its file":
        lock.release()
    try:
        done = run_command("stop", str(tmp_path / "spool"), folder=tmp_path)
    finally:
        lock.release()
    if claims == "its lock":
        assert done.returncode == 1
        assert "held by no sidecar that can be recognised; it was left alone" in done.stderr
    else:
        assert (done.returncode, "no sidecar in" in done.stdout) == (0, True)
    assert sleeper.poll() is None


def leave_killed_run(folder: Path, store: str, **more: Any) -> Path:
    """
    A run whose benchmark was killed before it said farewell, of the profile of `run_command`.
    """
    run, writer = begin_run(folder, store, **more)
    writer.close(None)
    return run


def begin_run(folder: Path, store: str, **more: Any) -> tuple[Path, StreamWriter]:
    """
    A run with some records whose benchmark is this process.
    """
    environ = environ_for(folder)
    scope = make_run(folder / "spool").parent.parent
    settings = settings_module.load({"tracking_uri": store}, environ=environ, folder=folder)
    values = {
        "profile": profile_of(scope, settings, environ),
        "tracking_uri_masked": store,
        "artifact_location": str(folder / "artifacts"),
    }
    run, writer = start_run(folder / "spool", "killed", **(values | more))
    for step in range(STEPS):
        writer.metric("m", float(step), step)
    return run, writer


@pytest.fixture
def no_sidecar_is_left(tmp_path: Path) -> Iterator[None]:
    """
    The sidecars of the spool in this test's folder end with it.
    """
    yield
    Station(tmp_path, "").stop()


def statuses_in(store: str) -> list[str]:
    """
    The statuses of all runs in a SQLite store.
    """
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as database:
        return [row[0] for row in database.execute("SELECT status FROM runs")]


@pytest.mark.usefixtures("no_sidecar_is_left")
def test_status_ends_a_run_that_was_left_alone(tmp_path: Path, sqlite_store: str) -> None:
    """
    A run whose benchmark and sidecar are gone gets a sidecar as soon as somebody looks, and leaves
    RUNNING with all its records.
    """
    run = leave_killed_run(tmp_path, sqlite_store)
    looked = run_command("status", str(tmp_path / "spool"), "--look-only", folder=tmp_path)
    assert "none" in looked.stdout
    assert "without a sidecar: 1; delivered by: allele-mlflow sync" in looked.stdout
    assert not list(run.parent.parent.glob("sidecar-*"))
    seen = run_command("status", str(tmp_path / "spool"), folder=tmp_path)
    assert "starting" in seen.stdout
    wait_for((run.parent.parent / spool.DONE / run.name).exists, "the end of the run")
    assert statuses_in(sqlite_store) == ["KILLED"]
    assert steps_in(sqlite_store) == list(range(STEPS))


@pytest.mark.parametrize(
    "more",
    [
        {"profile": "0123456789abcdef"},
        {"offline": True},
        {"tracking_uri_masked": "postgresql://me:***@host/db"},
    ],
    ids=["another's", "offline", "secret"],
)
def test_status_starts_no_sidecar_for_others(
    tmp_path: Path, sqlite_store: str, more: dict[str, Any]
) -> None:
    """
    Other credentials, another version, an offline run and an unknown address: nobody is started.
    """
    run = leave_killed_run(tmp_path, sqlite_store, **more)
    seen = run_command("status", str(tmp_path / "spool"), "--json", folder=tmp_path)
    (found,) = json.loads(seen.stdout)["runs"]
    assert (found["starting"], found["waiting"]) == (False, True)
    assert not list(run.parent.parent.glob("sidecar-*"))


def test_status_leaves_a_living_benchmark_alone(tmp_path: Path, sqlite_store: str) -> None:
    """
    A benchmark that runs sees to its own sidecar.
    """
    run, writer = begin_run(tmp_path, sqlite_store)
    seen = run_command("status", str(tmp_path / "spool"), "--json", folder=tmp_path)
    writer.close(None)
    (found,) = json.loads(seen.stdout)["runs"]
    assert found["starting"] is False
    assert not list(run.parent.parent.glob("sidecar-*"))


@pytest.fixture
def refused_run(tmp_path: Path, sqlite_store: str) -> Path:
    """
    A delivered run of whose records the store refused one, and the logger another.
    """
    environ = {"ALLELE_MLFLOW_TRACKING_URI": sqlite_store}
    run, writer = start_run(
        tmp_path / "spool",
        "run",
        tracking_uri_masked=sqlite_store,
        artifact_location=str(tmp_path / "artifacts"),
        run_name="odd \x1b[2J name",
    )
    for value in ("1", "2"):  # a param is set once
        writer.event(ParamLogged(timestamp_ns=1, key="p", value=value))
    writer.metric("m", 1.0, 0)
    writer.reject("bad_value", "metric", "k", "many", "want a number")
    end_run(writer)
    synced = run_command("sync", str(tmp_path / "spool"), folder=tmp_path, **environ)
    assert synced.returncode == 7, synced.stderr
    return run.parent.parent / spool.DONE / "run"


def in_store(store: str, statement: str) -> list[Any]:
    """
    What a statement gives in a SQLite store.
    """
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as database, database:
        return database.execute(statement).fetchall()


def test_what_was_refused_is_listed_and_sent_again(
    tmp_path: Path, refused_run: Path, sqlite_store: str
) -> None:
    """
    A record that the store refused is shown with its words, still refused while the cause is there,
    and delivered when it is gone; the ledger says so in the spool and in MLflow.
    """
    place = str(tmp_path / "spool")
    listed = run_command("rejected", place, folder=tmp_path)
    assert "\x1b" not in listed.stdout
    assert "odd \\x1b[2J name (--run run):" in listed.stdout
    assert "store: param p = 2: " in listed.stdout
    assert "bad_value: metric 'k' = 'many': want a number" in listed.stdout
    assert "refused by the store: 1; send them again with --resubmit" in listed.stdout
    letters = json.loads(run_command("rejected", place, "--json", folder=tmp_path).stdout)
    found = [(one["refused_by"], one["key"], one["value"]) for one in letters["letters"]]
    assert sorted(found) == [("logger", "'k'", "'many'"), ("store", "p", "2")]
    assert letters["letters"][0]["ledger_rejected"] == {"bad_value": 1, "store": 1}

    arguments = ("rejected", place, "--resubmit", "--run", "run")
    still = run_command(*arguments, folder=tmp_path)
    assert still.returncode == 7, still.stderr
    assert "0 delivered, 1 still refused" in still.stdout
    assert "1 were refused by the logger and cannot be sent" in still.stdout

    in_store(sqlite_store, "DELETE FROM params WHERE key = 'p'")
    done = run_command(*arguments, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["runs"]
    assert (result["delivered"], result["refused"], result["of_the_logger"]) == (1, 0, 1)
    assert in_store(sqlite_store, "SELECT value FROM params WHERE key = 'p'") == [("2",)]
    ((tag,),) = in_store(sqlite_store, "SELECT value FROM tags WHERE key = 'allele.delivery'")
    assert json.loads(tag)["rejected"] == {"bad_value": 1}
    looked = run_command("status", place, "--all", "--json", folder=tmp_path)
    (run,) = json.loads(looked.stdout)["runs"]
    assert run["ledger"]["rejected"] == {"bad_value": 1}
    assert run["ledger"]["delivered"] == {"param": 2, "metric": 1}
    assert len((refused_run / spool.REJECTED_FILE).read_bytes().splitlines()) == 1
    (copy,) = (tmp_path / "artifacts").rglob("rejected.jsonl")
    assert copy.read_bytes() == (refused_run / spool.REJECTED_FILE).read_bytes()


def test_letters_are_kept_while_their_store_is_away(
    tmp_path: Path, refused_run: Path, silent_server: tuple[str, socket.socket]
) -> None:
    """
    A store that never answers is left with exit code 6 and every letter where it was; one whose
    secret nobody gave, with 2.
    """
    before = (refused_run / spool.REJECTED_FILE).read_bytes()
    state = spool.read_struct(refused_run / spool.STATE_FILE, RunState)
    assert state is not None
    for store, code, text in (
        (silent_server[0], 6, "all letters are kept"),
        ("https://***@host", 2, "give --tracking-uri"),
    ):
        state.store = store
        spool.write_struct(refused_run / spool.STATE_FILE, state)
        arguments = ("--resubmit", "--all", "--give-up-after", "4")
        done = run_command("rejected", str(tmp_path / "spool"), *arguments, folder=tmp_path)
        assert (done.returncode, text in done.stderr) == (code, True), done
    assert (refused_run / spool.REJECTED_FILE).read_bytes() == before


def test_letters_of_a_run_that_is_worked_on_are_left(tmp_path: Path, refused_run: Path) -> None:
    """
    While another process has the run, or somebody goes on with it, nothing is sent.
    """
    arguments = ("rejected", str(tmp_path / "spool"), "--resubmit", "--all")
    lock = try_lock_folder(refused_run)
    assert lock is not None
    done = run_command(*arguments, folder=tmp_path)
    lock.release()
    assert done.returncode == 7
    assert "another process works on it" in done.stderr
    make_run(tmp_path / "spool", "run")
    done = run_command(*arguments, folder=tmp_path)
    assert done.returncode == 7
    assert "it is not delivered yet" in done.stderr
