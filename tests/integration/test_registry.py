"""
The registry of genomes on SQLite and over HTTP: versions by content, stages by the journal, races.
"""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.errors import NotFoundError, PromotionRefusedError, RegistryError
from allele_mlflow.registry.journal import NOBODY, Stage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.tracking.registry_client import RegistryClient
from allele_mlflow.tracking.stored_models import StoredEntries

PRODUCTION, CANDIDATE, DEVELOPMENT = Stage.PRODUCTION, Stage.CANDIDATE, Stage.DEVELOPMENT
#: Of each of two.
PROMOTIONS = 100


def genome(level: float, **more: Any) -> dict[str, Any]:
    """
    In Allele's form.
    """
    return {
        "genome_id": "any",
        "traits": {"empathy": level, "creativity": 0.5},
        "fitness_score": 0.9,
        "metadata": {"parent_ids": ["a", "b"]},
        **more,
    }


def client_at(uri: str, artifacts: str | None) -> RegistryClient:
    """
    Of a registry anywhere.
    """
    experiment = "allele_benchmark_registry"
    return RegistryClient(uri, experiment=experiment, artifact_location=artifacts)


def client_of(folder: Path) -> RegistryClient:
    """
    Of a registry on SQLite.
    """
    return client_at(f"sqlite:///{folder / 'registry.db'}", str(folder / "artifacts"))


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    """
    With an empty registry.
    """
    shutil.copyfile(empty_store, tmp_path / "registry.db")
    return tmp_path


@pytest.fixture
def registry(folder: Path) -> Registry:
    """
    Of Ann's.
    """
    return Registry(client_of(folder), by="ann")


def test_same_content_is_one_version(registry: Registry) -> None:
    """Id, score and times make no other genome; a trait does. What was given comes back."""
    first = registry.register("persona", genome(0.1), reason="the first")
    again = registry.register("persona", genome(0.1, genome_id="other", fitness_score=0.1))
    other = registry.register("persona", genome(0.2))
    assert (first.version, first.is_new) == (1, True)
    assert (again.version, again.is_new, again.content) == (1, False, first.content)
    assert (other.version, other.is_new) == (2, True)
    loaded = registry.load("persona/1")
    assert loaded.document == genome(0.1)
    assert loaded.parents == ("a", "b")


def test_the_way_to_production_and_back(registry: Registry, folder: Path) -> None:
    """Promoted, replaced, rolled back: the history tells it, aliases follow, the past is known."""
    registry.register("persona", genome(0.1))
    registry.register("persona", genome(0.2))
    first = registry.promote("persona", 1, PRODUCTION, reason="good")
    registry.promote("persona", 2, PRODUCTION, reason="better")
    assert registry.load("persona@production").traits["empathy"] == 0.2
    assert registry.standing("persona").stages == {1: Stage.ARCHIVED, 2: PRODUCTION}
    back = registry.rollback("persona", PRODUCTION, reason="it was not")
    assert (back.version, back.holder) == (1, 2)
    assert registry.standing("persona", at=first.time).holders[PRODUCTION] == 1
    assert client_of(folder).model("persona").aliases["production"] == 1
    with pytest.raises(PromotionRefusedError, match="nobody held it before"):
        registry.rollback("persona", PRODUCTION, reason="again")
    actions = [entry.action for entry in registry.history("persona").entries]
    assert actions == ["register", "register", "promote", "promote", "rollback"]
    assert registry.verify("persona").problems == ()


def test_mlflow_itself_loads_it(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's `pyfunc` finds the version by its alias and answers with a row of traits."""
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    registry.register("persona", genome(0.25))
    registry.promote("persona", 1, PRODUCTION, reason="good")
    # not by set_tracking_uri: what it sets stays for all tests that follow
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, f"sqlite:///{folder / 'registry.db'}")
    row = pyfunc.load_model("models:/persona@production").predict(None)
    assert row.to_dict("records") == [{"empathy": 0.25, "creativity": 0.5}]


def test_a_stage_is_taken_from_whom_it_was_meant(registry: Registry) -> None:
    """Who thinks that another one holds the stage is refused, and told who does."""
    registry.register("persona", genome(0.1))
    registry.register("persona", genome(0.2))
    registry.promote("persona", 1, PRODUCTION, reason="good")
    with pytest.raises(PromotionRefusedError, match="held by version 1, not version 7"):
        registry.promote("persona", 2, PRODUCTION, reason="late", holder=7)


