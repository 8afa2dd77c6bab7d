"""
Suites for the tests: a benchmark that does what it is told, and what MLflow holds afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.tracking.reader import open_reader

#: No test waits for its sleeps of 600 s: these cells and daemons hang, to be ended by a time-out, a
#: memory limit or a signal.
BENCHMARK = '''
import math
import os
import subprocess
import sys
import time


def run(number, mode="fine", *, seed, log, folder):
    """Log some, then do what the mode says."""
    for step in range(5):
        log.metric("curve", number + step, step)
    print("begun", number, mode, flush=True)
    (folder / "out.txt").write_text(f"{number} {seed}")
    if mode == "fail":
        raise ValueError(f"number {number} is no good")
    if mode == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, flush=True)
        time.sleep(600)
    if mode == "eat":
        kept = bytearray(700 << 20)
        time.sleep(600)
    if mode == "nan":
        return {"score": math.nan}
    if mode == "die":
        os.kill(os.getpid(), 9)
    if mode == "exit":
        sys.exit(3)
    if mode == "import":
        import surely_not_installed
    if mode == "wait":
        begun = os.environ.get("BEGUN_FOLDER")
        if begun:
            open(os.path.join(begun, f"{number}-{seed}-{os.getpid()}"), "w").close()
        time.sleep(float(os.environ.get("WAIT_S", "0.4")))
    return {"score": float(number), "seed": seed}


def flaky(number, *, folder, seed, marks):
    """Fails the first time for want of a connection, then works."""
    path = os.path.join(marks, f"{number}-{seed}")
    if not os.path.exists(path):
        open(path, "w").close()
        raise ConnectionError("nobody there")
    return {"score": number}


def make_pool():
    """An executor of the user's own."""
    from concurrent.futures import ProcessPoolExecutor
    return ProcessPoolExecutor(2)
'''
OBJECTIVE = '[metrics.score]\ndirection = "higher"\nunit = "points"\nobjective = true\n'


class Place(NamedTuple):
    """
    A folder with the benchmark, a store and a spool of its own.
    """

    folder: Path

    @property
    def uri(self) -> str:
        """
        Of the store.
        """
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def write(self, name: str, text: str) -> Path:
        """
        Write a suite file, objective included.
        """
        path = self.folder / name
        path.write_text(f'name = "{path.stem}"\nbenchmark = "bench:run"\n{text}\n{OBJECTIVE}')
        (self.folder / "bench.py").write_text(BENCHMARK)
        return path

    def command(self, *arguments: str) -> list[str]:
        """
        The command line of `allele-mlflow`.
        """
        start = "from allele_mlflow.cli.main import main; main()"
        return [sys.executable, "-c", start, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """
        That of the command.
        """
        own = {"ALLELE_MLFLOW_EXIT_TIMEOUT_S": "60", "ALLELE_MLFLOW_IDLE_TIMEOUT_S": "2"}
        return {**os.environ, "PYTHONWARNINGS": "error::UserWarning", **own, **more}

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """
        Run a command to its end.
        """
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environ),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """
        Start a command in a session of its own.
        """
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def runs(self) -> list[StoredRun]:
        """
        The runs in the store, of cells and suites, with their tags, params and metrics.
        """
        with closing(open_reader(self.uri)) as reader:
            frames = reader.runs()
        found = []
        for row in frames.runs.itertuples():
            told, params, metrics = (
                dict(frame[frame.run_id == row.run_id][["key", "value"]].itertuples(index=False))
                for frame in (frames.tags, frames.params, frames.metrics)
            )
            found.append(StoredRun(row.run_id, row.status, told, params, metrics, row.artifact_uri))
        return found

    def cells(self) -> list[StoredRun]:
        """
        Those of cells.
        """
        return [run for run in self.runs() if run.tags.get(tags.KIND) == tags.RunKind.CELL]

    def finished(self) -> Counter[tuple[str, str]]:
        """
        How many finished runs each trial has.
        """
        return Counter(
            (run.tags[tags.CELL_KEY], run.tags[tags.REPEAT])
            for run in self.cells()
            if run.status == "FINISHED"
        )


class StoredRun(NamedTuple):
    """
    A run as MLflow has it.
    """

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    artifact_uri: str

    def artifact(self, path: str) -> Path:
        """
        Where one of its artifacts lies.
        """
        return Path(self.artifact_uri) / path


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """
    What `--json` wrote.
    """
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    return found


def await_that(what: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """
    Wait until it is so.
    """
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
