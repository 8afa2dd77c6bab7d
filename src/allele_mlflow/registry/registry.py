"""
A registry of genomes: versions known by content, stages held on the word of a journal.
"""

from __future__ import annotations

import getpass
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.errors import (
    ErrorKind,
    NotFoundError,
    PromotionRefusedError,
    RegistryError,
    TrackingError,
)
from allele_mlflow.registry.genomes import (
    GENOME_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Genome,
    check_files,
    read_genome,
    write_files,
)
from allele_mlflow.registry.journal import (
    LONGEST_REASON,
    Action,
    Chain,
    Entry,
    Stage,
    Standing,
    read_chain,
)
from allele_mlflow.registry.kept_journal import STAGE_TAG, KeptJournal
from allele_mlflow.registry.verification import Findings, Progress, verify_model
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.registry_client import (
    JOURNAL_TAG,
    RegistryClient,
    StoredModel,
    StoredVersion,
)

CONTENT_TAG = "allele.content"
_PLACE = "versions"


@dataclass(frozen=True)
class Registered:
    """
    A version of a genome; `is_new` is False where the same content was there already.
    """

    name: str
    version: int
    content: str
    is_new: bool


@dataclass(frozen=True)
class Listed:
    """
    A model, and where its versions stand; `problem` says why that is not known.
    """

    name: str
    standing: Standing | None
    problem: str | None = None


