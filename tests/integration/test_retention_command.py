"""
`allele-mlflow gc` and `pin`: what goes, what stays and why, on SQLite and folders.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from allele_mlflow.clock import now_ns
from allele_mlflow.errors import ErrorKind, PermanentTrackingError, TransientTrackingError
from allele_mlflow.records import RunId
from allele_mlflow.registry import open_registry, retention_deletion
from allele_mlflow.registry.retention import Rules
from allele_mlflow.registry.retention_deletion import RetentionDeletion
from allele_mlflow.registry.retention_plan import plan_retention
from allele_mlflow.registry.retention_roots import open_registries
from allele_mlflow.settings import Settings, load
from allele_mlflow.tracking.run_artifacts import RunArtifacts, RunLook
from tests.integration.executions import PREFIX, START_MS, Made, Metrics, Store
from tests.integration.runs import KeptRun
from tests.integration.test_compare_command import Done, run

AXES: dict[str, list[Any]] = {"size": [10, 20]}
GENOME = {"genome_id": "any", "traits": {"empathy": 0.5}}
#: Of each cell: 1,000 bytes that go, and a document that stays.
GOING, STAYS = "model/weights.bin", "allele/environment.json"


def measure(params: Mapping[str, Any], seed: int) -> Metrics:
    """
    More for more, and another score each repeat.
    """
    return {"score": params["size"] + seed % 7}


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    """
    Runs and a registry, both empty.
    """
    for name in ("mlflow.db", "mlflow_registry.db"):
        (tmp_path / name).write_bytes(empty_store.read_bytes())
    found = Store(tmp_path)
    yield found
    found.close()


def add(store: Store, *, repeats: int = 2) -> Made:
    """
    An execution whose cells have artifacts.
    """
    made = store.add(AXES, measure, repeats=repeats)
    for cell in made.cells:
        fill(store, cell)
    return made


def fill(store: Store, run_id: RunId) -> None:
    """
    Give a run its artifacts.
    """
    file = store.folder / "scratch"
    for path, data in ((GOING, b"w" * 1000), (STAYS, b"{}")):
        file.write_bytes(data)
        store.tracking.log_artifact(run_id, file, path)


def has(store: Store, run_id: RunId, path: str = GOING) -> bool:
    """
    Whether a run's artifact is there.
    """
    return (store.folder / "artifacts" / run_id / "artifacts" / path).exists()


def gone(store: Store, *executions: Made) -> set[RunId]:
    """
    The cells that have given up what goes; what stays they all have.
    """
    cells = [cell for made in executions for cell in made.cells]
    assert all(has(store, cell, STAYS) for cell in cells)
    return {cell for cell in cells if not has(store, cell)}


def gc(store: Store, *arguments: str, code: int = 0) -> Done:
    """
    A clean-up that ends with this code.
    """
    done = run(store.folder, "gc", *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def settings_of(store: Store) -> Settings:
    """
    Of the store and the registry beside it.
    """
    registry = f"sqlite:///{store.folder / 'mlflow_registry.db'}"
    return load({"tracking_uri": store.uri, "model_registry_uri": registry})


def test_what_is_reached_stays(store: Store) -> None:
    """Evidence of a version keeps its suite's cells, a pin its run; the rest of what is old goes
    once, params and metrics stay, and each run says what it gave up. A dry run deletes nothing.
    """
    old, evidence = add(store), add(store)
    (store.folder / "genome.json").write_text(json.dumps(GENOME))
    where = f"{evidence.run_uid}[size == 10]"
    run(store.folder, "registry", "register", "persona", "genome.json", "--evidence", where)
    pinned = run(store.folder, "pin", old.cells[0], "--reason", "the paper")
    assert pinned.returncode == 0
    dry = gc(store, "--dry-run")
    assert "to delete: 3 files, 3.0 kB, of 3 runs" in dry.stdout
    assert gone(store, old, evidence) == set()
    told = json.loads(gc(store, "--yes", "--json").stdout)
    whys = {one["run_id"]: (one["verdict"], one["why"]) for one in told["runs"]}
    assert whys[old.cells[0]] == ("reached", "pinned: the paper")
    assert whys[evidence.cells[3]] == ("reached", "evidence of persona/1")
    assert whys[old.cells[1]][0] == "deleted"
    assert told["done"] == {"runs": 3, "files": 3, "bytes": 3000, "spared": [], "failed": []}
    assert gone(store, old, evidence) == set(old.cells[1:])
    assert has(store, old.run_id, "suite.toml")
    kept = KeptRun(store.uri, old.cells[1])
    assert (kept.params["size"], set(kept.latest)) == ("20", {"score"})
    mark = json.loads(kept.tags["allele.retention"])
    assert (mark["state"], mark["files"], mark["size_bytes"]) == ("done", 1, 1000)
    assert "nothing to delete" in gc(store, "--yes").stdout


def test_a_pin_of_a_suite_keeps_its_cells(store: Store) -> None:
    """The whole execution stays while it is pinned, and goes when it is not."""
    made = add(store)
    assert run(store.folder, "pin", made.run_uid, "--reason", "the talk").returncode == 0
    assert "the talk" in run(store.folder, "pin").stdout
    assert "nothing to delete" in gc(store, "--yes").stdout
    assert run(store.folder, "pin", made.run_uid, "--remove").returncode == 0
    assert run(store.folder, "pin", made.run_uid, "--remove").returncode == 0
    gc(store, "--yes")
    assert gone(store, made) == set(made.cells)
    for wrong in (["nobody", "--reason", "x"], [made.run_uid], [made.run_uid, "--reason", ""]):
        assert run(store.folder, "pin", *wrong).returncode == 2


def test_the_setting_says_how_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """ARTIFACT_RETENTION_DAYS is the age from which on artifacts go, but for `--older-than`."""
    made = add(store)
    age_days = (now_ns() // 1_000_000 - START_MS) / 86_400_000
    monkeypatch.setenv("ALLELE_MLFLOW_ARTIFACT_RETENTION_DAYS", str(int(age_days) + 1))
    assert "nothing to delete" in gc(store, "--yes").stdout
    monkeypatch.setenv("ALLELE_MLFLOW_ARTIFACT_RETENTION_DAYS", str(int(age_days) - 1))
    assert "to delete: 4 files" in gc(store, "--dry-run").stdout
    assert "nothing to delete" in gc(store, "--dry-run", "--older-than", "9999").stdout
    assert gone(store, made) == set()


def test_rules_that_keep(store: Store) -> None:
    """`--keep-last` keeps executions, `--keep-best` runs of each cell by the suite's objective or a
    named metric, `--larger-than` small ones.
    """
    old, new = add(store), add(store)
    assert "to delete: 4 files" in gc(store, "--dry-run", "--keep-last", "1").stdout
    assert "8 small" in gc(store, "--dry-run", "--larger-than", "1kB").stdout
    assert "to delete: 8 files" in gc(store, "--dry-run", "--larger-than", "999").stdout
    told = json.loads(gc(store, "--dry-run", "--keep-best", "1", "--json").stdout)["runs"]
    best = {one["run_id"] for one in told if one["verdict"] == "best"}
    scores = {cell: KeptRun(store.uri, cell).latest["score"] for cell in [*old.cells, *new.cells]}
    sizes = {cell: KeptRun(store.uri, cell).params["size"] for cell in scores}
    for size in ("10", "20"):
        of_size = {cell: score for cell, score in scores.items() if sizes[cell] == size}
        (own,) = best & set(of_size)
        assert scores[own] == max(of_size.values())
    gc(store, "--yes", "--keep-best", "1", "--lower", "score", "sorting")
    left = set(scores) - gone(store, old, new)
    assert sorted(sizes[cell] for cell in left) == ["10", "20"]


def test_what_mlflow_registered_itself(store: Store) -> None:
    """A version in the store's own registry keeps the run whose artifacts it is, be it none of ours
    and known by its address alone.
    """
    made = add(store)
    client = MlflowClient(store.uri, registry_uri=store.uri)
    client.create_registered_model("theirs")
    source = store.folder / "artifacts" / made.cells[0] / "artifacts" / "model"
    client.create_model_version("theirs", str(source))
    client.create_model_version("theirs", "elsewhere", run_id=made.cells[1])
    gc(store, "--yes")
    assert gone(store, made) == set(made.cells[2:])


@pytest.mark.parametrize(
    ("environ", "arguments", "code", "words"),
    [
        ({}, [], 2, "nobody can be asked"),
        ({}, ["--json"], 2, "nobody can be asked"),
        ({}, ["--yes", "nothing"], 2, "no such experiment"),
        ({}, ["--yes", "--foreign"], 2, "want their names"),
        ({}, ["--yes", "--larger-than", "much"], 2, "want bytes"),
        ({}, ["--yes", "--lower", "score"], 2, "want --keep-best"),
        ({"MODEL_REGISTRY_ENABLED": "false"}, ["--yes"], 2, "model_registry_enabled is false"),
        ({"MODEL_REGISTRY_URI": "sqlite:///no.db"}, ["--yes"], 1, "there is no registry at"),
        ({"MODEL_REGISTRY_URI": "http://127.0.0.1:9"}, ["--yes"], 6, "versions of all models"),
        ({"TRACKING_URI": "offline"}, ["--yes"], 2, "want a store"),
        ({"TRACKING_URI": "sqlite:///no.db"}, ["--yes"], 6, "no such database"),
    ],
)
def test_what_is_refused(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    environ: Mapping[str, str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    """Nothing goes where nobody says so, or what is reached cannot be told; and why is said."""
    made = add(store)
    for name, value in environ.items():
        monkeypatch.setenv(f"ALLELE_MLFLOW_{name}", value)
    assert words in gc(store, *arguments, code=code).stderr
    assert gone(store, made) == set()
    assert not (store.folder / "no.db").exists()


def test_no_registry_beside_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--no-registry` says that there is none, disabled or not there."""
    (store.folder / "mlflow_registry.db").unlink()
    monkeypatch.setenv("ALLELE_MLFLOW_MODEL_REGISTRY_ENABLED", "false")
    made = add(store)
    gc(store, "--yes", "--no-registry")
    assert gone(store, made) == set(made.cells)


def test_a_damaged_journal_stops_it(store: Store) -> None:
    """Whoever cannot read a journal deletes nothing."""
    made = add(store)
    open_registry(settings_of(store)).register("persona", GENOME, reason="first")
    with closing(sqlite3.connect(store.folder / "mlflow_registry.db")) as database, database:
        database.execute("UPDATE params SET value = '{}' WHERE key = '000001'")
    done = gc(store, "--yes", code=1)
    assert "the journal of persona cannot be read" in done.stderr
    assert "entry 1" in done.stderr
    assert gone(store, made) == set()


def test_a_run_of_the_future_stops_it(store: Store) -> None:
    """Where a clock is wrong nobody knows what is old."""
    made = add(store)
    later_ms = now_ns() // 1_000_000 + 7_200_000
    store.add_run(f"{PREFIX}other", {"score": 1.0}, start_ms=later_ms)
    assert "a clock is wrong" in gc(store, "--yes", code=1).stderr
    assert gone(store, made) == set()
    gc(store, "--yes", "sorting")
    assert gone(store, made) == set(made.cells)


def test_runs_of_others(store: Store) -> None:
    """They go only where their experiment is named, with `--foreign`."""
    theirs = store.add_run(f"{PREFIX}theirs", {"score": 1.0})
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        root = store.folder / "artifacts" / theirs / "artifacts"
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (str(root), theirs))
    fill(store, theirs)
    assert "1 foreign" in gc(store, "--yes").stdout
    assert has(store, theirs)
    gc(store, "--yes", "--foreign", "theirs")
    assert not has(store, theirs)


