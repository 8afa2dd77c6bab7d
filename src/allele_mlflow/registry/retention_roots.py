"""
What the registry reaches: every version and its evidence, and that of every entry of a journal.

What cannot be read, or means nothing, is an error: who cannot tell what is reached deletes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from allele_mlflow.analysis.selection import parse_target
from allele_mlflow.errors import (
    AnalysisError,
    ErrorKind,
    MatrixError,
    NotFoundError,
    PermanentTrackingError,
    RegistryError,
)
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.journal import Entry
from allele_mlflow.registry.kept_journal import EVIDENCE_FOLDER, KeptJournal
from allele_mlflow.registry.reachability import KnownRuns, Root, whole
from allele_mlflow.registry.retention_files import artifact_root
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.tracking.registry_client import (
    JOURNAL_TAG,
    RegistryClient,
    StoredModel,
    StoredVersion,
)
from allele_mlflow.tracking.schema import sqlite_path


class Registries:
    """
    The registries that may name runs of a store: that of the settings, and the store's own, where
    MLflow registers models by itself.

    Args:
        clients: Of each.
        prefix: Of experiments.
    """

    def __init__(self, clients: Sequence[RegistryClient], *, prefix: str) -> None:
        self._clients = clients
        self._prefix = prefix
        #: Evidence by its hash: a document never changes.
        self._documents: dict[str, Mapping[str, Any]] = {}

    def roots(self, runs: KnownRuns) -> list[Root]:
        """
        The runs that the registries name.

        Raises:
            RegistryError: a journal, its evidence or the evidence of a version cannot be read, or
                means no run (UNCLEAR).
            TrackingError: a registry does not answer.
        """
        owners = {artifact_root(run.artifact_uri): run.run_id for run in runs.by_id.values()}
        found: list[Root] = []
        for client in self._clients:
            for name, version in client.all_versions():
                found += _of_version(f"{name}/{version.number}", version, runs, owners)
                found += self._evidence_of(f"{name}/{version.number}", version, runs)
            for model in client.models():
                found += self._of_model(client, model, runs)
        return found

    def versions_of_run(self, run_id: str) -> list[str]:
        """
        The versions that come from a run, as they are now.
        """
        return [one for client in self._clients for one in client.versions_of_run(run_id)]

    def _evidence_of(self, where: str, version: StoredVersion, runs: KnownRuns) -> list[Root]:
        text = version.tags.get(EVIDENCE_TAG)
        if text is None:
            return []
        nodes = self._meant(text, runs, f"evidence of {where}")
        if not nodes:
            raise _unclear(
                f"evidence of {where}: no run in this store is meant by {text!r}; want the store "
                f"that it is in, or other evidence as the version's tag {EVIDENCE_TAG}"
            )
        return [Root(node, f"evidence of {where}") for node in nodes]

    def _of_model(
        self, client: RegistryClient, model: StoredModel, runs: KnownRuns
    ) -> Iterator[Root]:
        for value in model.tags.values():
            yield from (Root(run_id, f"named by {model.name}") for run_id in runs.called(value))
        run_id = model.tags.get(JOURNAL_TAG)
        if run_id is None:
            return
        try:
            entries = KeptJournal(client, model.name, run_id).read().entries
        except (RegistryError, PermanentTrackingError) as exc:
            raise _unclear(f"the journal of {model.name} cannot be read: {exc}") from exc
        for entry in entries:
            if entry.evidence is not None:
                yield from self._of_entry(client, run_id, entry, runs)

    def _of_entry(
        self, client: RegistryClient, journal: str, entry: Entry, runs: KnownRuns
    ) -> Iterator[Root]:
        """
        The runs that a document names: ids are exact, and one that is not in this store is no run
        of it. Its selections say no more than the tags did, and may by now mean nothing.
        """
        why = f"evidence of entry {entry.number} of {entry.model}"
        document = self._document(client, journal, entry, why)
        ids, texts = document.get("runs", []), [document.get("evidence")]
        texts.append(document.get("holder_evidence"))
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise _unclear(f"{why}: runs={ids!r}: want a list of ids")
        for run_id in ids:
            yield from (Root(one, why) for one in runs.called(run_id))
        for text in texts:
            if isinstance(text, str):
                yield from (Root(node, why) for node in self._meant(text, runs, why))

    def _document(
        self, client: RegistryClient, journal: str, entry: Entry, why: str
    ) -> Mapping[str, Any]:
        digest = str(entry.evidence)
        if digest not in self._documents:
            try:
                data = client.fetch_file(journal, f"{EVIDENCE_FOLDER}/{digest}.json")
                if hashlib.sha256(data).hexdigest() != digest:
                    raise _unclear(f"{why}: it was changed: its hash is not {digest[:12]}...")
                self._documents[digest] = msgspec.json.decode(data, type=dict[str, Any])
            except (NotFoundError, PermanentTrackingError, msgspec.MsgspecError) as exc:
                raise _unclear(f"{why} cannot be read: {exc}") from exc
        return self._documents[digest]

    def _meant(self, text: str, runs: KnownRuns, what: str) -> list[str]:
        try:
            target = parse_target(text)
        except (AnalysisError, MatrixError) as exc:
            raise _unclear(f"{what}: {exc}") from exc
        return runs.meant(target.name, prefix=self._prefix)


def open_registries(settings: Settings, *, has_registry: bool = True) -> Registries:
    """
    Those of the settings.

    Args:
        settings: Of the store and the registry.
        has_registry: Whether there is a registry beside the store.
    Raises:
        RegistryError: the registry is disabled (BAD_REGISTRY), or not there (UNCLEAR).
    """
    uris = [settings.tracking_uri]
    if has_registry:
        uris.append(_registry_of(settings))
    prefix = settings.experiment_prefix
    clients = [RegistryClient(uri, experiment=f"{prefix}registry") for uri in dict.fromkeys(uris)]
    return Registries(clients, prefix=prefix)


def own_roots(runs: KnownRuns) -> list[Root]:
    """
    The runs that are kept for what they say of themselves, with all below them: pins, journals.
    """
    return [
        Root(whole(run.run_id), run.kept) for run in runs.by_id.values() if run.kept is not None
    ]


def _of_version(
    where: str, version: StoredVersion, runs: KnownRuns, owners: Mapping[str, str]
) -> Iterator[Root]:
    """
    The run of a version, the runs in whose artifacts it lies, and those that its tags name.

    An address may be written in several ways (a proxy's, a bucket's), but a run's artifacts have
    its id in theirs.
    """
    source = artifact_root(version.source)
    places = [source[:end] for end, letter in enumerate(f"{source}/") if letter == "/"]
    named = [version.run_id, *urlsplit(source).path.split("/"), *source.split("/")]
    ids = [one for text in named if text for one in runs.called(text)]
    ids += [owners[place] for place in places if place in owners]
    for value in version.tags.values():
        ids += runs.called(value)
    yield from (Root(run_id, f"version {where}") for run_id in dict.fromkeys(ids))


def _registry_of(settings: Settings) -> str:
    uri = settings.model_registry_uri
    if not settings.model_registry_enabled:
        raise RegistryError(
            "the setting model_registry_enabled is false: what a registry reaches cannot be told; "
            "--no-registry says that there is none",
            kind=ErrorKind.BAD_REGISTRY,
        )
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise _unclear(
            f"there is no registry at {mask_secrets(uri)}: want MODEL_REGISTRY_URI right, or "
            "--no-registry where there never was one"
        )
    return uri


def _unclear(what: str) -> RegistryError:
    return RegistryError(what, kind=ErrorKind.UNCLEAR)
