"""
What became of a benchmark that could not say so, told by the kernel and seen by the real sidecar.

The scripts stay zombies until their run is over, so that kernels before 6.15 tell too.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from allele_mlflow.records import RunEnded
from tests.integration.runs import KeptRun, Station, wait_for
from tests.integration.test_endings import BEGIN, assert_all_is_there, first_line

pytestmark = pytest.mark.process

Script = subprocess.Popen[str]


@contextmanager
def seen_script(station: Station, folder: Path, body: str) -> Iterator[tuple[str, Script]]:
    """
    The run of a script that the sidecar watches, and the script; it waits in `input()`.
    """
    with station.start_script(folder, body, stdin=subprocess.PIPE) as script:
        try:
            run_uid = first_line(script)
            wait_for(lambda: station.state(run_uid), "the sidecar's first look")
            yield run_uid, script
        finally:
            script.kill()


def wait_for_zombie(script: Script) -> None:
    """
    Wait until a script has ended, and leave it unreaped.
    """
    os.waitid(os.P_PID, script.pid, os.WEXITED | os.WNOWAIT)


def ended(station: Station, folder: Path, body: str) -> KeptRun:
    """
    The run of a script that ended while nobody reaped it.
    """
    with seen_script(station, folder, body) as (run_uid, script):
        assert script.stdin is not None
        script.stdin.write("\n")
        script.stdin.flush()
        wait_for_zombie(script)
        return station.finished(run_uid)


@pytest.mark.parametrize(
    ("how", "status", "ended_by", "category"),
    [
        ("os._exit(0)", "FINISHED", "exit code 0", None),
        ("os._exit(5)", "FAILED", "exit code 5", "unknown"),
        ("os.kill(os.getpid(), 9)", "KILLED", "SIGKILL", "interrupted"),
        ("os.kill(os.getpid(), 15)", "KILLED", "SIGTERM", "interrupted"),
        ("os.kill(os.getpid(), 11)", "KILLED", "SIGSEGV", "unknown"),
    ],
)
def test_end_without_farewell_is_told(
    station: Station, tmp_path: Path, how: str, status: str, ended_by: str, category: str | None
) -> None:
    """
    Exit codes and signals end the run truly, with an error that is in no ledger, where one is.
    """
    body = f"""
with start_logger('e') as log:
    with log.phase("outer"), log.phase("select", step=4):
        tell(log)
        input()
        {how}
"""
    kept = ended(station, tmp_path, BEGIN + body)
    assert (kept.info.status, kept.tags["allele.ended_by"]) == (status, ended_by)
    assert kept.tags.get("allele.error.category") == category
    assert kept.delivery["delivered"] == {"metric": 1, "param": 1, "artifact": 1, "phase": 2}
    assert not any(path.startswith("allele/tracebacks") for path in kept.artifacts)
    if category is None:
        assert "allele/errors.json" not in kept.artifacts
        return
    assert kept.tags["allele.error.type"] == ended_by
    assert ended_by in kept.tags["allele.error.message"]
    document = kept.json("allele/errors.json", tmp_path)
    (error,) = document["errors"]
    assert (document["count"], error["phase"], error["step"]) == (1, "select", 4)


@pytest.mark.parametrize(
    ("before", "finish", "status", "ended_by"),
    [
        ("", "sys.exit(3)", "FAILED", "exit code 3"),
        ("", "sys.exit('no')", "FAILED", "exit code 1"),
        ("", "sys.exit(0)", "FINISHED", "exit"),
        ("import atexit, os; atexit.register(os._exit, 4)", "", "FAILED", "exit code 4"),
        ("import atexit, os; atexit.register(os.kill, os.getpid(), 9)", "", "KILLED", "SIGKILL"),
        ("", "log.close(); sys.exit(3)", "FINISHED", "close"),
    ],
)
def test_exit_after_the_farewell_is_told(
    station: Station, tmp_path: Path, before: str, finish: str, status: str, ended_by: str
) -> None:
    """
    The farewell of an exit does not know the exit code, or a signal after it; the run ends by that.
    What the user closed stays as it was closed.
    """
    body = f"{before}\n{BEGIN}\nlog = tell(start_logger('e')); input(); {finish}"
    kept = ended(station, tmp_path, body)
    assert (kept.info.status, kept.tags["allele.ended_by"]) == (status, ended_by)
    assert_all_is_there(kept)
    has_error = status != "FINISHED"
    assert ("allele/errors.json" in kept.artifacts) == has_error
    assert kept.tags.get("allele.error.type") == (ended_by if has_error else None)
    state = station.state(kept.tags["allele.run_uid"])
    assert state is not None
    assert state.end is not None
    assert (state.status, state.end.status) == (status, status)


@pytest.mark.parametrize("is_reaped", [False, True])
def test_end_that_no_sidecar_saw(offline: Station, tmp_path: Path, is_reaped: bool) -> None:
    """
    A benchmark that died after its sidecar did is told by the zombie it left, and is unknown
    without: the next sidecar does not guess.
    """
    body = BEGIN + "tell(start_logger('e')); input()"
    with seen_script(offline, tmp_path, body) as (run_uid, script):
        (sidecar,) = wait_for(offline.sidecars, "the sidecar")
        os.kill(sidecar, signal.SIGKILL)
        wait_for(lambda: not offline.sidecars(), "the sidecar's end")
        script.kill()
        wait_for_zombie(script)
        if is_reaped:
            script.wait()
        with offline.start():
            pass

        def find_end() -> RunEnded | None:
            state = offline.state(run_uid)
            return state.end if state is not None else None

        end = wait_for(find_end, "the run's end")
    assert (end.status, end.ended_by) == ("KILLED", "unknown" if is_reaped else "SIGKILL")


def test_exit_code_is_told_offline(offline: Station, tmp_path: Path) -> None:
    """
    Offline too, the exit code corrects the farewell: `sync` will find it in the spool.
    """
    body = BEGIN + "tell(start_logger('e')); input(); sys.exit(3)"
    with seen_script(offline, tmp_path, body) as (run_uid, script):
        script.communicate("\n")

        def is_told() -> bool:
            state = offline.state(run_uid)
            end = state.end if state is not None else None
            return end is not None and (end.status, end.ended_by) == ("FAILED", "exit code 3")

        wait_for(is_told, "the exit code")
