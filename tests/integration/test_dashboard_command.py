"""
`allele-mlflow dashboard` as a person starts it: address, token, live pages, Ctrl-C.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from allele_mlflow.settings import environment
from tests.integration.runs import Station

pytestmark = pytest.mark.process

COMMAND = "from allele_mlflow.cli.main import main; main()"
DEADLINE_S = 50.0


@contextmanager
def started(
    folder: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """
    The command's process and the address that it wrote, to the end of the block.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "dashboard", "--port", "0", *arguments],
        cwd=folder,
        env=environment() | {"XDG_STATE_HOME": str(folder / "state")} | dict(environ or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield server, server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait(DEADLINE_S)
        server.stdout.close()


def test_one_browser_is_let_in_and_ctrl_c_ends_it(empty_store: Path, tmp_path: Path) -> None:
    """
    The address lets one browser in, the next one is written then, and Ctrl-C ends with 0.
    """
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with started(tmp_path) as (server, address), httpx.Client(timeout=DEADLINE_S) as browser:
        assert address.startswith("http://127.0.0.1:")
        assert httpx.get(address.partition("?")[0], timeout=DEADLINE_S).status_code == 401
        page = browser.get(address, follow_redirects=True)
        assert page.status_code == 200
        assert "token" not in str(page.url)
        assert "Default" in page.text
        assert server.stdout is not None
        # old releases of MLflow log about the database's schema
        following = next(line for line in server.stdout if line.startswith("http")).strip()
        assert following != address
        assert httpx.get(address, timeout=DEADLINE_S).status_code == 401
        server.send_signal(signal.SIGINT)
        assert server.wait(DEADLINE_S) == 0


def test_a_run_is_live(station: Station, tmp_path: Path) -> None:
    """
    The page of a run that goes on says its newest values at once, and says that it is over when it
    is.
    """
    spool = {"ALLELE_MLFLOW_SPOOL_DIR": station.settings["spool_dir"]}
    arguments = ("--tracking-uri", station.tracking_uri)
    with (
        station.start("live", run_name="<b>live</b>") as log,
        started(tmp_path, *arguments, environ=spool) as (server, address),
        httpx.Client(timeout=DEADLINE_S) as browser,
    ):
        log.metric("fitness", 0.25, step=1)
        browser.get(address, follow_redirects=True)
        base = address.partition("/?")[0]
        told = browser.get(f"{base}/api/runs/{log.run_uid}.json").json()
        assert told["live"]["run"]["run_name"] == "<b>live</b>"
        with browser.stream("GET", f"{base}/runs/{log.run_uid}/live") as events:
            lines = events.iter_lines()
            shown = next(line for line in lines if "0.2500" in line)
            html = json.loads(shown.removeprefix("data: "))
            assert '<td class="number">0.2500</td>' in html
            log.metric("fitness", 0.5, step=2)
            assert next(line for line in lines if "0.5000" in line)
            log.close()
            assert next(line for line in lines if line == "event: end")
        server.send_signal(signal.SIGINT)
        assert server.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--beyond-this-machine"),
        (["--host", "192.0.2.1", "--beyond-this-machine"], "want an address of this machine"),
        (["--export", "."], "something else"),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    """
    An address that others can reach wants a flag, one that is not ours and a folder with other
    things are refused, with code 2.
    """
    (tmp_path / "notes.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "dashboard", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
