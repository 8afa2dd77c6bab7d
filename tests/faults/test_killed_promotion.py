"""
A registry after a kill at each step of a transition: the old state or the new one, never a third.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.errors import NotFoundError
from allele_mlflow.registry.journal import Entry, Stage
from allele_mlflow.registry.kept_journal import STAGE_TAG
from allele_mlflow.registry.registry import Registry
from allele_mlflow.tracking.schema import prepare_schema
from tests.faults.doomed_registry import MODEL, NEW_MODEL, client_of, genome

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]


class Place:
    """
    A registry that is put back as it was, and a process whose forks act on it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "registry"
        self._saved = folder / "saved"
        self.folder.mkdir()
        prepare_schema(self.folder / "registry.db")
        registry = self.registry()
        for level in (0.1, 0.2, 0.3):
            registry.register(MODEL, genome(level))
        for version in (1, 2):
            registry.promote(MODEL, version, Stage.PRODUCTION, reason="good")
        self.before = registry.history(MODEL).entries
        shutil.copytree(self.folder, self._saved)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.doomed_registry"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def registry(self) -> Registry:
        """
        Bob's, which has read nothing yet.
        """
        return Registry(client_of(self.folder), by="bob")

    def restore(self) -> None:
        """
        As it was at the beginning.
        """
        shutil.rmtree(self.folder)
        shutil.copytree(self._saved, self.folder)

    def act(self, action: str, way: str, step: int = 0) -> dict[str, Any]:
        """
        How a fork ended that was to kill itself at a step.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wish = {"folder": str(self.folder), "action": action, "way": way, "step": step}
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def kill_everywhere(self, action: str, way: str) -> Iterator[int]:
        """
        The step at which a fork was killed, for each there is; the registry is as it left it.
        """
        self.restore()
        done = self.act(action, way)
        assert done["code"] == 0
        for step in range(1, done["steps"] + 1):
            self.restore()
            assert self.act(action, way, step)["code"] == -signal.SIGKILL
            yield step

    def close(self) -> None:
        """
        End the process.
        """
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    With three versions, of which the second holds production after the first.
    """
    found = Place(tmp_path_factory.mktemp("killed"))
    yield found
    found.close()


def assert_mirrored(place: Place, name: str) -> None:
    """
    Once `verify` was there, aliases and tags say what the journal says, and it finds no more to do.
    """
    registry = place.registry()
    standing = registry.history(name).standing()
    client = client_of(place.folder)
    aliases = {stage.value: version for stage, version in standing.holders.items()}
    assert client.model(name).aliases == aliases
    tags = {one.number: one.tags[STAGE_TAG] for one in client.versions(name)}
    assert {number: tags[number] for number in standing.stages} == {
        number: stage.value for number, stage in standing.stages.items()
    }
    assert registry.verify(name).repaired == ()


@pytest.mark.parametrize(
    ("action", "way"),
    [("promote", "sql"), ("promote", "mlflow"), ("rollback", "sql"), ("archive", "sql")],
)
def test_killed_at_each_step_of_a_transition(place: Place, action: str, way: str) -> None:
    """The journal has the entry or has it not; `verify` finds no problem and puts aliases and tags
    right; the next promotion goes through.
    """
    outcomes = []
    for _ in place.kill_everywhere(action, way):
        registry = place.registry()
        entries = registry.history(MODEL).entries
        assert entries[: len(place.before)] == place.before
        outcomes.append([one.action for one in entries[len(place.before) :]])
        assert registry.verify(MODEL).problems == ()
        assert_mirrored(place, MODEL)
        entry = registry.promote(MODEL, 1, Stage.PRODUCTION, reason="the next")
        assert entry.holder == _holder_after(entries)
        assert_mirrored(place, MODEL)
    assert len(outcomes) >= 4
    assert outcomes == sorted(outcomes)  # from some step on it is done
    assert (outcomes[0], outcomes[-1]) == ([], [action])


def _holder_after(entries: tuple[Entry, ...]) -> int | None:
    last = entries[-1]
    return {"promote": last.version, "rollback": last.version}.get(last.action)


def test_killed_at_each_step_of_a_registration(place: Place) -> None:
    """A version that is stored and not in the journal is reported; registering the same again
    leaves one version and one entry of it, and it can be promoted.
    """
    reports = set()
    for _ in place.kill_everywhere("register", "sql"):
        found = place.registry().verify(MODEL)
        reports |= {one.partition(":")[0] for one in found.problems}
        assert place.act("register", "sql")["code"] == 0
        registry = place.registry()
        added = registry.history(MODEL).entries[len(place.before) :]
        assert [(one.action, one.version) for one in added] == [("register", 4)]
        assert registry.verify(MODEL).problems == ()
        assert_mirrored(place, MODEL)
        assert [one.number for one in client_of(place.folder).versions(MODEL)] == [1, 2, 3, 4]
        assert registry.load(f"{MODEL}@candidate").document == genome(0.9)
        registry.promote(MODEL, 4, Stage.PRODUCTION, reason="the next")
    assert reports == {"version 4 is in no entry"}


def test_killed_at_each_step_of_a_models_making(place: Place) -> None:
    """A model is there with its journal or is not there; registering again leaves one of both."""
    for _ in place.kill_everywhere("make", "sql"):
        registry = place.registry()
        try:
            known = len(registry.history(NEW_MODEL).entries)
        except NotFoundError:
            known = 0
        assert place.act("make", "sql")["code"] == 0
        registry = place.registry()
        entries = registry.history(NEW_MODEL).entries
        assert [(one.action, one.version) for one in entries] == [("register", 1)]
        assert known in (0, 1)
        assert registry.verify(NEW_MODEL).problems == ()
        assert_mirrored(place, NEW_MODEL)
        assert registry.history(MODEL).entries == place.before
