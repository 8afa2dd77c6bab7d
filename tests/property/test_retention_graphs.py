"""
What a clean-up deletes is what nothing reaches: random graphs of references against an oracle that
is written another way, from what is said of runs and not from edges.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allele_mlflow.errors import ErrorKind, NotFoundError, RegistryError
from allele_mlflow.registry.journal import (
    NO_HASH,
    Entry,
    Stage,
    encode_entry,
    entry_hash,
    entry_key,
)
from allele_mlflow.registry.reachability import KnownRun, KnownRuns
from allele_mlflow.registry.retention import Rules, decide
from allele_mlflow.registry.retention_plan import reached_runs
from allele_mlflow.registry.retention_roots import Registries
from allele_mlflow.tracking.registry_client import (
    JOURNAL_TAG,
    RegistryClient,
    StoredModel,
    StoredVersion,
)
from allele_mlflow.tracking.stored_models import StoredEntries

NOW_MS = 1_790_000_000_000
PREFIX = "tests_"
KINDS = ("suite", "cell", "confirmation", "confirmation_cell", None)


def run_id(number: int) -> str:
    """
    As MLflow makes them.
    """
    return hashlib.md5(str(number).encode()).hexdigest()


def uid(number: int) -> str:
    """
    As we make them.
    """
    return f"uid{number:06d}"


@dataclass
class World:
    """
    Runs by number, and what names them.

    Attributes:
        parents: Of each run the one above, None for none.
        kinds: Of each.
        named: Runs that a tag of each names, some by id and some by uid.
        pins: Pinned ones.
        versions: Of each what names the run: "run_id", "source", "tag", "evidence".
        documents: Runs that a document of evidence in the journal names, one by one.
    """

    parents: list[int | None]
    kinds: list[str | None]
    named: list[list[int]]
    pins: set[int] = field(default_factory=set)
    versions: list[tuple[str, int]] = field(default_factory=list)
    documents: list[list[int]] = field(default_factory=list)

    def runs(self) -> KnownRuns:
        """
        As they would be read.
        """
        return KnownRuns(self._run(number) for number in range(len(self.parents)))

    def _run(self, number: int) -> KnownRun:
        parent = self.parents[number]
        ids = [run_id(one) if one % 2 else uid(one) for one in self.named[number]]
        above = [run_id(parent), uid(parent)] if parent is not None else []
        return KnownRun(
            run_id=run_id(number),
            experiment=f"{PREFIX}all",
            name=f"run {number}",
            status="FINISHED",
            artifact_uri=f"s3://bucket/1/{run_id(number)}/artifacts",
            started_ms=1_700_000_000_000 + number,
            ended_ms=1_700_000_001_000 + number,
            uid=uid(number),
            kind=self.kinds[number],
            # of a suite's cells by its uid, of other runs by the parent's id
            parent=run_id(parent) if parent is not None and number % 3 else None,
            execution=uid(parent) if parent is not None else None,
            kept="pinned" if number in self.pins else None,
            named=tuple(ids + above),
        )

    def protected(self) -> set[int]:
        """
        The oracle: facts of two kinds, applied again and again until nothing new follows.
        """
        count = range(len(self.parents))
        singly = {one for kind, one in self.versions if kind != "evidence"}
        singly |= {one for document in self.documents for one in document}
        wholly = self.pins | {one for kind, one in self.versions if kind == "evidence"}
        while True:
            more_wholly = {n for n in count if self.parents[n] in wholly}
            more_wholly |= {t for n in wholly for t in self.named[n] if t != self.parents[n]}
            more_singly = wholly | more_wholly
            for n in singly | more_singly:
                parent = self.parents[n]
                more_singly |= {parent} if parent is not None else set()
                more_singly |= set(self.named[n])
            if more_wholly <= wholly and more_singly <= singly:
                return singly
            wholly, singly = wholly | more_wholly, singly | more_singly


class FakeRegistry(RegistryClient):
    """
    A registry in memory, with one model and its journal.
    """

    def __init__(self, world: World) -> None:
        super().__init__("memory", experiment="none")
        self.world = world
        self.files: dict[str, bytes] = {}
        self.entries: dict[str, str] = {}
        previous = NO_HASH
        for number, document in enumerate(world.documents, 1):
            data = json.dumps({"runs": [run_id(one) for one in document]}).encode()
            digest = hashlib.sha256(data).hexdigest()
            self.files[f"evidence/{digest}.json"] = data
            text = encode_entry(entry_of(number, previous, digest))
            self.entries[entry_key(number)] = text
            previous = entry_hash(text)

    def all_versions(self) -> list[tuple[str, StoredVersion]]:
        """
        Each names its run in its own way.
        """
        return [
            ("persona", version_of(number, kind, run_id(one), uid(one)))
            for number, (kind, one) in enumerate(self.world.versions, 1)
        ]

    def models(self) -> list[StoredModel]:
        """
        The one model.
        """
        return [StoredModel("persona", {JOURNAL_TAG: "journal"}, {})]

    def read_entries(self, run_id: str, *, since: str = "") -> StoredEntries:
        """
        Of its journal.
        """
        return StoredEntries({k: text for k, text in self.entries.items() if k >= since})

    def fetch_file(self, run_id: str, path: str) -> bytes:
        """
        Evidence.
        """
        return self.files[path]


def entry_of(number: int, previous: str, evidence: str) -> Entry:
    """
    An entry with evidence.
    """
    return Entry(
        number=number,
        previous=previous,
        action="promote",
        model="persona",
        version=1,
        stage=Stage.STAGING,
        by="ann",
        time="2026-01-01T00:00:00.000+00:00",
        evidence=evidence,
        content="0" * 64,
        token=str(number),
    )


def version_of(number: int, kind: str, its_id: str, its_uid: str) -> StoredVersion:
    """
    A version that names a run in one of the ways that there are.
    """
    tags = {"tag": {"allele.run": its_uid}, "evidence": {"allele.evidence": f"{its_id}[a == 1]"}}
    source = f"mlflow-artifacts:/9/{its_id}/artifacts/model" if kind == "source" else "elsewhere"
    return StoredVersion(
        number, tags.get(kind, {}), source, its_id if kind == "run_id" else "other", 0
    )


@st.composite
def worlds(draw: st.DrawFn, most: int = 40) -> World:
    """
    Small ones with everything in them.
    """
    count = draw(st.integers(1, most))
    numbers = st.integers(0, count - 1)
    parents = [draw(st.none() | st.integers(0, n - 1)) if n else None for n in range(count)]
    return World(
        parents,
        [draw(st.sampled_from(KINDS)) for _ in range(count)],
        [draw(st.lists(numbers, max_size=2)) if draw(st.booleans()) else [] for _ in range(count)],
        pins=draw(st.sets(numbers, max_size=2)),
        versions=draw(
            st.lists(
                st.tuples(st.sampled_from(["run_id", "source", "tag", "evidence"]), numbers),
                max_size=3,
            )
        ),
        documents=draw(st.lists(st.lists(numbers, max_size=3), max_size=2)),
    )


def deleted(world: World) -> set[str]:
    """
    What a clean-up of all that is old would delete.
    """
    runs = world.runs()
    registries = Registries([FakeRegistry(world)], prefix=PREFIX)
    reached = reached_runs(runs, registries)
    found = decide(
        runs, list(runs.by_id.values()), reached, Rules(older_than_days=30), now_ms=NOW_MS
    )
    return {one.run.run_id for one in found if one.is_deleted}


def unprotected(world: World, protected: set[int]) -> set[str]:
    """
    What it should delete.
    """
    return {
        run_id(number)
        for number, kind in enumerate(world.kinds)
        if number not in protected and kind not in ("suite", "confirmation")
    }


@given(worlds())
def test_exactly_the_unreachable_goes(world: World) -> None:
    """Versions by run, source, tag and evidence, documents of the journal, pins, parents, cells and
    tags, in any order and in circles: what goes is what the oracle does not protect.
    """
    assert deleted(world) == unprotected(world, world.protected())


def made(chance: random.Random, reachable: int, others: int) -> World:
    """
    So many runs that are reached, over chains of any form, and so many that are not: these name
    each other and those that are reached, and nobody names them.
    """
    count = reachable + others
    world = World([None] * count, [None] * count, [[] for _ in range(count)])
    order = list(range(count))
    chance.shuffle(order)
    kept, rest = order[:reachable], order[reachable:]
    for place, number in enumerate(kept):
        if place < 10:
            how = chance.choice(["pin", "run_id", "source", "tag", "evidence", "document"])
            if how == "pin":
                world.pins.add(number)
            elif how == "document":
                world.documents.append([number])
            else:
                world.versions.append((how, number))
        else:
            world.named[chance.choice(kept[:place])].append(number)
    for place, number in enumerate(rest):
        world.named[number] = chance.sample(order, chance.randrange(3))
        if place and chance.random() < 0.7:
            world.parents[number] = chance.choice(rest[:place])
            world.kinds[number] = "cell"
    return world


@settings(max_examples=2)
@given(st.integers(0, 2**32))
def test_of_five_thousand_runs_three_hundred_stay(seed: int) -> None:
    """Of 5,000 runs 300 are reached: exactly the other 4,700 go."""
    world = made(random.Random(seed), 300, 4_700)
    going = deleted(world)
    assert len(going) == 4_700
    assert going == unprotected(world, world.protected())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("entry", "journal of persona cannot be read.*entry 1"),
        ("document", "evidence of entry 1 of persona: it was changed"),
        ("missing", "cannot be read"),
        ("runs", "want a list of ids"),
        ("evidence", "no run in this store is meant"),
        ("expression", "evidence of persona/1"),
    ],
)
def test_nothing_goes_at_a_guess(damage: str, words: str) -> None:
    """A damaged entry, changed, lost or malformed evidence, evidence that means no run: refused."""
    world = World([None], [None], [[]], versions=[("evidence", 0)], documents=[[0], [0]])
    registry = FakeRegistry(world)
    assert not deleted(world)
    spoil(registry, damage)
    with pytest.raises(RegistryError, match=words) as refused:
        reached_runs(world.runs(), Registries([registry], prefix=PREFIX))
    assert refused.value.kind is ErrorKind.UNCLEAR


def spoil(registry: FakeRegistry, damage: str) -> None:
    """
    Damage a registry in one way.
    """
    if damage == "entry":
        registry.entries["000001"] = registry.entries["000001"].replace("ann", "eve")
        registry.entries["000001"] = registry.entries["000001"][:-5]
    elif damage == "document":
        registry.files = dict.fromkeys(registry.files, b'{"runs": []}')
    elif damage == "missing":

        def gone(run_id: str, path: str) -> bytes:
            raise NotFoundError(f"{path}: gone", kind=ErrorKind.NOT_FOUND)

        registry.fetch_file = gone  # type: ignore[method-assign]  # of this one alone
    elif damage == "runs":
        data = b'{"runs": 7}'
        digest = hashlib.sha256(data).hexdigest()
        registry.files = {f"evidence/{digest}.json": data}
        registry.entries = {"000001": encode_entry(entry_of(1, NO_HASH, digest))}
    else:
        text = "gone" if damage == "evidence" else "["

        def versions() -> Sequence[Any]:
            return [("persona", StoredVersion(1, {"allele.evidence": text}, "", "", 0))]

        registry.all_versions = versions  # type: ignore[method-assign, assignment]  # as above
