"""
Where a drill happens: a scratch spool beside a real store, and the programs that are started in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.workload import COUNTS_BYTES, KINDS, WORD, word_offset
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_locked, process_start_time
from allele_mlflow.records import RunSpec, RunState
from allele_mlflow.settings import PREFIX, environment

T = TypeVar("T")

#: Everything that a drill waits for comes in this time, or has not come.
DEADLINE_S = 120.0
POLL_S = 0.01
EXPERIMENT_PREFIX = "allele_drill_"


class OverdueError(Exception):
    """
    Something that must come did not come in time; a problem of the trial.
    """


def wait_for(look: Callable[[], T | None], what: str, *, deadline_s: float = DEADLINE_S) -> T:
    """
    The first true thing that `look` gives.

    Raises:
        OverdueError: it gave none in time.
    """
    until_s = now_monotonic_s() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if now_monotonic_s() > until_s:
            raise OverdueError(f"{what}: not within {deadline_s:g} s")
        pause_s(POLL_S)


class Program:
    """
    A workload that was started in a place.
    """

    def __init__(
        self, process: subprocess.Popen[str], counts: Path, threads: int, first_thread: int = 0
    ) -> None:
        self.process = process
        self.threads = threads
        self.first_thread = first_thread
        self.run_uid = ""
        self._counts = counts

    def await_start(self) -> str:
        """
        The run's uid, once it logs.

        Raises:
            OverdueError: it ended before.
        """
        assert self.process.stdout is not None
        self.run_uid = self.process.stdout.readline().strip()
        if not self.run_uid:
            raise OverdueError(f"the workload ended with code {self.process.wait()}")
        return self.run_uid

    def returned(self, thread: int) -> dict[str, int]:
        """
        Calls of one thread (of this program, from 0 on) that have returned, by kind.
        """
        data, row = self._counts.read_bytes(), thread + self.first_thread
        return {kind: WORD.unpack_from(data, word_offset(row, kind))[0] for kind in KINDS}

    def returned_metrics(self) -> int:
        """
        Metric calls of all threads that have returned.
        """
        return sum(self.returned(thread)["metric"] for thread in range(self.threads))

    def kill(self) -> None:
        """
        SIGKILL, and wait until it is gone.
        """
        self.process.kill()
        self.await_end()

    def await_end(self, deadline_s: float = DEADLINE_S) -> int:
        """
        Its exit code.

        Raises:
            OverdueError: it runs on.
        """
        try:
            self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise OverdueError(f"the workload: not ended within {deadline_s:g} s") from None
        finally:
            if self.process.returncode is not None and self.process.stdout is not None:
                self.process.stdout.close()
        return self.process.returncode


class Place:
    """
    A folder of its own with a spool, and a store.

    Args:
        folder: Empty, or to be made.
        tracking_uri: The store, which must be there.
        chance: Decides when things happen.
        scale: Seconds that a minute of the drills takes: 60 in the full set.
    Thread safety: none; each drill that runs beside another has a place of its own.
    """

    def __init__(
        self, folder: Path, tracking_uri: str, *, chance: random.Random, scale: float = 60.0
    ) -> None:
        self.folder = folder
        self.tracking_uri = tracking_uri
        self.chance = chance
        self.minute_s = scale
        self.spool_dir = folder / "spool"
        self.programs: list[Program] = []
        #: Scopes that are another boot's by now.
        self.earlier_scopes: list[Path] = []
        #: Settings of its programs beside the usual ones.
        self.settings: dict[str, object] = {}
        #: Variables of its programs that are no settings of ours.
        self.variables: dict[str, str] = {}
        #: None: what the server says.
        self.artifact_location: Path | None = folder / "artifacts"
        self._made = 0
        folder.mkdir(parents=True, exist_ok=True)

    # --- starting -------------------------------------------------------------------------------

    def environ(self, **settings: object) -> dict[str, str]:
        """
        The environment of a program in this place; settings by their lower-case names, None for one
        that is not to be set.
        """
        said: dict[str, object] = {
            "tracking_uri": self.tracking_uri,
            "spool_dir": self.spool_dir,
            "artifact_location": self.artifact_location,
            "experiment_prefix": EXPERIMENT_PREFIX,
            "flush_interval_s": 0.1,
            "idle_timeout_s": 60,
            "sidecar_cpu_percent": 100,
            "exit_timeout_s": DEADLINE_S,
        }
        said |= self.settings | settings
        environ = {k: v for k, v in environment().items() if not k.startswith(PREFIX)}
        environ |= self.variables
        environ |= {PREFIX + k.upper(): str(v) for k, v in said.items() if v is not None}
        source = str(Path(__file__).resolve().parents[2])
        environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [source, environ.get("PYTHONPATH", "")])
        )
        # the user's index of spools is not for scratch
        environ["XDG_STATE_HOME"] = str(self.folder / "state")
        environ.pop("CI", None)  # a sidecar that does not idle is another sidecar each time
        return environ

    def start(
        self,
        *options: str,
        threads: int = 1,
        first_thread: int = 0,
        environ: Mapping[str, object] | None = None,
    ) -> Program:
        """
        Start a workload that logs until something happens to it; see `workload`.

        Args:
            options: Of its command line.
            threads: That log.
            first_thread: Number of the first of them, where several programs log into one run.
            environ: Settings beside the place's.
        """
        self._made += 1
        counts = self.folder / f"returned-{self._made}"
        counts.write_bytes(bytes(COUNTS_BYTES))
        process = self.start_python(
            "-m",
            "allele_mlflow.drill.workload",
            str(counts),
            "--threads",
            str(threads),
            "--first-thread",
            str(first_thread),
            *options,
            environ=environ,
        )
        program = Program(process, counts, threads, first_thread)
        self.programs.append(program)
        return program

    def start_python(
        self, *arguments: str, environ: Mapping[str, object] | None = None
    ) -> subprocess.Popen[str]:
        """
        Start Python with the place's environment; its stdout is a pipe, its stderr a file.
        """
        with (self.folder / "stderr.log").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.environ(**dict(environ or {})),
                cwd=self.folder,
                text=True,
            )

    def start_doomed_sidecar(self, run_uid: str, step: str) -> subprocess.Popen[str]:
        """
        Start a sidecar for a run that dies at a step of `doomed`, e.g. "before-send:3".
        """
        spec = self.spec(run_uid)
        arguments = ("--scope", str(self.scope), "--profile", spec.profile)
        return self.start_python("-P", "-m", "allele_mlflow.drill.doomed", step, *arguments)

    # --- looking --------------------------------------------------------------------------------

    @property
    def scope(self) -> Path:
        """
        The scope's folder of this boot.
        """
        return self.spool_dir / spool.scope_name()

    def spec(self, run_uid: str) -> RunSpec:
        """
        What the logger wrote about a run.
        """
        for folder in self.run_folders(run_uid):
            found = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
            if found is not None:
                return found
        raise OverdueError(f"run {run_uid} has no description in the spool")

    def state(self, run_uid: str) -> RunState | None:
        """
        What a sidecar published of a run last.
        """
        for folder in self.run_folders(run_uid):
            found = spool.read_struct(folder / spool.STATE_FILE, RunState)
            if found is not None:
                return found
        return None

    def run_folders(self, run_uid: str) -> list[Path]:
        """
        Where a run may be in the spool, delivered or not.
        """
        scopes = [self.scope, *self.earlier_scopes]
        return [scope / place / run_uid for scope in scopes for place in (spool.RUNS, spool.DONE)]

    def sidecars(self) -> dict[int, Path]:
        """
        The living sidecars that have said who they are: their locks by their pids.
        """
        found = {}
        for lock in self.spool_dir.glob("*/sidecar-*.lock"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                pid = int(json.loads(lock.with_suffix(".json").read_bytes())["pid"])
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if is_locked(lock) and str(lock.parent).encode() in command:
                    found[pid] = lock
        return found

    def await_sidecar(self) -> int:
        """
        The pid of a living sidecar.
        """
        return wait_for(lambda: next(iter(self.sidecars()), None), "a sidecar")

    def await_done(self, run_uid: str, *, deadline_s: float = DEADLINE_S) -> RunState:
        """
        The last state of a run that is delivered and out of the way.
        """
        done = [path for path in self.run_folders(run_uid) if path.parent.name == spool.DONE]

        def find() -> Path | None:
            paths = [folder / spool.STATE_FILE for folder in done]
            return next((path for path in paths if path.exists()), None)

        path = wait_for(find, f"the end of run {run_uid}", deadline_s=deadline_s)
        state = spool.read_struct(path, RunState)
        if state is None:
            raise OverdueError(f"run {run_uid}: its last state cannot be read")
        return state

    def sync(self, *options: str, environ: Mapping[str, object] | None = None) -> int:
        """
        `allele-mlflow sync` on the place's spool; its exit code.
        """
        command = "from allele_mlflow.cli.main import main; main()"
        with self.start_python(
            "-c", command, "sync", str(self.spool_dir), *options, environ=environ
        ) as process:
            try:
                process.communicate(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise OverdueError(f"sync: not ended within {DEADLINE_S:g} s") from None
        return process.returncode

    # --- ending ---------------------------------------------------------------------------------

    def kill_sidecars(self) -> None:
        """
        SIGKILL every sidecar of the place, those that are only starting too, and wait until they
        are gone.
        """
        while pids := [*self._started_sidecars()]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_for(partial(is_gone, pid), f"the end of process {pid}")

    def _started_sidecars(self) -> Iterator[int]:
        for process in psutil.process_iter(["cmdline", "status"]):
            command = process.info["cmdline"] or ()
            if (
                "allele_mlflow.sidecar" in command
                and any(word.startswith(str(self.spool_dir)) for word in command)
                and process.info["status"] != psutil.STATUS_ZOMBIE
            ):
                yield process.pid

    def forget_programs(self) -> None:
        """
        End what the last trial left running.
        """
        for program in self.programs:
            if program.process.poll() is None:
                program.kill()
        for path in self.folder.glob("returned-*"):
            path.unlink()
        self.programs.clear()

    def close(self) -> None:
        """
        End everything that was started here, and remove the folder.
        """
        self.forget_programs()
        sidecars = self.sidecars()
        for pid in sidecars:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        shutil.rmtree(self.spool_dir, ignore_errors=True)  # who comes late finds nothing to serve
        for pid in sidecars:
            with contextlib.suppress(OverdueError):
                wait_for(partial(is_gone, pid), "its end", deadline_s=10.0)
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def is_gone(pid: int) -> bool:
    """
    Whether a process is none any more; a zombie that nobody reaps is gone too.
    """
    return process_start_time(pid) == 0


@contextlib.contextmanager
def opened_place(
    folder: Path, tracking_uri: str, *, chance: random.Random, scale: float = 60.0
) -> Iterator[Place]:
    """
    A place that is gone afterwards, with everything that was started in it.
    """
    place = Place(folder, tracking_uri, chance=chance, scale=scale)
    try:
        yield place
    finally:
        place.close()