def test_a_stage_that_nobody_held_is_taken_from_nobody(registry: Registry) -> None:
    """Who has seen that nobody holds the stage does not take it from whom it was given to since."""
    registry.register("persona", genome(0.1))
    registry.register("persona", genome(0.2))
    registry.promote("persona", 1, PRODUCTION, reason="good", holder=NOBODY)
    with pytest.raises(PromotionRefusedError, match="held by version 1, not nobody"):
        registry.promote("persona", 2, PRODUCTION, reason="late", holder=NOBODY)


def test_a_rollback_is_of_what_was_seen(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is promoted between a rollback's look and its entry: it is refused, and does not
    bring back who was before the one that it has seen.
    """
    for level in (0.1, 0.2, 0.3):
        registry.register("persona", genome(level))
    for version in (1, 2):
        registry.promote("persona", version, PRODUCTION, reason="good")
    bob = Registry(client_of(folder), by="bob")
    write = registry._client.write_entry

    def write_late(run_id: str, key: str, text: str) -> bool:
        if len(bob.history("persona").entries) < 6:
            bob.promote("persona", 3, PRODUCTION, reason="faster")
        return write(run_id, key, text)

    monkeypatch.setattr(registry._client, "write_entry", write_late)
    with pytest.raises(PromotionRefusedError, match="held by version 3, not version 2"):
        registry.rollback("persona", PRODUCTION, reason="worse")
    assert bob.standing("persona").holders[PRODUCTION] == 3


def test_what_was_read_is_not_read_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion reads the journal once, and then only whether anything has followed."""
    for level in (0.1, 0.2, 0.3):
        registry.register("persona", genome(level))
    client = registry._client
    read, seen = client.read_entries, []

    def count(run_id: str, *, since: str = "") -> StoredEntries:
        found = read(run_id, since=since)
        seen.append(len(found.texts))
        return found

    monkeypatch.setattr(client, "read_entries", count)
    Registry(client).promote("persona", 1, PRODUCTION, reason="good")
    assert seen == [3, 1]


def test_nobody_approves_their_own(registry: Registry, folder: Path) -> None:
    """The author's approval is refused, another one's counts once."""
    registry.register("persona", genome(0.1))
    with pytest.raises(PromotionRefusedError, match="want the approval of another"):
        registry.approve("persona", 1, PRODUCTION)
    Registry(client_of(folder), by="bob").approve("persona", 1, PRODUCTION)
    assert registry.history("persona").approvals(1, PRODUCTION) == ("bob",)


def test_changed_files_and_entries_are_found(registry: Registry, folder: Path) -> None:
    """A genome's file, an entry of the journal and a rewritten chain are found; aliases that say
    otherwise are put right.
    """
    registry.register("persona", genome(0.1))
    registry.promote("persona", 1, PRODUCTION, reason="good")
    head = registry.verify("persona").head
    client_of(folder).set_alias("persona", "staging", 1)
    assert registry.verify("persona").repaired == ("alias staging: version 1 does not hold it",)
    assert registry.verify("persona", head=head).problems == ()
    assert registry.verify("persona", head="f" * 64).problems != ()
    (file,) = folder.glob("artifacts/*/artifacts/versions/*/genome.json")
    file.write_text(file.read_text().replace("0.1", "0.9"))
    with pytest.raises(RegistryError, match=r"genome.json of the version was changed"):
        registry.load("persona@production")
    assert any("genome.json" in one for one in registry.verify("persona").problems)
    _edit_first_entry(folder)
    assert any("entry 2" in one for one in registry.verify("persona").problems)
    with pytest.raises(RegistryError, match="damaged"):
        registry.promote("persona", 1, CANDIDATE, reason="no")


def _edit_first_entry(folder: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(folder / "registry.db")) as database, database:
        database.execute(
            "UPDATE params SET value = replace(value, 'ann', 'eve') WHERE key = '000001'"
        )


@pytest.mark.parametrize("where", ["persona", "persona@nowhere", "persona@staging", "persona/9"])
def test_what_is_not_there(registry: Registry, where: str) -> None:
    """Unknown versions, stages and models are told in words."""
    registry.register("persona", genome(0.1))
    with pytest.raises(NotFoundError, match=r"persona|stage"):
        registry.load(where)
    with pytest.raises(NotFoundError, match="not in this registry"):
        registry.standing("nothing")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2], "want a mapping"),
        ({"genome_id": "x"}, "has nothing that acts"),
        ({"traits": {"a": "high"}}, "want a finite number"),
        ({"traits": {"a": float("nan")}}, "want a finite number"),
        ({"traits": [1]}, "want a number by name"),
    ],
)
def test_what_is_no_genome(registry: Registry, given: Any, words: str) -> None:
    """It is refused with what is wanted, and nothing is registered."""
    with pytest.raises(RegistryError, match=words):
        registry.register("persona", given)
    with pytest.raises(NotFoundError):
        registry.standing("persona")


