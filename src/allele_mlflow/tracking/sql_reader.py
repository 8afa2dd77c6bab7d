"""
`Reader` by SQL of our own, read-only, page by page: no reader keeps a writer waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    PAIRS,
    RunFrames,
    check_experiment_ids,
    check_history_request,
    frame_of,
    history_frame,
    runs_frame,
)
from allele_mlflow.tracking.schema import sqlite_path

_IDS_PER_QUERY = 500
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

    def runs(
        self, experiment_ids: Sequence[str] | None = None, *, with_deleted: bool = False
    ) -> RunFrames:
        """
        See `Reader`.
        """
        wanted = [] if with_deleted else ["lifecycle_stage = 'active'"]
        given: dict[str, Any] = {}
        ids = check_experiment_ids(experiment_ids)
        if ids is not None:
            wanted.append("experiment_id IN :experiments")
            given["experiments"] = [int(one) for one in ids]
        where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
        rows = self._rows(
            "SELECT run_uuid, CAST(experiment_id AS VARCHAR), name, status, lifecycle_stage,"
            f" start_time, end_time, artifact_uri FROM runs{where}"
            " ORDER BY start_time DESC, run_uuid",
            given,
        )
        found = [row[0] for row in rows]
        pairs = "SELECT run_uuid, key, value FROM {} WHERE run_uuid IN :ids ORDER BY run_uuid, key"
        latest = (
            "SELECT run_uuid, key, step, timestamp, value, is_nan FROM latest_metrics"
            " WHERE run_uuid IN :ids ORDER BY run_uuid, key"
        )
        return RunFrames(
            runs_frame(rows),
            frame_of(self._rows_of(found, pairs.format("params")), PAIRS),
            frame_of(self._rows_of(found, pairs.format("tags")), PAIRS),
            history_frame(self._rows_of(found, latest)),
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

    def _rows_of(self, ids: Sequence[str], query: str) -> list[Sequence[Any]]:
        found: list[Sequence[Any]] = []
        for start in range(0, len(ids), _IDS_PER_QUERY):
            found += self._rows(query, {"ids": ids[start : start + _IDS_PER_QUERY]})
        return found

    def _rows(self, query: str, given: dict[str, Any] | None = None) -> list[Sequence[Any]]:
        from sqlalchemy import bindparam, text

        given = given or {}
        lists = [bindparam(k, expanding=True) for k, v in given.items() if isinstance(v, list)]
        with mapped_errors(f"read {self._masked}"), self._engine.connect() as connection:
            return list(connection.execute(text(query).bindparams(*lists), given))
