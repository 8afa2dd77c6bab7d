"""
Reading back: runs and their histories as pandas frames, in pages of bounded size.

`open_reader` looks at the address. SQLite and PostgreSQL are asked in SQL, read-only and page by
page, so that no reader keeps a writer waiting; anything else is asked through MLflow's own client,
many runs at once where the server has a way to. Frames and order are the same.

The only module of the room that imports pandas; the sidecar never imports it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import pandas as pd

from allele_mlflow.errors import ErrorKind, TransientTrackingError
from allele_mlflow.records import OWN_ARTIFACTS
from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.bulk_store import TABLES
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.limits import LARGEST_VALUE
from allele_mlflow.tracking.schema import sqlite_path

#: Columns and dtypes of each frame.
RUNS = {
    "run_id": "object",
    "experiment_id": "object",
    "name": "object",
    "status": "object",
    "lifecycle": "object",
    "start_time": "datetime64[ms, UTC]",
    "end_time": "datetime64[ms, UTC]",
    "artifact_uri": "object",
}
PAIRS = {"run_id": "object", "key": "object", "value": "object"}
HISTORY = {
    "run_id": "object",
    "key": "object",
    "step": "int64",
    "timestamp_ms": "int64",
    "value": "float64",
}
READINGS = {"key": "object", "step": "int64", "timestamp_ms": "int64", "value": "float64"}
EXPERIMENTS = {"experiment_id": "object", "name": "object", "lifecycle": "object"}

#: Rows of a page: some 10 MB.
PAGE_ROWS = 100_000
#: The most that MLflow's server gives of histories in one answer, and for how many runs.
SERVER_ROWS = 25_000
SERVER_RUNS = 100
_IDS_PER_QUERY = 500
_SEARCH_PAGE_SIZE = 1000
_BULK_ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_RUN_COLUMNS = (
    *("run_uuid", "experiment_id", "name", "status", "lifecycle_stage"),
    *("start_time", "end_time", "artifact_uri"),
)
_PREFIX = "bulk+"
_ARTIFACT_NAMES = ("readings.parquet", "readings.csv.gz")


class RunFrames(NamedTuple):
    """
    Runs in tidy frames, all keyed by `run_id`.

    Attributes:
        runs: Columns of `RUNS`; times in UTC, `end_time` NaT while a run goes on.
        params: Columns of `PAIRS`.
        tags: Columns of `PAIRS`.
        metrics: Columns of `HISTORY`: of each key the reading that MLflow shows.
    """

    runs: pd.DataFrame
    params: pd.DataFrame
    tags: pd.DataFrame
    metrics: pd.DataFrame


class Reader(Protocol):
    """
    Reads one tracking store; changes nothing in it. Not thread-safe.
    """

    def experiments(self) -> pd.DataFrame:
        """
        Columns of `EXPERIMENTS`, deleted ones too.

        Raises:
            TrackingError: the store does not answer.
        """

    def runs(
        self, experiment_ids: Sequence[str] | None = None, *, with_deleted: bool = False
    ) -> RunFrames:
        """
        The runs of these experiments, all by default, newest first.

        Raises:
            TrackingError: the store does not answer.
        """

    def history(
        self,
        run_ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """
        Every reading of these runs and keys (all by default) once, in frames of `HISTORY`.

        Runs and keys come in any order and may share a page. The readings of one key of one run
        come by step, then time; over HTTP a history of more than 25,000 comes by time. What MLflow
        keeps as its largest number is infinite again.

        Raises:
            TrackingError: the store does not answer.
        """

    def close(self) -> None:
        """
        Give back connections.
        """


def open_reader(tracking_uri: str) -> Reader:
    """
    A reader for the store of that address, as MLflow takes it.

    Raises:
        TrackingError: there is no such store, or it does not answer.
    """
    address = tracking_uri.removeprefix(_PREFIX)
    if address.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql"):
        reader = SqlReader(address)
        if reader.is_fit():
            return reader
        reader.close()
    return ClientReader(tracking_uri)


def artifact_readings(
    tracking_uri: str, run_id: str, *, page_rows: int = PAGE_ROWS
) -> Iterator[pd.DataFrame]:
    """
    All readings of the keys of a run that `SAMPLING` thinned, from the run's own artifacts, in
    frames of `READINGS`; nothing where none was thinned.

    Raises:
        TrackingError: the store does not answer.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    with mapped_errors(f"artifacts of run {run_id}"):
        paths = _find_readings(client, run_id)
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            with mapped_errors(f"artifact {path} of run {run_id}"):
                file = Path(client.download_artifacts(run_id, path, folder))
            yield from _pages_of(file, page_rows)


