"""
The journal of a registered model: who stands where, and whether the chain holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.errors import RegistryError
from allele_mlflow.registry.journal import (
    EXCLUSIVE,
    LONGEST_REASON,
    NO_HASH,
    Action,
    Chain,
    Entry,
    Stage,
    check_head,
    encode_entry,
    entry_hash,
    entry_key,
    read_chain,
    replay,
)

Step = tuple[Action, int, Stage]
DEVELOPMENT, CANDIDATE = Stage.DEVELOPMENT, Stage.CANDIDATE
PRODUCTION, ARCHIVED = Stage.PRODUCTION, Stage.ARCHIVED


def texts_of(
    steps: Iterable[Step], *, by: str = "ann", model: str = "m", times: Sequence[str] = ()
) -> dict[str, str]:
    """
    Params of a journal with these steps.
    """
    texts: dict[str, str] = {}
    previous = NO_HASH
    for number, (action, version, stage) in enumerate(steps, 1):
        entry = Entry(
            number=number,
            previous=previous,
            action=action,
            model=model,
            version=version,
            stage=stage,
            by=by,
            time=times[number - 1] if times else f"2026-01-{number:02d}T00:00:00.000+00:00",
            content="c" * 64,
            token=f"t{number}",
        )
        text = encode_entry(entry)
        texts[entry_key(number)] = text
        previous = entry_hash(text)
    return texts


def chain_of(*steps: Step) -> Chain:
    """
    The chain of these steps.
    """
    return read_chain(texts_of(steps))


def test_a_version_goes_its_way() -> None:
    """Registered, candidate, production: it holds one stage at a time and leaves the last."""
    standing = chain_of(
        ("register", 1, DEVELOPMENT), ("promote", 1, CANDIDATE), ("promote", 1, PRODUCTION)
    ).standing()
    assert standing.stages == {1: PRODUCTION}
    assert standing.holders == {PRODUCTION: 1}


def test_a_newer_one_takes_its_place() -> None:
    """Who is replaced in production is archived, and is whom a rollback brings back."""
    chain = chain_of(
        ("register", 1, DEVELOPMENT),
        ("promote", 1, PRODUCTION),
        ("register", 2, DEVELOPMENT),
        ("promote", 2, PRODUCTION),
    )
    standing = chain.standing()
    assert standing.stages == {1: ARCHIVED, 2: PRODUCTION}
    assert standing.before[PRODUCTION] == (1,)
    back = chain_of(
        *[(one.action, one.version, one.stage) for one in chain.entries],
        ("rollback", 1, PRODUCTION),
    ).standing()
    assert back.stages == {1: PRODUCTION, 2: ARCHIVED}
    assert back.before[PRODUCTION] == ()


def test_as_it_was_then() -> None:
    """At a time in the past, what came later is not there."""
    chain = chain_of(
        ("register", 1, DEVELOPMENT), ("promote", 1, PRODUCTION), ("promote", 2, PRODUCTION)
    )
    assert chain.standing(until="2026-01-02T12:00").holders == {PRODUCTION: 1}
    assert chain.standing(until="2025").stages == {}


def test_clocks_that_differ() -> None:
    """The order is that of the numbers: at a time, the journal counts up to the first entry that
    says it is later, and what follows that one does not, whatever it says.
    """
    steps: list[Step] = [("register", 1, DEVELOPMENT), ("register", 2, DEVELOPMENT)]
    steps += [("promote", 1, PRODUCTION), ("promote", 2, PRODUCTION)]
    times = [f"2026-01-01T{one}:00.000+00:00" for one in ("10:00", "10:01", "10:30", "10:05")]
    chain = read_chain(texts_of(steps, times=times))
    assert chain.standing(until="2026-01-01T10:10").holders == {DEVELOPMENT: 2}
    assert chain.standing(until="2026-01-01T11:30+01:00").holders == {PRODUCTION: 2}
    assert chain.standing(until="2026-01-01T10:00:30").stages == {1: DEVELOPMENT}
    with pytest.raises(RegistryError, match="'soon' is no time: want ISO 8601"):
        chain.standing(until="soon")


def test_what_follows_is_read_alone() -> None:
    """A chain that is known, and what follows it, are the chain of all; a known one of another
    journal fits nothing.
    """
    steps: list[Step] = [("register", 1, DEVELOPMENT), ("promote", 1, PRODUCTION)]
    texts = texts_of([*steps, ("archive", 1, ARCHIVED)])
    known = read_chain({key: texts[key] for key in list(texts)[:2]})
    for start in (1, 2):
        rest = {key: texts[key] for key in list(texts)[start:]}
        assert read_chain(rest, model="m", known=known) == read_chain(texts)
    other = read_chain(texts_of(steps, by="eve"))
    problem = read_chain(texts, known=other).problem
    assert problem == "entry 3 does not follow the one before it: that one was changed"


def test_entries_of_another_model() -> None:
    """A journal that was copied from another model is none of this one, nor are single entries."""
    steps: list[Step] = [("register", 1, DEVELOPMENT), ("promote", 1, PRODUCTION)]
    copied = read_chain(texts_of(steps, model="other"), model="m")
    assert copied.problem is not None
    assert "entry 1 is of the model 'other', not of 'm'" in copied.problem
    own = texts_of(steps[:1])
    entry = msgspec.json.decode(texts_of(steps, model="other")[entry_key(2)], type=Entry)
    fitted = msgspec.structs.replace(entry, previous=entry_hash(own[entry_key(1)]))
    mixed = read_chain(own | {entry_key(2): encode_entry(fitted)})
    assert mixed.problem is not None
    assert "entry 2 is of the model 'other'" in mixed.problem


def test_an_archived_holder_leaves_nobody() -> None:
    """Archived from production, nobody holds it; a rollback brings the same one back."""
    steps: list[Step] = [
        ("register", 1, DEVELOPMENT),
        ("promote", 1, PRODUCTION),
        ("archive", 1, ARCHIVED),
    ]
    standing = chain_of(*steps).standing()
    assert (standing.stages, standing.holders) == ({1: ARCHIVED}, {})
    assert standing.before[PRODUCTION] == (1,)
    assert chain_of(*steps, ("rollback", 1, PRODUCTION)).standing().holders == {PRODUCTION: 1}


def test_approvals_and_authors() -> None:
    """Approvals move nothing, and count each person once."""
    chain = chain_of(
        ("register", 1, DEVELOPMENT), ("approve", 1, PRODUCTION), ("approve", 1, PRODUCTION)
    )
    assert chain.approvals(1, PRODUCTION) == ("ann",)
    assert chain.approvals(1, CANDIDATE) == ()
    assert chain.author(1) == "ann"
    assert chain.standing().stages == {1: DEVELOPMENT}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "promote", "rollback", "archive", "approve"]),
        st.integers(1, 4),
        st.sampled_from(list(Stage)),
    ),
    max_size=30,
)


@given(STEPS)
def test_no_stage_has_two_holders(steps: list[Step]) -> None:
    """Whatever was done in whatever order: a holder stands where it holds, and in an exclusive
    stage nobody else stands.
    """
    standing = replay(read_chain(texts_of(steps)).entries)
    for stage, version in standing.holders.items():
        assert standing.stages[version] is stage
    for stage in EXCLUSIVE:
        there = [version for version, one in standing.stages.items() if one is stage]
        assert len(there) <= 1
        assert there == ([standing.holders[stage]] if stage in standing.holders else [])


@given(STEPS.filter(bool), st.data())
def test_every_edit_is_seen(steps: list[Step], data: st.DataObject) -> None:
    """An entry that is changed, removed or put elsewhere is found, with its number; a chain that
    was rewritten from there on is found by a head that was noted down.
    """
    texts = texts_of(steps)
    head = read_chain(texts).head
    number = data.draw(st.integers(1, len(steps)))
    key = entry_key(number)
    changed = dict(texts)
    match data.draw(st.sampled_from(["change", "remove", "rewrite"])):
        case "change":
            entry = msgspec.json.decode(texts[key], type=Entry)
            changed[key] = encode_entry(msgspec.structs.replace(entry, by="eve"))
        case "remove":
            del changed[key]
        case _:
            changed = texts_of(steps, by="eve")
    chain = read_chain(changed)
    assert chain.problem is not None or check_head(chain, head) is not None
    assert read_chain(texts).problem is None
    assert check_head(read_chain(texts), head) is None


def test_what_is_no_entry() -> None:
    """Params of other names are passed over, damaged text is told with its number."""
    texts = texts_of([("register", 1, DEVELOPMENT)])
    assert read_chain({**texts, "seed": "7", "0001": "x"}).problem is None
    damaged = read_chain({**texts, entry_key(2): "{"})
    assert damaged.problem is not None
    assert "entry 2" in damaged.problem
    assert len(damaged.entries) == 1
    entry = msgspec.json.decode(texts["000001"], type=Entry)
    timeless = read_chain({"000001": encode_entry(msgspec.structs.replace(entry, time="noon"))})
    assert timeless.problem is not None
    assert "entry 1: its time 'noon' is no time" in timeless.problem


def test_limits() -> None:
    """A journal that is full and an entry that is too long are refused in words."""
    with pytest.raises(RegistryError, match="at most 999,999"):
        entry_key(1_000_000)
    entry = msgspec.json.decode(texts_of([("register", 1, DEVELOPMENT)])["000001"], type=Entry)
    encode_entry(msgspec.structs.replace(entry, reason="r" * LONGEST_REASON))
    with pytest.raises(RegistryError, match="want at most 6,000"):
        encode_entry(msgspec.structs.replace(entry, reason="r" * 7000))
