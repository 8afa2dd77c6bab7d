"""
Rows of runs by plain SQL against MLflow's own calls: the same rows, the same words.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from allele_mlflow.errors import PermanentTrackingError, TrackingError
from allele_mlflow.records import RunId
from allele_mlflow.tracking.bulk_runs import BulkRuns
from allele_mlflow.tracking.client import RUN_UID_TAG, MlflowTracking

#: Made anew for each run by either.
OWN = ("run_uuid", "artifact_uri")


class Pair:
    """
    Two stores alike, one written by MLflow's own calls.
    """

    def __init__(self, uris: tuple[str, str]) -> None:
        self.stock = MlflowTracking(uris[0])
        self.bulk = MlflowTracking(uris[1], is_bulk=True)
        self._engines = [sqlalchemy.create_engine(uri) for uri in uris]

    def both(self) -> tuple[MlflowTracking, MlflowTracking]:
        return self.stock, self.bulk

    def rows(self, run_ids: list[RunId]) -> list[Any]:
        """
        The run's row and tags in both stores.
        """
        found = []
        for engine, run_id in zip(self._engines, run_ids, strict=True):
            with engine.connect() as connection:
                where = {"run_id": run_id}
                query = sqlalchemy.text("SELECT * FROM runs WHERE run_uuid = :run_id")
                row = dict(connection.execute(query, where).mappings().one())
                assert row["artifact_uri"].endswith(f"/{run_id}/artifacts")
                query = sqlalchemy.text(
                    "SELECT key, value FROM tags WHERE run_uuid = :run_id ORDER BY key"
                )
                tags = [tuple(pair) for pair in connection.execute(query, where)]
            found.append(({k: v for k, v in row.items() if k not in OWN}, tags))
        return found

    def close(self) -> None:
        for engine in self._engines:
            engine.dispose()
        for tracking in self.both():
            tracking.close()


@pytest.fixture(scope="module", params=["sqlite", "psycopg"])
def pair(
    request: pytest.FixtureRequest, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """
    Two stores on one kind of database.
    """
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("pair")
        for name in ("a", "b"):
            shutil.copyfile(empty_store, folder / f"{name}.db")
        uris = (f"sqlite:///{folder / 'a.db'}", f"sqlite:///{folder / 'b.db'}")
    else:
        server = request.getfixturevalue("postgres")
        for name in ("stock_runs", "bulk_runs"):
            server.create(name)
        uris = (server.uri("stock_runs", "psycopg"), server.uri("bulk_runs", "psycopg"))
    stores = Pair(uris)
    yield stores
    stores.close()


@pytest.fixture
def ids(request: pytest.FixtureRequest, pair: Pair, tmp_path: Path) -> list[str]:
    """
    An experiment of the test's own in each of the stores, by its id.
    """
    name = request.node.name
    found = [t.ensure_experiment(name, artifact_location=str(tmp_path)) for t in pair.both()]
    assert pair.bulk._runs is not None
    return found


TAGS = [
    {},
    {RUN_UID_TAG: "u"},
    {"mlflow.runName": "from the tag", "mlflow.user": "somebody", "other": "é\n'\""},
]


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("run_name", ["a name", None])
def test_same_rows(pair: Pair, ids: list[str], tags: dict[str, str], run_name: str | None) -> None:
    """A run that was created and ended by plain SQL has the rows that MLflow would have written."""
    runs = [
        tracking.create_run(one, run_name=run_name, start_ms=5, tags=tags)
        for tracking, one in zip(pair.both(), ids, strict=True)
    ]
    for tracking, run_id in zip(pair.both(), runs, strict=True):
        tracking.end_run(run_id, "KILLED", 77)
    stock, bulk = pair.rows(runs)
    if run_name is None and "mlflow.runName" not in tags:  # made up by MLflow, another each time
        names = {dict(side[1])["mlflow.runName"] == side[0].pop("name") for side in (stock, bulk)}
        assert names == {True}
        drop = [[t for t in side[1] if t[0] != "mlflow.runName"] for side in (stock, bulk)]
        assert drop[0] == drop[1]
        assert stock[0] == bulk[0]
    else:
        assert stock == bulk


def test_finds_the_oldest_active_run(pair: Pair, ids: list[str]) -> None:
    """Of several runs with one uid the oldest is found; deleted ones and others' are not."""
    for tracking, one in zip(pair.both(), ids, strict=True):
        assert tracking.find_run(one, "u") is None
        gone, _, older = (
            tracking.create_run(one, run_name=None, start_ms=start_ms, tags={RUN_UID_TAG: "u"})
            for start_ms in (1, 9, 5)
        )
        tracking.delete_run(gone)
        other = tracking.ensure_experiment("another", artifact_location=None)
        assert tracking.find_run(one, "u") == older
        assert tracking.find_run(other, "u") is None
        assert tracking.look_at_run(older).experiment_id == one
        assert tracking.look_at_run(older).tags[RUN_UID_TAG] == "u"


