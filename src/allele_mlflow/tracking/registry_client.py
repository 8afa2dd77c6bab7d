"""
MLflow's model registry, and the runs that keep the journals of its models. Imports mlflow.

A registry is one store: what it holds must outlive the experiments that it came from, so versions'
files are artifacts of runs in the registry's own store, never of the runs that made them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from allele_mlflow.errors import ErrorKind, NotFoundError, RegistryError
from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.schema import prepare_schema, sqlite_path
from allele_mlflow.tracking.versions import import_mlflow

#: Of a registered model: the run that keeps its journal. Set as the model is made, so that of two
#: who make it at once one run is the journal's.
JOURNAL_TAG = "allele.journal_run"
MODEL_TAG = "allele.registry.model"
#: Of a registered model: what its versions are, one for all of them.
KIND_TAG = "allele.registry.kind"
USUAL_KIND = "genome"
_ATTEMPTS = 3
_PAGE = 200
#: Of versions MLflow gives more at once; fewer pages are fewer that change between two.
_LONG_PAGE = 10_000
_TAKEN = frozenset({"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})


class StoredVersion(NamedTuple):
    """
    A version of a registered model. `created_ms` is when it was made.
    """

    number: int
    tags: Mapping[str, str]
    source: str
    run_id: str
    created_ms: int


class StoredModel(NamedTuple):
    """
    A registered model; `aliases` are MLflow's, by name.
    """

    name: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]

    @property
    def kind(self) -> str:
        """
        What its versions are: `genome`, or the kind of a component.
        """
        return self.tags.get(KIND_TAG, USUAL_KIND)


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
        self._made: Any = None

    def models(self) -> list[StoredModel]:
        """
        All registered models, by name.
        """
        found: list[StoredModel] = []
        token = None
        with mapped_errors("registered models"):
            while True:
                page = self._client().search_registered_models(max_results=_PAGE, page_token=token)
                found += [_model(one) for one in page]
                token = page.token
                if not token:
                    return sorted(found)

    def model(self, name: str) -> StoredModel:
        """
        One registered model.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._find(name)
        if found is None:
            raise NotFoundError(f"model {name!r}: not in this registry", kind=ErrorKind.NOT_FOUND)
        return found

    def ensure_journal(self, name: str, *, kind: str = USUAL_KIND) -> str:
        """
        The journal's run of a model; both are made where they are not there.

        Args:
            name: The model's.
            kind: What it is to keep.
        Raises:
            RegistryError: the model is there, and was not made by us or keeps something else.
        """
        found = self._find(name)
        if found is None:
            run_id = self._make_run(name)
            with mapped_errors(f"model {name!r}"):
                try:
                    told = {JOURNAL_TAG: run_id, KIND_TAG: kind}
                    self._client().create_registered_model(name, tags=told)
                    return run_id
                except Exception as exc:
                    if getattr(exc, "error_code", None) not in _TAKEN:
                        raise
                self._client().delete_run(run_id)  # another one was first
            found = self.model(name)
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

    def read_entries(self, run_id: str) -> dict[str, str]:
        """
        The params of a journal's run.
        """
        with mapped_errors(f"journal {run_id}"):
            return dict(self._client().get_run(run_id).data.params)

    def write_entry(self, run_id: str, key: str, text: str) -> bool:
        """
        Write one param once; False where another text is there already.

        MLflow writes a param once: the database's primary key decides between two who write the
        same key at once, and the second is told so.
        """
        with mapped_errors(f"journal {run_id}"):
            try:
                self._client().log_param(run_id, key, text)
                return True
            except Exception:
                # refused, or an answer that was lost: what stands there tells
                present = self._client().get_run(run_id).data.params.get(key)
                if present is None:
                    raise
                return bool(present == text)

    def keep_files(self, run_id: str, folder: Path, path: str) -> str:
        """
        Keep a folder's files with a run; the address of their folder, as a version's source.
        """
        with mapped_errors(f"artifacts {path} of run {run_id}"):
            self._client().log_artifacts(run_id, str(folder), path)
            if self.uri.startswith(("http:", "https:")):
                return f"runs:/{run_id}/{path}"  # the one form that a server takes
            root = self._client().get_run(run_id).info.artifact_uri
            return f"{root.rstrip('/')}/{path}"

    def fetch_file(self, run_id: str, path: str) -> bytes:
        """
        One file that was kept with a run.

        Raises:
            NotFoundError: it is not there.
        """
        with mapped_errors(f"artifact {path} of run {run_id}"):
            entries = self._client().list_artifacts(run_id, path.rpartition("/")[0] or None)
            if path in {one.path for one in entries}:
                with tempfile.TemporaryDirectory() as folder:
                    file = self._client().download_artifacts(run_id, path, folder)
                    return Path(file).read_bytes()
        raise NotFoundError(f"{path}: gone from run {run_id}", kind=ErrorKind.NOT_FOUND)

    def create_version(
        self, name: str, *, source: str, run_id: str, tags: Mapping[str, str], description: str
    ) -> int:
        """
        A new version, one number above the highest.
        """
        with mapped_errors(f"version of {name!r}"):
            made = self._client().create_model_version(
                name, source, run_id=run_id, tags=dict(tags), description=description
            )
            return int(made.version)

    def version(self, name: str, number: int) -> StoredVersion:
        """
        One version.

        Raises:
            NotFoundError: there is none of that number.
        """
        with mapped_errors(f"version {number} of {name!r}"):
            try:
                return _version(self._client().get_model_version(name, str(number)))
            except Exception as exc:
                if getattr(exc, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                    raise
        raise NotFoundError(f"{name!r} has no version {number}", kind=ErrorKind.NOT_FOUND)

    def find_version(self, name: str, tag: str, value: str) -> StoredVersion | None:
        """
        The oldest version with a tag; None where there is none.
        """
        wanted = f"name = '{name}' AND tag.`{tag}` = '{value}'"
        with mapped_errors(f"versions of {name!r}"):
            found = [_version(v) for v in self._client().search_model_versions(wanted)]
        return min(found, default=None)

    def has_version(self, name: str, tag: str, value: str) -> bool:
        """
        Whether any version has a tag with this value.
        """
        wanted = f"name = '{name}' AND tag.`{tag}` = '{value}'"
        with mapped_errors(f"versions of {name!r}"):
            return bool(self._client().search_model_versions(wanted, max_results=1))

    def versions(self, name: str) -> list[StoredVersion]:
        """
        All versions, oldest first.
        """
        found: list[StoredVersion] = []
        token = None
        with mapped_errors(f"versions of {name!r}"):
            while True:
                page = self._client().search_model_versions(
                    f"name = '{name}'", max_results=_PAGE, page_token=token
                )
                found += [_version(one) for one in page]
                token = page.token
                if not token:
                    return sorted(found)

    def all_versions(self) -> list[tuple[str, StoredVersion]]:
        """
        All versions of all models with the names of these, ours or not.
        """
        found: list[tuple[str, StoredVersion]] = []
        token = None
        with mapped_errors("versions of all models"):
            while True:
                # by name, so that a tag that is set meanwhile moves none to a page that was read
                page = self._client().search_model_versions(
                    max_results=_LONG_PAGE, order_by=["name ASC"], page_token=token
                )
                found += [(str(one.name), _version(one)) for one in page]
                token = page.token
                if not token:
                    return found

    def versions_of_run(self, run_id: str) -> list[str]:
        """
        The versions that say they come from a run, as `name/number`.
        """
        with mapped_errors(f"versions of run {run_id}"):
            found = self._client().search_model_versions(f"run_id = '{run_id}'")
            return [f"{one.name}/{one.version}" for one in found]

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """
        Have an alias point to a version.
        """
        with mapped_errors(f"alias {alias} of {name!r}"):
            self._client().set_registered_model_alias(name, alias, str(number))

    def delete_alias(self, name: str, alias: str) -> None:
        """
        Remove an alias, where it is there.
        """
        with mapped_errors(f"alias {alias} of {name!r}"):
            self._client().delete_registered_model_alias(name, alias)

    def tag_version(self, name: str, number: int, key: str, value: str) -> None:
        """
        Set a tag of a version.
        """
        with mapped_errors(f"version {number} of {name!r}"):
            self._client().set_model_version_tag(name, str(number), key, value)

    def _find(self, name: str) -> StoredModel | None:
        with mapped_errors(f"model {name!r}"):
            try:
                return _model(self._client().get_registered_model(name))
            except Exception as exc:
                if getattr(exc, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None

    def _make_run(self, name: str) -> str:
        client = self._client()
        with mapped_errors(f"journal of {name!r}"):
            for attempt in range(_ATTEMPTS):
                found = client.get_experiment_by_name(self._experiment)
                if found is not None:
                    break
                try:
                    client.create_experiment(self._experiment, artifact_location=self._location)
                except Exception:
                    if attempt + 1 == _ATTEMPTS:  # else another one made it between our two calls
                        raise
            run = client.create_run(
                found.experiment_id if found is not None else "0",
                run_name=f"journal of {name}",
                tags={MODEL_TAG: name},
            )
            return str(run.info.run_id)

    def _client(self) -> Any:
        if self._made is None:
            with mapped_errors(f"open {mask_secrets(self.uri)}", can_refuse=False):
                mlflow = import_mlflow()
                path = sqlite_path(self.uri)
                if path is not None:
                    with _quiet():
                        prepare_schema(path)
                self._made = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._made


@contextmanager
def _quiet() -> Iterator[None]:
    """
    Without MLflow's words on every table that it makes.
    """
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _model(found: Any) -> StoredModel:
    aliases = {str(name): int(number) for name, number in dict(found.aliases or {}).items()}
    return StoredModel(str(found.name), dict(found.tags or {}), aliases)


def _version(found: Any) -> StoredVersion:
    return StoredVersion(
        int(found.version),
        dict(found.tags or {}),
        str(found.source),
        str(found.run_id or ""),
        int(found.creation_timestamp or 0),
    )
