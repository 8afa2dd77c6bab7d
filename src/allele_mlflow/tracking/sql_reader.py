"""
`Reader` by SQL of our own, read-only, page by page: no reader keeps a writer waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd

from allele_mlflow.errors import ErrorKind, TransientTrackingError
from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.bulk_store import TABLES
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.frames import (
    EXPERIMENTS,
    PAGE_ROWS,
    RunFrames,
    WantedRuns,
    check_history_request,
    check_runs_request,
    frame_of,
    history_frame,
    pairs_frame,
    runs_frame,
)
from allele_mlflow.tracking.schema import sqlite_path

# Together below the 999 values that an old SQLite takes in a query.
_IDS_PER_QUERY = 500
_KEYS_PER_QUERY = 400
_RUN_COLUMNS = (
    *("run_uuid", "experiment_id", "name", "status", "lifecycle_stage"),
    *("start_time", "end_time", "artifact_uri"),
)


class SqlReader:
    """
    `Reader` by SQL of our own: SQLite and PostgreSQL, read-only.
    """

    def __init__(self, uri: str) -> None:
        """
        Args:
            uri: Of the database, as SQLAlchemy takes it.
        """
        import sqlalchemy

        self._masked = mask_secrets(uri)
        path = sqlite_path(uri)
        if path is not None:
            if not path.exists():
                raise TransientTrackingError(
                    f"{path}: there is no such database", kind=ErrorKind.STORE_UNREACHABLE
                )
            uri = f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true"
        options = {} if path is not None else {"postgresql_readonly": True}
        with mapped_errors(f"open {self._masked}", can_refuse=False):
            engine = sqlalchemy.create_engine(uri, pool_pre_ping=True)
            self._engine = engine.execution_options(**options)

    def is_fit(self) -> bool:
        """
        Whether the tables are as we know them.

        Raises:
            TrackingError: the database does not answer.
        """
        import sqlalchemy

        wanted = {name: key | rest for name, (key, rest) in TABLES.items()}
        wanted["runs"] = frozenset(_RUN_COLUMNS)
        wanted["experiments"] = frozenset({"experiment_id", "name", "lifecycle_stage"})
        with mapped_errors(f"open {self._masked}", can_refuse=False):
            inspector = sqlalchemy.inspect(self._engine)
            tables = set(inspector.get_table_names())
            return all(
                name in tables and columns <= {c["name"] for c in inspector.get_columns(name)}
                for name, columns in wanted.items()
            )

    def experiments(self) -> pd.DataFrame:
        """
        See `Reader`.
        """
        rows = self._rows(
            "SELECT CAST(experiment_id AS VARCHAR), name, lifecycle_stage FROM experiments"
            " ORDER BY experiment_id"
        )
        return frame_of(rows, EXPERIMENTS)

    def experiment_id_of(self, name: str) -> str | None:
        """
        See `Reader`. Of several, which MLflow's workspaces allow, the oldest that is not deleted.
        """
        rows = self._rows(
            "SELECT CAST(experiment_id AS VARCHAR) FROM experiments WHERE name = :name"
            " ORDER BY lifecycle_stage, experiments.experiment_id LIMIT 1",
            {"name": name},
        )
        return str(rows[0][0]) if rows else None

    def runs(
        self,
        experiment_ids: Sequence[str] | None = None,
        *,
        run_ids: Sequence[str] | None = None,
        with_deleted: bool = False,
        with_tags: Mapping[str, str | None] | None = None,
        tag_keys: Sequence[str] | None = None,
        param_keys: Sequence[str] | None = None,
        metric_keys: Sequence[str] | None = None,
    ) -> RunFrames:
        """
        See `Reader`.
        """
        wanted = check_runs_request(
            experiment_ids,
            run_ids=run_ids,
            with_deleted=with_deleted,
            with_tags=with_tags,
            tag_keys=tag_keys,
            param_keys=param_keys,
            metric_keys=metric_keys,
        )
        rows = self._run_rows(wanted)
        found = [row[0] for row in rows]
        latest = "latest_metrics", "key, step, timestamp, value, is_nan"
        return RunFrames(
            runs_frame(rows),
            self._frame_of(found, wanted.param_keys, ("params", "key, value"), pairs_frame),
            self._frame_of(found, wanted.tag_keys, ("tags", "key, value"), pairs_frame),
            self._frame_of(found, wanted.metric_keys, latest, history_frame),
        )

    def history(
        self,
        run_ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """
        See `Reader`.

        Each page is a query of its own, which begins behind the last row: an open one would hold a
        lock on SQLite while the page is worked on.
        """
        check_history_request(run_ids, keys, page_rows)
        return self._pages(run_ids, keys, page_rows)

    def _pages(
        self, run_ids: Sequence[str], keys: Sequence[str] | None, page_rows: int
    ) -> Iterator[pd.DataFrame]:
        waiting: list[Sequence[Any]] = []
        for run_id in run_ids if keys is None or keys else ():
            last: Sequence[Any] | None = None
            while last is None or last:
                rows = self._page(run_id, keys, last, page_rows - len(waiting))
                waiting += rows
                last = rows[-1] if len(waiting) >= page_rows else []
                if len(waiting) >= page_rows:
                    yield history_frame(waiting)
                    waiting = []
        if waiting:
            yield history_frame(waiting)

    def close(self) -> None:
        """
        See `Reader`.
        """
        self._engine.dispose()

    def _page(
        self, run_id: str, keys: Sequence[str] | None, last: Sequence[Any] | None, limit: int
    ) -> list[Sequence[Any]]:
        order = "key, step, timestamp, value, is_nan"
        query = f"SELECT run_uuid, {order} FROM metrics WHERE run_uuid = :run_id"
        given: dict[str, Any] = {"run_id": run_id, "limit": limit}
        if keys is not None:
            query += " AND key IN :keys"
            given["keys"] = list(keys)
        if last:
            query += f" AND ({order}) > (:key, :step, :timestamp, :value, :is_nan)"
            names = ("key", "step", "timestamp", "value", "is_nan")
            given |= dict(zip(names, last[1:], strict=True))
        return self._rows(f"{query} ORDER BY {order} LIMIT :limit", given)

    def _run_rows(self, wanted: WantedRuns) -> list[Sequence[Any]]:
        if any(one is not None and not one for one in (wanted.experiment_ids, wanted.run_ids)):
            return []  # an empty list has no type that PostgreSQL would compare with
        conditions = [] if wanted.with_deleted else ["lifecycle_stage = 'active'"]
        given: dict[str, Any] = {}
        if wanted.experiment_ids is not None:
            conditions.append("experiment_id IN :experiments")
            given["experiments"] = [int(one) for one in wanted.experiment_ids]
        if wanted.run_ids is not None:
            conditions.append("run_uuid IN :runs")
            given["runs"] = wanted.run_ids
        for number, (key, value) in enumerate(wanted.with_tags.items()):
            is_it = "value != ''" if value is None else f"value = :value_{number}"
            conditions.append(
                f"run_uuid IN (SELECT run_uuid FROM tags WHERE key = :key_{number} AND {is_it})"
            )
            given[f"key_{number}"] = key
            if value is not None:
                given[f"value_{number}"] = value
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return self._rows(
            "SELECT run_uuid, CAST(experiment_id AS VARCHAR), name, status, lifecycle_stage,"
            f" start_time, end_time, artifact_uri FROM runs{where}"
            " ORDER BY start_time DESC, run_uuid",
            given,
        )

    def _frame_of(
        self,
        ids: Sequence[str],
        keys: Sequence[str] | None,
        columns_of_table: tuple[str, str],
        make: Callable[[list[Sequence[Any]]], pd.DataFrame],
    ) -> pd.DataFrame:
        """
        What a table holds of these runs and keys.

        Made piece by piece: rows as objects of Python take several times the memory of a frame.
        """
        table, columns = columns_of_table
        query = f"SELECT run_uuid, {columns} FROM {table} WHERE run_uuid IN :ids"
        given: dict[str, Any] = {}
        is_in_query = keys is not None and len(keys) <= _KEYS_PER_QUERY
        if is_in_query:
            query, given = f"{query} AND key IN :keys", {"keys": keys}
        kept = None if keys is None or is_in_query else frozenset(keys)
        pieces = []
        for start in range(0, len(ids) if keys is None or keys else 0, _IDS_PER_QUERY):
            given["ids"] = ids[start : start + _IDS_PER_QUERY]
            rows = self._rows(f"{query} ORDER BY run_uuid, key", given)
            pieces.append(make(rows if kept is None else [row for row in rows if row[1] in kept]))
        return pd.concat(pieces, ignore_index=True) if pieces else make([])

    def _rows(self, query: str, given: dict[str, Any] | None = None) -> list[Sequence[Any]]:
        from sqlalchemy import bindparam, text

        given = given or {}
        lists = [bindparam(k, expanding=True) for k, v in given.items() if isinstance(v, list)]
        with mapped_errors(f"read {self._masked}"), self._engine.connect() as connection:
            # all at once and as the driver has them: rows of SQLAlchemy's own take several times
            # as long
            return list(connection.execute(text(query).bindparams(*lists), given).cursor.fetchall())