def test_same_words(pair: Pair, ids: list[str]) -> None:
    """What MLflow refuses is refused by its own call: no such run, a deleted run or experiment."""
    said: list[list[str]] = []
    for tracking, one in zip(pair.both(), ids, strict=True):
        words = []
        gone = tracking.create_run(one, run_name=None, start_ms=1, tags={})
        tracking.delete_run(gone)
        for run_id in (RunId("0" * 32), gone):
            with pytest.raises(PermanentTrackingError) as refused:
                tracking.end_run(run_id, "FINISHED", 1)
            words.append(str(refused.value).replace(run_id, "RUN"))
        with pytest.raises(PermanentTrackingError) as refused:
            tracking.look_at_run(RunId("0" * 32))
        words.append(str(refused.value))
        tracking._opened().delete_experiment(one)
        with pytest.raises(TrackingError) as late:
            tracking.create_run(one, run_name=None, start_ms=1, tags={})
        words.append(str(late.value))
        said.append(words)
    assert said[0] == said[1]


def test_failure_of_ours_is_taken_over_by_mlflow(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where plain SQL fails for another reason than the database, MLflow's own call is made."""
    shutil.copyfile(empty_store, tmp_path / "a.db")
    tracking = MlflowTracking(f"sqlite:///{tmp_path / 'a.db'}", is_bulk=True)
    one = tracking.ensure_experiment("e", artifact_location=None)

    def fail(*arguments: object, **options: object) -> RunId:
        raise AttributeError("no such thing in this MLflow")

    monkeypatch.setattr(BulkRuns, "create_run", fail)
    run_id = tracking.create_run(one, run_name="n", start_ms=1, tags={RUN_UID_TAG: "u"})
    assert tracking.find_run(one, "u") == run_id
    assert (tracking._runs, tracking.writes_by) == (None, "bulk")
    tracking.close()


def test_unknown_tables_are_left_to_mlflow(empty_store: Path, tmp_path: Path) -> None:
    """A table of runs with a column more is written by MLflow, batches still in bulk."""
    path = tmp_path / "a.db"
    shutil.copyfile(empty_store, path)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE runs ADD COLUMN more INTEGER"))
    engine.dispose()
    tracking = MlflowTracking(f"sqlite:///{path}", is_bulk=True)
    one = tracking.ensure_experiment("e", artifact_location=None)
    run_id = tracking.create_run(one, run_name="n", start_ms=1, tags={RUN_UID_TAG: "u"})
    assert (tracking._runs, tracking.writes_by) == (None, "bulk")
    assert tracking.find_run(one, "u") == run_id
    tracking.close()


def test_artifact_is_put_where_mlflow_puts_it(pair: Pair, tmp_path: Path) -> None:
    """Without loading the run; of a run that is not there MLflow's own words."""
    file = tmp_path / "a.txt"
    file.write_text("content")
    for tracking in pair.both():
        place = tmp_path / "artifacts" / tracking.writes_by
        experiment = tracking.ensure_experiment("artifacts", artifact_location=str(place))
        run_id = tracking.create_run(experiment, run_name=None, start_ms=1, tags={})
        tracking.log_artifact(run_id, file, "folder/a.txt")
        tracking.log_artifact(run_id, file, "b.txt")
        root = place / run_id / "artifacts"
        assert {one.relative_to(root).as_posix() for one in root.rglob("*.txt")} == {
            "folder/a.txt",
            "b.txt",
        }
    words = []
    for tracking in pair.both():
        with pytest.raises(TrackingError) as caught:
            tracking.log_artifact(RunId("0" * 32), file, "a.txt")
        words.append((type(caught.value), caught.value.kind, str(caught.value)))
    assert words[0] == words[1]


def test_artifact_does_not_load_the_run(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own `get_run` reads all that the run holds."""
    file = tmp_path / "a.txt"
    file.write_text("content")
    tracking = pair.bulk
    experiment = tracking.ensure_experiment("loads", artifact_location=str(tmp_path))
    run_id = tracking.create_run(experiment, run_name=None, start_ms=1, tags={})
    loaded: list[str] = []
    store_class = type(tracking._opened()._tracking_client.store)
    monkeypatch.setattr(store_class, "get_run", lambda self, run_id: loaded.append(run_id))
    tracking.log_artifact(run_id, file, "a.txt")
    assert not loaded
    assert (tmp_path / run_id / "artifacts" / "a.txt").read_text() == "content"
