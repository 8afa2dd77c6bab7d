"""
A registry of genomes: versions known by content, stages held on the word of a journal.
"""

from __future__ import annotations

import getpass
import tempfile
import uuid
from collections.abc import Mapping
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
    check_head,
)
from allele_mlflow.registry.kept_journal import STAGE_TAG, KeptJournal
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
class Findings:
    """
    What `Registry.verify` found: `problems` that need a person, and what it has `repaired`.
    """

    head: str
    problems: tuple[str, ...]
    repaired: tuple[str, ...]


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
        journal = KeptJournal(self._client, name, self._client.ensure_journal(name))
        chain = journal.read()
        known = _registered(chain, kept.content)
        if known is not None:
            return Registered(name, known, kept.content, is_new=False)
        found = self._client.find_version(name, CONTENT_TAG, kept.content)
        version = (
            found.number
            if found is not None
            else self._store(name, journal.run_id, kept, tags or {})
        )

        def entry(chain: Chain) -> Entry | None:
            if _registered(chain, kept.content) is not None:
                return None  # somebody else has registered the same meanwhile
            return self._entry(
                chain, "register", name, version, stage, reason=reason, content=kept.content
            )

        journal.append(entry)
        chain = journal.mirror()
        number = _registered(chain, kept.content)
        assert number is not None
        return Registered(name, number, kept.content, is_new=number == version)

    def load(self, where: str) -> Genome:
        """
        The genome of `name@stage` or `name/version`, every hash checked.

        Raises:
            RegistryError: a file or the journal was changed.
        """
        name, number = self.find(where)
        chain = self._chain_of(name)
        content = next(
            (e.content for e in chain.entries if e.action == "register" and e.version == number),
            None,
        )
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

    def version_of(self, name: str, content: str) -> int | None:
        """
        The number of the version with this content; None where there is none, or no such model.
        """
        try:
            return _registered(self._chain_of(name), content)
        except NotFoundError:
            return None

    def standing(self, name: str, *, at: str | None = None) -> Standing:
        """
        Where every version stands, or stood at a time (UTC, ISO 8601).
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
            holder: Who is thought to hold the stage now; by default who does.
            evidence: A document that is kept with the journal, and its hash in the entry.
        Raises:
            PromotionRefusedError: another one holds it, or took it meanwhile.
        """
        return self._move(
            "promote", name, version, stage, reason=reason, holder=holder, evidence=evidence
        )

    def rollback(self, name: str, stage: Stage, *, reason: str) -> Entry:
        """
        Give a stage back to who held it before.

        Raises:
            PromotionRefusedError: nobody did.
        """
        before = self.standing(name).before.get(stage, ())
        if not before:
            raise PromotionRefusedError(
                f"{name}@{stage}: nobody held it before", kind=ErrorKind.NOT_FOUND
            )
        if not reason:
            raise RegistryError("a rollback wants a reason", kind=ErrorKind.BAD_REGISTRY)
        return self._move("rollback", name, before[-1], stage, reason=reason, holder=None)

    def archive(self, name: str, version: int, *, reason: str) -> Entry:
        """
        Take a version out of use.
        """
        return self._move("archive", name, version, Stage.ARCHIVED, reason=reason, holder=None)

    def models(self) -> list[StoredModel]:
        """
        The models that have a journal, by name.
        """
        return [one for one in self._client.models() if JOURNAL_TAG in one.tags]

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
        chain = self._chain_of(name)
        if chain.author(version) == self._by:
            raise PromotionRefusedError(
                f"{self._by} registered version {version}: want the approval of another one",
                kind=ErrorKind.GATE,
            )
        return self._move("approve", name, version, stage, reason=reason, holder=None)

    def verify(self, name: str, *, head: str | None = None) -> Findings:
        """
        Check the chain, the files of every version, and have aliases and tags say what it says.

        Args:
            name: The model's.
            head: A hash that was noted down: the chain must contain it.
        """
        journal = self._journal(name)
        chain = journal.look()
        problems = [chain.problem] if chain.problem is not None else []
        missing = check_head(chain, head) if head is not None else None
        problems += [missing] if missing is not None else []
        contents = _contents(chain)
        for version, content in contents.items():
            try:
                self._load(self._client.version(name, version), content)
            except RegistryError as exc:
                problems.append(f"version {version}: {exc}")
        problems += [
            f"version {stored.number} is in no entry: it was made beside the registry"
            for stored in self._client.versions(name)
            if stored.number not in contents
        ]
        repaired = [] if chain.problem is not None else journal.set_aliases(chain)
        return Findings(chain.head, tuple(problems), tuple(repaired))

    # --- inner -----------------------------------------------------------------------------------

    def _move(
        self,
        action: Action,
        name: str,
        version: int,
        stage: Stage,
        *,
        reason: str,
        holder: int | None,
        evidence: bytes | None = None,
    ) -> Entry:
        if len(reason) > LONGEST_REASON:
            raise RegistryError(
                f"a reason of {len(reason):,} characters: want at most {LONGEST_REASON:,}",
                kind=ErrorKind.BAD_REGISTRY,
            )
        journal = self._journal(name)
        first = journal.read()
        expected = first.standing().holders.get(stage) if holder is None else holder
        contents = _contents(first)
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

    def _journal(self, name: str) -> KeptJournal:
        return KeptJournal(self._client, name, self._client.journal_of(self._client.model(name)))


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


def _contents(chain: Chain) -> dict[int, str]:
    return {one.version: one.content for one in chain.entries if one.action == "register"}


def _registered(chain: Chain, content: str) -> int | None:
    for entry in chain.entries:
        if entry.action == "register" and entry.content == content:
            return entry.version
    return None


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
