"""
What a journal says that no honest writer would have written, and where its clocks differ. Pure.

A chain that holds together was written by whoever may write the store: an entry that is appended by
hand, with the right hash, is one of it. But the registry never writes an entry that contradicts the
ones before it, so one that does was not written by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from allele_mlflow.clock import read_iso
from allele_mlflow.registry.journal import Board, Chain, Entry, Stage


class _Known(NamedTuple):
    """
    Contents that were registered so far.
    """

    by_version: dict[int, str]
    contents: set[str]


def find_contradictions(chain: Chain) -> list[str]:
    """
    The entries that contradict those before them, each with what is wrong.
    """
    board = Board()
    known = _Known({}, set())
    found: list[str] = []
    for entry in chain.entries:
        found += [f"entry {entry.number}: {one}" for one in _contradicts(entry, board, known)]
        if entry.action == "register":
            known.by_version.setdefault(entry.version, entry.content)
            known.contents.add(entry.content)
        board.add(entry)
    return found


def find_clock_steps(chain: Chain) -> list[str]:
    """
    The entries that say they are earlier than the one before them.
    """
    pairs = zip(chain.entries, chain.entries[1:], strict=False)
    return [
        f"entry {later.number} ({later.by}) says {later.time}, entry {earlier.number} before it "
        f"({earlier.by}) {earlier.time}: their clocks differ"
        for earlier, later in pairs
        if read_iso(later.time) < read_iso(earlier.time)
    ]


def _contradicts(entry: Entry, board: Board, known: _Known) -> Iterator[str]:
    if entry.action == "register":
        if entry.version in known.by_version:
            yield f"version {entry.version} was registered before"
        elif entry.content in known.contents:
            yield f"the content of version {entry.version} was registered before"
        return
    content = known.by_version.get(entry.version)
    if content is None:
        yield f"version {entry.version} was never registered"
    elif content != entry.content:
        yield f"version {entry.version} was registered with another content"
    present = board.holder(entry.stage)
    if entry.holder != present:
        yield f"{entry.stage} was held by {_whom(present)}, not {_whom(entry.holder)}"
    if entry.action == "archive" and entry.stage is not Stage.ARCHIVED:
        yield f"archived as {entry.stage}"
    if entry.action == "rollback" and board.before(entry.stage)[-1:] != (entry.version,):
        yield f"version {entry.version} did not hold {entry.stage} before"


def _whom(version: int | None) -> str:
    return "nobody" if version is None else f"version {version}"
