"""
The journal of a registered model: every transition, each entry bound to the one before it. Pure.

Entry N is the text of one param of the model's journal run; MLflow writes a param once. The hash of
an entry is over its whole text, and each text holds the hash of the entry before it: whoever
changes one has to change all that follow, and then the last hash, the head, is another.

Who holds a stage is what the entries say, in order; MLflow's aliases only mirror it. The order is
that of the numbers: times are what each writer's clock said, and clocks differ.

Format history: 1 = the fields of `Entry`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from allele_mlflow.clock import read_iso
from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.references import Stage as Stage

#: Thought to hold a stage that nobody holds.
NOBODY = 0
#: The hash before the first entry.
NO_HASH = "0" * 64
#: Digits of an entry's number in its param's key.
_DIGITS = 6
MOST_ENTRIES = 10**_DIGITS - 1
#: What MLflow takes of a param on every store that we know.
LONGEST_ENTRY = 6000
LONGEST_REASON = 1000

#: Stages whose holder is archived when another one takes its place.
EXCLUSIVE = frozenset({Stage.CANDIDATE, Stage.STAGING, Stage.PRODUCTION})

Action = Literal["register", "promote", "rollback", "archive", "approve"]


#: SHA-256 in hexadecimal; it stands in paths, so nothing else may.
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """
    One transition.

    Attributes:
        number: From 1 on.
        previous: Hash of the entry before it.
        action: What was done.
        model: The registered model's name.
        version: Which version of it.
        stage: Where it went; of an approval the stage that it is for.
        holder: Who held the stage before; None for nobody.
        by: Who did it.
        time: When, UTC.
        reason: Why.
        evidence: SHA-256 of the evidence, None where there is none.
        evidence_uri: Where the evidence is.
        content: SHA-256 of the version's content.
        manifest: Of a registration: SHA-256 of the manifest of the version's files; None in
            journals from before it was kept.
        token: Of the one call that wrote it, to know it again after a lost answer.
    """

    number: int
    previous: str
    action: Action
    model: str
    version: int
    stage: Stage
    holder: int | None = None
    by: str
    time: str
    reason: str = ""
    evidence: Digest | None = None
    evidence_uri: str | None = None
    content: Digest
    manifest: Digest | None = None
    token: str
    format: int = 1


@dataclass(frozen=True)
class Chain:
    """
    The entries of a journal that hold together, from the first on.

    Attributes:
        entries: In order.
        hashes: Of each.
        problem: Why what follows is no entry of the chain; None where all of it is.
    """

    entries: tuple[Entry, ...] = ()
    hashes: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def head(self) -> str:
        """
        Hash of the last entry.
        """
        return self.hashes[-1] if self.hashes else NO_HASH

    @property
    def next_number(self) -> int:
        """
        Of the entry that comes next.
        """
        return len(self.entries) + 1

    def standing(self, *, until: str | None = None) -> Standing:
        """
        Who stands where.

        Args:
            until: A time in ISO 8601, without an offset UTC: as it was then. The journal counts up
                to the first entry that says it is later; what follows it was written after it,
                whatever time it says.
        Raises:
            RegistryError: it is no time.
        """
        if until is None:
            return replay(self.entries)
        try:
            moment = read_iso(until)
        except ValueError as exc:
            raise RegistryError(str(exc), kind=ErrorKind.BAD_REGISTRY) from exc
        return replay(takewhile(lambda one: read_iso(one.time) <= moment, self.entries))

    def approvals(self, version: int, stage: Stage) -> tuple[str, ...]:
        """
        Who has approved that a version goes to a stage, each once, since it was registered.
        """
        names = [
            entry.by
            for entry in self.entries
            if entry.action == "approve" and entry.version == version and entry.stage is stage
        ]
        return tuple(dict.fromkeys(names))

    def author(self, version: int) -> str | None:
        """
        Who registered a version.
        """
        for entry in self.entries:
            if entry.action == "register" and entry.version == version:
                return entry.by
        return None

    def registrations(self) -> dict[int, Entry]:
        """
        By version, the entry that it was registered by, oldest first.
        """
        return {one.version: one for one in self.entries if one.action == "register"}

    def version_with(self, content: str) -> int | None:
        """
        The version that was registered with a content; None where none was.
        """
        for entry in self.entries:
            if entry.action == "register" and entry.content == content:
                return entry.version
        return None


@dataclass(frozen=True)
class Standing:
    """
    Where every version stands after some entries.

    Attributes:
        stages: By version. One that was replaced in an exclusive stage is archived.
        holders: By stage, the version that its alias points to.
        before: By stage, who held it before the holder, nearest last: whom a rollback brings back.
    """

    stages: Mapping[int, Stage]
    holders: Mapping[Stage, int]
    before: Mapping[Stage, tuple[int, ...]]


@dataclass
class Board:
    """
    Where every version stands, as entries are read one after the other.
    """

    _stages: dict[int, Stage] = field(default_factory=dict)
    _held: dict[Stage, list[int | None]] = field(default_factory=dict)

    def holder(self, stage: Stage) -> int | None:
        """
        Who holds a stage by now.
        """
        place = self._held.get(stage)
        return place[-1] if place else None

    def before(self, stage: Stage) -> tuple[int, ...]:
        """
        Who held a stage before its holder, nearest last.
        """
        return tuple(one for one in self._held.get(stage, ())[:-1] if one is not None)

    def add(self, entry: Entry) -> None:
        """
        What the next entry changes.
        """
        if entry.action == "approve":
            return
        place = self._held.setdefault(entry.stage, [])
        present = self.holder(entry.stage)
        if entry.action == "rollback" and place:
            place.pop()
            if present is not None:
                self._stages[present] = Stage.ARCHIVED
        elif present not in (None, entry.version) and entry.stage in EXCLUSIVE:
            self._stages[present] = Stage.ARCHIVED
        self._leave(entry.version, to=entry.stage)
        if entry.stage is not Stage.ARCHIVED and (not place or place[-1] != entry.version):
            place.append(entry.version)
        self._stages[entry.version] = entry.stage

    def standing(self) -> Standing:
        """
        All of it.
        """
        holders = {stage: self.holder(stage) for stage in self._held}
        return Standing(
            dict(self._stages),
            {stage: version for stage, version in holders.items() if version is not None},
            {stage: self.before(stage) for stage in self._held},
        )

    def _leave(self, version: int, *, to: Stage) -> None:
        """
        A version that goes elsewhere holds nothing any more where it was: nobody does.
        """
        stage = self._stages.get(version)
        place = self._held.get(stage, []) if stage is not None and stage is not to else []
        if place and place[-1] == version:
            place.append(None)


def replay(entries: Iterable[Entry]) -> Standing:
    """
    What the entries add up to.
    """
    board = Board()
    for entry in entries:
        board.add(entry)
    return board.standing()


def entry_key(number: int) -> str:
    """
    The param's key of an entry.

    Raises:
        RegistryError: the journal is full.
    """
    if not 1 <= number <= MOST_ENTRIES:
        raise RegistryError(
            f"entry {number}: a journal has at most {MOST_ENTRIES:,}", kind=ErrorKind.BAD_REGISTRY
        )
    return f"{number:0{_DIGITS}d}"


def encode_entry(entry: Entry) -> str:
    """
    The entry's text: the same for the same entry, whoever writes it.

    Raises:
        RegistryError: it is longer than a param can be.
    """
    text = msgspec.json.encode(entry, order="sorted").decode()
    if len(text) > LONGEST_ENTRY:
        raise RegistryError(
            f"an entry of {len(text):,} characters: want at most {LONGEST_ENTRY:,}; "
            f"a reason has at most {LONGEST_REASON:,}",
            kind=ErrorKind.BAD_REGISTRY,
        )
    return text


def entry_hash(text: str) -> str:
    """
    SHA-256 of an entry's text, in hexadecimal.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def read_chain(
    texts: Mapping[str, str], *, model: str | None = None, known: Chain | None = None
) -> Chain:
    """
    The journal in a run's params; other params are passed over.

    Reads up to the first entry that is missing, damaged, of another model or not bound to the one
    before; `problem` says what is wrong with it.

    Args:
        texts: The params, by key.
        model: Whose journal it is; by default whose its first entry is.
        known: What was read before: `texts` need only hold what follows.
    """
    numbered = {int(key): text for key, text in texts.items() if _is_key(key)}
    known = known or Chain()
    entries, hashes = list(known.entries), list(known.hashes)
    problem = None
    for number in range(len(entries) + 1, max(numbered, default=0) + 1):
        read = _read_entry(number, numbered.get(number))
        problem = (
            read
            if isinstance(read, str)
            else _misfit(read, hashes[-1] if hashes else NO_HASH, model)
        )
        if isinstance(read, str) or problem is not None:
            break
        model = model or read.model
        entries.append(read)
        hashes.append(entry_hash(numbered[number]))
    return Chain(tuple(entries), tuple(hashes), problem)


