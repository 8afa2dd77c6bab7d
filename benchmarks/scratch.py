"""
A folder and a store for one measurement, and the end of the sidecars that were started in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec
import psutil

from allele_mlflow.queue import spool

#: Below the working folder, where the default spool lies too: the same file system.
PARENT = Path(".allele_mlflow")
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
POLL_S = 0.02
PREPARE_STORE = """
import pathlib, sys
from allele_mlflow.tracking.schema import prepare_schema
prepare_schema(pathlib.Path(sys.argv[1]))
"""


class _Status(msgspec.Struct):
    pid: int


@contextlib.contextmanager
def scratch_folder(parent: Path = PARENT) -> Iterator[Path]:
    """
    An empty folder in `parent`; afterwards it is gone, and so is every sidecar of a spool in it.
    """
    is_new = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    folder = (parent / f"bench-{spool.new_uid()}").resolve()
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        for scope in scopes_below(folder):
            stop_sidecars(scope)
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                parent.rmdir()  # where nobody else has put anything into it


def prepare_store(path: Path) -> None:
    """
    An SQLite file with MLflow's tables, made in a process of its own: MLflow talks while it does.
    """
    command = [sys.executable, "-c", PREPARE_STORE, str(path)]
    subprocess.run(command, check=True, capture_output=True)


def scopes_below(folder: Path) -> list[Path]:
    """
    The scopes of all spools in a folder. What is removed meanwhile does not disturb.
    """
    found = ((Path(above), names) for above, names, _ in os.walk(folder))
    return [above for above, names in found if {"runs", "done"} <= set(names)]


def find_sidecar(scope: Path) -> psutil.Process | None:
    """
    The sidecar that serves a scope; waits for one that is starting. None where there is none.
    """
    deadline_s = time.monotonic() + START_DEADLINE_S
    while True:
        for process in _sidecars(scope):
            return process
        # its log is made before it starts, its status file is its first deed
        logs = {path.stem for path in scope.glob("sidecar-*.log")}
        started = {path.stem for path in scope.glob("sidecar-*.json")}
        if not logs - started or time.monotonic() > deadline_s:
            return None
        time.sleep(POLL_S)


def stop_sidecars(scope: Path) -> None:
    """
    End the sidecars of one scope, by the process ids that they wrote there.
    """
    if find_sidecar(scope) is None:
        return
    for process in _sidecars(scope):
        with contextlib.suppress(psutil.Error):
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except psutil.TimeoutExpired:
                process.kill()


def _sidecars(scope: Path) -> Iterator[psutil.Process]:
    for path in scope.glob("sidecar-*.json"):
        try:
            status = msgspec.json.decode(path.read_bytes(), type=_Status)
            process = psutil.Process(status.pid)
            command = process.cmdline()
        except (OSError, msgspec.MsgspecError, psutil.Error):
            continue
        # the id may have become somebody else's since
        if "allele_mlflow.sidecar" in command and str(scope) in command:
            yield process


def cpu_seconds(process: psutil.Process) -> float:
    """
    CPU time of a process so far, user and system.
    """
    times = process.cpu_times()
    return float(times.user + times.system)


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """
    The first SIGINT or SIGTERM ends the work; a second one must not cut short the cleaning up.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt
