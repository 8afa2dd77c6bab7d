"""
Registration by a suite itself: what it finds, what it lets through, and what it leaves alone.
"""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import PromotionRefusedError
from allele_mlflow.matrix.find_suite import find_suite
from allele_mlflow.matrix.options import RunOptions
from allele_mlflow.matrix.prepared import prepare_suite
from allele_mlflow.matrix.registration import Registration, reevaluate, register_outcome
from allele_mlflow.matrix.results import Outcome
from allele_mlflow.matrix.runner import SuiteRunner
from allele_mlflow.matrix.suite_results import Published, SuiteResults
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.gates import Policy
from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.promotion import judge
from allele_mlflow.registry.registry import open_registry
from allele_mlflow.settings import Settings, load
from tests.integration.suites import Place, await_that
from tests.integration.test_compare_command import Done, run

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(200)]

BENCHMARK = '''
import os
import random
import time


def search(level, mode="fine", *, seed, log):
    """A search that is over at once, and what it says is its best."""
    genome = {"genome_id": "any", "traits": {"level": level}, "generation": seed % 7}
    score = measure(genome, seed=seed)["score"]
    if mode == "changed":
        genome["traits"]["level"] /= 2
    if mode != "silent":
        log.genome(genome, name="best")
    return {"score": score}


def measure(genome, *, seed):
    """Around a hundred times the level, with a scatter of one."""
    return {"score": 100 * genome["traits"]["level"] + random.Random(seed).gauss(0, 1)}


def measure_slowly(genome, *, seed):
    """Not before it is asked a second time."""
    begun = os.environ.get("BEGUN_FILE")
    if begun:
        open(begun, "w").close()
        time.sleep(60)
    return measure(genome, seed=seed)


def measure_never(genome):
    raise ValueError("no such judge")
'''


