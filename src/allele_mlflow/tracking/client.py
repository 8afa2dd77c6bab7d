"""
MLflow behind the `Tracking` protocol: its own client, its own `log_batch`.

Over 500 lines because it is one store and its opening, and half of them say what may be relied on.

mlflow is imported at the first call and not before, because it reads part of its environment
then: a process of ours applies `prepare_environment` first, through `settings.publish_variable`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import posixpath
import re
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from allele_mlflow.errors import ErrorKind, TransientTrackingError
from allele_mlflow.records import Reading, RunId, RunStatus
from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.artifact_names import (
    bad_artifact,
    check_artifact_path,
    find_clash,
    named,
    needs_quoting,
    quoted_for_url,
)
from allele_mlflow.tracking.bulk_runs import BulkRuns
from allele_mlflow.tracking.bulk_store import BulkStore, UnfitError
from allele_mlflow.tracking.duplicates import is_duplicate_reading, split_nan
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.http_batches import HttpBatches
from allele_mlflow.tracking.limits import METRICS_PER_CALL
from allele_mlflow.tracking.protocol import RunGlance
from allele_mlflow.tracking.schema import prepare_schema, sqlite_path
from allele_mlflow.tracking.versions import import_mlflow

_logger = logging.getLogger(__name__)

RUN_UID_TAG = "allele.run_uid"
HTTP_TIMEOUT_S = 30

Answer = TypeVar("Answer")

#: Which view MLflow 3's pages open an experiment in: charts of metrics, not traces of agents.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_RUN_NAME_TAG = "mlflow.runName"
_SEARCH_PAGE_SIZE = 1000
#: Of runs whose artifacts came last: one opens connections of its own.
KEPT_REPOSITORIES = 128
_EXPERIMENT_ATTEMPTS = 3
_ALREADY_EXISTS = frozenset({"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})
#: What a local artifact folder says of a path that it cannot hold beside what it holds.
_NAME_ERRORS = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG})
_UNIQUE_NAME = re.compile(r"unique|duplicate", re.IGNORECASE)
_IDEMPOTENT_SCHEMES = frozenset({"sqlite", "postgresql", "mysql", "mssql", "http", "https"})


def prepare_environment(
    environ: Mapping[str, str], *, tracking_uri: str | None = None
) -> dict[str, str | None]:
    """
    The environment that MLflow needs in a process of ours: value by name, None to remove it.

    Args:
        environ: The environment as it is; what the user chose for the HTTP time-out stays.
        tracking_uri: Where this process delivers to. MLflow before 3.0 finds the server of
            `mlflow-artifacts:` addresses only through the variable.

    The variables are the process's, not a client's: never apply them in the benchmark's own
    process. Telemetry stays as the user has it.
    """
    changes: dict[str, str | None] = {
        # Its queue lives in memory and loses its tail at exit; ours is on disk.
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        # No tries but ours: MLflow repeats POSTs too, and a repeated create_run is a second run. It
        # would also sleep as long as Retry-After says, with the call's thread.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT")
        or str(HTTP_TIMEOUT_S),
        # At the end of a run MLflow prints its address, after one more request for its name.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A model's id on every metric goes to a table whose key lacks the value: one repeated
        # reading would fail its batch for ever.
        "MLFLOW_ACTIVE_MODEL_ID": None,
        "_MLFLOW_ACTIVE_MODEL_ID": None,
        # The benchmark's own run, if it has one; none of ours.
        "MLFLOW_RUN_ID": None,
    }
    if tracking_uri is not None:
        changes["MLFLOW_TRACKING_URI"] = tracking_uri
    return changes


class MlflowTracking:
    """
    MLflow's own client as a `Tracking`.

    Nothing happens at construction; the first call imports mlflow (2 s) and opens the store. Only
    `ensure_experiment` creates a SQLite database where there is none: were a database that went
    away made anew by any other call, its runs would be missing and their records set aside.

    Thread safety: any number of threads. Process safety: not across a fork.
    """

    def __init__(self, tracking_uri: str, *, is_bulk: bool = False) -> None:
        """
        A store that is not opened yet.

        Args:
            tracking_uri: As MLflow takes it, absolute (a relative one follows the working folder).
            is_bulk: Whether batches are written by `BulkStore` or `HttpBatches` where the store is
                fit for it.

        HTTP time-outs are the process's, by MLflow's making: see `prepare_environment`.
        """
        self._uri = tracking_uri
        self._masked_uri = mask_secrets(tracking_uri)
        self._lock = threading.Lock()
        self._client: Any = None
        self._file: Path | None = None
        self._file_identity: tuple[int, int] | None = None
        self._is_bulk = is_bulk
        self._bulk: BulkStore | HttpBatches | None = None
        self._runs: BulkRuns | None = None
        self._writes_by = ""
        #: How often in a row the bulk writer failed where MLflow's own call did not.
        self._doubts = 0

    @property
    def writes_by(self) -> str:
        """
        What writes batches: "bulk", "compact HTTP", or "MLflow", and why; empty before the store is
        opened.
        """
        return self._writes_by

    @property
    def readings_per_call(self) -> int:
        """
        0 unless batches are written by `BulkStore`.
        """
        return self._bulk.readings_per_call if self._bulk is not None else 0

    @property
    def is_idempotent(self) -> bool:
        """
        True for SQL databases and servers (with SQL behind, we assume); False for what is unknown.
        """
        scheme = self._uri.partition(":")[0].partition("+")[0]
        return scheme in _IDEMPOTENT_SCHEMES

    def ensure_experiment(self, name: str, *, artifact_location: str | None) -> str:
        """
        The id of the experiment of that name, created (or restored if deleted) where it must be.
        """
        client = self._opened(may_create=True)
        with mapped_errors(f"experiment {name!r}"):
            known = self._by_rows(lambda runs: runs.find_experiment(name))
            if known is not None:
                return known
            for attempt in range(_EXPERIMENT_ATTEMPTS):
                experiment = client.get_experiment_by_name(name)
                if experiment is not None and experiment.lifecycle_stage == "active":
                    break
                try:
                    if experiment is not None:
                        client.restore_experiment(experiment.experiment_id)
                    else:
                        location = _absolute_location(artifact_location)
                        return str(
                            client.create_experiment(
                                name, artifact_location=location, tags=_EXPERIMENT_TAGS
                            )
                        )
                except Exception as exc:
                    # Somebody else created or restored it between our two calls: look again.
                    if attempt + 1 == _EXPERIMENT_ATTEMPTS or not (experiment or _is_taken(exc)):
                        raise
            return str(experiment.experiment_id)

    def find_run(self, experiment_id: str, run_uid: str) -> RunId | None:
        """
        The run tagged with `run_uid`, the oldest where there are several, else None.
        """
        client = self._opened()
        quoted = _quoted(run_uid)
        token = None
        with mapped_errors(f"search for run {run_uid!r}"):
            found = self._by_rows(lambda runs: runs.find_run(experiment_id, RUN_UID_TAG, run_uid))
            if found is not None:
                return found.run_id
            while True:
                page = client.search_runs(
                    [experiment_id],
                    "" if quoted is None else f"tags.`{RUN_UID_TAG}` = {quoted}",
                    max_results=_SEARCH_PAGE_SIZE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
                for run in page:
                    # Some databases compare text without regard to case.
                    if run.data.tags.get(RUN_UID_TAG) == run_uid:
                        return RunId(run.info.run_id)
                token = page.token
                if not token:
                    return None

    def create_run(
        self, experiment_id: str, *, run_name: str | None, start_ms: int, tags: Mapping[str, str]
    ) -> RunId:
        """
        A new RUNNING run. Not idempotent: after an error of unknown outcome call `find_run` first.

        MLflow makes up a name where `run_name` is None.
        """
        client = self._opened()
        # MLflow refuses a name and a tag that differ.
        kept = {
            key: value for key, value in tags.items() if run_name is None or key != _RUN_NAME_TAG
        }
        with mapped_errors("create run"):
            created = self._by_rows(
                lambda runs: runs.create_run(
                    experiment_id, run_name=run_name, start_ms=start_ms, tags=kept
                )
            )
            if created is not None:
                return created
            run = client.create_run(
                experiment_id, start_time=start_ms, tags=kept, run_name=run_name
            )
            return RunId(run.info.run_id)

    def look_at_run(self, run_id: RunId) -> RunGlance:
        """
        An existing run's experiment and tags.
        """
        client = self._opened()
        with mapped_errors(f"look at run {run_id}"):
            seen = self._by_rows(lambda runs: runs.look_at_run(run_id))
            if seen is not None:
                return seen
            run = client.get_run(run_id)
            return RunGlance(str(run.info.experiment_id), dict(run.data.tags))

    def reopen_run(self, run_id: RunId) -> str:
        """
        Mark an existing run RUNNING again and return its experiment id (resuming by `run_id`).

        MLflow keeps the old end time until `end_run` sets a new one.
        """
        client = self._opened()
        with mapped_errors(f"reopen run {run_id}"):
            run = client.get_run(run_id)
            client.update_run(run_id, status="RUNNING")
            return str(run.info.experiment_id)

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        One call to MLflow's `log_batch`; the caller keeps to `tracking.limits`, and for readings
        to `readings_per_call` where that is more.

        MLflow writes params, metrics and tags in this order, each in a transaction of its own:
        after an error some may be there, and sending all of it again is right. Where the store is
        fit for it, `BulkStore` does the same in one transaction, `HttpBatches` with less work.
        """
        client = self._opened()
        bulk = self._bulk
        failure: Exception | None = None
        if bulk is not None:
            with mapped_errors(f"log_batch of run {run_id}"):
                try:
                    if bulk.log_batch(run_id, readings=readings, params=params, tags=tags):
                        self._doubts = 0
                        return
                except Exception as exc:
                    if not bulk.is_doubtful(exc):
                        raise
                    failure = exc  # of the database, or of ours: MLflow's own call tells
        more = readings[METRICS_PER_CALL:]  # what was meant for the bulk store, which failed
        readings = readings[:METRICS_PER_CALL]
        try:
            _send(client, run_id, readings, params, tags)
        except TransientTrackingError as exc:
            numbers, nans = split_nan(readings)
            if not nans or not is_duplicate_reading(exc.__cause__):
                raise
            _send(client, run_id, numbers, params, tags)
            for reading in nans:
                try:
                    _send(client, run_id, [reading])
                except TransientTrackingError as single:
                    if not is_duplicate_reading(single.__cause__):
                        raise
        if more:
            self.log_batch(run_id, readings=more)
        elif bulk is not None and failure is not None:
            self._doubts += 1
            if self._doubts >= bulk.most_doubts:
                self._give_up_bulk(f"it failed where MLflow's own call did not: {failure!r}")

    def log_artifact(self, run_id: RunId, file: Path, artifact_path: str) -> None:
        """
        Upload `file` so that it is found at `artifact_path` (a whole path, with its name) of the
        run.

        Raises:
            PermanentTrackingError: the file is gone, or the store could only keep it under
                another name (kind BAD_ARTIFACT).
        """
        check_artifact_path(artifact_path)
        if not file.is_file():
            raise bad_artifact(artifact_path, f"{file} is not a file any more")
        client = self._opened()
        with mapped_errors(f"artifact {artifact_path!r} of run {run_id}"):
            stored_as = artifact_path
            if needs_quoting(artifact_path) and _is_proxied(
                client.get_run(run_id).info.artifact_uri
            ):
                stored_as = quoted_for_url(artifact_path)
            folder, name = posixpath.split(stored_as)
            try:
                with named(file, name) as local:
                    self._log_file(client, run_id, str(local), folder or None)
            except OSError as exc:
                if exc.errno not in _NAME_ERRORS:
                    raise
                root = _local_path(client.get_run(run_id).info.artifact_uri)
                clash = None if root is None else find_clash(root, stored_as)
                if clash is None and exc.errno != errno.ENAMETOOLONG:
                    raise  # it is the store that cannot be used
                raise bad_artifact(artifact_path, clash or "its name is too long here") from exc

    def end_run(self, run_id: RunId, status: RunStatus, end_ms: int) -> None:
        """
        Set the run's final status and end time.
        """
        client = self._opened()
        with mapped_errors(f"end of run {run_id}"):
            if self._by_rows(lambda runs: runs.end_run(run_id, status, end_ms)):
                return
            client.set_terminated(run_id, status=status, end_time=end_ms)

    def delete_run(self, run_id: RunId) -> None:
        """
        Mark a run deleted and remove its artifacts, as far as their store can do that.

        Not of the protocol: delivery deletes nothing.
        """
        client = self._opened()
        with mapped_errors(f"delete run {run_id}"):
            artifact_uri = client.get_run(run_id).info.artifact_uri
            client.delete_run(run_id)
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with contextlib.suppress(Exception):  # many stores cannot
            get_artifact_repository(artifact_uri).delete_artifacts()

    def run_url(self, experiment_id: str, run_id: RunId) -> str:
        """
        Where a person finds the run: a page of the server, or how to open one on a local store.
        """
        place = f"#/experiments/{experiment_id}/runs/{run_id}"
        parts = urlsplit(self._uri)
        if parts.scheme in {"http", "https"}:
            host = parts.netloc.rpartition("@")[2]  # a link that is shown must not carry a password
            return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{place}"
        if self._uri.startswith("databricks"):
            return f"{place} of {self._masked_uri}"
        return f"{place} of `mlflow ui --backend-store-uri {shlex.quote(self._masked_uri)}`"

    def close(self) -> None:
        """
        Give back connections. The store opens again at the next call.

        Does not wait for another thread that is opening it: a database may never answer.
        """
        if not self._lock.acquire(blocking=False):
            return
        client, self._client = self._client, None
        self._lock.release()
        if client is not None:
            _drop_connections(client)

    # --- the store ------------------------------------------------------------------------------

    def _opened(self, *, may_create: bool = False) -> Any:
        with self._lock, mapped_errors(f"open {self._masked_uri}", can_refuse=False):
            if self._client is None:
                self._open(may_create=may_create)
            elif self._file is not None and _identity(self._file) != self._file_identity:
                # Deleted or replaced. Its pooled connections would go on writing into the old file,
                # which nobody can read any more, and report success.
                _drop_connections(self._client)
                self._open(may_create=may_create)
            return self._client

    def _open(self, *, may_create: bool) -> None:
        self._client = None
        mlflow = import_mlflow()
        self._file = sqlite_path(self._uri)
        if self._file is not None:
            _stop_retries_on_opening()
        if self._file is not None:
            if not may_create and not self._file.exists():
                raise TransientTrackingError(
                    f"{self._file}: the database is gone; want it back, or a run that creates it",
                    kind=ErrorKind.STORE_UNREACHABLE,
                    path=str(self._file),
                )
            prepare_schema(self._file)
        _stop_retries_on_opening()
        client = mlflow.MlflowClient(tracking_uri=self._uri)
        if self._file is not None:
            self._file_identity = _identity(self._file)
        self._bulk, self._runs, self._writes_by = None, None, "MLflow"
        if self._is_bulk:
            try:
                store = _store_of(client)
                is_remote = urlsplit(self._uri).scheme in {"http", "https"}
                self._bulk = HttpBatches(store) if is_remote else BulkStore(store)
                self._writes_by = self._bulk.writes_by
                if isinstance(self._bulk, BulkStore):
                    self._runs = BulkRuns(self._bulk, store)
            except UnfitError as exc:
                if self._bulk is None:
                    self._writes_by = f"MLflow ({exc})"
                else:
                    _logger.info("rows of runs are written by MLflow: %s", exc)
        self._client = client

    def _log_file(self, client: Any, run_id: RunId, file: str, folder: str | None) -> None:
        """
        As MLflow's `log_artifact` of a file; that loads the run with all it holds to learn where.
        """
        artifact_uri = self._by_rows(lambda runs: runs.artifact_uri(run_id))
        if artifact_uri is None:
            client.log_artifact(run_id, file, folder)
        else:
            _artifact_repository(artifact_uri, self._uri).log_artifact(file, folder)

    def _by_rows(self, ask: Callable[[BulkRuns], Answer | None]) -> Answer | None:
        """
        What `BulkRuns` says; None where MLflow's own call has to do it.
        """
        if self._runs is None:
            return None
        try:
            return ask(self._runs)
        except Exception as exc:
            if getattr(exc, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
                raise  # the database's, and MLflow's own call would fare no better
            self._runs = None
            _logger.warning("rows of runs are written by MLflow from now on: %r", exc)
            return None

    def _give_up_bulk(self, why: str) -> None:
        with self._lock:
            self._bulk, self._runs, self._is_bulk = None, None, False
            self._writes_by = f"MLflow ({why})"
        _logger.warning("bulk store: %s", why)


@lru_cache(maxsize=KEPT_REPOSITORIES)
def _artifact_repository(artifact_uri: str, tracking_uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(artifact_uri, tracking_uri=tracking_uri)


def _stop_retries_on_opening() -> None:
    # MLflow would try ten times with doubled waits, minutes in which nobody learns why; we try
    # again ourselves, and say so.
    from mlflow.store.db import utils as database_utils

    if hasattr(database_utils, "MAX_RETRY_COUNT"):
        database_utils.MAX_RETRY_COUNT = 0


def _send(
    client: Any,
    run_id: RunId,
    readings: Sequence[Reading],
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    with mapped_errors(f"log_batch of run {run_id}"):
        from mlflow.entities import Metric, Param, RunTag

        client.log_batch(
            run_id,
            metrics=[
                # int(): MLflow lets floats through, and SQLite keeps them as such.
                Metric(reading.key, reading.value, int(reading.timestamp_ms), int(reading.step))
                for reading in readings
            ],
            params=[Param(key, value) for key, value in (params or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
            synchronous=True,
        )


def _local_path(artifact_uri: str) -> Path | None:
    """
    The folder of a local artifact address, None for any other.
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path) if parts.scheme else artifact_uri)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(file)
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino


def _drop_connections(client: Any) -> None:
    # MLflow keeps one store for each URI for the life of the process and has no way to close it.
    # The engine's pool is replaced by an empty one: the store stays usable, and opens what is
    # there then.
    engine = getattr(_store_of(client), "engine", None)
    if engine is not None:
        engine.dispose()


def _store_of(client: Any) -> Any:
    return getattr(getattr(client, "_tracking_client", None), "store", None)


def _is_taken(exc: Exception) -> bool:
    # MLflow's own code for it, or where it lets one through, the words of a database.
    code = getattr(exc, "error_code", None)
    return code in _ALREADY_EXISTS or (
        code == "BAD_REQUEST" and _UNIQUE_NAME.search(str(exc)) is not None
    )


def _absolute_location(location: str | None) -> str | None:
    if location is None or urlsplit(location).scheme:
        return location
    return os.path.abspath(location)


def _quoted(text: str) -> str | None:
    # MLflow's filter language has no escapes; None where neither kind of quote will do.
    for mark in ("'", '"'):
        if mark not in text:
            return f"{mark}{text}{mark}"
    return None


def _is_proxied(artifact_uri: str) -> bool:
    return artifact_uri.startswith(("mlflow-artifacts:", "http:", "https:"))
