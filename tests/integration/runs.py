"""
Runs for tests: a store, a spool and one warm sidecar between them, and what MLflow keeps of a run.

Every module shares the sidecar of the session: one costs seconds of CPU for importing mlflow.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

import allele_mlflow
from allele_mlflow import AlleleMlflowWarning, RunLogger, start_logger
from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_locked, process_start_time
from allele_mlflow.records import RunState
from allele_mlflow.settings import environment
from allele_mlflow.tracking.client import MlflowTracking

T = TypeVar("T")

DEADLINE_S = 50.0
POLL_S = 0.02
PREFIX = "allele_benchmark_"


def wait_for(look: Callable[[], T | None], what: str, *, deadline_s: float = DEADLINE_S) -> T:
    """
    The first true thing that `look` gives.

    Raises:
        AssertionError: it gave none in time.
    """
    until_s = now_monotonic_s() + deadline_s
    while True:
        found = look()
        if found:
            return found
        assert now_monotonic_s() < until_s, f"{what}: not within {deadline_s:g} s"
        pause_s(POLL_S)


@contextlib.contextmanager
def our_warnings() -> Iterator[list[str]]:
    """
    The texts of the warnings of ours in the block, complete at its end.
    """
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(one.message) for one in caught if one.category is AlleleMlflowWarning]


class Row(NamedTuple):
    """
    One row of a metric's history.
    """

    step: int
    value: float
    timestamp_ms: int


class KeptRun:
    """
    A run as `MlflowClient` reads it back, all but the histories once.
    """

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=tracking_uri)
        self.run_id = run_id
        run = self.client.get_run(run_id)
        self.info = run.info
        self.params: dict[str, str] = dict(run.data.params)
        self.tags: dict[str, str] = dict(run.data.tags)
        self.latest: dict[str, float] = dict(run.data.metrics)

    @property
    def delivery(self) -> dict[str, Any]:
        """
        The ledger that stands in the run's tag.
        """
        found: dict[str, Any] = json.loads(self.tags["allele.delivery"])
        return found

    def rows(self, key: str) -> list[Row]:
        """
        A metric's history in the order of its steps.
        """
        history = self.client.get_metric_history(self.run_id, key)
        return sorted(Row(one.step, one.value, one.timestamp) for one in history)

    @cached_property
    def artifacts(self) -> set[str]:
        """
        The paths of all artifacts.
        """
        found, folders = set(), [""]
        while folders:
            for entry in self.client.list_artifacts(self.run_id, folders.pop() or None):
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    found.add(entry.path)
        return found

    def artifact(self, path: str, folder: Path) -> bytes:
        """
        An artifact's bytes, downloaded into a folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(self.run_id, path, str(folder))).read_bytes()

    def json(self, path: str, folder: Path) -> Any:
        """
        An artifact of one JSON document.
        """
        return json.loads(self.artifact(path, folder))

    def dead_letters(self, folder: Path) -> list[dict[str, Any]]:
        """
        The lines of `allele/rejected.jsonl`.
        """
        text = self.artifact("allele/rejected.jsonl", folder).decode()
        return [json.loads(line) for line in text.splitlines()]


def log_good(log: RunLogger, number: int) -> None:
    """
    Two records that nothing is wrong with; call it with 0 before and with 1 after what is.
    """
    log.metric("good", float(number), number)
    log.param(f"good_{number}", number)


def assert_good_arrived(kept: KeptRun) -> None:
    """
    What `log_good` logged both times is there.
    """
    assert [row[:2] for row in kept.rows("good")] == [(0, 0.0), (1, 1.0)]
    assert {name: kept.params[name] for name in ("good_0", "good_1")} == {
        "good_0": "0",
        "good_1": "1",
    }


