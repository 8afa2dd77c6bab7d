"""
The bulk store behind `mlflow server`: chosen by the scheme, for a stock client and for ours.
"""

from __future__ import annotations

import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from allele_mlflow.errors import PermanentTrackingError
from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.client import MlflowTracking
from allele_mlflow.tracking.http_batches import ENDPOINT
from allele_mlflow.tracking.server_batches import BatchRoute, add_batch_route
from allele_mlflow.tracking.server_store import SCHEMES
from tests.integration.conftest import opened_server
from tests.integration.postgres import Postgres
from tests.integration.runs import Station

POISON = """
CREATE TRIGGER poison BEFORE INSERT ON tags WHEN NEW.key = 'poison'
BEGIN SELECT RAISE(ABORT, 'this tag is not wanted'); END
"""


def new_run(client: Any) -> str:
    """
    A run by MLflow's own client.
    """
    found = client.get_experiment_by_name("e")
    experiment_id = client.create_experiment("e") if found is None else found.experiment_id
    return str(client.create_run(experiment_id).info.run_id)


def write_everything(client: Any) -> None:
    """
    All that a batch may hold comes back as from MLflow's own store.
    """
    run_id = new_run(client)
    metrics = [Metric("a", 1.0, 1, 1), Metric("a", 1.0, 1, 1), Metric("b", float("nan"), 1, 1)]
    tags = [RunTag("t", "1"), RunTag("mlflow.runName", "name")]
    client.log_batch(run_id, metrics, [Param("p", "1")], tags[:1])
    client.log_batch(run_id, metrics, [Param("p", "1")], tags)
    client.log_metric(run_id, "a", 2.0, step=2)
    run = client.get_run(run_id)
    assert (run.data.metrics["a"], run.data.params, run.data.tags["t"]) == (2.0, {"p": "1"}, "1")
    assert run.info.run_name == "name"
    assert [m.value for m in client.get_metric_history(run_id, "a")] == [1.0, 2.0]
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        client.log_batch(run_id, [], [Param("p", "2")], [])
    with pytest.raises(MlflowException, match="Duplicate parameter keys"):
        client.log_batch(run_id, [], [Param("q", "2"), Param("q", "3")], [])


def test_schemes_are_the_ones_that_mlflow_looks_up() -> None:
    """Each scheme has its factory for runs, and its twin for the model registry."""
    for group in ("mlflow.tracking_store", "mlflow.model_registry_store"):
        ours = {e.name for e in entry_points(group=group) if e.value.startswith("allele_mlflow")}
        assert ours == set(SCHEMES)


@pytest.mark.server
def test_scheme_opens_the_bulk_store(tmp_path: Path) -> None:
    """A client in the same process gets a store of MLflow's class, and its registry."""
    client = mlflow.MlflowClient(f"bulk+sqlite:///{tmp_path / 'a.db'}")
    store = client._tracking_client.store
    assert type(store).__name__ == "BulkSqlAlchemyStore"
    assert store.bulk is not None
    write_everything(client)
    assert client.create_registered_model("m").name == "m"
    store.engine.dispose()


