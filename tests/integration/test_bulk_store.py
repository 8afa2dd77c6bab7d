"""
The bulk store against MLflow's own `log_batch`: the same histories leave the same rows.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import sqlalchemy
from hypothesis import given
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from allele_mlflow.errors import PermanentTrackingError, TrackingError, TransientTrackingError
from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.bulk_store import TABLES, BulkStore, UnfitError
from allele_mlflow.tracking.client import MlflowTracking
from allele_mlflow.tracking.limits import STEP_MAX, STEP_MIN

pytestmark = pytest.mark.slow

KEYS = ("loss", "acc", "a/b c", "größe", "x.y-z")
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e-308]),
    st.floats(allow_nan=False, allow_infinity=False),
)
READINGS = st.builds(
    Reading,
    st.sampled_from(KEYS),
    VALUES,
    st.sampled_from([0, 1, 2, 1_700_000_000_000]),
    st.one_of(st.integers(-2, 3), st.sampled_from([STEP_MIN, STEP_MAX])),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


class Call(NamedTuple):
    """
    One `log_batch`.
    """

    readings: list[Reading]
    params: dict[str, str]
    tags: dict[str, str]


def few(values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    """
    Some params or tags.
    """
    return st.dictionaries(st.sampled_from(["p", "q", "größe"]), values, max_size=2)


#: Readings that repeat within a call and from call to call, params that change, a name.
CALLS = st.builds(
    Call,
    st.lists(READINGS, max_size=12).flatmap(
        lambda found: (
            st.lists(st.sampled_from(found), max_size=4).map(lambda more: found + more)
            if found
            else st.just(found)
        )
    ),
    few(st.sampled_from(["1", "2", ""])),
    st.one_of(few(TEXTS), st.just({"mlflow.runName": "new name", "t": "v"})),
)


class Store(NamedTuple):
    """
    A store and a way to look into its tables.
    """

    tracking: MlflowTracking
    engine: Any
    writes_by: str = "bulk"

    def new_run(self) -> RunId:
        """
        A run of its own.
        """
        experiment_id = self.tracking.ensure_experiment("e", artifact_location=None)
        return self.tracking.create_run(experiment_id, run_name="name", start_ms=1, tags={})

    def send(self, run_id: RunId, call: Call) -> tuple[type[Exception], str] | None:
        """
        What the call raised, the run's id left out.
        """
        try:
            self.tracking.log_batch(
                run_id, readings=call.readings, params=call.params, tags=call.tags
            )
        except TrackingError as exc:
            return type(exc), str(exc).replace(run_id, "RUN")
        finally:
            assert self.tracking.writes_by == self.writes_by, "nothing was compared"
        return None

    def tables(self, run_id: RunId) -> dict[str, list[tuple[Any, ...]]]:
        """
        All rows of a run, sorted, without its id; of its own row the name.
        """
        found = {}
        with self.engine.connect() as connection:
            for table, (key, rest) in TABLES.items():
                columns = ", ".join(sorted((key | rest) - {"run_uuid"}))
                query = f"SELECT {columns} FROM {table} WHERE run_uuid = :run"
                rows = connection.execute(sqlalchemy.text(query), {"run": run_id})
                found[table] = sorted(tuple(row) for row in rows)
            query = "SELECT name, status, lifecycle_stage FROM runs WHERE run_uuid = :run"
            rows = connection.execute(sqlalchemy.text(query), {"run": run_id})
            found["runs"] = [tuple(row) for row in rows]
        return found


class Pair(NamedTuple):
    """
    MLflow's own store and the bulk store, each on a database of its own.
    """

    stock: Store
    bulk: Store


def open_pair(uris: tuple[str, str]) -> Pair:
    """
    Two stores on two empty databases.
    """
    stores = []
    for uri, writes_by in zip(uris, ("MLflow", "bulk"), strict=True):
        tracking = MlflowTracking(uri, is_bulk=writes_by == "bulk")
        tracking.ensure_experiment("e", artifact_location=None)
        stores.append(Store(tracking, sqlalchemy.create_engine(uri), writes_by))
    return Pair(*stores)


@pytest.fixture(scope="module", params=["sqlite", "psycopg", "psycopg2"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """
    A pair on SQLite, and on PostgreSQL by each of its drivers.
    """
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("pair")
        uris = (f"sqlite:///{folder / 'stock.db'}", f"sqlite:///{folder / 'bulk.db'}")
    else:
        server = request.getfixturevalue("postgres")
        names = [f"{name}_{request.param}" for name in ("stock", "bulk")]
        for name in names:
            server.create(name)
        uris = (server.uri(names[0], request.param), server.uri(names[1], request.param))
    pair = open_pair(uris)
    yield pair
    for store in pair:
        store.tracking.close()
        store.engine.dispose()


@given(calls=st.lists(CALLS, min_size=1, max_size=5))
def test_same_history_leaves_the_same_rows(pair: Pair, calls: list[Call]) -> None:
    """NaN, infinities, repeats, changed params, names: every table is the same, row by row."""
    stock, bulk = (store.new_run() for store in pair)
    for call in calls:
        assert pair.stock.send(stock, call) == pair.bulk.send(bulk, call)
    assert pair.stock.tables(stock) == pair.bulk.tables(bulk)


def test_thousand_keys_and_a_resent_batch(pair: Pair) -> None:
    """A full call of a thousand keys, sent twice, then in part once more with later steps."""
    runs = [store.new_run() for store in pair]
    first = [Reading(f"key/{n}", float(n), 1, 1) for n in range(1000)]
    later = [Reading(f"key/{n}", -float(n), 2, 2) for n in range(0, 1000, 3)]
    for store, run_id in zip(pair, runs, strict=True):
        for readings in (first, first, first[:500] + later):
            assert store.send(run_id, Call(readings, {}, {})) is None
    assert pair.stock.tables(runs[0]) == pair.bulk.tables(runs[1])


@pytest.mark.parametrize(
    "call",
    [
        Call([Reading("no*star", 1.0, 1, 1)], {}, {}),
        Call([Reading("k", 1.0, 1, 2**63)], {}, {}),
        Call([], {"k" * 300: "v"}, {}),
        Call([], {}, {"k" * 300: "v"}),
        Call([Reading("k", 1.0, -1, 1)], {}, {}),
    ],
    ids=["key", "step", "param", "tag", "time"],
)
def test_what_is_refused_is_refused_alike(pair: Pair, call: Call) -> None:
    """A call that MLflow refuses is refused with the same verdict, and nothing of it is written."""
    runs = [store.new_run() for store in pair]
    errors = [store.send(run_id, call) for store, run_id in zip(pair, runs, strict=True)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0][0] is errors[1][0] is PermanentTrackingError
    if not any("SQL" in words or "Python int" in words for _, words in filter(None, errors)):
        assert errors[0] == errors[1]
    assert pair.stock.tables(runs[0]) == pair.bulk.tables(runs[1])


def test_deleted_and_missing_runs_are_refused_alike(pair: Pair) -> None:
    """A run that was deleted takes nothing, and one that never was is not found."""
    call = Call([Reading("k", 1.0, 1, 1)], {"p": "1"}, {"t": "1"})
    errors = []
    for store in pair:
        run_id = store.new_run()
        store.tracking.delete_run(run_id)
        errors.append([store.send(run_id, call), store.send(RunId("0" * 32), call)])
    assert errors[0] == errors[1]
    assert [error[0] for error in errors[0] if error] == [PermanentTrackingError] * 2


def test_nothing_of_a_refused_call_is_written(pair: Pair) -> None:
    """One transaction: a param that changed takes the readings beside it with it."""
    run_id = pair.bulk.new_run()
    assert pair.bulk.send(run_id, Call([], {"p": "1"}, {})) is None
    before = pair.bulk.tables(run_id)
    error = pair.bulk.send(
        run_id, Call([Reading("k", 1.0, 1, 1)], {"q": "1", "p": "2"}, {"t": "1"})
    )
    assert error is not None
    assert "Changing param values is not allowed" in error[1]
    assert pair.bulk.tables(run_id) == before


def test_many_write_one_run_at_once(pair: Pair) -> None:
    """Eight threads with overlapping keys: all rows are there, and each key shows its last."""
    run_id = pair.bulk.new_run()
    errors: list[object] = []

    def write(thread: int) -> None:
        for part in range(5):
            steps = range(part * 20, part * 20 + 20)
            readings = [Reading(f"k{(s + thread) % 7}", float(thread), 1, s) for s in steps]
            errors.append(pair.bulk.send(run_id, Call(readings, {"p": "1"}, {"t": str(thread)})))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [None] * 40
    tables = pair.bulk.tables(run_id)
    assert len(tables["metrics"]) == 800
    for _, key, step, _, value in tables["latest_metrics"]:  # columns by the alphabet
        assert (step, value) == max((r[2], r[4]) for r in tables["metrics"] if r[1] == key)


# --- where it is not used -----------------------------------------------------------------------


def test_setting_turns_it_off(tmp_path: Path) -> None:
    """Not asked for, batches go through MLflow's own call."""
    tracking = MlflowTracking(f"sqlite:///{tmp_path / 'a.db'}")
    tracking.ensure_experiment("e", artifact_location=None)
    assert tracking.writes_by == "MLflow"


