"""
A registry by plain SQL against MLflow's own calls: the same answers, and the same rows behind.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from allele_mlflow.errors import NotFoundError, PermanentTrackingError
from allele_mlflow.tracking.client_registry import ClientRegistry
from allele_mlflow.tracking.registry_client import RegistryClient
from allele_mlflow.tracking.sql_registry import SqlRegistry, local_folder
from allele_mlflow.tracking.stored_models import StoredEntries

#: What a filter of MLflow's cannot hold, or would take for more than a name.
NAMES = (
    *("plain", "it's", 'say "hi"', "50%_off", "back\\slash", "tick`s", 'it\'s "both"', "☃ é"),
    *("x' OR name LIKE '%", "a.b-c d", "a_b", "aXb", "--", "semi;colon"),
)
TABLES = ("registered_model_aliases", "model_version_tags", "params")


class Store(NamedTuple):
    """
    One store, and two ways to it.
    """

    uri: str
    sql: SqlRegistry
    client: ClientRegistry
    run_id: str

    def query(self, text: str, **given: Any) -> list[tuple[Any, ...]]:
        """
        Rows, past both.
        """
        engine = sqlalchemy.create_engine(self.uri, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(text), given)]


@pytest.fixture(scope="module", params=["sqlite", "psycopg"])
def store(
    request: pytest.FixtureRequest, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """
    Models of odd names, each with versions, tags and aliases; a deleted version; a prompt.
    """
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("sql_registry") / "it's ☃ 100%.db"
        shutil.copyfile(empty_store, path)
        uri = f"sqlite:///{path}"
    else:
        server = request.getfixturevalue("postgres")
        server.create("sql_registry")
        uri = server.uri("sql_registry", "psycopg")
    client = ClientRegistry(uri)
    run_id = client.make_run("journals", "m", "/tmp/artifacts")
    for number, name in enumerate(NAMES):
        client.make_model(name, {"number": str(number)})
        for level in ("a", "b", "c"):
            told = {"level": level, "both": "x", "quote": "it's"}
            client.make_version(name, f"/tmp/{level}", run_id, told, "")
        client.set_alias(name, "production", 2)
        client.delete_version(name, 3)
    client.make_model("words", {})
    _make_prompt(uri, "words")
    for key in range(1, 12):
        client.write_entry(run_id, f"{key:06d}", f"text {key}")
    found = SqlRegistry(uri)
    assert found.is_fit()
    return Store(uri, found, client, run_id)


def _make_prompt(uri: str, name: str) -> None:
    query = "INSERT INTO registered_model_tags (name, key, value) VALUES (:name, :key, 'true')"
    given = {"name": name, "key": "mlflow.prompt.is_prompt"}
    with sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool).begin() as connection:
        connection.execute(sqlalchemy.text(query), given)


def test_same_models(store: Store) -> None:
    """All models, by name, with tags and aliases; a prompt is none."""
    assert store.sql.models() == store.client.models()
    assert {one.name for one in store.sql.models()} == set(NAMES)
    for name in (*NAMES, "words", "nothing"):
        assert store.sql.models(name) == store.client.models(name)


@pytest.mark.parametrize("name", [*NAMES, "nothing"])
def test_same_versions(store: Store, name: str) -> None:
    """The versions that are not deleted, one or all or by a tag, whatever the model's name."""
    found = store.sql.versions(name)
    assert found == store.client.versions(name)
    assert [one.number for one in found] == ([] if name == "nothing" else [1, 2])
    for number in (1, 3, 7):
        assert store.sql.versions(name, number) == store.client.versions(name, number)
    for tag, value in (("level", "b"), ("both", "x"), ("quote", "it's"), ("quote", "it_s")):
        assert store.sql.tagged(name, tag, value) == store.client.tagged(name, tag, value)
    assert len(store.sql.tagged(name, "both", "x")) == len(found)
    assert len(store.client.tagged(name, "quote", "it's")) == len(found)
    assert store.client.tagged(name, "quote", "it_s") == []


def test_same_entries(store: Store) -> None:
    """Params from a key on, of one run or of many; of a run that is not there, nothing."""
    for since in ("", "000010", "000011", "000012"):
        found = store.sql.entries(store.run_id, since)
        assert found == store.client.entries(store.run_id, since)
    assert store.sql.entries(store.run_id, "000011") == StoredEntries({"000011": "text 11"})
    assert store.sql.entries("nobody", "") is store.client.entries("nobody", "") is None
    runs = [store.run_id, "nobody"]
    assert store.sql.all_entries(runs) == store.client.all_entries(runs)
    assert store.sql.artifact_uri(store.run_id) == store.client.artifact_uri(store.run_id)
    assert store.sql.artifact_uri("nobody") is store.client.artifact_uri("nobody") is None


