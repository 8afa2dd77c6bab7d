"""
A real `mlflow server` for the drills: one for the process, started at the first need.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.place import OverdueError
from allele_mlflow.drill.trial import NotHereError
from allele_mlflow.settings import environment
from allele_mlflow.tracking.schema import prepare_schema

START_DEADLINE_S = 100.0
STOP_DEADLINE_S = 10.0
LOOK_S = 0.1
#: Ends a process group when the drills' process is gone, however it went: its stdin ends then.
GUARD = """
import contextlib, os, shutil, signal, sys
sys.stdin.read()
with contextlib.suppress(ProcessLookupError):
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
NOT_HERE = "needs the whole of mlflow: pip install 'allele-mlflow[ui]'"


class TrackingServer:
    """
    MLflow's own server on SQLite, in a folder of its own, on one port for its life.

    Args:
        options: More words of the command line.
    Raises:
        NotHereError: it is not installed.
    Thread safety: none; see `shared_server`.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        if (
            importlib.util.find_spec("flask") is None
        ):  # mlflow-skinny has the command, and no server
            raise NotHereError(NOT_HERE)
        self.folder = Path(tempfile.mkdtemp(prefix="allele-drill-server-"))
        self._owner = os.getpid()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        prepare_schema(self.folder / "mlflow.db")

    def start(self) -> None:
        """
        Start it, and wait until it answers; nothing where it runs.

        Raises:
            OverdueError: it does not answer.
        """
        if self._process is not None and self._process.poll() is None:
            return
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server"),
                    *("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"),
                    *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
                    *("--serve-artifacts", "--artifacts-destination"),
                    str(self.folder / "artifacts"),
                    *self._options,
                ],
                cwd=self.folder,
                env=environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        until_s = now_monotonic_s() + START_DEADLINE_S
        while not self._answers():
            if self._process.poll() is not None or now_monotonic_s() > until_s:
                tail = log.read_text(errors="replace")[-500:]
                raise OverdueError(f"mlflow server does not answer: {tail}")
            pause_s(LOOK_S)

    def kill(self) -> None:
        """
        SIGKILL it with all its processes, as a machine does that goes down.
        """
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """
        End it, and remove its folder; nothing in a fork of the process that started it.
        """
        if os.getpid() != self._owner:
            return
        self._end(signal.SIGTERM)
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()  # before its pipe ends: it would remove the folder
            guard.communicate()
        process = self._process
        if process is None:
            return
        # its own group: the command starts uvicorn as a child, which outlives it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_DEADLINE_S)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.read())
        except OSError:
            return False


_lock = threading.Lock()
_shared: list[TrackingServer] = []


def shared_server() -> TrackingServer:
    """
    The running server of this process; it ends with the process.

    Raises:
        NotHereError: full mlflow is not installed.
        OverdueError: it does not start.
    """
    with _lock:
        if not _shared:
            server = TrackingServer()
            atexit.register(server.close)
            _shared.append(server)
        _shared[0].start()
        return _shared[0]