class OtherStore(SqlAlchemyStore):  # type: ignore[misc]
    """
    A store with a `log_batch` of its own.
    """

    def log_batch(self, *arguments: Any) -> None:
        """
        Nothing.
        """


def test_store_with_its_own_ways_is_left_alone(tmp_path: Path) -> None:
    """A subclass that writes in its own way keeps it."""
    store = OtherStore(f"sqlite:///{tmp_path / 'a.db'}", str(tmp_path))
    with pytest.raises(UnfitError, match="is not MLflow's own"):
        BulkStore(store)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE metrics ADD COLUMN unit VARCHAR", "table metrics has columns"),
        ("ALTER TABLE tags RENAME COLUMN value TO text", "table tags has columns"),
    ],
)
def test_other_tables_are_left_alone(tmp_path: Path, change: str, words: str) -> None:
    """Tables that are not those we know are written by MLflow, and the reason is said."""
    uri = f"sqlite:///{tmp_path / 'a.db'}"
    MlflowTracking(uri).ensure_experiment("e", artifact_location=None)
    with sqlalchemy.create_engine(uri).begin() as connection:
        connection.execute(sqlalchemy.text(change))
    tracking = MlflowTracking(uri, is_bulk=True)
    tracking.ensure_experiment("e", artifact_location=None)
    assert tracking.writes_by.startswith(f"MLflow ({words}")


