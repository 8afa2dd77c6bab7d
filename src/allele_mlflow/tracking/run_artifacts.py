"""
The artifacts of runs as they lie in whatever store: listed with their sizes, and deleted. Imports
mlflow.

All of it goes through MLflow's own artifact repositories: folders, S3 and its like, and a server's
proxy are one thing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from allele_mlflow.errors import ErrorKind, PermanentTrackingError
from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.artifact_names import (
    bad_artifact,
    check_artifact_path,
    needs_quoting,
    quoted_for_url,
)
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.versions import import_mlflow

_PROXIED = ("mlflow-artifacts:", "http:", "https:")


class RunLook(NamedTuple):
    """
    A run as it is now.
    """

    status: str
    is_active: bool
    tags: Mapping[str, str]


class RunArtifacts:
    """
    The artifacts of a store's runs. Any thread; not across a fork.

    Args:
        tracking_uri: As MLflow takes it, absolute.
    Raises (all methods):
        TransientTrackingError: a store does not answer.
        PermanentTrackingError: it refuses; there is no such run.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._made: Any = None

    def look(self, run_id: str) -> RunLook:
        """
        A run as it is now.
        """
        with mapped_errors(f"run {run_id}"):
            run = self._client().get_run(run_id)
            is_active = run.info.lifecycle_stage == "active"
            return RunLook(str(run.info.status), is_active, dict(run.data.tags))

    def tag(self, run_id: str, key: str, value: str) -> None:
        """
        Set a tag of a run.
        """
        with mapped_errors(f"tag {key} of run {run_id}"):
            self._client().set_tag(run_id, key, value)

    def remove_tag(self, run_id: str, key: str) -> None:
        """
        Remove a tag of a run, where it has one.
        """
        with mapped_errors(f"tag {key} of run {run_id}"):
            if key in self._client().get_run(run_id).data.tags:
                self._client().delete_tag(run_id, key)

    def sizes(self, artifact_uri: str) -> dict[str, int]:
        """
        The size in bytes of every file below an address, by its path there.

        Raises:
            PermanentTrackingError: there is a link among them, or a name is none (BAD_ARTIFACT).
        """
        with mapped_errors(f"artifacts at {mask_secrets(artifact_uri)}"):
            repository = self._repository(artifact_uri)
            found: dict[str, int] = {}
            folders: list[str | None] = [None]
            seen = {""}
            while folders:
                for entry in repository.list_artifacts(folders.pop()):
                    path = str(entry.path)
                    if path in seen:  # some stores list a folder in itself
                        continue
                    seen.add(path)
                    check_artifact_path(path)
                    _refuse_link(artifact_uri, path)
                    if entry.is_dir:
                        folders.append(path)
                    else:
                        found[path] = int(entry.file_size or 0)
            return found

    def delete(self, artifact_uri: str, paths: Iterable[str]) -> None:
        """
        Delete files and whole folders below an address; never the address itself.

        Raises:
            PermanentTrackingError: a path is a link or behind one (BAD_ARTIFACT), or nothing can be
                deleted from such a store (REFUSED).
        """
        with mapped_errors(f"artifacts at {mask_secrets(artifact_uri)}"):
            repository = self._repository(artifact_uri)
            for path in paths:
                check_artifact_path(path)
                _refuse_link(artifact_uri, path)
                is_quoted = artifact_uri.startswith(_PROXIED) and needs_quoting(path)
                try:
                    repository.delete_artifacts(quoted_for_url(path) if is_quoted else path)
                except NotImplementedError as exc:
                    raise PermanentTrackingError(
                        f"{mask_secrets(artifact_uri)}: MLflow deletes nothing from such a store",
                        kind=ErrorKind.REFUSED,
                    ) from exc

    def _repository(self, artifact_uri: str) -> Any:
        self._client()  # which looks whether mlflow is one that we work with
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(artifact_uri, tracking_uri=self._uri)

    def _client(self) -> Any:
        if self._made is None:
            self._made = import_mlflow().MlflowClient(tracking_uri=self._uri)
        return self._made


def _refuse_link(artifact_uri: str, path: str) -> None:
    """
    A local folder may hold links; what one leads to is not the run's, or is a file that stays.
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme in ("", "file"):
        root = Path(unquote(parts.path) if parts.scheme else artifact_uri).resolve()
        if (root / path).resolve() != root / path:
            raise bad_artifact(path, f"a link, or behind one, in {root}")
