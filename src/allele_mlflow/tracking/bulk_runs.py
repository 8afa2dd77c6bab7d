"""
A run's own rows in MLflow's SQL store, by plain SQL: found, created, looked at, ended.

MLflow's calls load a run with all that it holds and make an object of each row: some 20 ms of CPU
for a run that says hardly anything, which a suite of a thousand short cells pays a thousand times.
These leave the same rows behind (`tests/integration/test_bulk_runs.py` compares them). What is not
as it should be (no such run, a deleted experiment) is left to MLflow's own call, which says it in
its own words.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from allele_mlflow.numerals import whole_number
from allele_mlflow.records import RunId, RunStatus
from allele_mlflow.tracking.bulk_store import BulkStore, UnfitError, check_replaced
from allele_mlflow.tracking.protocol import RunGlance

#: Methods of the store's class that these stand in for.
REPLACED = ("create_run", "get_run", "update_run_info", "get_experiment_by_name", "search_runs")
#: What the table must be.
RUN_COLUMNS = frozenset(
    {
        "run_uuid",
        "name",
        "source_type",
        "source_name",
        "entry_point_name",
        "user_id",
        "status",
        "start_time",
        "end_time",
        "deleted_time",
        "source_version",
        "lifecycle_stage",
        "artifact_uri",
        "experiment_id",
    }
)
_USER_TAG = "mlflow.user"
_RUN_NAME_TAG = "mlflow.runName"

_EXPERIMENT = (
    "SELECT experiment_id FROM experiments WHERE name = :name AND lifecycle_stage = 'active'"
)
_IS_ACTIVE = (
    "SELECT experiment_id FROM experiments"
    " WHERE experiment_id = :experiment_id AND lifecycle_stage = 'active'"
)
_FIND = (
    "SELECT runs.run_uuid FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid"
    " WHERE tags.key = :key AND tags.value = :value AND runs.experiment_id = :experiment_id"
    " AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time, runs.run_uuid LIMIT 1"
)
_CREATE = (
    "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,"
    " start_time, source_version, lifecycle_stage, artifact_uri, experiment_id) VALUES"
    " (:run_uuid, :name, 'UNKNOWN', '', '', :user_id, 'RUNNING', :start_time, '', 'active',"
    " :artifact_uri, :experiment_id)"
)
_TAG = "INSERT INTO tags (key, value, run_uuid) VALUES (:key, :value, :run_uuid)"
_LOOK = "SELECT experiment_id FROM runs WHERE run_uuid = :run_uuid"
_TAGS = "SELECT key, value FROM tags WHERE run_uuid = :run_uuid"
_ARTIFACT_URI = "SELECT artifact_uri FROM runs WHERE run_uuid = :run_uuid"
_END = (
    "UPDATE runs SET status = :status, end_time = :end_time"
    " WHERE run_uuid = :run_uuid AND lifecycle_stage = 'active'"
)


class Found(NamedTuple):
    """
    An answer that may be "there is none": `run_id` is None then.
    """

    run_id: RunId | None


class BulkRuns:
    """
    The runs of one of MLflow's SQL stores. Any thread; not across a fork.

    Each method gives None where MLflow's own call has to do it.

    Args:
        bulk: The store's bulk writer, whose sessions are used.
        store: The store.
    Raises (on construction):
        UnfitError: the store's runs are not as we know them.
        SQLAlchemyError: the database cannot be looked at now.
    """

    def __init__(self, bulk: BulkStore, store: Any) -> None:
        import sqlalchemy

        check_replaced(type(store), REPLACED)
        columns = {c["name"] for c in sqlalchemy.inspect(store.engine).get_columns("runs")}
        if columns != RUN_COLUMNS:
            raise UnfitError(f"table runs has columns {sorted(columns)}")
        self._bulk = bulk
        self._store = store
        #: Where the artifacts of an experiment's runs go, by its id: MLflow never changes it.
        self._locations: dict[str, str] = {}

    def find_experiment(self, name: str) -> str | None:
        """
        The id of the active experiment of that name.
        """
        with self._bulk.reading() as connection:
            found = connection.execute(_sql(_EXPERIMENT), {"name": name}).first()
        return None if found is None else str(found[0])

    def find_run(self, experiment_id: str, tag: str, value: str) -> Found | None:
        """
        The oldest active run of an experiment with that tag.
        """
        if whole_number(experiment_id) is None:
            return None
        wanted = {"key": tag, "value": value, "experiment_id": int(experiment_id)}
        with self._bulk.reading() as connection:
            found = connection.execute(_sql(_FIND), wanted).first()
        return Found(None if found is None else RunId(found[0]))

    def create_run(
        self, experiment_id: str, *, run_name: str | None, start_ms: int, tags: Mapping[str, str]
    ) -> RunId | None:
        """
        A new RUNNING run, with its tags in one transaction.
        """
        from mlflow.utils.name_utils import _generate_random_name
        from mlflow.utils.uri import append_to_uri_path

        if whole_number(experiment_id) is None:
            return None
        location = self._locations.get(experiment_id)
        if location is None:
            location = str(self._store.get_experiment(experiment_id).artifact_location)
            self._locations[experiment_id] = location
        run_id = uuid.uuid4().hex
        name = run_name or tags.get(_RUN_NAME_TAG) or _generate_random_name()
        row = {
            "run_uuid": run_id,
            "name": name,
            "user_id": tags.get(_USER_TAG, "unknown"),
            "start_time": start_ms,
            "artifact_uri": append_to_uri_path(location, run_id, self._store.ARTIFACTS_FOLDER_NAME),
            "experiment_id": int(experiment_id),
        }
        marks = [
            {"key": key, "value": value, "run_uuid": run_id}
            for key, value in {**tags, _RUN_NAME_TAG: name}.items()
        ]
        with self._bulk.writing() as connection:
            if connection.execute(_sql(_IS_ACTIVE), row).first() is None:
                return None
            connection.execute(_sql(_CREATE), row)
            connection.execute(_sql(_TAG), marks)
        return RunId(run_id)

    def look_at_run(self, run_id: RunId) -> RunGlance | None:
        """
        A run's experiment and tags.
        """
        with self._bulk.reading() as connection:
            found = connection.execute(_sql(_LOOK), {"run_uuid": run_id}).first()
            if found is None:
                return None
            tags = connection.execute(_sql(_TAGS), {"run_uuid": run_id}).all()
        return RunGlance(str(found[0]), {str(key): str(value) for key, value in tags})

    def artifact_uri(self, run_id: RunId) -> str | None:
        """
        Where a run's artifacts are kept.
        """
        with self._bulk.reading() as connection:
            found = connection.execute(_sql(_ARTIFACT_URI), {"run_uuid": run_id}).first()
        return None if found is None else str(found[0])

    def end_run(self, run_id: RunId, status: RunStatus, end_ms: int) -> bool | None:
        """
        Set a run's final status and end time.
        """
        row = {"run_uuid": run_id, "status": status, "end_time": end_ms}
        with self._bulk.writing() as connection:
            return True if connection.execute(_sql(_END), row).rowcount == 1 else None


def _sql(text: str) -> Any:
    from sqlalchemy import text as sql_text

    return sql_text(text)
