"""
What was done to a registry behind its back, and what `verify` says of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from allele_mlflow.errors import NotFoundError, RegistryError
from allele_mlflow.registry.journal import Entry, Stage, encode_entry, entry_hash, entry_key
from allele_mlflow.registry.registry import Registry
from allele_mlflow.tracking.client_registry import ClientRegistry
from allele_mlflow.tracking.registry_client import RegistryClient
from tests.integration.test_registry import client_of, folder, genome, registry

__all__ = ["folder", "registry"]  # fixtures

PRODUCTION = Stage.PRODUCTION


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """
    Two models; of one, two versions were promoted, the second on evidence.
    """
    registry.register("other", genome(0.5))
    registry.promote("other", 1, PRODUCTION, reason="good")
    for level in (0.1, 0.2):
        registry.register("persona", genome(level))
    registry.promote("persona", 1, PRODUCTION, reason="good")
    registry.promote("persona", 2, PRODUCTION, reason="better", evidence=b'{"runs": 7}')
    assert registry.verify("persona").problems == ()
    return registry


def journal_of(folder: Path, name: str = "persona") -> str:
    """
    The run of a model's journal.
    """
    client = client_of(folder)
    return client.journal_of(client.model(name))


def change(folder: Path, *statements: tuple[str, tuple[str, ...]]) -> None:
    """
    Change rows past everybody.
    """
    with closing(sqlite3.connect(folder / "registry.db")) as database, database:
        for statement, given in statements:
            assert database.execute(statement, given).rowcount >= 1


def drop_entry(folder: Path, number: int) -> None:
    """
    Remove one entry.
    """
    statement = "DELETE FROM params WHERE run_uuid = ? AND key = ?"
    change(folder, (statement, (journal_of(folder), entry_key(number))))


def swap_entries(folder: Path) -> None:
    """
    Put entry 3 into the place of entry 4, and the other way round.
    """
    statement = "UPDATE params SET key = ? WHERE run_uuid = ? AND key = ?"
    run_id = journal_of(folder)
    moves = (("x", "000003"), ("000003", "000004"), ("000004", "x"))
    change(folder, *((statement, (to, run_id, of)) for to, of in moves))


def append_entry(folder: Path, **fields: object) -> None:
    """
    Append an entry by hand, with the right hash of the one before it.
    """
    entries = client_of(folder).read_entries(journal_of(folder)).texts
    last = entries[max(entries)]
    entry = msgspec.json.decode(last, type=Entry)
    told = {"number": entry.number + 1, "previous": entry_hash(last), "token": "eve", **fields}
    text = encode_entry(msgspec.structs.replace(entry, evidence=None, **told))
    assert client_of(folder).write_entry(journal_of(folder), entry_key(entry.number + 1), text)


def take_other_journal(folder: Path) -> None:
    """
    Have the model's tag name the journal of another model.
    """
    statement = "UPDATE registered_model_tags SET value = ? WHERE name = 'persona' AND key = ?"
    change(folder, (statement, (journal_of(folder, "other"), "allele.journal_run")))


def copy_other_entries(folder: Path) -> None:
    """
    Have the entries of another model in the journal's run.
    """
    mine, theirs = journal_of(folder), journal_of(folder, "other")
    copy = "INSERT INTO params (run_uuid, key, value) SELECT ?, key, value FROM params"
    change(
        folder,
        ("DELETE FROM params WHERE run_uuid = ?", (mine,)),
        (f"{copy} WHERE run_uuid = ?", (mine, theirs)),
    )


def change_evidence(folder: Path, *, is_gone: bool = False) -> None:
    """
    Change the document that the second promotion was given on.
    """
    (file,) = folder.glob("artifacts/*/artifacts/evidence/*.json")
    file.unlink() if is_gone else file.write_bytes(b'{"runs": 70}')


def delete_run(folder: Path) -> None:
    """
    Delete the journal's run in MLflow.
    """
    ClientRegistry(client_of(folder).uri).delete_run(journal_of(folder))


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "entry gone": (lambda folder: drop_entry(folder, 2), "entry 2 is missing"),
    "swapped": (swap_entries, "entry 3 says that it is entry 4"),
    "appended": (
        lambda folder: append_entry(folder, action="promote", version=1, holder=7),
        "entry 5: production was held by version 2, not version 7",
    ),
    "appended version": (
        lambda folder: append_entry(folder, action="promote", version=9, holder=2),
        "entry 5: version 9 was never registered",
    ),
    "a path for a hash": (
        lambda folder: append_entry(folder, content="../../etc/passwd"),
        "entry 5 is none: Expected `str` matching regex",
    ),
    "other journal": (take_other_journal, "entry 1 is of the model 'other', not of 'persona'"),
    "copied": (copy_other_entries, "entry 1 is of the model 'other', not of 'persona'"),
    "evidence": (change_evidence, "entry 4: its evidence was changed"),
    "evidence gone": (
        lambda folder: change_evidence(folder, is_gone=True),
        "entry 4: its evidence is gone",
    ),
    "run deleted": (delete_run, "is deleted in MLflow: want it restored"),
    "version deleted": (
        lambda folder: client_of(folder).delete_version("persona", 1),
        "version 1: gone from MLflow",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_verify_finds(filled: Registry, folder: Path, what: str) -> None:
    """Each is among the problems, whether or not the registry has read the journal before."""
    tamper, words = TAMPERED[what]
    tamper(folder)
    for one in (filled, Registry(client_of(folder))):
        found = one.verify("persona").problems
        assert any(words in problem for problem in found), found
    assert filled.verify("other").problems == ()


def test_what_only_a_head_tells(filled: Registry, folder: Path) -> None:
    """The last entry taken away: the rest holds together, and only a head that was noted down tells
    it; so does a well-made entry by another one tell nothing.
    """
    head = filled.verify("persona").head
    drop_entry(folder, 4)
    found = filled.verify("persona")
    assert found.problems == ()
    assert found.repaired[:2] == (
        "alias development: version 2 holds it",
        "alias production: version 1 holds it",
    )
    (problem,) = filled.verify("persona", head=head).problems
    assert problem.startswith(f"no entry has the hash {head}")


def test_a_deleted_journal_is_read_and_not_written(filled: Registry, folder: Path) -> None:
    """Its stages still stand; who would promote is told how to bring it back, and then may."""
    delete_run(folder)
    assert filled.standing("persona").holders[PRODUCTION] == 2
    for one in (filled, Registry(client_of(folder))):
        with pytest.raises(RegistryError, match="mlflow runs restore --run-id"):
            one.promote("persona", 1, PRODUCTION, reason="no")
    statement = "UPDATE runs SET lifecycle_stage = 'active' WHERE run_uuid = ?"
    change(folder, (statement, (journal_of(folder),)))
    assert filled.promote("persona", 1, PRODUCTION, reason="again").holder == 2


def test_a_journal_that_is_gone(filled: Registry, folder: Path) -> None:
    """What `mlflow gc` has removed is told; the list of models goes on without it."""
    run_id = journal_of(folder)
    tables = ("params", "tags", "runs")
    change(folder, *((f"DELETE FROM {one} WHERE run_uuid = ?", (run_id,)) for one in tables))
    with pytest.raises(NotFoundError, match=f"the journal's run {run_id} is gone"):
        filled.verify("persona")
    listed = {one.name: one for one in filled.overview()}
    assert listed["persona"].problem == "its journal's run is gone from MLflow"
    assert listed["other"].standing is not None


def test_a_damaged_journal_hides_no_other(filled: Registry, folder: Path) -> None:
    """The list of models says which one is damaged, and shows the others."""
    drop_entry(folder, 1)
    listed = {one.name: one for one in filled.overview()}
    assert (listed["persona"].standing, listed["persona"].problem) == (None, "entry 1 is missing")
    other = listed["other"].standing
    assert other is not None
    assert other.holders == {PRODUCTION: 1}


def test_tags_are_put_right(filled: Registry, folder: Path) -> None:
    """A version's tag says where it stands, whoever changed it."""
    client_of(folder).tag_version("persona", 1, "allele.stage", "production")
    assert filled.verify("persona").repaired == ("tag of version 1: it stands in archived",)
    assert client_of(folder).version("persona", 1).tags["allele.stage"] == "archived"


