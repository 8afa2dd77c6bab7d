"""
One run as MLflow's own client reads it back: what a drill compares with what was logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.error_mapping import mapped_errors


class StoredRun(NamedTuple):
    """
    Status, params, tags, names of artifacts, and every reading of the asked keys.
    """

    run_id: RunId
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    keys: frozenset[str]
    readings: dict[str, list[Reading]]


def read_stored_run(
    tracking_uri: str, run_id: str, *, keys: Sequence[str] | None = None
) -> StoredRun:
    """
    A run of the store; imports mlflow.

    Args:
        tracking_uri: As MLflow takes it.
        run_id: MLflow's id.
        keys: Whose histories to read; None for all but the resource samples.
    Raises:
        TrackingError: the store does not give it.

    Cost: one call for the run and one or more for each key.
    """
    client = _client(tracking_uri)
    with mapped_errors(f"run {run_id}"):
        run = client.get_run(run_id)
        found = frozenset(run.data.metrics)
        wanted = [k for k in found if not k.startswith("system/")] if keys is None else keys
        readings = {
            key: [
                Reading(key, row.value, row.timestamp, row.step)
                for row in client.get_metric_history(run_id, key)
            ]
            for key in wanted
            if key in found
        }
    return StoredRun(
        RunId(run_id), run.info.status, dict(run.data.params), dict(run.data.tags), found, readings
    )


def find_stored_runs(tracking_uri: str, experiment: str, run_uid: str) -> list[RunId]:
    """
    Ids of all runs of an experiment with that uid of ours: one, where nothing was made twice.

    Raises:
        TrackingError: the store does not tell.
    """
    client = _client(tracking_uri)
    with mapped_errors(f"runs of {experiment!r}"):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        wanted = f"tags.`allele.run_uid` = '{run_uid}'"
        return [RunId(r.info.run_id) for r in client.search_runs([found.experiment_id], wanted)]


def _client(tracking_uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)
