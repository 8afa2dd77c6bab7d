"""
The bulk store behind `mlflow server`: chosen by the scheme, for a stock client and for ours.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

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


def test_scheme_opens_the_bulk_store(tmp_path: Path) -> None:
    """A client in the same process gets a store of MLflow's class, and its registry."""
    client = mlflow.MlflowClient(f"bulk+sqlite:///{tmp_path / 'a.db'}")
    store = client._tracking_client.store
    assert type(store).__name__ == "BulkSqlAlchemyStore"
    assert store.bulk is not None
    write_everything(client)
    assert client.create_registered_model("m").name == "m"
    store.engine.dispose()


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
