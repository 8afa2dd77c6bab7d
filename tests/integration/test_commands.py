"""
The commands `sync` and `status`, on a real store.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from allele_mlflow import start_logger
from tests.queue_tools import make_run

pytestmark = pytest.mark.process
STEPS = 150


def run_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """
    `allele-mlflow` with these arguments, in a folder.
    """
    code = "from allele_mlflow.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


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
        rows = database.execute("SELECT step FROM metrics WHERE key = 'm'").fetchall()
        status = database.execute("SELECT status FROM runs").fetchall()
    assert sorted(row[0] for row in rows) == list(range(STEPS))
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
        "http://127.0.0.1:1",
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
