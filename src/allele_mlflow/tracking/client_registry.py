"""
A registry by MLflow's own calls: what `sql_registry` does for a database, for any store. Imports
mlflow.

After an answer that was lost, what stands in the store tells: everything that is made is marked by
whoever makes it, and looked for before it is given up.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.schema import prepare_schema, sqlite_path
from allele_mlflow.tracking.stored_models import StoredEntries, StoredModel, StoredVersion
from allele_mlflow.tracking.versions import import_mlflow

MODEL_TAG = "allele.registry.model"
#: Of a version: of the one call that made it, to know it again.
TOKEN_TAG = "allele.token"
_ATTEMPTS = 3
_PAGE = 200
#: Of versions MLflow gives more at once; fewer pages are fewer that change between two.
_LONG_PAGE = 10_000
#: What may not stand in a filter of MLflow's: its parser knows no escapes.
_UNSAFE = re.compile(r"[^\w .\-]")
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})

_Answer = TypeVar("_Answer")


class ClientRegistry:
    """
    MLflow's client of one store. Any thread; not across a fork.

    Args:
        uri: As MLflow takes it, absolute.
    Raises (all methods):
        TrackingError: the store does not answer, or refuses.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._made: Any = None

    # --- as `SqlRegistry` ------------------------------------------------------------------------

    def models(self, name: str | None = None) -> list[StoredModel]:
        """
        All registered models, by name, or the one of a name; MLflow's prompts are none.
        """
        with self._asking("registered models") as client:
            if name is None:
                found = _pages(client.search_registered_models, None, "name ASC")
                return sorted(_model(one) for one in found)
            one = _unless_missing(lambda: client.get_registered_model(name))
            return [] if one is None else [_model(one)]

    def entries(self, run_id: str, since: str) -> StoredEntries | None:
        """
        The params of a run from a key on; None where there is no such run.
        """
        with self._asking(f"journal {run_id}") as client:
            run = _unless_missing(lambda: client.get_run(run_id))
        if run is None:
            return None
        texts = {key: text for key, text in run.data.params.items() if key >= since}
        return StoredEntries(texts, run.info.lifecycle_stage != "active")

    def all_entries(self, run_ids: Sequence[str]) -> dict[str, StoredEntries]:
        """
        The params of many runs, by run; one that is not there is left out. A request each.
        """
        found = {run_id: self.entries(run_id, "") for run_id in run_ids}
        return {run_id: one for run_id, one in found.items() if one is not None}

    def versions(self, name: str, number: int | None = None) -> list[StoredVersion]:
        """
        All versions of a model, oldest first; or the one of a number.
        """
        with self._asking(f"versions of {name!r}") as client:
            if number is None:
                return _search(client, name, _named(name))
            found = _unless_missing(lambda: client.get_model_version(name, str(number)))
            return [] if found is None else [_version(found)]

    def tagged(self, name: str, tag: str, value: str) -> list[StoredVersion]:
        """
        The versions of a model that have a tag, oldest first.
        """
        wanted = f"{_named(name)} AND tag.`{tag}` LIKE '{_UNSAFE.sub('_', value)}'"
        with self._asking(f"versions of {name!r}") as client:
            found = _search(client, name, wanted)
        return [one for one in found if one.tags.get(tag) == value]

    def all_versions(self) -> list[tuple[str, StoredVersion]]:
        """
        All versions of all models with the names of these, ours or not.
        """
        found: list[tuple[str, StoredVersion]] = []
        token = None
        with self._asking("versions of all models") as client:
            while True:
                # by name, so that a tag that is set meanwhile moves none to a page that was read
                page = client.search_model_versions(
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
        with self._asking(f"versions of run {run_id}") as client:
            found = client.search_model_versions(f"run_id = '{run_id}'")
            return [f"{one.name}/{one.version}" for one in found]

    def artifact_uri(self, run_id: str) -> str | None:
        """
        Where a run's artifacts are, as MLflow has it; None where there is no such run.
        """
        with self._asking(f"run {run_id}") as client:
            run = _unless_missing(lambda: client.get_run(run_id))
        return None if run is None else str(run.info.artifact_uri)

    def write_entry(self, run_id: str, key: str, text: str) -> bool:
        """
        Write a param once; False where another text is there already.
        """
        with self._asking(f"journal {run_id}") as client:
            try:
                client.log_param(run_id, key, text)
                return True
            except Exception:
                # refused, or an answer that was lost: what stands there tells
                found = self.entries(run_id, key)
                present = found.texts.get(key) if found is not None else None
                if present is None:
                    raise
                return present == text

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """
        Have an alias point to a version.
        """
        with self._asking(f"alias {alias} of {name!r}") as client:
            client.set_registered_model_alias(name, alias, str(number))

    def delete_alias(self, name: str, alias: str) -> None:
        """
        Remove an alias, where it is there.
        """
        with self._asking(f"alias {alias} of {name!r}") as client:
            client.delete_registered_model_alias(name, alias)

    def tag_version(self, name: str, number: int, key: str, value: str) -> None:
        """
        Set a tag of a version.
        """
        with self._asking(f"version {number} of {name!r}") as client:
            client.set_model_version_tag(name, str(number), key, value)

    # --- what is made ----------------------------------------------------------------------------

    def make_run(self, experiment: str, model: str, artifact_location: str | None) -> str:
        """
        A run for the journal of a model, in an experiment that is made where it is not there.
        """
        with self._asking(f"journal of {model!r}") as client:
            for attempt in range(_ATTEMPTS):
                found = client.get_experiment_by_name(experiment)
                if found is not None:
                    break
                try:
                    client.create_experiment(experiment, artifact_location=artifact_location)
                except Exception:
                    if attempt + 1 == _ATTEMPTS:  # else another one made it between our two calls
                        raise
            run = client.create_run(
                found.experiment_id if found is not None else "0",
                run_name=f"journal of {model}",
                tags={MODEL_TAG: model},
            )
            return str(run.info.run_id)

    def delete_run(self, run_id: str) -> None:
        """
        Have MLflow take a run for deleted.
        """
        with self._asking(f"run {run_id}") as client:
            client.delete_run(run_id)

    def make_model(self, name: str, tags: Mapping[str, str]) -> StoredModel:
        """
        The registered model of that name, made with these tags where it is not there.
        """
        with self._asking(f"model {name!r}") as client:
            try:
                return _model(client.create_registered_model(name, tags=dict(tags)))
            except Exception:
                # taken, or an answer that was lost: what stands there tells
                found = self.models(name)
                if not found:
                    raise
                return found[0]

    def make_version(
        self, name: str, source: str, run_id: str, tags: Mapping[str, str], description: str
    ) -> int:
        """
        A new version, one number above the highest.
        """
        token = uuid.uuid4().hex
        told = {**tags, TOKEN_TAG: token}
        with self._asking(f"version of {name!r}") as client:
            try:
                made = client.create_model_version(
                    name, source, run_id=run_id, tags=told, description=description
                )
                if not self._uri.startswith(("http:", "https:")):
                    return int(made.version)
            except Exception:
                # an answer that was lost, perhaps: what stands there tells
                if not self.tagged(name, TOKEN_TAG, token):
                    raise
            # a client that repeats what was not answered has made another one each time
            first, *others = self.tagged(name, TOKEN_TAG, token)
            for one in others:
                self.delete_version(name, one.number)
            return first.number

    def delete_version(self, name: str, number: int) -> None:
        """
        Take a version that nothing points to out of the registry; its number is not used again.
        """
        with self._asking(f"version {number} of {name!r}") as client:
            client.delete_model_version(name, str(number))

    # --- files -----------------------------------------------------------------------------------

    def keep_files(self, run_id: str, folder: Path, path: str) -> None:
        """
        Keep a folder's files with a run.
        """
        with self._asking(f"artifacts {path} of run {run_id}") as client:
            client.log_artifacts(run_id, str(folder), path)

    def fetch_file(self, run_id: str, path: str, folder: str) -> Path | None:
        """
        A file that was kept with a run, fetched into a folder; None where it is not there.
        """
        with self._asking(f"artifact {path} of run {run_id}") as client:
            entries = client.list_artifacts(run_id, path.rpartition("/")[0] or None)
            if path not in {one.path for one in entries}:
                return None
            return Path(client.download_artifacts(run_id, path, folder))

    # --- inner -----------------------------------------------------------------------------------

    @contextmanager
    def _asking(self, doing: str) -> Iterator[Any]:
        client = self._client()
        with mapped_errors(doing):
            yield client

    def _client(self) -> Any:
        if self._made is None:
            with mapped_errors(f"open {mask_secrets(self._uri)}", can_refuse=False):
                mlflow = import_mlflow()
                path = sqlite_path(self._uri)
                if path is not None:
                    with _quiet():
                        prepare_schema(path)
                self._made = mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
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


def _named(name: str) -> str:
    """
    A filter for a model's versions, perhaps for others' too: what may not stand in one is written
    as any character.
    """
    safe = _UNSAFE.sub("_", name)
    return f"name = '{name}'" if safe == name else f"name LIKE '{safe}'"


def _search(client: Any, name: str, wanted: str) -> list[StoredVersion]:
    found = _pages(client.search_model_versions, wanted, "version_number ASC")
    return sorted(_version(one) for one in found if one.name == name)


def _pages(search: Callable[..., Any], wanted: str | None, order: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(wanted, max_results=_PAGE, order_by=[order], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _unless_missing(ask: Callable[[], _Answer]) -> _Answer | None:
    try:
        return ask()
    except Exception as exc:
        if getattr(exc, "error_code", None) not in _MISSING:
            raise
        return None


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