@pytest.fixture
def place(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """
    A folder with the benchmark, an empty store and an empty registry.
    """
    for name in ("mlflow.db", "mlflow_registry.db"):
        (tmp_path / name).write_bytes(empty_store.read_bytes())
    # a module's name is known to the process for good
    (tmp_path / f"search_{tmp_path.name}.py").write_text(BENCHMARK)
    monkeypatch.setenv("ALLELE_MLFLOW_EXIT_TIMEOUT_S", "60")
    monkeypatch.setenv("ALLELE_MLFLOW_IDLE_TIMEOUT_S", "5")
    monkeypatch.setenv("ALLELE_MLFLOW_LOG_LEVEL", "error")
    with chdir(tmp_path):
        yield Place(tmp_path)


def write(place: Place, *levels: float, repeats: int = 6, more: str = "", **fields: str) -> str:
    """
    The suite `persona` over these levels; its file.
    """
    module = f"search_{place.folder.name}.py"
    evaluate = fields.get("evaluate", "measure")
    (place.folder / "persona.toml").write_text(
        f'name = "persona"\nbenchmark = "{module}:search"\nseed = 3\n{more}\n'
        f"[matrix]\nlevel = {list(levels)}\n"
        f'[genome]\nevaluate = "{module}:{evaluate}"\nrepeats = {repeats}\n'
        '[metrics.score]\ndirection = "higher"\nobjective = true\n'
    )
    return "persona.toml"


def run_suite(place: Place, *arguments: str, code: int = 0) -> dict[str, Any]:
    """
    `allele-mlflow run` to its end; its document.
    """
    done = run(place.folder, "run", "persona.toml", "--json", *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def command(place: Place, *arguments: str, code: int = 0) -> Done:
    """
    Any other command that ends with this code.
    """
    done = run(place.folder, *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def promote(place: Place, where: str, reason: str, code: int = 0) -> str:
    """
    A promotion to production by the usual gate; what it says.
    """
    told = ("registry", "promote", where, "production", "--reason", reason)
    return command(place, *told, code=code).stdout


def versions(place: Place) -> int:
    """
    How many there are, in the registry's own table.
    """
    with closing(sqlite3.connect(place.folder / "mlflow_registry.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM model_versions").fetchone()
    return int(count)


def test_from_a_suite_to_production_and_back(place: Place) -> None:
    """
    The best genome of a suite becomes a candidate; the gate refuses it for want of runs, and says
    so; measured more often it is promoted. A worse suite's genome is refused with what is worse, a
    better one's is promoted in pairs with the holder; a rollback brings back; history and `at` tell
    it all. Resumed, the finished suite registers nothing twice.
    """
    write(place, 0.3, 0.5, repeats=2)
    found = run_suite(place)
    said = found["registered"]["said"]
    assert said.startswith("registered persona/1 as candidate: score ")
    assert "on 2 fresh seeds, the search said" in said
    assert said in found["notes"]
    assert "persona/1 already, candidate" in run_suite(place, "--resume")["registered"]["said"]
    assert versions(place) == 1
    assert "FAILED min_runs: 2 finished runs: want 6" in promote(place, "persona/1", "few", code=1)
    again = command(place, "reevaluate", "persona.toml", "persona@candidate", "--repeats", "6")
    assert "persona/1, candidate: score" in again.stdout
    assert "on 6 fresh seeds" in again.stdout
    assert "persona/1 holds production now" in promote(place, "persona@candidate", "the first")

    write(place, 0.2)
    assert run_suite(place)["registered"]["version"] == 2
    assert "score of search_" in (refused := promote(place, "persona/2", "hope", code=1))
    assert ": worse (" in refused

    write(place, 0.4, 0.9)
    assert run_suite(place)["registered"]["version"] == 3
    assert "after version 1" in promote(place, "persona/3", "better")
    rollback = ("registry", "rollback", "persona", "production", "--reason", "complaints")
    command(place, *rollback)
    told = json.loads(command(place, "registry", "history", "persona", "--json").stdout)["entries"]
    assert [(one["action"], one["version"]) for one in told] == [
        ("register", 1),
        ("promote", 1),
        ("register", 2),
        ("register", 3),
        ("promote", 3),
        ("rollback", 1),
    ]
    assert "suite persona: score" in told[0]["reason"]
    then = command(place, "registry", "at", "persona", told[4]["time"]).stdout
    assert then.split("production")[1].strip() == "3"
    now = command(place, "registry", "at", "persona", "2999-01-01").stdout
    assert now.split("production")[1].strip() == "1"


class Ran(NamedTuple):
    """
    A suite that a program has run.
    """

    outcome: Outcome
    published: Published

    def register(self, settings: Settings) -> Registration | None:
        """
        What comes after it.
        """
        published = self.published
        return register_outcome(
            self.outcome, published.run_uid, settings, is_complete=published.is_complete
        )


def run_in_python(settings: Settings) -> Ran:
    """
    The suite from its file to MLflow.
    """
    found = find_suite("persona.toml")
    prepared = prepare_suite(found.suite, found.folder, text=found.text)
    results = SuiteResults(prepared, settings)
    outcome = SuiteRunner(prepared, RunOptions(), settings, finish=results.publish).run()
    return Ran(outcome, results.published())


def test_the_same_in_python(place: Place) -> None:
    """
    The whole story without a command: candidate, refused for too few runs, measured again, promoted
    on verified runs alone; a worse one refused, a better one promoted, rolled back.
    """
    settings = load()
    registry = open_registry(settings)
    production = {
        Stage.PRODUCTION: Policy(min_runs=6, against_holder="not worse", is_verified=True)
    }

    def promoted(version: int) -> bool:
        judged = judge(
            registry, settings, "persona", version, Stage.PRODUCTION, policies=production
        )
        if judged.is_passed:
            registry.promote(
                *("persona", version, Stage.PRODUCTION),
                reason="it is good",
                holder=judged.holder,
                evidence=judged.evidence,
            )
        return judged.is_passed

    write(place, 0.5, repeats=2)
    ran = run_in_python(settings)
    first = ran.register(settings)
    assert first is not None
    assert (first.version, first.stage) == (1, "candidate")
    assert not promoted(1)
    again = reevaluate(ran.outcome.prepared, "persona/1", settings, repeats=6)
    assert again.verification is not None
    assert again.verification.is_whole
    assert promoted(1)
    for level, version, is_better in ((0.2, 2, False), (0.9, 3, True)):
        write(place, level)
        made = run_in_python(settings).register(settings)
        assert made is not None
        assert made.version == version
        assert promoted(version) is is_better
    registry.rollback("persona", Stage.PRODUCTION, reason="complaints")
    assert registry.load("persona@production").traits == {"level": 0.5}
    promotion = [one for one in registry.history("persona").entries if one.action == "promote"][1]
    assert registry.standing("persona", at=promotion.time).holders[Stage.PRODUCTION] == 3
    with pytest.raises(PromotionRefusedError, match="nobody held it before"):
        registry.rollback("persona", Stage.PRODUCTION, reason="once more")

    # the runs of another genome are no proof of this one
    other = registry.version("persona", 3).tags[EVIDENCE_TAG]
    judged = judge(
        *(registry, settings, "persona", 2, Stage.PRODUCTION),
        policies={Stage.PRODUCTION: Policy(is_verified=True)},
        evidence=other,
    )
    assert [one.said for one in judged.checks] == [
        "6 of 6 runs do not say that the fitness was earned again"
    ]
    measured = [run for run in place.runs() if run.tags[tags.KIND] == "verification_cell"]
    by_genome: dict[str, set[str]] = {}
    for one in measured:
        by_genome.setdefault(one.params["genome"], set()).add(one.tags[tags.SEED])
    sequences = sorted(by_genome.values(), key=len)
    assert [len(one) for one in sequences] == [6, 6, 6]
    assert len(set.union(*sequences)) == 6
    assert not set.union(*sequences) & {run.tags[tags.SEED] for run in place.cells()}


def test_a_genome_that_was_changed_after_it_was_scored_is_no_candidate(place: Place) -> None:
    """
    The aliasing trap: what the search kept has not the traits that earned its score. It is kept for
    development, with by how much it falls short; measured again by hand, the exit code is 1; and a
    gate that wants verified runs refuses it.
    """
    write(place, 0.9, repeats=3, more='params = {mode = "changed"}')
    found = run_suite(place)["registered"]
    assert found["said"].startswith("registered persona/1 for development, no candidate: score ")
    assert "better than they make likely (up to" in found["said"]
    assert (found["stage"], found["measured"]["is_verified"]) == ("development", False)
    again = command(place, "reevaluate", "persona.toml", "persona/1", "--json", code=1)
    assert json.loads(again.stdout)["measured"]["count"] == 3
    (place.folder / "gates.toml").write_text("[staging]\nis_verified = true\n")
    told = ("registry", "promote", "persona/1", "staging", "--reason", "x", "--gates", "gates.toml")
    assert "3 of 3 runs do not say" in command(place, *told, code=1).stdout


def test_what_cannot_be_registered_is_said(place: Place) -> None:
    """
    No run that names a genome, a registry that is away, a genome that cannot be measured again, or
    whose file was changed: a line says why, nothing is registered and nothing is raised.
    """
    settings = load()
    write(place, 0.5, evaluate="measure_never")
    ran = run_in_python(settings)

    def said(ran: Ran, **overrides: Any) -> str:
        made = ran.register(load(overrides))
        assert made is not None
        assert made.version is None
        return made.said

    other = ran._replace(published=replace(ran.published, run_uid="another"))
    assert "no finished run says which genome is its best" in said(other)
    (place.folder / "file").write_text("")
    away = f"sqlite:///{place.folder / 'file' / 'registry.db'}"
    assert said(ran, model_registry_uri=away).startswith("no genome registered: ")
    assert said(ran).startswith("no genome registered: it could not be measured again: ")
    assert "ValueError: no such judge" in said(ran)
    (run,) = place.cells()
    (genome,) = run.artifact("genomes").iterdir()
    genome.write_text(genome.read_text().replace("0.5", "0.9"))
    assert "was changed: its hash is" in said(ran)
    assert versions(place) == 0


def test_components_of_a_suite_are_registered(place: Place) -> None:
    """
    A JSON file, another file and a folder become components at a suite's end, once; what changed
    while it ran is not registered, and said.
    """
    (place.folder / "tutor.json").write_text('{"style": "patient"}')
    (place.folder / "prompt.txt").write_text("Be kind.")
    (place.folder / "weights").mkdir()
    (place.folder / "weights" / "a.bin").write_bytes(b"abc")
    write(place, 0.5)
    told = '[components]\ntutor = "tutor.json"\nprompt = "prompt.txt"\nweights = "weights"\n'
    text = (place.folder / "persona.toml").read_text()
    (place.folder / "persona.toml").write_text(text[: text.index("[genome]")] + told)
    settings = load()
    ran = run_in_python(settings)
    (place.folder / "prompt.txt").write_text("Be brief.")
    made = ran.register(settings)
    assert made is not None
    assert made.lines == [
        "registered component tutor/1",
        "component prompt is not registered: its files changed while the suite ran",
        "registered component weights/1",
    ]
    again = ran.register(settings)
    assert again is not None
    assert again.lines == made.lines[1:2]
    registry = open_registry(settings)
    assert registry.load_component("tutor/1").document == {"style": "patient"}
    assert registry.load_component("weights/1").files == {"a.bin": b"abc"}


def test_switched_off_nothing_is_registered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With either setting false nothing is measured again, registered or said.
    """
    write(place, 0.5)
    monkeypatch.setenv("ALLELE_MLFLOW_AUTO_REGISTER_MODELS", "false")
    found = run_suite(place)
    assert (found["registered"], found["notes"]) == (None, [])
    monkeypatch.delenv("ALLELE_MLFLOW_AUTO_REGISTER_MODELS")
    monkeypatch.setenv("ALLELE_MLFLOW_MODEL_REGISTRY_ENABLED", "false")
    found = run_suite(place, "--resume")
    assert (found["registered"], found["notes"]) == (None, [])
    assert {run.tags[tags.KIND] for run in place.runs()} == {"suite", "cell"}
    assert versions(place) == 0


def test_interrupted_while_it_is_measured_again(place: Place) -> None:
    """
    Ctrl-C while the best genome is measured again: exit code 130, nothing is registered, and the
    suite's own results stand; `--resume` runs no cell and does what is missing.
    """
    write(place, 0.5, repeats=2, evaluate="measure_slowly")
    begun = place.folder / "begun"
    process = place.start("run", "persona.toml", "--quiet", BEGUN_FILE=str(begun))
    await_that(begun.exists, seconds=100)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "no genome registered: it was interrupted while it was measured again" in output
    assert "1 finished, 0 failed" in output
    assert versions(place) == 0
    cells = len(place.cells())
    found = run_suite(place, "--resume")["registered"]
    assert found["said"].startswith("registered persona/1 as candidate")
    assert len(place.cells()) == cells
