"""
The journal of a registered model: every transition, each entry bound to the one before it. Pure.

Entry N is the text of one param of the model's journal run; MLflow writes a param once. The hash of
an entry is over its whole text, and each text holds the hash of the entry before it: whoever
changes one has to change all that follow, and then the last hash, the head, is another.

Who holds a stage is what the entries say, in order; MLflow's aliases only mirror it.

Format history: 1 = the fields of `Entry`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.references import Stage as Stage

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
    evidence: str | None = None
    evidence_uri: str | None = None
    content: str
    manifest: str | None = None
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
            until: A time in the form of `Entry.time`: as it was then.
        """
        entries = [one for one in self.entries if until is None or one.time <= until]
        return replay(entries)

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


def replay(entries: Iterable[Entry]) -> Standing:
    """
    What the entries add up to.
    """
    stages: dict[int, Stage] = {}
    held: dict[Stage, list[int | None]] = {}
    for entry in entries:
        if entry.action == "approve":
            continue
        place = held.setdefault(entry.stage, [])
        present = place[-1] if place else None
        if entry.action == "rollback" and place:
            place.pop()
            if present is not None:
                stages[present] = Stage.ARCHIVED
        elif present not in (None, entry.version) and entry.stage in EXCLUSIVE:
            stages[present] = Stage.ARCHIVED
        _leave(entry.version, stages, held, to=entry.stage)
        if entry.stage is not Stage.ARCHIVED and (not place or place[-1] != entry.version):
            place.append(entry.version)
        stages[entry.version] = entry.stage
    return Standing(
        stages,
        {stage: place[-1] for stage, place in held.items() if place and place[-1] is not None},
        {stage: tuple(v for v in place[:-1] if v is not None) for stage, place in held.items()},
    )


def _leave(
    version: int, stages: Mapping[int, Stage], held: Mapping[Stage, list[int | None]], *, to: Stage
) -> None:
    """
    A version that goes elsewhere holds nothing any more where it was: nobody does.
    """
    before = stages.get(version)
    place = held.get(before, []) if before is not None and before is not to else []
    if place and place[-1] == version:
        place.append(None)


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


def read_chain(texts: Mapping[str, str]) -> Chain:
    """
    The journal in a run's params; other params are passed over.

    Reads up to the first entry that is missing, damaged or not bound to the one before; `problem`
    says what is wrong with it.
    """
    numbered = {int(key): text for key, text in texts.items() if _is_key(key)}
    entries: list[Entry] = []
    hashes: list[str] = []
    problem = None
    for number in range(1, max(numbered, default=0) + 1):
        text = numbered.get(number)
        problem = _problem(number, text, hashes[-1] if hashes else NO_HASH)
        if problem is not None or text is None:
            break
        entries.append(msgspec.json.decode(text, type=Entry))
        hashes.append(entry_hash(text))
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


def _problem(number: int, text: str | None, previous: str) -> str | None:
    if text is None:
        return f"entry {number} is missing"
    try:
        entry = msgspec.json.decode(text, type=Entry)
    except msgspec.MsgspecError as exc:
        return f"entry {number} is none: {exc}"
    if entry.number != number:
        return f"entry {number} says that it is entry {entry.number}"
    if entry.previous != previous:
        return f"entry {number} does not follow the one before it: that one was changed"
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