Ways = SqlRegistry | ClientRegistry
WRITES: dict[str, Callable[[Ways, str, str], Any]] = {
    "alias": lambda way, name, run: way.set_alias(name, "staging", 1),
    "alias moved": lambda way, name, run: way.set_alias(name, "production", 1),
    "alias removed": lambda way, name, run: way.delete_alias(name, "production"),
    "tag": lambda way, name, run: way.tag_version(name, 1, "new", "it's \n☃"),
    "tag changed": lambda way, name, run: way.tag_version(name, 2, "level", ""),
    "entry": lambda way, name, run: way.write_entry(run, "000001", "x" * 6000),
}


@pytest.mark.parametrize("what", WRITES)
def test_same_rows(store: Store, what: str) -> None:
    """A write leaves the same rows behind in every table, but for the model's and the run's name.

    Both write what is new and what is there.
    """
    rows = []
    for way in ("sql", "client"):
        name = f"{way} {what}"
        run_id = store.client.make_run("journals", name, None)
        store.client.make_model(name, {})
        for level in ("a", "b"):
            store.client.make_version(name, "/tmp/x", run_id, {"level": level}, "")
        store.client.set_alias(name, "production", 2)
        writer: Ways = store.sql if way == "sql" else store.client
        for _ in range(2 if what != "alias removed" else 1):
            WRITES[what](writer, name, run_id)
        found = []
        for table in TABLES:
            where = "run_uuid = :run_id" if table == "params" else "name = :name"
            for row in store.query(
                f"SELECT * FROM {table} WHERE {where}", name=name, run_id=run_id
            ):
                own = [one for one in row if one not in (name, run_id)]
                if "allele.token" not in own:
                    found.append((table, *own))
        rows.append(sorted(map(repr, found)))
    assert rows[0] == rows[1]
    assert rows[0] != []


def test_what_sql_leaves_to_mlflow(store: Store) -> None:
    """It says so of versions, aliases and runs that are not there or deleted, and changes nothing;
    MLflow's own call then says what is wrong.
    """
    name = NAMES[1]
    assert not store.sql.set_alias(name, "staging", 3)
    assert not store.sql.set_alias("nothing", "staging", 1)
    assert not store.sql.delete_alias(name, "staging")
    assert not store.sql.tag_version(name, 3, "a", "b")
    with pytest.raises(PermanentTrackingError, match="not found"):
        store.client.set_alias(name, "staging", 3)
    run_id = store.client.make_run("journals", "gone", None)
    store.client.delete_run(run_id)
    assert not store.sql.write_entry(run_id, "000001", "late")
    with pytest.raises(PermanentTrackingError, match="must be in the 'active' state"):
        store.client.write_entry(run_id, "000001", "late")
    found = store.sql.entries(run_id, "")
    assert found == store.client.entries(run_id, "") == StoredEntries({}, is_deleted=True)


def test_an_entry_is_written_once(store: Store) -> None:
    """Through the one door: the same text again is fine, another one is refused, by either way."""
    door = RegistryClient(store.uri, experiment="journals")
    run_id = store.client.make_run("journals", "once", None)
    for key, write in (("000001", door.write_entry), ("000002", store.client.write_entry)):
        assert write(run_id, key, "first")
        assert write(run_id, key, "first")
        assert not write(run_id, key, "second")
    assert door.read_entries(run_id, since="000002").texts == {"000002": "first"}
    with pytest.raises(NotFoundError, match="gone from MLflow"):
        door.read_entries("nobody")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE registered_model_aliases ADD COLUMN since BIGINT",
        "ALTER TABLE registered_models RENAME COLUMN name TO title",
    ],
)
def test_tables_that_are_not_known(empty_store: Path, tmp_path: Path, change: str) -> None:
    """They are left to MLflow, whatever it does with them; nothing of ours is written."""
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_store, path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(change)
    assert not SqlRegistry(f"sqlite:///{path}").is_fit()


def test_other_workspaces_are_left_to_mlflow(empty_store: Path, tmp_path: Path) -> None:
    """A store in which models of other workspaces are is not asked by SQL."""
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_store, path)
    with closing(sqlite3.connect(path)) as database, database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(registered_models)")}
        if "workspace" in columns:
            database.execute("INSERT INTO registered_models (workspace, name) VALUES ('o', 'm')")
    assert SqlRegistry(f"sqlite:///{path}").is_fit() == ("workspace" not in columns)


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """SQL never makes a file; that is MLflow's part, with its tables."""
    path = tmp_path / "none.db"
    assert RegistryClient(f"sqlite:///{path}", experiment="journals")._sql() is None
    assert not path.exists()


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("/a/b", Path("/a/b")),
        ("file:///a/it%20is", Path("/a/it is")),
        ("file://host/a", None),
        ("./mlruns/0", None),
        ("s3://bucket/a", None),
        ("mlflow-artifacts:/0/a", None),
    ],
)
def test_files_of_this_machine(uri: str, folder: Path | None) -> None:
    """Only an absolute place of this machine's is read past MLflow."""
    assert local_folder(uri) == folder
