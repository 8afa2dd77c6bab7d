"""
What a journal says that no honest writer would have written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.registry.journal import (
    Action,
    Board,
    Chain,
    Entry,
    Stage,
    encode_entry,
    entry_key,
    read_chain,
)
from allele_mlflow.registry.journal_audit import find_clock_steps, find_contradictions

DEVELOPMENT, PRODUCTION = Stage.DEVELOPMENT, Stage.PRODUCTION
NOON = "2026-01-01T12:00:00.000+00:00"


def written(*given: tuple[Action, int, Stage], **last: Any) -> Chain:
    """
    The chain of these steps as the registry writes them, but for fields of the last.
    """
    chain, board = Chain(), Board()
    for number, (action, version, stage) in enumerate(given, 1):
        entry = Entry(
            number=number,
            previous=chain.head,
            action=action,
            model="m",
            version=version,
            stage=stage,
            holder=None if action == "register" else board.holder(stage),
            by="ann",
            time=NOON,
            content=f"{version:064x}",
            token=f"t{number}",
        )
        if number == len(given):
            entry = msgspec.structs.replace(entry, **last)
        chain = read_chain({entry_key(number): encode_entry(entry)}, known=chain)
        board.add(entry)
    assert len(chain.entries) == len(given)
    return chain


REGISTER: tuple[Action, int, Stage] = ("register", 1, DEVELOPMENT)
SECOND: tuple[Action, int, Stage] = ("register", 2, DEVELOPMENT)
PROMOTE: tuple[Action, int, Stage] = ("promote", 1, PRODUCTION)


@pytest.mark.parametrize(
    ("steps", "last", "words"),
    [
        ([REGISTER, PROMOTE], {"holder": 7}, "production was held by nobody, not version 7"),
        (
            [REGISTER, PROMOTE],
            {"content": "f" * 64},
            "version 1 was registered with another content",
        ),
        ([REGISTER, ("promote", 2, PRODUCTION)], {}, "version 2 was never registered"),
        ([REGISTER, REGISTER], {}, "version 1 was registered before"),
        (
            [REGISTER, SECOND],
            {"content": f"{1:064x}"},
            "the content of version 2 was registered before",
        ),
        ([REGISTER, ("rollback", 1, PRODUCTION)], {}, "version 1 did not hold production before"),
        ([REGISTER, ("archive", 1, PRODUCTION)], {}, "archived as production"),
    ],
)
def test_contradictions_are_found(
    steps: list[tuple[Action, int, Stage]], last: dict[str, Any], words: str
) -> None:
    """An entry that was appended by hand and does not fit those before it is told by its number."""
    assert find_contradictions(written(*steps, **last)) == [f"entry 2: {words}"]


def honest_steps(draws: Iterable[tuple[str, int]]) -> list[tuple[Action, int, Stage]]:
    """
    What the registry would have written of these wishes.
    """
    steps: list[tuple[Action, int, Stage]] = []
    board, count = Board(), 0
    for number, (wish, choice) in enumerate(draws, 1):
        stage = list(Stage)[choice % 4]
        before = board.before(stage)
        step: tuple[Action, int, Stage]
        if wish == "register" or not count:
            count += 1
            step = ("register", count, DEVELOPMENT)
        elif wish == "rollback" and before:
            step = ("rollback", before[-1], stage)
        elif wish == "archive":
            step = ("archive", 1 + choice % count, Stage.ARCHIVED)
        elif wish == "approve":
            step = ("approve", 1 + choice % count, stage)
        else:
            step = ("promote", 1 + choice % count, stage)
        steps.append(step)
        board.add(
            Entry(
                number=number,
                previous="",
                action=step[0],
                model="m",
                version=step[1],
                stage=step[2],
                by="ann",
                time=NOON,
                content="",
                token="",
            )
        )
    return steps


WISHES = st.sampled_from(["register", "promote", "rollback", "archive", "approve"])


@given(st.lists(st.tuples(WISHES, st.integers(0, 50)), max_size=25))
def test_honest_journals_have_none(draws: list[tuple[str, int]]) -> None:
    """Whatever the registry writes, in whatever order, contradicts nothing."""
    assert find_contradictions(written(*honest_steps(draws))) == []


def test_clocks_are_compared() -> None:
    """A time before that of the entry before it is told, and is no contradiction."""
    chain = written(REGISTER, PROMOTE, time="2026-01-01T12:00:00+02:00", by="bob")
    (found,) = find_clock_steps(chain)
    assert found.startswith("entry 2 (bob) says 2026-01-01T12:00:00+02:00, entry 1 before it (ann)")
    assert find_contradictions(chain) == []
    assert find_clock_steps(written(REGISTER, PROMOTE)) == []