class Registry:
    """
    Genomes in MLflow's registry, any number of processes and machines at once.

    Each model has a journal, a run whose params are its entries; MLflow writes a param once, so of
    two who write the next entry one is refused, looks again, and is told that another one holds the
    stage by now. Aliases and tags only mirror the journal.

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
    ) -> Registered:
        """
        Keep a genome as a version of a model; the same content is one version however often.

        Args:
            name: The model's.
            genome: Anything with `to_dict`, or a mapping; copied at once.
            stage: Development or candidate.
            reason: Why.
            tags: Of the version, such as the run it comes from.
        Raises:
            RegistryError: it is no genome, or the stage is another.
        """
        if stage not in (Stage.DEVELOPMENT, Stage.CANDIDATE):
            raise RegistryError(
                f"register as {stage}: want development or candidate; promote for the others",
                kind=ErrorKind.BAD_REGISTRY,
            )
        kept = read_genome(genome)
        journal = self._journal(name, self._client.ensure_journal(name))
        chain = journal.read()
        known = chain.version_with(kept.content)
        if known is not None:
            return Registered(name, known, kept.content, is_new=False)
        found = self._client.find_version(name, CONTENT_TAG, kept.content)
        version = (
            found.number
            if found is not None
            else self._store(name, journal.run_id, kept, tags or {})
        )

        def entry(chain: Chain) -> Entry | None:
            if chain.version_with(kept.content) is not None:
                return None  # somebody else has registered the same meanwhile
            return self._entry(
                chain, "register", name, version, stage, reason=reason, content=kept.content
            )

        journal.append(entry)
        chain = journal.mirror()
        number = chain.version_with(kept.content)
        assert number is not None
        if number != version and found is None:
            with suppress(TrackingError):  # ours is one too many; else `verify` reports it
                self._client.delete_version(name, version)
        return Registered(name, number, kept.content, is_new=number == version)

    def load(self, where: str) -> Genome:
        """
        The genome of `name@stage` or `name/version`, every hash checked.

        Raises:
            RegistryError: a file or the journal was changed.
        """
        name, number = self.find(where)
        chain = self._chain_of(name)
        content = chain.contents().get(number)
        if content is None:
            raise NotFoundError(f"{where}: not in the journal", kind=ErrorKind.NOT_FOUND)
        stored = self._client.version(name, number)
        return self._load(stored, content)

    def find(self, where: str) -> tuple[str, int]:
        """
        Name and number of a version that is written as `name@stage` or `name/version`.
        """
        name, mark, rest = where.partition("@")
        if mark:
            stage = _stage(rest)
            holder = self.standing(name).holders.get(stage)
            if holder is None:
                raise NotFoundError(f"{where}: nobody holds it", kind=ErrorKind.NOT_FOUND)
            return name, holder
        name, mark, rest = where.rpartition("/")
        if not mark or not rest.isdigit():
            raise NotFoundError(
                f"{where!r}: want name@stage or name/version", kind=ErrorKind.NOT_FOUND
            )
        return name, int(rest)

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
        return self._move(
            "promote",
            journal,
            journal.read(),
            version,
            stage,
            reason=reason,
            holder=holder,
            evidence=evidence,
        )

    def rollback(self, name: str, stage: Stage, *, reason: str) -> Entry:
        """
        Give a stage back to who held it before.

        Raises:
            PromotionRefusedError: nobody did.
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
        return self._move("rollback", journal, chain, before[-1], stage, reason=reason)

    def archive(self, name: str, version: int, *, reason: str) -> Entry:
        """
        Take a version out of use.
        """
        journal = self._journal(name)
        chain = journal.read()
        return self._move("archive", journal, chain, version, Stage.ARCHIVED, reason=reason)

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
                listed.append(Listed(model.name, None, "its journal's run is gone from MLflow"))
                continue
            chain = read_chain(entries.texts, model=model.name)
            standing = chain.standing() if chain.problem is None else None
            listed.append(Listed(model.name, standing, chain.problem))
        return listed

    def version(self, name: str, number: int) -> StoredVersion:
        """
        A version as MLflow has it, with its tags.
        """
        return self._client.version(name, number)

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
        return self._move("approve", journal, chain, version, stage, reason=reason)

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
        return verify_model(self._journal(name), versions, self._load, head=head, progress=progress)

    # --- inner -----------------------------------------------------------------------------------

    def _move(
        self,
        action: Action,
        journal: KeptJournal,
        first: Chain,
        version: int,
        stage: Stage,
        *,
        reason: str,
        holder: int | None = None,
        evidence: bytes | None = None,
    ) -> Entry:
        """
        Write a transition that was decided on what `first` says; refused where another one holds
        the stage by now.
        """
        if len(reason) > LONGEST_REASON:
            raise RegistryError(
                f"a reason of {len(reason):,} characters: want at most {LONGEST_REASON:,}",
                kind=ErrorKind.BAD_REGISTRY,
            )
        name = journal.name
        expected = first.standing().holders.get(stage) if holder is None else holder or None
        contents = first.contents()
        if version not in contents:
            raise NotFoundError(f"{name!r} has no version {version}", kind=ErrorKind.NOT_FOUND)

        kept = journal.keep_evidence(evidence) if evidence is not None else (None, None)

        def entry(chain: Chain) -> Entry:
            present = chain.standing().holders.get(stage)
            if present != expected:
                raise PromotionRefusedError(
                    f"{name}@{stage} is held by {_whom(present)}, not {_whom(expected)}: "
                    "look again, another one was faster",
                    kind=ErrorKind.OTHER_HOLDER,
                    holder=present,
                    expected=expected,
                )
            content = contents[version]
            made = self._entry(
                chain, action, name, version, stage, reason=reason, content=content, holder=present
            )
            return msgspec.structs.replace(made, evidence=kept[0], evidence_uri=kept[1])

        written = journal.append(entry)
        assert written is not None
        journal.mirror()
        return written

    def _entry(
        self,
        chain: Chain,
        action: Action,
        name: str,
        version: int,
        stage: Stage,
        *,
        reason: str,
        content: str,
        holder: int | None = None,
    ) -> Entry:
        return Entry(
            number=chain.next_number,
            previous=chain.head,
            action=action,
            model=name,
            version=version,
            stage=stage,
            holder=holder,
            by=self._by,
            time=utc_iso(now_ns()),
            reason=reason,
            content=content,
            token=uuid.uuid4().hex,
        )

    def _store(self, name: str, run_id: str, genome: Genome, tags: Mapping[str, str]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            write_files(genome, Path(folder))
            source = self._client.keep_files(run_id, Path(folder), f"{_PLACE}/{genome.content}")
        told = {CONTENT_TAG: genome.content, STAGE_TAG: Stage.DEVELOPMENT.value, **tags}
        return self._client.create_version(
            name, source=source, run_id=run_id, tags=told, description=""
        )

    def _load(self, stored: StoredVersion, content: str) -> Genome:
        place = f"{_PLACE}/{content}"
        names = (GENOME_FILE, MODEL_FILE, MANIFEST_FILE)
        files = {one: self._client.fetch_file(stored.run_id, f"{place}/{one}") for one in names}
        return check_files(files, content)

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
    client = RegistryClient(
        settings.model_registry_uri,
        experiment=f"{settings.experiment_prefix}registry",
        artifact_location=settings.experiment_artifact_location,
    )
    return Registry(client, by=by)


def _stage(text: str) -> Stage:
    try:
        return Stage(text)
    except ValueError as exc:
        stages = ", ".join(one.value for one in Stage if one is not Stage.ARCHIVED)
        raise NotFoundError(
            f"stage {text!r}: want one of {stages}", kind=ErrorKind.NOT_FOUND
        ) from exc


def _whom(version: int | None) -> str:
    return "nobody" if version is None else f"version {version}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
