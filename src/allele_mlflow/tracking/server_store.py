"""
The bulk store inside `mlflow server`, so that every client of the server gains.

MLflow finds these factories by the scheme of the address (entry points in pyproject.toml):

    mlflow server --backend-store-uri bulk+sqlite:////data/mlflow.db
    mlflow server --backend-store-uri bulk+postgresql+psycopg://user@host/mlflow

or leaves the address as it is, where the server is told to be ours:

    mlflow server --backend-store-uri postgresql://user@host/mlflow --app-name bulk

Nothing of MLflow is imported at the top: it loads its plugins while it is half imported itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from allele_mlflow.records import Reading, RunId
from allele_mlflow.settings import variable
from allele_mlflow.tracking.bulk_store import BulkStore, UnfitError
from allele_mlflow.tracking.server_batches import add_batch_route, has_workspaces

PREFIX = "bulk+"
#: The schemes that pyproject.toml names.
SCHEMES = tuple(
    PREFIX + name for name in ("sqlite", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
)
#: What MLflow makes of the schemes of addresses without the prefix.
PLAIN_SCHEMES = ("sqlite", "postgresql")

_logger = logging.getLogger(__name__)


def open_tracking_store(store_uri: str | None = None, artifact_uri: str | None = None) -> Any:
    """
    MLflow's own SQL tracking store, whose `log_batch` is `BulkStore`'s where the tables are fit.

    Args:
        store_uri: One of `SCHEMES`, else as MLflow takes it.
        artifact_uri: Default artifact root; as MLflow chooses it where it is None.
    """
    from mlflow.server import constants
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    kind = SqlAlchemyStore
    if has_workspaces():
        from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

        kind = WorkspaceAwareSqlAlchemyStore
    root_variable = getattr(constants, "ARTIFACT_ROOT_ENV_VAR", "_MLFLOW_SERVER_ARTIFACT_ROOT")
    root = artifact_uri or variable(root_variable) or DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    replica = getattr(constants, "READ_REPLICA_BACKEND_STORE_URI_ENV_VAR", None)
    replica_uri = variable(replica) if replica else None
    options = {"read_db_uri": replica_uri} if replica_uri else {}
    store = _with_bulk(kind)(_stripped(store_uri), root, **options)
    try:
        store.bulk = BulkStore(store, kind=kind)
    except UnfitError as exc:
        _logger.warning("batches are written by MLflow's own call: %s", exc)
    return store


def open_registry_store(store_uri: str | None = None, **options: Any) -> Any:
    """
    MLflow's own model registry in the same database.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    kind = SqlAlchemyStore
    if has_workspaces():
        from mlflow.store.model_registry import sqlalchemy_workspace_store as of_workspaces

        kind = of_workspaces.WorkspaceAwareSqlAlchemyStore
    return kind(_stripped(store_uri))


def open_app() -> Any:
    """
    MLflow's own server, in which addresses of SQLite and PostgreSQL without `bulk+` are ours too.

    For `mlflow server --app-name bulk`: who does not say so gets no other store than MLflow's.
    """
    import mlflow.server
    from mlflow.server import fastapi_app, handlers

    is_wsgi = variable("_MLFLOW_SGI_NAME") in ("gunicorn", "waitress")
    app = mlflow.server.app if is_wsgi else fastapi_app.app
    registry = getattr(handlers, "_tracking_store_registry", None)
    if registry is None:
        _logger.warning("batches are written by MLflow's own call: its server has changed")
        return app
    for scheme in PLAIN_SCHEMES:
        registry.register(scheme, open_tracking_store)
    if not is_wsgi:
        add_batch_route(app, mlflow.server.app, handlers._get_tracking_store)
    return app


def _stripped(store_uri: str | None) -> str:
    return (store_uri or "").removeprefix(PREFIX)


@cache
def _with_bulk(kind: Any) -> Any:
    """
    A store class with our `log_batch`.
    """

    class BulkSqlStore(kind):  # type: ignore[misc]
        """
        MLflow's SQL store, its batches written by `BulkStore`.
        """

        bulk: BulkStore | None = None

        def log_batch(
            self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]
        ) -> None:
            """
            As MLflow's, in one transaction; batches of a kind that we do not know go its own way.
            """
            if self.bulk is None or not self._write(run_id, metrics, params, tags):
                super().log_batch(run_id, metrics, params, tags)

        def _write(
            self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]
        ) -> bool:
            from mlflow.exceptions import MlflowException
            from mlflow.utils import validation

            validation._validate_run_id(run_id)
            metrics, params, tags = validation._validate_batch_log_data(metrics, params, tags)
            validation._validate_batch_log_limits(metrics, params, tags)
            validation._validate_param_keys_unique(params)
            if any(getattr(metric, "model_id", None) is not None for metric in metrics):
                return False  # they stand in a table of the models' too
            assert self.bulk is not None
            try:
                return self.bulk.log_batch(
                    RunId(run_id),
                    readings=[Reading(m.key, m.value, m.timestamp, m.step) for m in metrics],
                    params={param.key: param.value for param in params},
                    tags={tag.key: tag.value for tag in tags},
                )
            except MlflowException as exc:
                if exc.error_code != "INTERNAL_ERROR":
                    raise
                return False  # of the database, or of ours: MLflow's own call tells

    BulkSqlStore.__name__ = f"Bulk{kind.__name__}"
    return BulkSqlStore
