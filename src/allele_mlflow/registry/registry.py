"""
A registry of genomes and components: versions known by content, stages held on the word of a
journal.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allele_mlflow.errors import (
    ErrorKind,
    NotFoundError,
    PromotionRefusedError,
    RegistryError,
)
from allele_mlflow.references import parse_reference
from allele_mlflow.registry.components import Component, read_component
from allele_mlflow.registry.contents import (
    Kept,
    as_component,
    as_genome,
    kind_of,
)
from allele_mlflow.registry.genomes import Genome, read_genome
from allele_mlflow.registry.journal import (
    Chain,
    Entry,
    Stage,
    Standing,
    read_chain,
)
from allele_mlflow.registry.kept_journal import KeptJournal
from allele_mlflow.registry.kept_versions import load_version
from allele_mlflow.registry.moves import Move, write_move
from allele_mlflow.registry.registration import (
    Registered,
    Wanted,
    check_stage,
    register_version,
)
from allele_mlflow.registry.uses import Past
from allele_mlflow.registry.verification import Findings, Progress, verify_model
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.limits import check_key
from allele_mlflow.tracking.registry_client import (
    JOURNAL_TAG,
    RegistryClient,
    StoredModel,
    StoredVersion,
)


@dataclass(frozen=True)
class Listed:
    """
    A model, what it keeps, and where its versions stand; `problem` says why that is not known.
    """

    name: str
    kind: str
    standing: Standing | None
    problem: str | None = None


class Registry:
    """
    Genomes and components in MLflow's registry, any number of processes and machines at once.

    Each model has a journal, a run whose params are its entries; MLflow writes a param once, so of
    two who write the next entry one is refused, looks again, and is told that another one holds the
    stage by now. Aliases and tags only mirror the journal. A model keeps genomes, or components of
    one kind.

    Args:
        client: The store.
        by: Who acts; by default the user of this process.
    Raises (all methods):
        TrackingError: the store does not answer.
        NotFoundError: there is no such model or version.
        RegistryError: a journal is damaged: `verify` says where.
    """

    def __init__(self, client: RegistryClient, *, by: str | None = None) -> None:
        self._client = client
        self._by = by or _user()
        self._journals: dict[str, KeptJournal] = {}

    def register(
        self,
        name: str,
        genome: Any,
        *,
        stage: Stage = Stage.DEVELOPMENT,
        reason: str = "",
        tags: Mapping[str, str] | None = None,
        is_new_schema: bool = False,
    ) -> Registered:
        """
        Keep a genome as a version of a model; the same content is one version however often.

        Args:
            name: The model's.
            genome: Anything with `to_dict`, or a mapping; copied at once.
            stage: Development or candidate.
            reason: Why.
            tags: Of the version, such as the run it comes from (`evidence.evidence_tags`).
            is_new_schema: Whether its traits may have other names than those of the versions that
                are there.
        Raises:
            RegistryError: it is no genome, its traits have other names, the stage is another, or
                the model keeps components.
        """
        kept = read_genome(genome)
        return self._register(
            name, kept, stage=stage, reason=reason, tags=tags or {}, is_new_schema=is_new_schema
        )

    def register_component(
        self,
        name: str,
        document: Any,
        *,
        kind: str,
        files: Path | Mapping[str, Path] | None = None,
        stage: Stage = Stage.DEVELOPMENT,
        reason: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Registered:
        """
        Keep a component as a version of a model; the same content is one version however often.

        Args:
            name: The model's; it stands in tags of runs, so only what they take.
            document: A mapping, or anything with `to_dict`; copied at once.
            kind: What it is: a word, such as `optimizer`, `operator`, `reservoir`, `prompt`,
                `configuration`.
            files: A folder with all that is in it, a file, or files by the paths that they are to
                have; copied at once.
            stage: Development or candidate.
            reason: Why.
            tags: Of the version.
        Raises:
            RegistryError: it is no component, too large, the stage is another, or the model keeps
                something else.
        """
        problem = check_key(name)
        if problem is not None:
            raise RegistryError(f"a component's name: {problem}", kind=ErrorKind.BAD_COMPONENT)
        kept = read_component(document, kind=kind, files=files)
        return self._register(name, kept, stage=stage, reason=reason, tags=tags or {})

    def load(self, where: str) -> Genome:
        """
        The genome of `name@stage` or `name/version`, every hash checked.

        Raises:
            RegistryError: a file or the journal was changed, or it is a component.
        """
        return as_genome(self.load_version(where), where)

    def load_component(self, where: str) -> Component:
        """
        The component of `name@stage` or `name/version`, every hash checked.

        Raises:
            RegistryError: a file or the journal was changed, or it is a genome.
        """
        return as_component(self.load_version(where), where)

    def load_version(self, where: str) -> Kept:
        """
        What is kept as `name@stage` or `name/version`, every hash checked.

        Raises:
            RegistryError: a file or the journal was changed.
        """
        name, number = self.find(where)
        entry = self._chain_of(name).registrations().get(number)
        if entry is None:
            raise NotFoundError(f"{where}: not in the journal", kind=ErrorKind.NOT_FOUND)
        return load_version(self._client, entry)

    def find(self, where: str) -> tuple[str, int]:
        """
        Name and number of a version that is written as `name@stage` or `name/version`.
        """
        meant = parse_reference(where)
        if meant.stage is None:
            assert meant.number is not None
            return meant.name, meant.number
        holder = self.standing(meant.name).holders.get(meant.stage)
        if holder is None:
            raise NotFoundError(f"{where}: nobody holds it", kind=ErrorKind.NOT_FOUND)
        return meant.name, holder

    def used(self, reference: str, time: str) -> int:
        """
        The version that a reference meant at a time (UTC, ISO 8601), as `log.uses` keeps both.

        Raises:
            NotFoundError: nobody held that stage then.
        """
        meant = parse_reference(reference)
        found = Past(self._chain_of(meant.name)).version(meant, time)
        if found is None:
            raise NotFoundError(f"{reference}: nobody held it at {time}", kind=ErrorKind.NOT_FOUND)
        return found

    def standing(self, name: str, *, at: str | None = None) -> Standing:
        """
        Where every version stands, or stood at a time (ISO 8601; without an offset UTC).
        """
        return self._chain_of(name).standing(until=at)

    def history(self, name: str) -> Chain:
        """
        All entries of a model's journal.
        """
        return self._chain_of(name)

    def promote(
        self,
        name: str,
        version: int,
        stage: Stage,
        *,
        reason: str,
        holder: int | None = None,
        evidence: bytes | None = None,
    ) -> Entry:
        """
        Have a version hold a stage. What it has to show before is its caller's part: `gates`.

        Args:
            name: The model's.
            version: Of it.
            stage: Where it goes.
            reason: Why.
            holder: Who is thought to hold the stage now, `NOBODY` for nobody; by default who does.
            evidence: A document that is kept with the journal, and its hash in the entry.
        Raises:
            PromotionRefusedError: another one holds it, or took it meanwhile.
        """
        journal = self._journal(name)
        wanted = Move("promote", version, stage, reason, holder=holder, evidence=evidence)
        return write_move(journal, journal.read(), wanted, by=self._by)

    def rollback(self, name: str, stage: Stage, *, reason: str, holder: int | None = None) -> Entry:
        """
        Give a stage back to who held it before.

        Args:
            name: The model's.
            stage: Which.
            reason: Why.
            holder: Who is thought to hold it now; by default who does.
        Raises:
            PromotionRefusedError: nobody did, or another one holds it.
        """
        journal = self._journal(name)
        chain = journal.read()
        before = chain.standing().before.get(stage, ())
        if not before:
            raise PromotionRefusedError(
                f"{name}@{stage}: nobody held it before", kind=ErrorKind.NOT_FOUND
            )
        if not reason:
            raise RegistryError("a rollback wants a reason", kind=ErrorKind.BAD_REGISTRY)
        wanted = Move("rollback", before[-1], stage, reason, holder=holder)
        return write_move(journal, chain, wanted, by=self._by)

    def archive(
        self, name: str, version: int, *, reason: str, stands: Stage | None = None
    ) -> Entry:
        """
        Take a version out of use.

        Args:
            name: The model's.
            version: Of it.
            reason: Why.
            stands: The stage that it is thought to stand in now; by default where it does.
        Raises:
            PromotionRefusedError: it stands elsewhere.
        """
        journal = self._journal(name)
        wanted = Move("archive", version, Stage.ARCHIVED, reason, stands=stands)
        return write_move(journal, journal.read(), wanted, by=self._by)

    def evidence(self, name: str, digest: str) -> bytes:
        """
        A document of evidence by the hash that an entry names it by.

        Raises:
            NotFoundError: it is gone.
            RegistryError: it was changed.
        """
        return self._journal(name).read_evidence(digest)

    def models(self) -> list[StoredModel]:
        """
        The models that have a journal, by name.
        """
        return [one for one in self._client.models() if JOURNAL_TAG in one.tags]

    def overview(self) -> list[Listed]:
        """
        Every model that has a journal, by name, and where its versions stand; a damaged journal
        hides no other.
        """
        models = self.models()
        found = self._client.read_journals([one.tags[JOURNAL_TAG] for one in models])
        listed = []
        for model in models:
            entries = found.get(model.tags[JOURNAL_TAG])
            if entries is None:
                listed.append(
                    Listed(model.name, model.kind, None, "its journal's run is gone from MLflow")
                )
                continue
            chain = read_chain(entries.texts, model=model.name)
            standing = chain.standing() if chain.problem is None else None
            listed.append(Listed(model.name, model.kind, standing, chain.problem))
        return listed

    def version(self, name: str, number: int) -> StoredVersion:
        """
        A version as MLflow has it, with its tags.
        """
        return self._client.version(name, number)

    def versions(self, name: str) -> list[StoredVersion]:
        """
        All versions of a model as MLflow has them, oldest first.
        """
        return self._client.versions(name)

    def tag(self, name: str, number: int, key: str, value: str) -> None:
        """
        Set a tag of a version.
        """
        self._client.tag_version(name, number, key, value)

    def approve(self, name: str, version: int, stage: Stage, *, reason: str = "") -> Entry:
        """
        Say that a version may go to a stage.

        Raises:
            PromotionRefusedError: its author does not approve it.
        """
        journal = self._journal(name)
        chain = journal.read()
        if chain.author(version) == self._by:
            raise PromotionRefusedError(
                f"{self._by} registered version {version}: want the approval of another one",
                kind=ErrorKind.GATE,
            )
        return write_move(journal, chain, Move("approve", version, stage, reason), by=self._by)

    def verify(
        self,
        name: str,
        *,
        head: str | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """
        Check the chain, the files of every version, and have aliases and tags say what it says.

        Args:
            name: The model's.
            head: A hash that was noted down: the chain must contain it. Nothing else can tell that
                the last entries are gone, or that all of it was rewritten.
            progress: Told how many versions are checked, and of how many.
        """
        versions = {one.number: one for one in self._client.versions(name)}

        def load(entry: Entry) -> None:
            load_version(self._client, entry, versions[entry.version])

        return verify_model(self._journal(name), versions, load, head=head, progress=progress)

    # --- inner -----------------------------------------------------------------------------------

    def _register(
        self,
        name: str,
        kept: Kept,
        *,
        stage: Stage,
        reason: str,
        tags: Mapping[str, str],
        is_new_schema: bool = False,
    ) -> Registered:
        check_stage(stage)
        journal = self._journal(name, self._client.ensure_journal(name, kind=kind_of(kept)))
        wanted = Wanted(kept, stage, reason, tags, is_new_schema)
        return register_version(self._client, journal, wanted, by=self._by)

    def _chain_of(self, name: str) -> Chain:
        return self._journal(name).read()

    def _journal(self, name: str, run_id: str | None = None) -> KeptJournal:
        run_id = run_id or self._client.journal_of(self._client.model(name))
        known = self._journals.get(name)
        if known is None or known.run_id != run_id:
            known = self._journals[name] = KeptJournal(self._client, name, run_id)
        return known


def open_registry(settings: Settings, *, by: str | None = None) -> Registry:
    """
    The registry of the settings.

    Raises:
        RegistryError: `MODEL_REGISTRY_ENABLED` is false.
    """
    if not settings.model_registry_enabled:
        raise RegistryError(
            "the setting model_registry_enabled is false", kind=ErrorKind.BAD_REGISTRY
        )
    return Registry(open_client(settings), by=by)


def open_client(settings: Settings) -> RegistryClient:
    """
    The store of the registry of the settings.
    """
    return RegistryClient(
        settings.model_registry_uri,
        experiment=f"{settings.experiment_prefix}registry",
        artifact_location=settings.experiment_artifact_location,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
