"""
`allele-mlflow doctor`, and the faults that it names: an mlflow that cannot be used, and a store
that it cannot use.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import process_start_time
from tests.integration.runs import Station, forget_store, wait_for

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
COMMAND = [sys.executable, "-c", "from allele_mlflow.cli.main import main; main()"]
DEADLINE_S = 60
STEPS = 150
EXIT_TIMEOUT_S = 1.0
BENCHMARK = f"""
    import json, time
    from allele_mlflow import start_logger

    began = time.monotonic()
    log = start_logger("e", run_name="the run", params={{"a": 1}})
    started = time.monotonic()
    for step in range({STEPS}):
        log.metric("m", float(step), step)
    logged = time.monotonic()
    report = log.close()
    print(json.dumps({{
        "start_s": started - began,
        "log_s": logged - started,
        "close_s": time.monotonic() - logged,
        "uid": log.run_uid,
        "pending": report.ledger.pending,
        "lost": report.ledger.lost,
    }}))
"""


def run_doctor(
    *arguments: str, folder: Path, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """
    `allele-mlflow doctor` in a folder.
    """
    return subprocess.run(
        [*COMMAND, "doctor", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), **(environ or {})},
    )


def problems_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """
    The problems in the doctor's JSON, which agrees with its exit code.
    """
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    assert done.stderr == ""
    return [one for one in document["findings"] if one["level"] == "problem"]


@pytest.fixture
def silent_server() -> Iterator[str]:
    """
    The address of a server that takes connections and never answers.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_healthy_store_is_measured(tmp_path: Path, sqlite_store: str) -> None:
    """
    On a good installation doctor ends with 0 and tells the latency; of what it wrote the
    experiment is left, and a deleted run.
    """
    done = run_doctor("--tracking-uri", sqlite_store, "--json", folder=tmp_path)
    assert problems_of(done) == []
    findings = json.loads(done.stdout)["findings"]
    (store,) = [one for one in findings if one["check"] == "store"]
    assert 0 < store["facts"]["log_batch_p50_ms"] <= store["facts"]["log_batch_max_ms"]
    assert {"versions", "mlflow", "database", "artifacts", "spool", "clock"} <= {
        one["check"] for one in findings
    }
    with closing(sqlite3.connect(sqlite_store.removeprefix("sqlite:///"))) as database:
        runs = database.execute(
            "SELECT e.name, r.status, r.lifecycle_stage FROM runs r JOIN experiments e"
            " ON e.experiment_id = r.experiment_id"
        ).fetchall()
    assert runs == [("allele_benchmark_doctor", "FINISHED", "deleted")]