@pytest.mark.parametrize("name", ["", " a", "a/b", "a:b", "a@b", "..", "a\nb", "a" * 251])
def test_names_that_no_model_can_have(registry: Registry, folder: Path, name: str) -> None:
    """Refused before anything is made, with what is wanted."""
    with pytest.raises(RegistryError, match="want 1 to 250 printable characters"):
        registry.register(name, genome(0.1))
    assert registry.models() == []


@pytest.mark.parametrize("name", ["it's", 'a "b"', "x' OR name LIKE '%", "50%", "tick`", "back\\"])
def test_names_are_no_filters(registry: Registry, folder: Path, name: str) -> None:
    """A name with quotes, percents, backticks or backslashes is a name, and means no other model's
    versions: also where MLflow's own search is asked.
    """
    registry.register("victim", genome(0.1))
    for door, own in ((registry, name), (Registry(_by_mlflow(folder)), f"2{name}")):
        assert door.register(own, genome(0.1)).version == 1
        assert door.register(own, genome(0.2)).version == 2
        assert door.verify(own).problems == ()
        assert door.load(f"{own}/1").document == genome(0.1)


def _by_mlflow(folder: Path) -> RegistryClient:
    """
    A client that asks MLflow for everything.
    """
    client = client_of(folder)
    client._sql = lambda: None  # type: ignore[method-assign]
    return client
