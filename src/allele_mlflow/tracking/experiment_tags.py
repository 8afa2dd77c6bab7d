"""
Tags of experiments, through MLflow's own client. Imports mlflow, and not pandas.
"""

from __future__ import annotations

from typing import Any

from allele_mlflow.tracking.error_mapping import mapped_errors

#: What MLflow takes of a value.
LONGEST_VALUE = 5000


def read_experiment_tags(tracking_uri: str, experiment_id: str, *, prefix: str) -> dict[str, str]:
    """
    The tags of an experiment whose keys begin so.

    Raises:
        TrackingError: the store does not answer, or has no such experiment.
    """
    with mapped_errors(f"tags of experiment {experiment_id}"):
        found = _client(tracking_uri).get_experiment(experiment_id).tags
    return {key: value for key, value in found.items() if key.startswith(prefix)}


def set_experiment_tag(tracking_uri: str, experiment_id: str, key: str, value: str) -> None:
    """
    Set a tag; the last one who does wins.

    Raises:
        TrackingError: the store does not take it.
    """
    with mapped_errors(f"tag {key} of experiment {experiment_id}"):
        _client(tracking_uri).set_experiment_tag(experiment_id, key, value)


def _client(tracking_uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)