@pytest.mark.server
def test_tables_that_are_not_known_are_written_by_mlflow(
    tmp_path: Path, empty_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server says so and goes on with MLflow's own call."""
    shutil.copyfile(empty_store, tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("ALTER TABLE metrics ADD COLUMN unit VARCHAR")
    client = mlflow.MlflowClient(f"bulk+sqlite:///{tmp_path / 'a.db'}")
    write_everything(client)
    assert "table metrics has columns" in caplog.text
    client._tracking_client.store.engine.dispose()


@pytest.mark.slow
def test_postgres_by_its_scheme(postgres: Postgres, tmp_path: Path) -> None:
    """The same on PostgreSQL."""
    postgres.create("plugin")
    client = mlflow.MlflowClient(f"bulk+{postgres.uri('plugin', 'psycopg')}")
    assert client._tracking_client.store.bulk is not None
    write_everything(client)
    client._tracking_client.store.engine.dispose()


@pytest.fixture(scope="module", params=["scheme", "app"])
def served(
    request: pytest.FixtureRequest, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """
    A real `mlflow server` on the bulk store, by the scheme and by the app: its address, and its
    database.
    """
    folder = tmp_path_factory.mktemp("bulk_server")
    path = folder / "mlflow.db"
    shutil.copyfile(empty_store, path)
    is_app = request.param == "app"
    options = ("--app-name", "bulk") if is_app else ()
    with opened_server(folder, f"{'' if is_app else 'bulk+'}sqlite:///{path}", *options) as url:
        yield url, path


@pytest.mark.server
@pytest.mark.process
@pytest.mark.timeout(180)
def test_server_serves_a_stock_client_and_ours(served: tuple[str, Path], tmp_path: Path) -> None:
    """Over HTTP: MLflow's own client writes everything, and our logger delivers a run."""
    url, _ = served
    write_everything(mlflow.MlflowClient(url))
    station = Station(tmp_path, url)
    try:
        with station.start("served", artifact_location=None) as log:
            for step in range(2500):
                log.metric("a", float(step), step)
            log.text("hello", "a.txt")
        kept = station.finished(log.run_uid)
        assert len(kept.rows("a")) == 2500
        assert kept.artifact("a.txt", tmp_path) == b"hello"
    finally:
        station.stop()


@pytest.mark.server
@pytest.mark.process
@pytest.mark.timeout(180)
def test_server_keeps_what_a_batch_may_hold(served: tuple[str, Path]) -> None:
    """NaN, infinities, large steps and texts; and what a server refuses, in MLflow's own words."""
    url, _ = served
    client = mlflow.MlflowClient(url)
    for is_bulk in (False, True):
        tracking, run_id = MlflowTracking(url, is_bulk=is_bulk), RunId(new_run(client))
        values = [1.5, float("nan"), float("inf"), float("-inf"), 5e-324]
        readings = [Reading("a", value, 5, 2**40 + n) for n, value in enumerate(values)]
        tracking.log_batch(run_id, readings=readings, params={"p": "ü"}, tags={"t": "x" * 6000})
        tracking.log_batch(run_id, readings=readings[:2])
        history = client.get_metric_history(run_id, "a")
        kept = sorted((m.step - 2**40, m.value) for m in history if m.value == m.value)
        large = 1.7976931348623157e308
        assert kept == [(0, 1.5), (2, large), (3, -large), (4, 5e-324)]
        assert len(history) == 5
        run = client.get_run(run_id)
        assert (run.data.params, len(run.data.tags["t"])) == ({"p": "ü"}, 6000)
        with pytest.raises(PermanentTrackingError, match="Changing param values is not allowed"):
            tracking.log_batch(run_id, params={"p": "other"})
        with pytest.raises(PermanentTrackingError, match="Invalid value"):
            tracking.log_batch(run_id, readings=[Reading("a key with $", 1.0, 1, 1)])
        with pytest.raises(PermanentTrackingError, match="not found"):
            tracking.log_batch(RunId("0" * 32), readings=readings)
        client.delete_run(run_id)
        with pytest.raises(PermanentTrackingError, match="must be in the 'active' state"):
            tracking.log_batch(run_id, readings=readings)


@pytest.mark.server
def test_route_stands_before_mlflows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our route comes first; where requests are looked at by what we do not know, there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's server about its own libraries
        from mlflow.server import app as flask_app
        from mlflow.server.fastapi_app import create_fastapi_app

    app = create_fastapi_app()
    assert add_batch_route(app, flask_app, lambda: None)
    assert app.router.routes[0].path == ENDPOINT
    login = SimpleNamespace(before_request_funcs={None: [lambda: None]})
    assert not add_batch_route(create_fastapi_app(), login, lambda: None)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACTS_ONLY", "true")
    assert not add_batch_route(create_fastapi_app(), flask_app, lambda: None)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"not json",
        b'{"run_id": "0", "metrics": 5}',
        b'{"run_id": "0", "metrics": [{"key": "a", "value": 1, "timestamp": 1, "model_id": "m"}]}',
        b'{"run_id": "0", "params": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}',
        b'{"run_id": "0", "metrics": [{"key": "a", "value": "1e5", "timestamp": 1}]}',
    ],
)
async def test_odd_batches_are_left_to_mlflow(body: bytes) -> None:
    """What is no plain batch reaches MLflow's own handler as it came, in its pieces."""
    received: list[bytes] = []
    pieces = [
        {"type": "http.request", "body": body[:3], "more_body": True},
        {"type": "http.request", "body": body[3:], "more_body": False},
    ]

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            received.append(message["body"])
            more = message["more_body"]

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    await BatchRoute(inner, lambda: None)({"type": "http"}, receive, send)
    assert b"".join(received) == body


@pytest.mark.server
@pytest.mark.process
@pytest.mark.timeout(180)
def test_server_writes_a_batch_whole_or_not_at_all(served: tuple[str, Path]) -> None:
    """What only the bulk store does: a call that fails at its tags leaves none of its readings."""
    url, path = served
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(POISON)
    client = mlflow.MlflowClient(url)
    run_id = new_run(client)
    with pytest.raises(MlflowException, match="not wanted"):
        client.log_batch(run_id, [Metric("a", 1.0, 1, 1)], [], [RunTag("poison", "1")])
    assert client.get_metric_history(run_id, "a") == []