def test_locked_database_is_looked_at_again(empty_store: Path, tmp_path: Path) -> None:
    """A database that another one holds at first is written in bulk all the same, later."""
    path = tmp_path / "a.db"
    shutil.copyfile(empty_store, path)
    tracking = MlflowTracking(f"sqlite:///{path}?timeout=0.1", is_bulk=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientTrackingError, match="locked"):
            tracking.ensure_experiment("e", artifact_location=None)
        other.execute("ROLLBACK")
    tracking.ensure_experiment("e", artifact_location=None)
    assert tracking.writes_by == "bulk"


def test_failure_of_ours_alone_ends_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLflow's own call takes what ours could not, that call is used from then on."""
    tracking = MlflowTracking(f"sqlite:///{tmp_path / 'a.db'}", is_bulk=True)
    experiment_id = tracking.ensure_experiment("e", artifact_location=None)
    run_id = tracking.create_run(experiment_id, run_name=None, start_ms=1, tags={})

    def fail(*arguments: Any, **options: Any) -> bool:
        raise AttributeError("no such thing in this MLflow")

    monkeypatch.setattr(BulkStore, "log_batch", fail)
    tracking.log_batch(run_id, readings=[Reading("k", 1.0, 1, 1)])
    assert "no such thing in this MLflow" in tracking.writes_by
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    assert len(Store(tracking, engine).tables(run_id)["metrics"]) == 1
