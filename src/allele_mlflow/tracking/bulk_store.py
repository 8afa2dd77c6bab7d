"""
`log_batch` on MLflow's own SQL store at the speed of the database: SQLite and PostgreSQL.

MLflow's makes an object for each reading, checks it twice, and takes four transactions a call. This
one hands rows to the database's own "insert, unless it is there" in one transaction, and leaves the
same rows behind: `tests/integration/test_bulk_store.py` drives both with the same histories and
compares every table. It reaches into MLflow's private parts, so it looks first whether they are
what it knows (`BulkStore`), and where they are not, MLflow's own call is taken.

The rules it keeps are those of store/tracking/sqlalchemy_store.py and utils/validation.py in
MLflow 3.9 to 3.17.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.limits import LARGEST_VALUE

RUN_NAME_TAG = "mlflow.runName"
#: "ON CONFLICT ... DO UPDATE ... WHERE", and the comparison of rows.
SQLITE_FLOOR = (3, 24, 0)
#: What the tables must be: the columns of the primary key, and the others.
TABLES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "metrics": (
        frozenset({"key", "timestamp", "step", "run_uuid", "value", "is_nan"}),
        frozenset(),
    ),
    "latest_metrics": (
        frozenset({"key", "run_uuid"}),
        frozenset({"timestamp", "step", "value", "is_nan"}),
    ),
    "params": (frozenset({"key", "run_uuid"}), frozenset({"value"})),
    "tags": (frozenset({"key", "run_uuid"}), frozenset({"value"})),
}
#: Of the store's class: what we call, and what we stand in for.
CALLED = ("ManagedSessionMaker", "_get_run", "_check_run_is_active")
REPLACED = (
    "log_batch",
    "_log_metrics",
    "_log_params",
    "_set_tags",
    "_update_latest_metrics_if_necessary",
    "sanitize_metric_value",
)
#: Several batches share a transaction: a commit takes milliseconds, a row microseconds, and the
#: lock on the database is held for a tenth of a second at most.
READINGS_PER_TRANSACTION = 4000
#: How long a thread waits for the others of this process to write; then it asks the database.
TURN_S = 5.0
#: Keys of which we remember that MLflow takes them.
KNOWN_KEYS = 100_000

#: A row of `metrics`: key, value, timestamp, step, is_nan, run_uuid.
Row = tuple[str, float, int, int, bool, str]


class UnfitError(Exception):
    """
    The store is not one that we know; the text says what is other.
    """


class BulkStore:
    """
    Writes batches into one of MLflow's SQL stores. Any thread; not across a fork.
    """

    writes_by = "bulk"
    readings_per_call = READINGS_PER_TRANSACTION
    #: Failures in a row that MLflow's own call did not meet, after which this is not used any more.
    most_doubts = 1

    def __init__(self, store: Any, *, kind: type | None = None) -> None:
        """
        The bulk writer of a store that MLflow opened.

        Args:
            store: One of MLflow's SQL stores.
            kind: The class that must be MLflow's own; the store's by default.
        Raises:
            UnfitError: it is none of MLflow's SQL stores, or not as we know them.
            SQLAlchemyError: the database cannot be looked at now.
        """
        _check_class(store, kind or type(store))
        self._store = store
        self._database = store.engine.dialect.name
        if self._database not in _WRITERS:
            raise UnfitError(f"database {self._database!r}: want SQLite or PostgreSQL")
        _check_tables(store.engine)
        self._insert = _WRITERS[self._database]
        # older ones know no replicas, and do not repeat what a deadlock ended
        is_routed = "read_only" in inspect.signature(store.ManagedSessionMaker).parameters
        self._session_options = {"read_only": False} if is_routed else {}
        self._retrying = getattr(store, "_run_with_deadlock_retry", _call)
        self._known_keys: set[str] = set()
        #: Of SQLite's one writer: those who are refused its lock sleep and ask again, up to 0.1 s.
        self._turn = threading.Lock() if self._database == "sqlite" else None

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """
        Write all of it in one transaction, or nothing; False where MLflow's own call must do it.

        Readings may be more than MLflow takes in a call: they are one transaction all the same.

        Raises:
            MlflowException: as from MLflow's `log_batch`.
        """
        from mlflow.utils.validation import _validate_param, _validate_run_id, _validate_tag

        if tags and RUN_NAME_TAG in tags:
            return False  # it stands in the run's own row too
        _validate_run_id(run_id)
        self._check(readings)
        pairs = enumerate((params or {}).items())
        kept = [_validate_param(k, v, path=f"params[{i}]") for i, (k, v) in pairs]
        pairs = enumerate((tags or {}).items())
        marks = [_validate_tag(k, v, path=f"tags[{i}]") for i, (k, v) in pairs]
        self._retrying(
            self._write,
            run_id,
            rows_of(run_id, readings),
            {param.key: param.value for param in kept},
            {tag.key: tag.value for tag in marks},
        )
        return True

    def is_doubtful(self, error: Exception) -> bool:
        """
        Whether an error may be ours, so that MLflow's own call is to tell.
        """
        return getattr(error, "error_code", "INTERNAL_ERROR") == "INTERNAL_ERROR"

    def _write(
        self, run_id: str, rows: list[Row], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        with self.writing() as connection:
            stage = connection.execute(_stage_query(), {"run_uuid": run_id}).first()
            if stage is None or stage[0] != "active":  # MLflow's own words for it
                with self._session() as session:
                    found = self._store._get_run(run_uuid=run_id, session=session)
                    self._store._check_run_is_active(found)
            if params:
                pairs = [(key, value, run_id) for key, value in sorted(params.items())]
                self._insert(connection, "params", pairs)
                _refuse_changes(run_id, params, _read_params(connection, run_id, list(params)))
            if rows:
                self._insert(connection, "metrics", rows)
                self._insert(connection, "latest_metrics", latest_of(rows))
            if tags:
                pairs = [(key, value, run_id) for key, value in sorted(tags.items())]
                self._insert(connection, "tags", pairs)

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """
        A connection in one transaction, committed at the end unless an exception ends it.
        """
        is_ours = self._turn is not None and self._turn.acquire(timeout=TURN_S)
        try:
            with self._session() as session:
                connection = session.connection()
                if self._database == "sqlite":
                    # else the lock is asked for when we have read already, and may be refused then
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        finally:
            if is_ours and self._turn is not None:
                self._turn.release()

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """
        A connection to read by.
        """
        with self._session() as session:
            yield session.connection()

    def _session(self) -> Any:
        return self._store.ManagedSessionMaker(**self._session_options)

    def _check(self, readings: Sequence[Reading]) -> None:
        """
        As MLflow checks them: keys once, and of the rest what a reading may have wrong.
        """
        from mlflow.utils.validation import _validate_metric

        if len(self._known_keys) > KNOWN_KEYS:
            self._known_keys.clear()
        known = self._known_keys
        for index, (key, value, timestamp_ms, step) in enumerate(readings):
            if key not in known or timestamp_ms < 0:
                _validate_metric(key, value, timestamp_ms, step, path=f"metrics[{index}]")
                known.add(key)


def _call(work: Callable[..., None], *arguments: Any) -> None:
    work(*arguments)


def _refuse_changes(run_id: str, sent: Mapping[str, str], stored: Mapping[str, str]) -> None:
    changed = [
        {"key": key, "old_value": stored[key], "new_value": value}
        for key, value in sent.items()
        if stored[key] != value
    ]
    if changed:
        from mlflow.exceptions import MlflowException

        raise MlflowException.invalid_parameter_value(
            "Changing param values is not allowed. Params were already"
            f" logged='{changed}' for run ID='{run_id}'."
        )


def rows_of(run_id: str, readings: Iterable[Reading]) -> list[Row]:
    """
    The rows that MLflow keeps of readings: NaN is 0 with a mark, infinities are the largest double.
    """
    rows = []
    isfinite = math.isfinite
    for key, value, timestamp_ms, step in readings:
        is_nan = False
        if not isfinite(value):
            is_nan = value != value
            value = 0.0 if is_nan else math.copysign(LARGEST_VALUE, value)
        rows.append((key, value, int(timestamp_ms), int(step), is_nan, run_id))
    return rows


def latest_of(rows: Iterable[Row]) -> list[Row]:
    """
    Of each key the row that MLflow shows: the largest by step, time and value, the first of equals.

    Sorted by key: so two that write many keys at once never wait for each other in a circle.
    """
    best: dict[str, Row] = {}
    for row in rows:
        known = best.get(row[0])
        if known is None or (row[3], row[2], row[1]) > (known[3], known[2], known[1]):
            best[row[0]] = row
    return [best[key] for key in sorted(best)]


# --- the databases ------------------------------------------------------------------------------

_METRIC_COLUMNS = {
    "key": "varchar",
    "value": "float8",
    "timestamp": "bigint",
    "step": "bigint",
    "is_nan": "boolean",
    "run_uuid": "varchar",
}
_PAIR_COLUMNS = {"key": "varchar", "value": "varchar", "run_uuid": "varchar"}
_IS_LATER = (
    "(excluded.step, excluded.timestamp, excluded.value)"
    " > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)"
)
#: By table: its columns with PostgreSQL's types, and what happens where a row is there already.
_INSERTS = {
    "metrics": (_METRIC_COLUMNS, "ON CONFLICT DO NOTHING"),
    "latest_metrics": (
        _METRIC_COLUMNS,
        "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value,"
        " timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan"
        f" WHERE {_IS_LATER}",
    ),
    "params": (_PAIR_COLUMNS, "ON CONFLICT DO NOTHING"),
    "tags": (_PAIR_COLUMNS, "ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value"),
}


def _insert_into_sqlite(connection: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    columns, conflict = _INSERTS[table]
    marks = ", ".join("?" * len(columns))
    connection.exec_driver_sql(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) {conflict}", list(rows)
    )


def _insert_into_postgres(connection: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """
    One statement with an array for each column: rows one by one would be a round trip each.
    """
    from sqlalchemy import text

    columns, conflict = _INSERTS[table]
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items())
    connection.execute(
        text(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays}) {conflict}"
        ),
        dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)),
    )


_WRITERS: dict[str, Callable[[Any, str, Sequence[tuple[Any, ...]]], None]] = {
    "sqlite": _insert_into_sqlite,
    "postgresql": _insert_into_postgres,
}


def _read_params(connection: Any, run_id: str, keys: Sequence[str]) -> dict[str, str]:
    from sqlalchemy import bindparam, text

    query = text("SELECT key, value FROM params WHERE run_uuid = :run_uuid AND key IN :keys")
    query = query.bindparams(bindparam("keys", expanding=True))
    rows = connection.execute(query, {"run_uuid": run_id, "keys": list(keys)})
    return {key: value for key, value in rows}  # noqa: C416 - rows are no pairs for a type checker


# --- is it what we know? ------------------------------------------------------------------------


def _stage_query() -> Any:
    from sqlalchemy import text

    return text("SELECT lifecycle_stage FROM runs WHERE run_uuid = :run_uuid")


def check_replaced(kind: type, names: Iterable[str]) -> None:
    """
    See to it that methods of a store's class are MLflow's own, so that ours may stand in for it.

    Raises:
        UnfitError: one is somebody else's.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for name in names:
        own = getattr(SqlAlchemyStore, name, None)
        if own is None or getattr(kind, name) is not own:
            raise UnfitError(f"{kind.__name__}.{name} is not MLflow's own")


