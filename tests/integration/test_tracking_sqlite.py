"""
MLflow on SQLite as it is found on machines: new, missing, replaced, locked, of another version.
"""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import ErrorKind, PermanentTrackingError, TransientTrackingError
from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking import schema, versions
from allele_mlflow.tracking.client import MlflowTracking
from allele_mlflow.tracking.server_store import SCHEMES
from allele_mlflow.uris import MODEL_REGISTRY, TRACKING_STORE

LOSS = [Reading("loss", 1.0, 1, 1)]


@pytest.fixture
def tracking(sqlite_store: str) -> Iterator[MlflowTracking]:
    """
    A client of this test's own store.
    """
    tracking = MlflowTracking(sqlite_store)
    yield tracking
    tracking.close()


def file_of(uri: str) -> Path:
    """
    The database file.
    """
    path = schema.sqlite_path(uri)
    assert path is not None
    return path


def new_run(tracking: MlflowTracking, folder: Path) -> RunId:
    """
    A run in an experiment of this test.
    """
    experiment_id = tracking.ensure_experiment("e", artifact_location=str(folder / "artifacts"))
    return tracking.create_run(experiment_id, run_name="r", start_ms=1, tags={})


def make_old(path: Path) -> None:
    """
    Let the file look as if nobody had written to it for an hour.
    """
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////tmp/a b.db", "/tmp/a b.db"),
        ("sqlite:////tmp/a.db?timeout=5", "/tmp/a.db"),
        ("sqlite+pysqlite:////tmp/a.db", "/tmp/a.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:/tmp/a.db?uri=true", None),
        ("postgresql://db/mlflow", None),
        ("http://host", None),
    ],
)
def test_the_file_behind_a_uri(uri: str, path: str | None) -> None:
    """
    Where a URI names a file of our file system, we know it.
    """
    assert schema.sqlite_path(uri) == (None if path is None else Path(path))


def test_a_new_database_appears_whole(tmp_path: Path) -> None:
    """
    Missing folders are made, the file has the newest schema, nothing else is left in its folder,
    and MLflow's "Default" experiment keeps its artifacts beside it, not under the sidecar's folder.
    """
    path = tmp_path / "deep" / "er" / "my lab.db"
    tracking = MlflowTracking(f"sqlite:///{path}")
    experiment_id = tracking.ensure_experiment("e", artifact_location="relative/art")
    tracking.close()
    # MLflow before 3.10 or so makes the Default experiment's folder, too.
    assert {entry.name for entry in path.parent.iterdir()} - {"mlruns"} == {"my lab.db"}
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT CAST(experiment_id AS TEXT), artifact_location FROM experiments"
        ).fetchall()
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    locations = dict(rows)
    assert locations["0"].endswith(f"{path.parent}/mlruns/0")
    assert locations[experiment_id] == os.path.abspath("relative/art")
    assert frozenset(version for (version,) in versions) == schema._head_versions()


def test_a_database_that_went_away_is_not_made_anew_by_a_delivery(
    tracking: MlflowTracking, sqlite_store: str, tmp_path: Path
) -> None:
    """
    While the file is gone its runs wait; a new run may create it, and then the old run is missing.
    """
    run_id = new_run(tracking, tmp_path)
    file_of(sqlite_store).unlink()
    with pytest.raises(TransientTrackingError, match="the database is gone") as caught:
        tracking.log_batch(run_id, readings=LOSS)
    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert not file_of(sqlite_store).exists()

    second = new_run(tracking, tmp_path)
    tracking.log_batch(second, readings=LOSS)
    with pytest.raises(PermanentTrackingError) as missing:
        tracking.log_batch(run_id, readings=LOSS)
    assert missing.value.kind is ErrorKind.NOT_FOUND


def test_a_replaced_database_is_noticed(
    tracking: MlflowTracking, sqlite_store: str, empty_store: Path, tmp_path: Path
) -> None:
    """
    Nothing is written into the deleted file behind open connections and called delivered.
    """
    run_id = new_run(tracking, tmp_path)
    path = file_of(sqlite_store)
    other = path.with_name("other.db")
    other.write_bytes(empty_store.read_bytes())
    os.replace(other, path)
    with pytest.raises(PermanentTrackingError) as caught:
        tracking.log_batch(run_id, readings=LOSS)
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_close_leaves_no_connection_open(
    tracking: MlflowTracking, sqlite_store: str, tmp_path: Path
) -> None:
    """
    After close no descriptor of the database is left in the process.
    """
    tracking.log_batch(new_run(tracking, tmp_path), readings=LOSS)
    tracking.close()
    still_open = [opened.path for opened in psutil.Process().open_files()]
    assert str(file_of(sqlite_store)) not in still_open


