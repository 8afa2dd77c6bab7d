"""
What `close` says: plain lines on a terminal's stderr, and nothing anywhere else.
"""

from __future__ import annotations

import os
import pty
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.runs import DEADLINE_S, PREFIX, Station

pytestmark = pytest.mark.process

BODY = """
import os
from allele_mlflow import start_logger
with start_logger("closing") as log:
    for step in range(1234):
        log.metric("a", 1.0, step)
    log.metric("a", "x", 0)
print(log.run_uid)
"""


class Said(NamedTuple):
    """
    What a script wrote.
    """

    stdout: str
    terminal: str


def run_on_terminal(station: Station, folder: Path, body: str = BODY, **settings: Any) -> Said:
    """
    Run a script whose stderr is a terminal.
    """
    ours, theirs = pty.openpty()
    script = station.start_script(folder, body, stderr=theirs, environ=settings)
    os.close(theirs)
    said = b""
    try:
        while data := os.read(ours, 1 << 16):
            said += data
    except OSError:
        pass  # Linux says so that the last of the other side has closed it
    finally:
        os.close(ours)
    stdout, _ = script.communicate(timeout=DEADLINE_S)
    assert script.returncode == 0, said
    return Said(stdout, said.decode().replace("\r\n", "\n"))


def our_lines(terminal: str) -> list[str]:
    """
    The lines of ours, as they stand at last.
    """
    shown = [line.rpartition("\r")[2] for line in terminal.split("\n")]
    mark = "allele-mlflow: "
    return [line.removeprefix(mark) for line in shown if line.startswith(mark)]


def test_close_tells_a_terminal(station: Station, tmp_path: Path) -> None:
    """
    Experiment, the run's address and the ledger, in plain text; stdout belongs to the benchmark.
    """
    said = run_on_terminal(station, tmp_path)
    kept = station.finished(said.stdout.strip())
    first, second = our_lines(said.terminal)
    assert first.startswith(f"experiment {PREFIX}closing, run ")
    assert kept.run_id in first
    assert re.fullmatch(
        r"1,234 metrics delivered, 1 rejected \(bad_value 1\), 0 pending; "
        r"(logger \d+\.\d % of|run of) \d+\.\d s",
        second,
    )
    assert "\x1b" not in said.terminal, "no colours, no cursor movements"


def test_log_level_error_is_silent(station: Station, tmp_path: Path) -> None:
    """
    LOG_LEVEL=error silences the closing lines.
    """
    said = run_on_terminal(station, tmp_path, log_level="error")
    assert our_lines(said.terminal) == []
    assert "metrics delivered" not in said.terminal


def test_close_tells_nobody_else(station: Station, tmp_path: Path) -> None:
    """
    Without a terminal close writes nothing; without a stderr it does not fail.
    """
    script = station.start_script(tmp_path, BODY.replace('log.metric("a", "x", 0)', "pass"))
    stdout, stderr = script.communicate(timeout=DEADLINE_S)
    assert (script.returncode, stderr) == (0, "")
    assert len(stdout.splitlines()) == 1
    station.run_script(tmp_path, f"import sys; sys.stderr = None\n{BODY}")


def test_hand_over_says_what_waits_where_and_what_to_do(tmp_path: Path) -> None:
    """
    Close shows progress after a second, and when time is up how many records wait, where, and the
    command that delivers them.
    """
    station = Station(tmp_path / "a b", "http://127.0.0.1:1")
    station.folder.mkdir()
    try:
        said = run_on_terminal(station, tmp_path, exit_timeout_s=1.8)
    finally:
        station.stop()
    spool = station.folder / "spool"
    assert re.search(r"\rallele-mlflow: [\d,]+ records to deliver, [12] s", said.terminal)
    lines = our_lines(said.terminal)
    assert lines[0] == f"experiment {PREFIX}closing, run {said.stdout.strip()}"
    assert lines[1].startswith("0 metrics delivered, 1 rejected (bad_value 1), 1,234 pending; ")
    assert lines[2].startswith(f"1,234 records wait in {spool}")
    assert f"allele-mlflow sync '{spool}'" in lines[2]
    # if the sidecar knows already, for its mlflow may still be loading
    assert all(line.startswith("last error: ") for line in lines[3:])