def _find_readings(client: Any, run_id: str) -> list[str]:
    found, folders = [], [OWN_ARTIFACTS]
    while folders:
        for entry in client.list_artifacts(run_id, folders.pop()):
            if entry.is_dir and entry.path.removeprefix(OWN_ARTIFACTS).startswith("/parts"):
                folders.append(entry.path)
            elif entry.path.rpartition("/")[2] in _ARTIFACT_NAMES:
                found.append(entry.path)
    return sorted(found)


def _pages_of(file: Path, page_rows: int) -> Iterator[pd.DataFrame]:
    if file.suffix == ".gz":
        with pd.read_csv(
            file,
            chunksize=page_rows,
            dtype=READINGS,
            na_values={"value": ["nan"]},
            keep_default_na=False,
        ) as pages:
            yield from pages
        return
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=page_rows):
            yield batch.to_pandas().astype(READINGS)


# --- SQL ----------------------------------------------------------------------------------------


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
        return _frame(rows, EXPERIMENTS)

    def runs(
        self, experiment_ids: Sequence[str] | None = None, *, with_deleted: bool = False
    ) -> RunFrames:
        """
        See `Reader`.
        """
        wanted = [] if with_deleted else ["lifecycle_stage = 'active'"]
        given: dict[str, Any] = {}
        if experiment_ids is not None:
            wanted.append("experiment_id IN :experiments")
            given["experiments"] = [int(one) for one in experiment_ids]
        where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
        rows = self._rows(
            "SELECT run_uuid, CAST(experiment_id AS VARCHAR), name, status, lifecycle_stage,"
            f" start_time, end_time, artifact_uri FROM runs{where}"
            " ORDER BY start_time DESC, run_uuid",
            given,
        )
        ids = [row[0] for row in rows]
        pairs = "SELECT run_uuid, key, value FROM {} WHERE run_uuid IN :ids ORDER BY run_uuid, key"
        latest = (
            "SELECT run_uuid, key, step, timestamp, value, is_nan FROM latest_metrics"
            " WHERE run_uuid IN :ids ORDER BY run_uuid, key"
        )
        return RunFrames(
            _runs_frame(rows),
            _frame(self._rows_of(ids, pairs.format("params")), PAIRS),
            _frame(self._rows_of(ids, pairs.format("tags")), PAIRS),
            _history_frame(self._rows_of(ids, latest)),
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
        waiting: list[Sequence[Any]] = []
        for run_id in run_ids if keys is None or keys else ():
            last: Sequence[Any] | None = None
            while last is None or last:
                rows = self._page(run_id, keys, last, page_rows - len(waiting))
                waiting += rows
                last = rows[-1] if len(waiting) >= page_rows else []
                if len(waiting) >= page_rows:
                    yield _history_frame(waiting)
                    waiting = []
        if waiting:
            yield _history_frame(waiting)

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


# --- MLflow's client ----------------------------------------------------------------------------


class ClientReader:
    """
    `Reader` through MLflow's own client: any store. Imports mlflow.
    """

    def __init__(self, tracking_uri: str) -> None:
        """
        Args:
            tracking_uri: As MLflow takes it.
        """
        self._masked = mask_secrets(tracking_uri)
        with mapped_errors(f"open {self._masked}", can_refuse=False):
            from mlflow import MlflowClient
            from mlflow.store.tracking.rest_store import RestStore

            self._client = MlflowClient(tracking_uri=tracking_uri)
            self._store: Any = self._client._tracking_client.store
            self._is_server = type(self._store) is RestStore

    def experiments(self) -> pd.DataFrame:
        """
        See `Reader`.
        """
        from mlflow.entities import ViewType

        with mapped_errors(f"experiments of {self._masked}"):
            found = _all_pages(
                lambda token: self._client.search_experiments(
                    ViewType.ALL, order_by=["experiment_id ASC"], page_token=token
                )
            )
            return _frame(
                [(e.experiment_id, e.name, e.lifecycle_stage) for e in found], EXPERIMENTS
            )

    def runs(
        self, experiment_ids: Sequence[str] | None = None, *, with_deleted: bool = False
    ) -> RunFrames:
        """
        See `Reader`.
        """
        from mlflow.entities import ViewType

        view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
        if experiment_ids is None:
            experiment_ids = list(self.experiments().experiment_id)
        rows: list[Sequence[Any]] = []
        params: list[Sequence[Any]] = []
        tags: list[Sequence[Any]] = []
        metrics: list[Sequence[Any]] = []
        with mapped_errors(f"runs of {self._masked}"):
            for run in _all_pages(
                lambda token: self._client.search_runs(
                    list(experiment_ids),
                    run_view_type=view,
                    max_results=_SEARCH_PAGE_SIZE,
                    order_by=["attributes.start_time DESC", "attributes.run_id ASC"],
                    page_token=token,
                )
            ):
                info, uid = run.info, run.info.run_id
                rows.append(
                    (
                        *(uid, info.experiment_id, info.run_name, info.status),
                        *(info.lifecycle_stage, info.start_time, info.end_time),
                        info.artifact_uri,
                    )
                )
                params += [(uid, key, value) for key, value in sorted(run.data.params.items())]
                tags += [(uid, key, value) for key, value in sorted(run.data.tags.items())]
                latest = sorted(run.data._metric_objs, key=lambda metric: str(metric.key))
                metrics += [(uid, m.key, m.step, m.timestamp, m.value, False) for m in latest]
        return RunFrames(
            _runs_frame(rows), _frame(params, PAIRS), _frame(tags, PAIRS), _history_frame(metrics)
        )

    def history(
        self,
        run_ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """
        See `Reader`. A server is asked for a hundred runs at a time.
        """
        waiting: list[Sequence[Any]] = []
        for rows in self._histories(run_ids, keys):
            waiting += rows
            while len(waiting) >= page_rows:
                yield _history_frame(waiting[:page_rows])
                waiting = waiting[page_rows:]
        if waiting:
            yield _history_frame(waiting)

    def close(self) -> None:
        """
        See `Reader`. MLflow keeps its connections for the life of the process.
        """

    def _histories(
        self, run_ids: Sequence[str], keys: Sequence[str] | None
    ) -> Iterator[list[Sequence[Any]]]:
        for start in range(0, len(run_ids), SERVER_RUNS):
            some = run_ids[start : start + SERVER_RUNS]
            runs_by_key: dict[str, list[str]] = {}
            for run_id in some:
                with mapped_errors(f"run {run_id}"):
                    found = self._client.get_run(run_id).data.metrics
                for key in sorted(found):
                    if keys is None or key in keys:
                        runs_by_key.setdefault(key, []).append(run_id)
            for key, ids in runs_by_key.items():
                rows = self._ask_for_many(ids, key) if self._is_server else None
                if rows is not None:
                    yield rows
                    continue
                for run_id in ids:
                    yield from self._ask_for_one(run_id, key)

    def _ask_for_many(self, run_ids: Sequence[str], key: str) -> list[Sequence[Any]] | None:
        """
        The readings of one key of many runs, None where the server has no way to, or too many.
        """
        from mlflow.utils.rest_utils import http_request

        with mapped_errors(f"histories of {key!r}"):
            answer = http_request(
                self._store.get_host_creds(),
                _BULK_ENDPOINT,
                "GET",
                params={"run_id": list(run_ids), "metric_key": key, "max_results": SERVER_ROWS},
            )
            if answer.status_code != 200:
                return None
            try:
                found = answer.json()["metrics"]
            except (ValueError, KeyError, TypeError):
                return None
        if len(found) >= SERVER_ROWS:
            return None
        rows = [(m["run_id"], key, m["step"], m["timestamp"], m["value"], False) for m in found]
        return sorted(rows, key=_order)

    def _ask_for_one(self, run_id: str, key: str) -> Iterator[list[Sequence[Any]]]:
        token = None
        while True:
            with mapped_errors(f"history of {key!r} of run {run_id}"):
                if self._is_server:
                    page = self._store.get_metric_history(run_id, key, SERVER_ROWS, token)
                else:
                    page = self._client.get_metric_history(run_id, key)
            rows = [(run_id, key, m.step, m.timestamp, m.value, False) for m in page]
            yield sorted(rows, key=_order)
            token = getattr(page, "token", None)
            if not token:
                return


def _all_pages(ask: Any) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _order(row: Sequence[Any]) -> tuple[Any, ...]:
    value = row[4]
    return (row[0], row[2], row[3], value != value, value)


# --- frames -------------------------------------------------------------------------------------


def _frame(rows: Iterable[Sequence[Any]], columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(map(tuple, rows)), columns=list(columns)).astype(columns)


def _runs_frame(rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(map(tuple, rows)), columns=list(RUNS))
    for name in ("start_time", "end_time"):
        # 0 is what MLflow's server answers for an end that has not come
        times = pd.to_numeric(frame[name]).astype("Int64").replace(0, pd.NA)
        frame[name] = pd.to_datetime(times, unit="ms", utc=True)
    return frame.astype(RUNS)


def _history_frame(rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    return _frame(
        (
            (run_id, key, step, timestamp, math.nan if is_nan else _infinite_again(value))
            for run_id, key, step, timestamp, value, is_nan in rows
        ),
        HISTORY,
    )


def _infinite_again(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) == LARGEST_VALUE else value