def test_a_locked_database_is_busy(
    tracking: MlflowTracking, sqlite_store: str, tmp_path: Path
) -> None:
    """
    Another program's long transaction makes us wait, not lose. (MLflow waits 20 s by itself; the
    test cuts that short.)
    """
    import sqlalchemy

    run_id = new_run(tracking, tmp_path)
    waits: list[str] = []

    def cut_short(
        _connection: object,
        _cursor: object,
        statement: str,
        parameters: object,
        _context: object,
        _many: bool,
    ) -> tuple[str, object]:
        if "busy_timeout" in statement:
            waits.append(statement)
            statement = "PRAGMA busy_timeout = 50;"
        return statement, parameters

    engine = tracking._client._tracking_client.store.engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", cut_short, retval=True)
    with closing(sqlite3.connect(file_of(sqlite_store), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientTrackingError) as caught:
            tracking.log_batch(run_id, readings=LOSS)
        other.rollback()
    assert caught.value.kind is ErrorKind.STORE_BUSY
    assert waits
    tracking.log_batch(run_id, readings=LOSS)


def test_a_value_without_bytes_is_refused(tracking: MlflowTracking, tmp_path: Path) -> None:
    """
    What the database's driver cannot encode is set aside instead of being repeated for ever.
    """
    run_id = new_run(tracking, tmp_path)
    for params, readings in (
        ({"half": "\ud800"}, []),
        ({}, [Reading("loss", 1.0, 1, 2**63)]),
    ):
        with pytest.raises(PermanentTrackingError) as caught:
            tracking.log_batch(run_id, params=params, readings=readings)
        assert caught.value.kind is ErrorKind.REFUSED


def refuse_known_nan(client: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """
    Let `log_batch` treat resent NaN as MLflow 2.10 to 3.14 does; the list counts its calls.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    stored: set[tuple[str, int, int]] = set()
    calls: list[int] = []
    stock = client.log_batch

    def log_batch(run_id: str, metrics: list[Any], **rest: Any) -> None:
        calls.append(len(metrics))
        nans = [(m.key, m.timestamp, m.step) for m in metrics if math.isnan(m.value)]
        if len(set(nans)) < len(nans) or stored & set(nans):
            raise MlflowException(
                "(sqlite3.IntegrityError) UNIQUE constraint failed: metrics.key, metrics.step, "
                "(Background on this error at: https://sqlalche.me/e/20/gkpj)",
                BAD_REQUEST,
            )
        stock(run_id, metrics=metrics, **rest)
        stored.update(nans)

    monkeypatch.setattr(client, "log_batch", log_batch)
    return calls


def test_a_resent_nan_is_no_poison_on_an_older_mlflow(
    tracking: MlflowTracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    MLflow 2.10 to 3.14 refuses a batch for ever when a NaN in it is already stored: the rest of the
    batch is delivered around it, and the refusal itself is taken as proof of the NaN row.
    """
    run_id = new_run(tracking, tmp_path)
    calls = refuse_known_nan(tracking._client, monkeypatch)
    nan, other = Reading("loss", math.nan, 1, 1), Reading("loss", math.nan, 2, 2)
    tracking.log_batch(run_id, readings=[nan, *LOSS])
    tracking.log_batch(run_id, readings=[nan, other, other, Reading("new", 2.0, 3, 3)])
    tracking.log_batch(run_id, readings=[nan, other], params={"p": "1"}, tags={"t": "1"})
    data = tracking._client.get_run(run_id).data
    assert (data.metrics["new"], data.params, data.tags["t"]) == (2.0, {"p": "1"}, "1")
    history = tracking._client.get_metric_history(run_id, "loss")
    assert sorted((m.step, math.isnan(m.value)) for m in history) == [
        (1, False),
        (1, True),
        (2, True),
    ]
    assert calls == [2, 4, 1, 1, 1, 2, 0, 1, 1]


def test_no_database_at_all(tmp_path: Path) -> None:
    """
    A file that is something else is reported, left as it is, and its records wait.
    """
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database " * 100)
    make_old(path)
    with pytest.raises(TransientTrackingError, match="not a database"):
        MlflowTracking(f"sqlite:///{path}").ensure_experiment("e", artifact_location=None)
    assert path.read_text().startswith("these are my notes")


def test_a_schema_of_another_version_waits_for_its_owner(
    tracking: MlflowTracking, sqlite_store: str
) -> None:
    """
    A schema that this MLflow does not know is left as it is: records wait, and the error names the
    side to upgrade, where MLflow's own words would have the database upgraded.
    """
    path = file_of(sqlite_store)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
    make_old(path)
    with pytest.raises(TransientTrackingError, match=r"newer MLflow.*ffffffffffff.*pip install"):
        tracking.ensure_experiment("e", artifact_location=None)
    with closing(sqlite3.connect(path)) as connection:
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    path.unlink()
    assert versions == [("ffffffffffff",)]


def test_an_empty_file_is_filled_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `mkstemp` makes an empty file first: after a moment in which nobody writes it, it is used.
    """
    monkeypatch.setattr(schema, "EMPTY_QUIET_S", 0.1)
    path = tmp_path / "made_by_mkstemp.db"
    path.touch()
    tracking = MlflowTracking(f"sqlite:///{path}")
    assert tracking.ensure_experiment("e", artifact_location=None)
    tracking.close()
    assert path.stat().st_size > 0


def test_another_creator_is_waited_for(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While somebody else's migrations move on, we do not touch the file; then we go on.
    """
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(empty_store)) as source:
        (head,) = source.execute("SELECT version_num FROM alembic_version").fetchone()
        dump = list(source.iterdump())
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.executescript("\n".join(dump))
    connection.execute("UPDATE alembic_version SET version_num = 'step 0'")
    connection.commit()
    pauses = 0

    def creator_moves_on(seconds: float) -> None:
        nonlocal pauses
        del seconds
        pauses += 1
        version = head if pauses == 5 else f"step {pauses}"
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.commit()

    monkeypatch.setattr(schema, "pause_s", creator_moves_on)
    with closing(connection):
        schema.prepare_schema(path)
    assert pauses == 5


def test_a_creator_that_takes_for_ever_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Waiting for somebody else's migrations has an end, and is not taken for an error of the records.
    """
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0')")
        connection.commit()
        steps = 0

        def creator_moves_on(seconds: float) -> None:
            nonlocal steps
            del seconds
            steps += 1
            connection.execute("UPDATE alembic_version SET version_num = ?", (str(steps),))
            connection.commit()

        monkeypatch.setattr(schema, "pause_s", creator_moves_on)
        monkeypatch.setattr(schema, "_PATIENCE_S", 0.2)
        began_s = now_monotonic_s()
        with pytest.raises(TransientTrackingError) as caught:
            schema.prepare_schema(path)
    assert caught.value.kind is ErrorKind.STORE_BUSY
    assert now_monotonic_s() - began_s < 10.0


def test_leftovers_of_a_killed_creator_are_removed(tmp_path: Path) -> None:
    """
    A kill in the middle of a creation leaves a file that the next creation takes away, but never
    one that may still be in use.
    """
    old, new = tmp_path / ".mlflow.db.aa.new", tmp_path / ".mlflow.db.bb.new"
    for leftover in (old, new):
        leftover.write_bytes(b"half")
    make_old(old)
    schema._remove_leftovers(tmp_path / "mlflow.db")
    assert (old.exists(), new.exists()) == (False, True)


def test_without_mlflow_records_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A missing or broken mlflow is a state of the machine, told in words, not a crash.
    """
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TransientTrackingError, match="mlflow") as caught:
        MlflowTracking(f"file://{tmp_path}").ensure_experiment("e", artifact_location=None)
    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.fixture
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that has not imported mlflow yet; at the end it has what it had.
    """
    for name in [one for one in sys.modules if one == "mlflow" or one.startswith("mlflow.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("without_mlflow")
def test_mlflow_that_is_too_old_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Below the version that we need, the records wait; and an upgrade is seen by the same process.
    """
    package = tmp_path / "mlflow"
    package.mkdir()
    (package / "__init__.py").write_text("class MlflowClient: pass\n", encoding="ascii")
    (package / "version.py").write_text('VERSION = "2.22.1"\n', encoding="ascii")
    monkeypatch.syspath_prepend(tmp_path)
    tracking = MlflowTracking("http://127.0.0.1:1")
    with pytest.raises(
        TransientTrackingError, match=r"mlflow 2\.22\.1 is too old: want 3"
    ) as caught:
        tracking.find_run("0", "uid")
    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert "mlflow" not in sys.modules
    (package / "version.py").write_text('VERSION = "3.9.0"\n', encoding="ascii")
    assert versions.mlflow_version() == "3.9.0"
    versions.check_mlflow()


@pytest.mark.usefixtures("without_mlflow")
def test_broken_mlflow_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After an import that failed half-way, whatever the reason, the next try begins anew.
    """
    package = tmp_path / "mlflow"
    package.mkdir()
    (package / "part.py").write_text("", encoding="ascii")
    (package / "__init__.py").write_text(
        "import mlflow.part\nraise ValueError('broken')\n", encoding="ascii"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TransientTrackingError, match="broken"):
        MlflowTracking("http://127.0.0.1:1").find_run("0", "uid")
    assert [name for name in sys.modules if name.startswith("mlflow")] == []


def test_every_scheme_of_mlflow_is_known() -> None:
    """
    No address that this MLflow would take is refused by the settings.
    """
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    plugins = set(SCHEMES)  # those are found by their entry points
    runs = set(tracking._tracking_store_registry._registry) - {"", "databricks-uc", "uc"}
    assert runs - plugins <= TRACKING_STORE.schemes
    models = set(registry._get_store_registry()._registry) - {""}
    assert models - plugins <= MODEL_REGISTRY.schemes