def test_links_are_nobodys_to_delete(store: Store) -> None:
    """A run with a link among its artifacts is told and left, and so is what the link leads to."""
    made = add(store)
    outside = store.folder / "precious"
    outside.mkdir()
    (outside / "file").write_text("precious")
    root = store.folder / "artifacts" / made.cells[0] / "artifacts"
    (root / "link").symlink_to(outside)
    (root / "model" / "weights.bin").unlink()
    (root / "model" / "weights.bin").symlink_to(outside / "file")
    assert "a link" in gc(store, "--yes").stdout
    assert (outside / "file").read_text() == "precious"
    assert gone(store, made) == set(made.cells[1:])


@pytest.mark.parametrize("how", ["pin", "pin of the suite", "version", "resumed", "late evidence"])
def test_reached_meanwhile(store: Store, how: str) -> None:
    """What is pinned, registered, resumed or made evidence after the plan is spared, and told."""
    made = add(store, repeats=1)
    settings = settings_of(store)
    registries = open_registries(settings)
    plan = plan_retention(settings, Rules(older_than_days=1), registries=registries)
    assert {one.run.run_id for one in plan.deleted} == set(made.cells)
    registry, tags = open_registry(settings), RunArtifacts(store.uri)
    spared = set(made.cells[:1])
    if how == "pin":
        tags.tag(made.cells[0], "allele.pin", "wait")
    elif how == "pin of the suite":
        tags.tag(made.run_id, "allele.pin", "wait")
        spared = set(made.cells)
    elif how == "version":
        registry.register("persona", GENOME, tags={"allele.run": made.cells[0]})
    elif how == "resumed":
        store.tracking.reopen_run(made.cells[0])
    else:
        registry.register("persona", GENOME)
        registry.tag("persona", 1, "allele.evidence", made.run_uid)
        spared = set(made.cells)
    deletion = RetentionDeletion(settings, registries)
    deletion.delete(plan)
    assert {one.run_id for one in deletion.done.spared} == spared
    assert gone(store, made) == set(made.cells) - spared