def _check_class(store: Any, kind: type) -> None:
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from mlflow.utils.validation import (  # noqa: F401 - they must be there
            _validate_metric,
            _validate_param,
            _validate_run_id,
            _validate_tag,
        )
    except ImportError as exc:
        raise UnfitError(f"this MLflow lacks {exc.name}") from exc
    if not isinstance(store, SqlAlchemyStore):
        raise UnfitError(f"{kind.__name__}: want one of MLflow's SQL stores")
    for name in CALLED:
        if not hasattr(store, name):
            raise UnfitError(f"{kind.__name__} has no {name}")
    check_replaced(kind, REPLACED)


def _check_tables(engine: Any) -> None:
    import sqlalchemy
    from sqlalchemy.exc import NoSuchTableError

    if engine.dialect.name == "sqlite":
        version = engine.dialect.dbapi.sqlite_version_info
        if version < SQLITE_FLOOR:
            raise UnfitError(f"SQLite {version}: want {SQLITE_FLOOR} or newer")
    inspector = sqlalchemy.inspect(engine)
    try:
        for table, (key, rest) in TABLES.items():
            columns = {column["name"] for column in inspector.get_columns(table)}
            if columns != key | rest:
                raise UnfitError(f"table {table} has columns {sorted(columns)}")
            if set(inspector.get_pk_constraint(table)["constrained_columns"]) != key:
                raise UnfitError(f"table {table} has another primary key")
    except NoSuchTableError as exc:
        raise UnfitError(f"there is no table {exc}") from exc
