"""
A move of a version from stage to stage: the next entry of its model's journal, or a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from allele_mlflow.errors import (
    ErrorKind,
    NotFoundError,
    PromotionRefusedError,
    RegistryError,
)
from allele_mlflow.registry.journal import LONGEST_REASON, Action, Chain, Entry, Stage
from allele_mlflow.registry.kept_journal import KeptJournal, next_entry


@dataclass(frozen=True)
class Move:
    """
    What is to be done, and what was seen when it was decided.

    Attributes:
        action: Any but a registration.
        version: Which.
        stage: Where it goes; of an approval the stage that it is for.
        reason: Why.
        holder: Who was seen to hold the stage, `NOBODY` for nobody; None for whoever does.
        stands: Where the version was seen to stand; None for wherever it does.
        evidence: A document that is kept with the journal.
    """

    action: Action
    version: int
    stage: Stage
    reason: str
    holder: int | None = None
    stands: Stage | None = None
    evidence: bytes | None = None


def write_move(journal: KeptJournal, first: Chain, move: Move, *, by: str) -> Entry:
    """
    Write a move that was decided on what `first` says.

    Raises:
        PromotionRefusedError: another one holds the stage by now, or the version stands elsewhere.
        NotFoundError: there is no such version.
        RegistryError: the reason is too long, or the journal is damaged.
        TrackingError: the store does not answer.
    """
    if len(move.reason) > LONGEST_REASON:
        raise RegistryError(
            f"a reason of {len(move.reason):,} characters: want at most {LONGEST_REASON:,}",
            kind=ErrorKind.BAD_REGISTRY,
        )
    holders = first.standing().holders
    expected = holders.get(move.stage) if move.holder is None else move.holder or None
    registered = first.registrations().get(move.version)
    if registered is None:
        raise NotFoundError(
            f"{journal.name!r} has no version {move.version}", kind=ErrorKind.NOT_FOUND
        )
    content = registered.content
    kept = journal.keep_evidence(move.evidence) if move.evidence is not None else (None, None)

    def entry(chain: Chain) -> Entry:
        _check(journal.name, chain, move, expected)
        made = next_entry(
            *(chain, move.action, journal.name, move.version, move.stage),
            by=by,
            reason=move.reason,
            content=content,
            holder=expected,
        )
        return msgspec.structs.replace(made, evidence=kept[0], evidence_uri=kept[1])

    written = journal.append(entry)
    assert written is not None
    journal.mirror()
    return written


def _check(name: str, chain: Chain, move: Move, expected: int | None) -> None:
    """
    Refuse a move that was decided on what is no longer so.
    """
    standing = chain.standing()
    present, place = standing.holders.get(move.stage), standing.stages.get(move.version)
    if present != expected:
        raise PromotionRefusedError(
            f"{name}@{move.stage} is held by {_whom(present)}, not {_whom(expected)}: "
            "look again, another one was faster",
            kind=ErrorKind.OTHER_HOLDER,
            holder=present,
            expected=expected,
        )
    if move.stands is not None and place is not move.stands:
        raise PromotionRefusedError(
            f"{name}/{move.version} stands in {place}, not in {move.stands}: look again, another "
            "one was faster",
            kind=ErrorKind.OTHER_HOLDER,
        )


def _whom(version: int | None) -> str:
    return "nobody" if version is None else f"version {version}"