@pytest.mark.parametrize("how", ["pin", "pin of the suite", "version", "resumed", "evidence"])
def test_reached_while_it_deletes(store: Store, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What is done to the second run while the first goes is seen before the second would go;
    evidence, which is looked at now and then, as soon as it is looked at.
    """
    made = add(store, repeats=1)
    settings = settings_of(store)
    registry, delete, begun = open_registry(settings), RunArtifacts.delete, list[str]()
    registry.register("persona", GENOME)
    if how == "evidence":
        for name in ("CHECK_INTERVAL_S", "_CHECK_SHARE"):
            monkeypatch.setattr(retention_deletion, name, 0)

    def protecting(self: RunArtifacts, artifact_uri: str, paths: Any) -> None:
        begun.append(artifact_uri)
        (second,) = (cell for cell in made.cells if cell not in artifact_uri)
        match how:
            case "pin":
                self.tag(second, "allele.pin", "wait")
            case "pin of the suite":
                self.tag(made.run_id, "allele.pin", "wait")
            case "version":
                client = MlflowClient(store.uri, registry_uri=settings.model_registry_uri)
                client.create_model_version("persona", "elsewhere", run_id=second)
            case "resumed":
                store.tracking.reopen_run(second)
            case _:
                registry.tag("persona", 1, "allele.evidence", second)
        delete(self, artifact_uri, paths)

    monkeypatch.setattr(RunArtifacts, "delete", protecting)
    told = json.loads(gc(store, "--yes", "--json").stdout)["done"]
    assert (told["runs"], len(told["spared"]), len(begun)) == (1, 1, 1)
    assert len(gone(store, made)) == 1


def test_a_store_that_goes_away_ends_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not try thousands of runs one after the other; what it did until then it tells."""
    made, look, looked = add(store, repeats=6), RunArtifacts.look, list[str]()

    def away(self: RunArtifacts, run_id: str) -> RunLook:
        looked.append(run_id)
        if len(looked) > 4:
            raise TransientTrackingError("gone fishing", kind=ErrorKind.STORE_UNREACHABLE)
        return look(self, run_id)

    monkeypatch.setattr(RunArtifacts, "look", away)
    done = gc(store, "--yes", code=6)
    assert "deleted 2 files" in done.stdout  # of each, it and its suite's run are looked at
    assert "gone fishing" in done.stderr
    assert len(looked) == 9
    assert len(gone(store, made)) == 2


def test_one_failure_does_not_stop_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, the exit code says so, and the next clean-up goes on with it."""
    made = add(store)
    delete = RunArtifacts.delete

    def failing(self: RunArtifacts, artifact_uri: str, paths: Any) -> None:
        if made.cells[1] in artifact_uri:
            raise PermanentTrackingError("no space for a trash can", kind=ErrorKind.REFUSED)
        delete(self, artifact_uri, paths)

    monkeypatch.setattr(RunArtifacts, "delete", failing)
    done = gc(store, "--yes", code=1)
    assert "no space for a trash can" in done.stderr
    assert gone(store, made) == set(made.cells) - {made.cells[1]}
    monkeypatch.undo()
    gc(store, "--yes")
    assert gone(store, made) == set(made.cells)


def test_interrupted_and_gone_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C tells what was done until then and ends with 130; the next clean-up does the rest."""
    made = add(store)
    delete, count = RunArtifacts.delete, []

    def interrupted(self: RunArtifacts, artifact_uri: str, paths: Any) -> None:
        count.append(artifact_uri)
        if len(count) == 3:
            raise KeyboardInterrupt
        delete(self, artifact_uri, paths)

    monkeypatch.setattr(RunArtifacts, "delete", interrupted)
    assert "deleted 2 files, 2.0 kB, of 2 runs" in gc(store, "--yes", code=130).stdout
    monkeypatch.undo()
    assert "deleted 2 files, 2.0 kB, of 2 runs" in gc(store, "--yes").stdout
    assert gone(store, made) == set(made.cells)