def test_lines_are_for_people(tmp_path: Path) -> None:
    """
    Without --json each finding is a line, and a remedy stands below it; nothing is made.
    """
    done = run_doctor(folder=tmp_path, environ={"ALLELE_MLFLOW_STRCT": "1"})
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    line = next(number for number, text in enumerate(lines) if "ALLELE_MLFLOW_STRCT" in text)
    assert lines[line].startswith("problem settings: unknown setting")
    assert lines[line + 1].strip() == "-> call it ALLELE_MLFLOW_STRICT, or remove it"
    assert "1 problem" in lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_setting_comes_before_the_store(tmp_path: Path) -> None:
    """
    With a misspelt setting and a store that is away both are told, and the exit code is 2.
    """
    environ = {"ALLELE_MLFLOW_STRCT": "1", "ALLELE_MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    done = run_doctor("--json", folder=tmp_path, environ=environ)
    assert done.returncode == 2
    assert {one["check"] for one in problems_of(done)} == {"settings", "store"}


def test_nobody_who_listens_is_a_problem(tmp_path: Path) -> None:
    """
    A refused connection ends with 6, names what to start, and shows no password.
    """
    store = "http://me:secret@127.0.0.1:1"
    done = run_doctor("--tracking-uri", store, "--json", folder=tmp_path)
    (problem,) = problems_of(done)
    assert (done.returncode, problem["check"]) == (6, "store")
    assert "start `mlflow server`" in problem["remedy"]
    assert "secret" not in done.stdout


def test_server_that_never_answers_is_left_in_time(tmp_path: Path, silent_server: str) -> None:
    """
    Doctor waits for a silent server as long as it was told to, whatever MLflow's own patience is.
    """
    done = run_doctor(
        "--tracking-uri",
        silent_server,
        "--timeout",
        "0.5",
        "--json",
        folder=tmp_path,
        environ={"MLFLOW_HTTP_REQUEST_TIMEOUT": "600"},
    )
    (problem,) = problems_of(done)
    assert (done.returncode, problem["check"]) == (6, "store")
    assert "does not answer within 0.5 s" in problem["text"]


def test_local_mlflow_py_fools_nobody(tmp_path: Path) -> None:
    """
    A file mlflow.py in the working folder is not what a sidecar would import.
    """
    (tmp_path / "mlflow.py").write_text("raise RuntimeError('local')", encoding="ascii")
    assert run_doctor(folder=tmp_path).returncode == 0


# --- a benchmark under the same faults -----------------------------------------------------------

Cause = Callable[[Station], dict[str, str]]


def make_package(station: Station, init: str, version: str | None = None) -> dict[str, str]:
    """
    An mlflow that stands before the real one in PYTHONPATH.
    """
    package = station.folder / "path" / "mlflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(init, encoding="ascii")
    if version is not None:
        (package / "version.py").write_text(f'VERSION = "{version}"\n', encoding="ascii")
    paths = [str(package.parent), station.environ()["PYTHONPATH"]]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def break_import(station: Station) -> dict[str, str]:
    """
    As an installation that lacks a part.
    """
    return make_package(station, "import mlflow.part_that_is_missing\n")


def break_syntax(station: Station) -> dict[str, str]:
    """
    As an installation for another Python.
    """
    return make_package(station, "this is no Python\n")


def make_old(station: Station) -> dict[str, str]:
    """
    As an environment that pins MLflow.
    """
    return make_package(station, "class MlflowClient: ...\n__version__ = '2.9.2'\n", "2.9.2")


def make_schema_newer(station: Station) -> dict[str, str]:
    """
    As a colleague's newer MLflow leaves a database.
    """
    set_schema(station, "ffffffffffff")
    return {}


def set_schema(station: Station, version: str) -> str:
    """
    Say of the tables that they are of that version; the one they were of.
    """
    path = station.folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        (before,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
        database.commit()
    os.utime(path, (1, 1))  # nobody is in the middle of making it
    return str(before)


@pytest.fixture
def lone_station(tmp_path: Path, empty_store: Path) -> Iterator[Station]:
    """
    A station of this test's own, without a sidecar yet.
    """
    folder = tmp_path / "lone"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    station = Station(folder, f"sqlite:///{folder / 'mlflow.db'}")
    yield station
    station.stop()
    forget_store(station.tracking_uri)


@pytest.mark.parametrize(
    ("cause", "check", "remedy", "said"),
    [
        (break_import, "mlflow", "pip install", "part_that_is_missing"),
        (break_syntax, "mlflow", "PYTHONPATH", "SyntaxError"),
        (make_old, "mlflow", "pip install --upgrade", "too old: want 3.9"),
        (make_schema_newer, "store", "pip install --upgrade", "newer MLflow"),
    ],
)
def test_benchmark_is_unaffected_and_doctor_names_the_remedy(
    lone_station: Station, tmp_path: Path, cause: Cause, check: str, remedy: str, said: str
) -> None:
    """
    With an mlflow that cannot be used, or a store that it cannot use, a benchmark starts, logs and
    ends in its time and every record waits; doctor says what to do; afterwards `sync` delivers all.
    """
    station = lone_station
    with closing(sqlite3.connect(station.folder / "mlflow.db")) as database:
        (schema,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    environ = station.environ(exit_timeout_s=EXIT_TIMEOUT_S) | cause(station)

    told = json.loads(run_benchmark(tmp_path, environ))
    assert told["start_s"] < 5.0  # 50 ms on an idle machine
    assert told["log_s"] < 5.0
    assert told["close_s"] < EXIT_TIMEOUT_S + 5.0
    assert (told["pending"], told["lost"]) == (STEPS + 1, 0)
    wait_for(lambda: said in last_error(station, told["uid"]), f"{said!r} in the run's state")

    done = run_doctor("--json", folder=tmp_path, environ=environ)
    (problem,) = problems_of(done)
    assert (done.returncode, problem["check"]) == (6, check)
    assert said in problem["text"]
    assert remedy in problem["remedy"]

    end_sidecars(station)
    set_schema(station, schema)
    synced = subprocess.run(
        [*COMMAND, "sync", str(station.folder / "spool")],
        cwd=tmp_path,
        env=station.environ(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert synced.returncode == 0, synced.stdout + synced.stderr
    kept = station.finished(told["uid"])
    assert [row.step for row in kept.rows("m")] == list(range(STEPS))
    assert (kept.params, kept.info.status) == ({"a": "1"}, "FINISHED")
    assert kept.delivery["delivered"] == {"metric": STEPS, "param": 1}
    assert not kept.delivery["rejected"]


def test_sidecar_goes_on_when_mlflow_is_mended(lone_station: Station, tmp_path: Path) -> None:
    """
    A sidecar that found an mlflow too old delivers by itself, once there is a newer one.
    """
    station = lone_station
    environ = station.environ(exit_timeout_s=EXIT_TIMEOUT_S) | make_old(station)
    told = json.loads(run_benchmark(tmp_path, environ))
    wait_for(lambda: "too old" in last_error(station, told["uid"]), "the sidecar's words")
    shutil.rmtree(station.folder / "path" / "mlflow")
    kept = station.finished(told["uid"])
    assert len(kept.rows("m")) == STEPS


def run_benchmark(folder: Path, environ: dict[str, str]) -> str:
    """
    What the benchmark prints.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BENCHMARK)],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_error(station: Station, run_uid: str) -> str:
    """
    What the store said last of a run.
    """
    state = station.state(run_uid)
    return (state.last_error if state is not None else None) or ""


def end_sidecars(station: Station) -> None:
    """
    End the sidecars and leave the spool as it is.
    """
    for pid in station.sidecars():
        os.kill(pid, signal.SIGKILL)
        wait_for(partial(_is_gone, pid), "its end")
    assert (station.scope / spool.RUNS).is_dir()


def _is_gone(pid: int) -> bool:
    return process_start_time(pid) == 0
