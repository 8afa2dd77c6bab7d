"""
The artifacts of a run, listed.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from allele_mlflow.tracking.error_mapping import mapped_errors

#: Files and folders of a run that are listed, and folders that are looked into.
MOST_ENTRIES = 1000
MOST_FOLDERS = 200


class ArtifactEntry(NamedTuple):
    """
    A file of a run, by its path below the run's artifacts. `size_bytes` is None where the store
    does not say it.
    """

    path: str
    size_bytes: int | None


class ArtifactListing(NamedTuple):
    """
    Files in the order of their paths. `is_whole`: these are all.
    """

    files: list[ArtifactEntry]
    is_whole: bool


def list_artifacts(tracking_uri: str, run_id: str) -> ArtifactListing:
    """
    The files of a run, those near the top first where there are too many.

    Args:
        tracking_uri: As MLflow takes it.
        run_id: MLflow's id.
    Raises:
        TrackingError: the store does not answer, or has no such run.

    Cost: a request a folder.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    files: list[ArtifactEntry] = []
    folders: deque[str | None] = deque([None])
    looked_into = 0
    while folders and looked_into < MOST_FOLDERS and len(files) < MOST_ENTRIES:
        folder = folders.popleft()
        looked_into += 1
        with mapped_errors(f"artifacts of run {run_id}"):
            entries = client.list_artifacts(run_id, folder)
        folders += [one.path for one in entries if one.is_dir]
        files += [ArtifactEntry(one.path, one.file_size) for one in entries if not one.is_dir]
    is_whole = not folders and len(files) <= MOST_ENTRIES
    return ArtifactListing(sorted(files[:MOST_ENTRIES]), is_whole)
