"""
The one door to a model registry, and to the runs that keep the journals of its models.

A registry is one store: what it holds must outlive the experiments that it came from, so versions'
files are artifacts of runs in the registry's own store, never of the runs that made them.

A database is asked by plain SQL (`sql_registry`), anything else by MLflow's own calls
(`client_registry`), which also make whatever is made. Files on this machine are read where they
are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from allele_mlflow.errors import ErrorKind, NotFoundError, RegistryError, TransientTrackingError
from allele_mlflow.tracking.artifact_names import check_artifact_path
from allele_mlflow.tracking.client_registry import MODEL_TAG, ClientRegistry
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.schema import sqlite_path
from allele_mlflow.tracking.sql_registry import SqlRegistry, local_folder
from allele_mlflow.tracking.stored_models import (
    KIND_TAG,
    USUAL_KIND,
    StoredEntries,
    StoredModel,
    StoredVersion,
)

__all__ = [
    "JOURNAL_TAG",
    "KIND_TAG",
    "MODEL_TAG",
    "USUAL_KIND",
    "RegistryClient",
    "StoredModel",
    "StoredVersion",
]

#: Of a registered model: the run that keeps its journal. Set as the model is made, so that of two
#: who make it at once one run is the journal's.
JOURNAL_TAG = "allele.journal_run"
_PREFIX = "bulk+"
_LONGEST_NAME = 250


class RegistryClient:
    """
    One registry. Any thread; not across a fork.

    Args:
        registry_uri: As MLflow takes it, absolute.
        experiment: In which the runs of journals are.
        artifact_location: Of that experiment; None where the store decides.
    Raises (all methods):
        TrackingError: the store does not answer, or refuses.
    """

    def __init__(
        self, registry_uri: str, *, experiment: str, artifact_location: str | None = None
    ) -> None:
        self.uri = registry_uri
        self._experiment = experiment
        self._location = artifact_location
        self._mlflow = ClientRegistry(registry_uri)
        self._opened_sql: SqlRegistry | None = None
        #: By run, where its files are on this machine: MLflow never changes it.
        self._folders: dict[str, Path | None] = {}

    # --- models ----------------------------------------------------------------------------------

    def models(self) -> list[StoredModel]:
        """
        All registered models, by name.
        """
        return self._rows().models()

    def model(self, name: str) -> StoredModel:
        """
        One registered model.

        Raises:
            NotFoundError: there is none of that name.
        """
        for found in self._rows().models(name):
            return found
        raise NotFoundError(f"model {name!r}: not in this registry", kind=ErrorKind.NOT_FOUND)

    def ensure_journal(self, name: str, *, kind: str = USUAL_KIND) -> str:
        """
        The journal's run of a model; both are made where they are not there.

        Args:
            name: The model's.
            kind: What it is to keep.
        Raises:
            RegistryError: the model is there, and was not made by us or keeps something else; or
                none can have that name.
        """
        _check_name(name)
        found = next(iter(self._rows().models(name)), None)
        if found is None:
            run_id = self._mlflow.make_run(self._experiment, name, self._location)
            found = self._mlflow.make_model(name, {JOURNAL_TAG: run_id, KIND_TAG: kind})
            if found.tags.get(JOURNAL_TAG) != run_id:
                self._mlflow.delete_run(run_id)  # another one was first
        run_id = self.journal_of(found)
        if found.kind != kind:
            raise RegistryError(
                f"model {name!r} keeps versions of the kind {found.kind}, not {kind}: "
                "want another name",
                kind=ErrorKind.BAD_REGISTRY,
            )
        return run_id

    def journal_of(self, model: StoredModel) -> str:
        """
        The run that keeps a model's journal.

        Raises:
            RegistryError: the model has none.
        """
        run_id = model.tags.get(JOURNAL_TAG)
        if run_id is None:
            raise RegistryError(
                f"model {model.name!r} was not made by allele-mlflow: it has no journal; "
                "want another name",
                kind=ErrorKind.BAD_REGISTRY,
            )
        return run_id

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """
        Have an alias point to a version.
        """
        sql = self._sql()
        if sql is None or not sql.set_alias(name, alias, number):
            self._mlflow.set_alias(name, alias, number)

    def delete_alias(self, name: str, alias: str) -> None:
        """
        Remove an alias, where it is there.
        """
        sql = self._sql()
        if sql is None or not sql.delete_alias(name, alias):
            self._mlflow.delete_alias(name, alias)

    # --- journals --------------------------------------------------------------------------------

    def read_entries(self, run_id: str, *, since: str = "") -> StoredEntries:
        """
        The params of a journal's run, from a key on.

        Raises:
            NotFoundError: there is no such run.
        """
        found = self._rows().entries(run_id, since)
        if found is None:
            raise NotFoundError(
                f"the journal's run {run_id} is gone from MLflow", kind=ErrorKind.NOT_FOUND
            )
        return found

    def read_journals(self, run_ids: Sequence[str]) -> dict[str, StoredEntries]:
        """
        The params of many journals' runs, by run; one that is not there is left out.
        """
        return self._rows().all_entries(run_ids)

    def write_entry(self, run_id: str, key: str, text: str) -> bool:
        """
        Write one param once; False where another text is there already.

        The database's primary key decides between two who write the same key at once, and the
        second is told so.
        """
        sql = self._sql()
        if sql is not None:
            if sql.write_entry(run_id, key, text):
                return True
            found = sql.entries(run_id, key)
            if found is not None and key in found.texts:
                return found.texts[key] == text
        return self._mlflow.write_entry(run_id, key, text)

    # --- versions --------------------------------------------------------------------------------

    def create_version(
        self, name: str, *, source: str, run_id: str, tags: Mapping[str, str], description: str = ""
    ) -> int:
        """
        A new version, one number above the highest.
        """
        return self._mlflow.make_version(name, source, run_id, tags, description)

    def delete_version(self, name: str, number: int) -> None:
        """
        Take a version that nothing points to out of the registry; its number is not used again.
        """
        self._mlflow.delete_version(name, number)

    def version(self, name: str, number: int) -> StoredVersion:
        """
        One version.

        Raises:
            NotFoundError: there is none of that number.
        """
        for found in self._rows().versions(name, number):
            return found
        raise NotFoundError(f"{name!r} has no version {number}", kind=ErrorKind.NOT_FOUND)

    def find_version(self, name: str, tag: str, value: str) -> StoredVersion | None:
        """
        The oldest version with a tag; None where there is none.
        """
        return next(iter(self._rows().tagged(name, tag, value)), None)

    def versions(self, name: str) -> list[StoredVersion]:
        """
        All versions, oldest first.
        """
        return self._rows().versions(name)

    def all_versions(self) -> list[tuple[str, StoredVersion]]:
        """
        All versions of all models with the names of these, ours or not.
        """
        return self._mlflow.all_versions()

    def versions_of_run(self, run_id: str) -> list[str]:
        """
        The versions that say they come from a run, as `name/number`.
        """
        return self._mlflow.versions_of_run(run_id)

    def tag_version(self, name: str, number: int, key: str, value: str) -> None:
        """
        Set a tag of a version.
        """
        sql = self._sql()
        if sql is None or not sql.tag_version(name, number, key, value):
            self._mlflow.tag_version(name, number, key, value)

    # --- files -----------------------------------------------------------------------------------

    def keep_files(self, run_id: str, folder: Path, path: str) -> str:
        """
        Keep a folder's files with a run; the address of their folder, as a version's source.
        """
        check_artifact_path(path)
        root = self._folder(run_id)
        if root is None:
            self._mlflow.keep_files(run_id, folder, path)
        else:
            with mapped_errors(f"artifacts {path} of run {run_id}"):
                shutil.copytree(folder, root / path, dirs_exist_ok=True)
        if self.uri.startswith(("http:", "https:")):
            return f"runs:/{run_id}/{path}"  # the one form that a server takes
        return f"{(self._rows().artifact_uri(run_id) or '').rstrip('/')}/{path}"

    def fetch_file(self, run_id: str, path: str) -> bytes:
        """
        One file that was kept with a run.

        Raises:
            NotFoundError: it is not there.
        """
        check_artifact_path(path)
        root = self._folder(run_id)
        with mapped_errors(f"artifact {path} of run {run_id}"):
            if root is not None:
                with suppress(FileNotFoundError, NotADirectoryError):
                    return (root / path).read_bytes()
            else:
                with tempfile.TemporaryDirectory() as folder:
                    found = self._mlflow.fetch_file(run_id, path, folder)
                    if found is not None:
                        return found.read_bytes()
        raise NotFoundError(f"{path}: gone from run {run_id}", kind=ErrorKind.NOT_FOUND)

    # --- inner -----------------------------------------------------------------------------------

    def _rows(self) -> SqlRegistry | ClientRegistry:
        return self._sql() or self._mlflow

    def _sql(self) -> SqlRegistry | None:
        """
        The store by plain SQL; None where it is a server, not there yet, or not as we know it.
        """
        if self._opened_sql is None:
            address = self.uri.removeprefix(_PREFIX)
            scheme = address.partition(":")[0].partition("+")[0]
            path = sqlite_path(address) if scheme == "sqlite" else None
            if scheme == "postgresql" or (path is not None and path.exists()):
                with suppress(TransientTrackingError):  # MLflow's own call says what is wrong
                    found = SqlRegistry(address)
                    self._opened_sql = found if found.is_fit() else None
        return self._opened_sql

    def _folder(self, run_id: str) -> Path | None:
        """
        Where a run's files are on this machine; None where MLflow has to fetch them.
        """
        sql = self._sql()
        if sql is not None and run_id not in self._folders:
            found = sql.artifact_uri(run_id)
            self._folders[run_id] = local_folder(found) if found is not None else None
        return self._folders.get(run_id)


def _check_name(name: str) -> None:
    is_plain = bool(name) and name.isprintable() and name == name.strip() and set(name) != {"."}
    if not is_plain or any(one in name for one in "/:@") or len(name) > _LONGEST_NAME:
        raise RegistryError(
            f"model name {name[: _LONGEST_NAME + 1]!r}: want 1 to {_LONGEST_NAME} printable "
            "characters without / : @, no spaces around them",
            kind=ErrorKind.BAD_REGISTRY,
        )
