"""
The first opening of a SQLite database: its tables appear whole, or not at all.

MLflow creates them in some seventy steps that each commit, takes no lock for it, and fails when two
programs do it to one file at once ("duplicate column name"). The sidecar and the user's own mlflow
client open the same new file, so ours is made under another name and linked into place.

Thread and process safety: any number of processes may do this to one path at once.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from allele_mlflow.clock import now_monotonic_s, now_ns, pause_s
from allele_mlflow.errors import ErrorKind, TransientTrackingError

#: How long an unfinished file must be left alone before we take it for abandoned. The longest pause
#: between two steps of a living creator was 0.7 s (2 busy cores); an empty file is a program
#: about to take its first step, or one that only made the name (`mkstemp`).
EMPTY_QUIET_S = 2.0
UNFINISHED_QUIET_S = 5.0
_PATIENCE_S = 20.0  # MLflow's own busy time-out for SQLite
_LOOK_INTERVAL_S = 0.05
_LEFTOVER_AGE_S = 3600.0


def sqlite_path(tracking_uri: str) -> Path | None:
    """
    The file behind a SQLite URI, or None where there is none that we could look at.
    """
    if not tracking_uri.startswith(("sqlite:", "sqlite+")):
        return None
    from sqlalchemy.engine import make_url

    database = make_url(tracking_uri).database
    if not database or database == ":memory:" or database.startswith("file:"):
        return None
    return Path(database)


def prepare_schema(path: Path) -> None:
    """
    Make a new database file with MLflow's tables, or see to it that an existing one may be opened.

    Args:
        path: The database; its folder is made where it is missing.
    Raises:
        TransientTrackingError: another program is creating the tables of this file, for longer than
            20 s (STORE_BUSY).
        Exception: what MLflow, SQLite or the file system raise; the caller maps it.

    Cost: 3 s for a new file (2 s of it CPU: MLflow's migrations), 50 ms for a finished one.
    """
    path = Path(os.path.realpath(path))  # of a link: where the file will be
    if path.exists():
        _await_other_creator(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _finished_database(path) as finished:
        try:
            # Never a rename: it would replace a file that somebody has made and opened meanwhile.
            os.link(finished, path)
        except FileExistsError:
            _await_other_creator(path)
        except OSError:
            # No hard links here (FAT, some network mounts): MLflow creates the tables in place,
            # as it does without us.
            return


@contextmanager
def _finished_database(path: Path) -> Iterator[Path]:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _remove_leftovers(path)
    finished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    uri = f"sqlite:///{finished}"
    try:
        # The artifact root becomes that of MLflow's "Default" experiment, for good. Left out, it
        # would be ./mlruns of the sidecar, whose working folder is /.
        store = SqlAlchemyStore(uri, _default_root(path.parent / "mlruns"))
        # SQLite names its journal after the name that it opened: no connection may outlive this
        # name.
        store.engine.dispose()
        yield finished
    finally:
        getattr(SqlAlchemyStore, "_engine_map", {}).pop(uri, None)
        for leftover in (finished, finished.with_name(f"{finished.name}-journal")):
            leftover.unlink(missing_ok=True)


def _default_root(folder: Path) -> str:
    # MLflow puts it between apostrophes into a statement of its own making.
    return folder.as_uri() if "'" in str(folder) else str(folder)


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.new*"):
        if _age_s(leftover) > _LEFTOVER_AGE_S:  # of a process that was killed
            leftover.unlink(missing_ok=True)


def _await_other_creator(path: Path) -> None:
    heads = _head_versions()
    deadline_s = now_monotonic_s() + _PATIENCE_S
    version = _schema_version(path, last=None)
    changed_s = now_monotonic_s()
    while version != heads:
        quiet_s = UNFINISHED_QUIET_S if version else EMPTY_QUIET_S
        if now_monotonic_s() - changed_s > quiet_s or _is_left_alone(path, quiet_s):
            # Abandoned, or of another version of MLflow: opening it goes on in place, or says
            # what is wrong with it. Of a newer one it would say the opposite of what helps.
            _refuse_newer(path, version)
            return
        if now_monotonic_s() > deadline_s:
            raise TransientTrackingError(
                f"{path}: another program is still creating MLflow's tables; want a finished file",
                kind=ErrorKind.STORE_BUSY,
                path=str(path),
            )
        pause_s(_LOOK_INTERVAL_S)
        seen = _schema_version(path, last=version)
        if seen != version:
            version, changed_s = seen, now_monotonic_s()


def _refuse_newer(path: Path, version: frozenset[str] | None) -> None:
    if version and is_newer_schema(version):
        import mlflow

        raise TransientTrackingError(
            f"{path}: a newer MLflow than the one here ({mlflow.__version__}) has made its tables "
            f"(schema {', '.join(sorted(version))}); want the newer one here "
            "(pip install --upgrade mlflow-skinny); records wait in the spool",
            kind=ErrorKind.STORE_UNREACHABLE,
            path=str(path),
            schema=sorted(version),
        )


def is_newer_schema(version: frozenset[str]) -> bool:
    """
    Whether tables of this schema version were made by a newer MLflow than the one here.

    Cost: reads MLflow's migrations, 0.3 s.
    """
    known = {script.revision for script in _migrations().walk_revisions()}
    return not version <= known


def read_schema_version(uri: str) -> frozenset[str]:
    """
    The schema version in the database behind any SQL address; empty where it has none.

    Raises:
        Exception: what SQLAlchemy and the driver raise.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return frozenset()
            rows = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
            return frozenset(str(row[0]) for row in rows)
    finally:
        engine.dispose()


def _is_left_alone(path: Path, quiet_s: float) -> bool:
    # In the middle of a transaction the file itself stays old; its journal is there.
    return _age_s(path) > quiet_s and not path.with_name(f"{path.name}-journal").exists()


def _age_s(path: Path) -> float:
    try:
        return (now_ns() - path.stat().st_mtime_ns) / 1e9
    except FileNotFoundError:
        return 0.0


def _schema_version(path: Path, *, last: frozenset[str] | None) -> frozenset[str] | None:
    uri = f"file:{quote(str(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError as exc:
        return last if "locked" in str(exc) else None  # None: no such table yet
    return frozenset(version for (version,) in rows)


def _head_versions() -> frozenset[str]:
    return frozenset(_migrations().get_heads())


def _migrations() -> Any:
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