@pytest.fixture(params=["sqlite", pytest.param("http", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """
    Of a registry on SQLite, and of one on PostgreSQL behind a server: its address, and where its
    files go.
    """
    if request.param == "http":
        return request.getfixturevalue("postgres_server"), None
    folder = request.getfixturevalue("folder")
    return f"sqlite:///{folder / 'registry.db'}", str(folder / "artifacts")


def _promote_often(place: tuple[str, str | None], who: str, count: int, told: Any) -> None:
    """
    Promote two versions in turn, with the holder that was seen last.
    """
    registry = Registry(client_at(*place), by=who)
    won = refused = 0
    for number in range(count):
        try:
            registry.promote("raced", 1 + number % 2, PRODUCTION, reason=f"{who} {number}")
            won += 1
        except PromotionRefusedError:
            refused += 1
    told.put((who, won, refused))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
def test_two_processes_promote_against_each_other(place: tuple[str, str | None]) -> None:
    """Every promotion that was said to have happened is an entry, none is there twice, each names
    the holder before it, and at the end one version holds the stage.
    """
    registry = Registry(client_at(*place), by="ann")
    registry.register("raced", genome(0.1))
    registry.register("raced", genome(0.2))
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    workers = [
        context.Process(target=_promote_often, args=(place, who, PROMOTIONS, told))
        for who in ("ann", "bob")
    ]
    for worker in workers:
        worker.start()
    results = [told.get(timeout=250) for _ in workers]
    for worker in workers:
        worker.join(30)
    chain = registry.history("raced")
    promotions = [entry for entry in chain.entries if entry.action == "promote"]
    assert len(promotions) == sum(won for _, won, _ in results)
    assert len({entry.token for entry in promotions}) == len(promotions)
    assert sum(won + refused for _, won, refused in results) == 2 * PROMOTIONS
    holder = None
    for entry in promotions:
        assert entry.holder == holder
        holder = entry.version
    assert registry.verify("raced").problems == ()
    assert client_at(*place).model("raced").aliases["production"] == holder


def _register_all(
    place: tuple[str, str | None], who: str, levels: list[float], start: Any, told: Any
) -> None:
    """
    Register genomes in a model that is not there yet, as soon as all are ready.
    """
    registry = Registry(client_at(*place), by=who)
    registry.models()  # mlflow is imported by now
    start.wait(60)
    told.put([registry.register("new", genome(level)).version for level in levels])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(200)
def test_two_processes_make_one_model(place: tuple[str, str | None]) -> None:
    """Two make a model at once, and register the same genomes in it: one journal, one version and
    one entry for each, both are told the same numbers, and nothing is left over.
    """
    levels = [0.1, 0.2, 0.3, 0.4]
    context = multiprocessing.get_context("spawn")
    told, start = context.Queue(), context.Barrier(2)
    workers = [
        context.Process(target=_register_all, args=(place, who, levels, start, told))
        for who in ("ann", "bob")
    ]
    for worker in workers:
        worker.start()
    first, second = (told.get(timeout=150) for _ in workers)
    for worker in workers:
        worker.join(30)
    registry = Registry(client_at(*place))
    assert first == second
    assert [entry.action for entry in registry.history("new").entries] == ["register"] * 4
    assert registry.verify("new").problems == ()
    assert [one.number for one in client_at(*place).versions("new")] == sorted(first)


@pytest.mark.server
@pytest.mark.process
@pytest.mark.timeout(150)
def test_through_a_server(mlflow_server: str) -> None:
    """Over HTTP it is the same: one version for one content, stages by the journal, files checked,
    and of two who write the same entry the second is refused.
    """
    client = RegistryClient(mlflow_server, experiment="allele_benchmark_registry")
    registry = Registry(client, by="ann")
    for level in (0.1, 0.2, 0.1):
        registry.register("remote", genome(level), reason="over HTTP")
    registry.promote("remote", 1, PRODUCTION, reason="good", evidence=b"{}")
    registry.promote("remote", 2, PRODUCTION, reason="better")
    assert registry.load("remote@production").traits["empathy"] == 0.2
    registry.rollback("remote", PRODUCTION, reason="it was not")
    assert registry.load("remote@production").document == genome(0.1)
    assert registry.verify("remote").problems == ()
    assert client.model("remote").aliases["production"] == 1
    journal = client.journal_of(client.model("remote"))
    key = f"{registry.history('remote').next_number:06d}"
    assert client.write_entry(journal, key, "first")
    assert client.write_entry(journal, key, "first")
    assert not client.write_entry(journal, key, "second")