@dataclass(frozen=True)
class Station:
    """
    A folder with a spool, beside the store that its runs go to.
    """

    folder: Path
    tracking_uri: str

    @property
    def settings(self) -> dict[str, Any]:
        """
        What a run here is started with.
        """
        return {
            "tracking_uri": self.tracking_uri,
            "spool_dir": str(self.folder / "spool"),
            "artifact_location": str(self.folder / "artifacts"),
            "idle_timeout_s": 120.0,
            "exit_timeout_s": DEADLINE_S,
            "sidecar_cpu_percent": 100.0,
        }

    @property
    def scope(self) -> Path:
        """
        This machine's folder in the spool.
        """
        return self.folder / "spool" / spool.scope_name()

    def start(self, experiment: str = "tests", **more: Any) -> RunLogger:
        """
        A logger whose run goes through this station.
        """
        return start_logger(experiment, **(self.settings | more))

    def environ(self, **more: Any) -> dict[str, str]:
        """
        The environment in which another process's runs go through this station.
        """
        found = environment()
        paths = [str(Path(allele_mlflow.__file__).parents[1]), found.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        for name, value in (self.settings | more).items():
            if value is None:
                continue
            found[f"ALLELE_MLFLOW_{name.upper()}"] = str(value)
        return found

    def start_script(self, folder: Path, body: str, **options: Any) -> subprocess.Popen[str]:
        """
        Run Python code as a script of its own, in our working folder: the registry's default
        address is relative to it, and other addresses would be another sidecar's.

        `environ`: settings beside the station's.
        """
        path = folder / "script.py"
        path.write_text(textwrap.dedent(body), encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, str(path)],
            env=self.environ(**options.pop("environ", {})),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options,
        )

    def run_script(self, folder: Path, body: str, *, code: int = 0, **options: Any) -> str:
        """
        The stdout of a script, which must end with that exit code.
        """
        with self.start_script(folder, body, **options) as script:
            try:
                stdout, stderr = script.communicate(timeout=DEADLINE_S)
            finally:
                script.kill()
        assert script.returncode == code, f"exit code {script.returncode}\n{stdout}\n{stderr}"
        return stdout

    def state(self, run_uid: str) -> RunState | None:
        """
        What the sidecar published of a run last.
        """
        for place in ("runs", "done"):
            path = self.scope / place / run_uid / spool.STATE_FILE
            state = spool.read_struct(path, RunState)
            if state is not None:
                return state
        return None

    def finished(self, run_uid: str) -> KeptRun:
        """
        A run once it is done and out of the spool.
        """
        done = self.scope / "done" / run_uid / spool.STATE_FILE
        wait_for(done.exists, f"the end of run {run_uid}")
        state = self.state(run_uid)
        assert state is not None
        assert state.run_id is not None
        return self.kept(state.run_id)

    def kept(self, run_id: str) -> KeptRun:
        """
        A run by MLflow's id.
        """
        return KeptRun(self.tracking_uri, run_id)

    def sidecars(self) -> dict[int, Path]:
        """
        The living sidecars: their locks by their pids.
        """
        found = {}
        for lock in self.scope.glob("sidecar-*.lock"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(json.loads(lock.with_suffix(".json").read_bytes())["pid"])
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if is_locked(lock) and str(self.scope).encode() in command:
                    found[pid] = lock
        return found

    def sidecar_log(self) -> str:
        """
        What the sidecars have written.
        """
        return "\n".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in self.scope.glob("sidecar-*.log")
        )

    def stop(self) -> None:
        """
        End the sidecars, those that are just starting too, and no other process.
        """
        found = self.sidecars()
        for pid in found:
            os.kill(pid, signal.SIGTERM)
        shutil.rmtree(self.scope, ignore_errors=True)  # who comes late finds nothing to serve
        for pid in found:
            with contextlib.suppress(AssertionError):
                wait_for(partial(_is_gone, pid), "its end", deadline_s=10)
                continue
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.scope, ignore_errors=True)  # what they wrote meanwhile


def _is_gone(pid: int) -> bool:
    return process_start_time(pid) == 0  # a zombie that nobody reaps is gone too


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Station]:
    """
    The session's station: a SQLite store, delivered to by the real sidecar, which is warm.
    """
    folder = tmp_path_factory.mktemp("station")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    station = Station(folder, f"sqlite:///{folder / 'mlflow.db'}")
    with station.start("warm_up"):
        pass
    yield station
    station.stop()
    forget_store(station.tracking_uri)


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Station]:
    """
    A station of this test's own that only spools: its sidecar comes in a second, without mlflow.
    """
    station = Station(tmp_path / "offline", "offline")
    station.folder.mkdir()
    yield station
    station.stop()


def forget_store(tracking_uri: str) -> None:
    """
    Close the connections that MLflow keeps in this process for each URI.
    """
    tracking = MlflowTracking(tracking_uri)
    tracking.ensure_experiment("Default", artifact_location=None)
    tracking.close()