def check_head(chain: Chain, head: str) -> str | None:
    """
    Whether a hash that was noted down earlier is one of the chain's; else what that means.
    """
    if head in (NO_HASH, *chain.hashes):
        return None
    return f"no entry has the hash {head}: the chain was rewritten, or is another one's"


def _is_key(key: str) -> bool:
    return len(key) == _DIGITS and key.isdigit()


def _read_entry(number: int, text: str | None) -> Entry | str:
    """
    An entry, or what is wrong with it alone.
    """
    if text is None:
        return f"entry {number} is missing"
    try:
        entry = msgspec.json.decode(text, type=Entry)
    except msgspec.MsgspecError as exc:
        return f"entry {number} is none: {exc}"
    if entry.number != number:
        return f"entry {number} says that it is entry {entry.number}"
    try:
        read_iso(entry.time)
    except ValueError as exc:
        return f"entry {number}: its time {exc}"
    return entry


def _misfit(entry: Entry, previous: str, model: str | None) -> str | None:
    """
    Why an entry is not the next one of a journal.
    """
    if entry.previous != previous:
        return f"entry {entry.number} does not follow the one before it: that one was changed"
    if model is not None and entry.model != model:
        return (
            f"entry {entry.number} is of the model {entry.model!r}, not of {model!r}: "
            "it was copied here, or the model was renamed"
        )
    return None


def describe(entry: Entry) -> str:
    """
    The entry in a line.
    """
    from_whom = f", after version {entry.holder}" if entry.holder is not None else ""
    why = f": {entry.reason}" if entry.reason else ""
    match entry.action:
        case "approve":
            return f"{entry.by} approved version {entry.version} for {entry.stage}{why}"
        case "register":
            return f"{entry.by} registered version {entry.version} as {entry.stage}{why}"
        case "rollback":
            return f"{entry.by} put version {entry.version} back into {entry.stage}{from_whom}{why}"
        case "archive":
            return f"{entry.by} archived version {entry.version}{why}"
        case _:
            return f"{entry.by} promoted version {entry.version} to {entry.stage}{from_whom}{why}"
