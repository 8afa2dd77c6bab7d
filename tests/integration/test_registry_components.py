"""
Components in the registry, what used them, schemas and lineage, on SQLite and over HTTP.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import allele_mlflow
from allele_mlflow.errors import NotFoundError, RegistryError
from allele_mlflow.registry.contents import files_of
from allele_mlflow.registry.genomes import read_genome
from allele_mlflow.registry.journal import Chain, Stage, encode_entry
from allele_mlflow.registry.kept_journal import next_entry
from allele_mlflow.registry.lineage import read_lineage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.registry.uses import Use, read_uses
from allele_mlflow.registry.version_files import sha256
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.client import MlflowTracking
from allele_mlflow.tracking.reader import open_reader
from allele_mlflow.tracking.registry_client import RegistryClient
from tests.integration.runs import Station

PRODUCTION, DEVELOPMENT = Stage.PRODUCTION, Stage.DEVELOPMENT


def client_of(folder: Path) -> RegistryClient:
    """
    Of a registry on SQLite.
    """
    return RegistryClient(
        f"sqlite:///{folder / 'registry.db'}",
        experiment="allele_benchmark_registry",
        artifact_location=str(folder / "artifacts"),
    )


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    """
    With an empty registry, and the files of a component.
    """
    shutil.copyfile(empty_store, tmp_path / "registry.db")
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    (tmp_path / "weights" / "readout.bin").write_bytes(bytes(range(256)))
    (tmp_path / "weights" / "deep" / "notes.txt").write_text("seed 7")
    return tmp_path


@pytest.fixture
def registry(folder: Path) -> Registry:
    """
    Of Ann's.
    """
    return Registry(client_of(folder), by="ann")


def register(registry: Registry, rate: float, files: Any = None) -> int:
    """
    A mutation operator; its version.
    """
    document = {"rate": rate, "schedule": ["linear", 50]}
    return registry.register_component("mutation", document, kind="operator", files=files).version


def genome(level: float, **more: Any) -> dict[str, Any]:
    """
    With two traits.
    """
    return {"genome_id": f"g{level}", "traits": {"empathy": level, "creativity": 0.5}, **more}


def test_a_component_is_kept_like_a_genome(registry: Registry, folder: Path) -> None:
    """Same content is one version, files count; promoted and rolled back by the same journal."""
    assert register(registry, 0.1) == 1
    assert register(registry, 0.1) == 1
    assert register(registry, 0.1, folder / "weights") == 2
    registry.promote("mutation", 1, PRODUCTION, reason="first")
    registry.promote("mutation", 2, PRODUCTION, reason="with weights")
    loaded = registry.load_component("mutation@production")
    assert (loaded.kind, loaded.name, loaded.version) == ("operator", "mutation", 2)
    assert loaded.document == {"rate": 0.1, "schedule": ["linear", 50]}
    assert loaded.files == {"readout.bin": bytes(range(256)), "deep/notes.txt": b"seed 7"}
    registry.rollback("mutation", PRODUCTION, reason="too large")
    assert registry.load_component("mutation@production").files == {}
    assert registry.verify("mutation").problems == ()
    assert [model.kind for model in registry.models()] == ["operator"]


def test_changed_files_of_a_component_are_found(registry: Registry, folder: Path) -> None:
    """A file that was changed or removed is named by `load_component` and by `verify`."""
    register(registry, 0.1, folder / "weights")
    (notes,) = folder.glob("artifacts/*/artifacts/versions/*/files/deep/notes.txt")
    notes.write_text("seed 8")
    with pytest.raises(RegistryError, match=r"files/deep/notes.txt of the version was changed"):
        registry.load_component("mutation/1")
    assert any("files/deep/notes.txt" in one for one in registry.verify("mutation").problems)
    notes.unlink()
    assert any("gone from run" in one for one in registry.verify("mutation").problems)


def test_what_is_told_of_a_genome_cannot_be_changed(registry: Registry, folder: Path) -> None:
    """A genome's id, which is no part of its identity, changed together with the manifest is found:
    the journal holds the manifest's hash.
    """
    registry.register("persona", genome(0.1))
    (file,) = folder.glob("artifacts/*/artifacts/versions/*/genome.json")
    manifest = file.with_name("manifest.json")
    before = sha256(file.read_bytes())
    file.write_bytes(file.read_bytes().replace(b"g0.1", b"g9.9"))
    manifest.write_text(manifest.read_text().replace(before, sha256(file.read_bytes())))
    with pytest.raises(RegistryError, match=r"manifest.json of the version was changed"):
        registry.load("persona/1")
    assert any("manifest.json" in one for one in registry.verify("persona").problems)


def test_a_journal_without_manifests_is_read(registry: Registry, folder: Path) -> None:
    """Versions from before an entry held the manifest's hash are loaded, and known by content."""
    kept, client = read_genome(genome(0.1)), client_of(folder)
    run_id = client.ensure_journal("persona")
    place = folder / "old"
    place.mkdir()
    for path, data in files_of(kept).items():
        (place / path).write_bytes(data)
    source = client.keep_files(run_id, place, f"versions/{kept.content}")
    tags = {"allele.content": kept.content}
    client.create_version("persona", source=source, run_id=run_id, tags=tags, description="")
    entry = next_entry(
        *(Chain(), "register", "persona", 1, DEVELOPMENT),
        by="ann",
        reason="",
        content=kept.content,
    )
    assert client.write_entry(run_id, "000001", encode_entry(entry))
    assert registry.load("persona/1").document == genome(0.1)
    assert not registry.register("persona", genome(0.1)).is_new
    assert registry.verify("persona").problems == ()


def test_a_model_keeps_one_kind(registry: Registry) -> None:
    """A genome under a component's name is refused and the other way round, with both kinds."""
    register(registry, 0.1)
    registry.register("persona", genome(0.1))
    with pytest.raises(RegistryError, match="of the kind operator, not genome: want another name"):
        registry.register("mutation", genome(0.1))
    with pytest.raises(RegistryError, match="of the kind genome, not prompt"):
        registry.register_component("persona", {"text": "hello"}, kind="prompt")
    with pytest.raises(RegistryError, match=r"is a component \(operator\): want load_component"):
        registry.load("mutation/1")
    with pytest.raises(RegistryError, match="persona/1 is a genome: want load_genome"):
        registry.load_component("persona/1")
    with pytest.raises(RegistryError, match="has '@' in it"):
        registry.register_component("a@b", {}, kind="prompt")


def test_mlflow_takes_it_for_a_model(registry: Registry, folder: Path) -> None:
    """MLflow's own code finds a description of a model beside the files, and reads it."""
    register(registry, 0.1, folder / "weights")
    models = pytest.importorskip("mlflow.models")
    source = client_of(folder).version("mutation", 1).source
    flavors = models.Model.load(source).flavors
    assert flavors["allele_component"]["kind"] == "operator"


def test_other_traits_are_refused(registry: Registry) -> None:
    """A genome with other traits than its model's is refused with their names, unless it is said to
    be meant so; from then on both schemas are known.
    """
    registry.register("persona", genome(0.1))
    other = {"traits": {"empathy": 0.5, "humour": 0.5}}
    with pytest.raises(RegistryError, match="persona/1: without creativity; with humour; want"):
        registry.register("persona", other)
    assert registry.register("persona", other, is_new_schema=True).version == 2
    assert registry.register("persona", {"traits": {"empathy": 0.6, "humour": 0.5}}).version == 3
    assert registry.register("persona", genome(0.2)).version == 4
    with pytest.raises(RegistryError, match="other traits than persona/4"):
        registry.register("persona", {"weights": [1, 2]})


def test_lineage(registry: Registry) -> None:
    """Parents by content or by id, those that nobody registered too; children, run and commit."""
    first = registry.register("persona", genome(0.1), tags={"allele.run": "r1"})
    parents = {"metadata": {"parent_ids": [first.content, "g0.1", "unknown"]}}
    registry.register("persona", genome(0.2, **parents), tags={"allele.commit": "abc"})
    registry.register("persona", genome(0.3))
    registry.promote("persona", 2, PRODUCTION, reason="better")
    child = read_lineage(registry, "persona@production")
    assert child.parents == {first.content: (1,), "g0.1": (1,), "unknown": ()}
    assert (child.children, child.run, child.commit) == ((), None, "abc")
    assert [entry.action for entry in child.entries] == ["register", "promote"]
    above = read_lineage(registry, "persona/1")
    assert (above.children, above.run, above.parents) == ((2,), "r1", {})


def uses_of(registry: Registry, uri: str, name: str, version: int) -> list[Use]:
    """
    The runs that used a version.
    """
    with closing(open_reader(uri)) as reader:
        return read_uses(reader, registry.history(name), name, version)


def test_a_run_used_who_held_the_stage_then(
    registry: Registry, folder: Path, sqlite_store: str
) -> None:
    """A stage in a run's tag is the version that held it then, whoever holds it later; a number is
    that version; a time before the first holder is none.
    """
    register(registry, 0.1)
    register(registry, 0.2)
    first = registry.promote("mutation", 1, PRODUCTION, reason="first").time
    second = registry.promote("mutation", 2, PRODUCTION, reason="second").time
    tags = {
        "early": f"mutation@production {first}",
        "late": f"mutation@production {second}",
        "both": f"mutation/1 {first}, mutation@production {second}",
        "before": "mutation@production 2020-01-01T00:00:00.000+00:00",
        "other": f"crossover/1 {first}",
    }
    runs = tag_runs(
        sqlite_store, {name: {"allele.uses.mutation": text} for name, text in tags.items()}
    )
    found = {one.run_name: one for one in uses_of(registry, sqlite_store, "mutation", 1)}
    assert found.keys() == {"early", "both"}
    assert found["early"] == Use(runs["early"], "early", "mutation@production", first)
    names = [one.run_name for one in uses_of(registry, sqlite_store, "mutation", 2)]
    assert sorted(names) == ["both", "late"]
    assert registry.used("mutation@production", first) == 1
    assert registry.used("mutation@production", "2999") == 2
    assert registry.used("mutation/7", first) == 7
    with pytest.raises(NotFoundError, match="nobody held it at 2020"):
        registry.used("mutation@production", "2020")


def tag_runs(uri: str, tags: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """
    Runs with these names and tags; their ids.
    """
    with closing(MlflowTracking(uri)) as tracking:
        experiment = tracking.ensure_experiment("uses", artifact_location=None)
        return {
            name: str(tracking.create_run(experiment, run_name=name, start_ms=1, tags=dict(told)))
            for name, told in tags.items()
        }


@pytest.mark.process
def test_what_a_logger_uses_is_found(
    registry: Registry, folder: Path, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `load_component` in a program over `log.uses` to the version's list of runs."""
    register(registry, 0.1)
    registry.promote("mutation", 1, PRODUCTION, reason="first")
    registry.register("persona", genome(0.1))
    settings = Settings(
        model_registry_uri=f"sqlite:///{folder / 'registry.db'}",
        experiment_prefix="allele_benchmark_",
    )
    with station.start() as log:
        log.uses("mutation@production")
        log.uses("mutation@production")
        log.uses(allele_mlflow.load_component("mutation@production", settings=settings))
        log.uses(allele_mlflow.load_genome("persona/1", settings=settings))
    run_id = str(log.close().run_id)
    told = station.kept(run_id).tags
    references = [part.split()[0] for part in told["allele.uses.mutation"].split(", ")]
    assert references == ["mutation@production", "mutation/1"]
    uri = log.settings.tracking_uri
    assert [one.run_id for one in uses_of(registry, uri, "mutation", 1)] == [run_id]
    assert [one.run_id for one in uses_of(registry, uri, "persona", 1)] == [run_id]


@pytest.mark.server
@pytest.mark.process
@pytest.mark.timeout(150)
def test_through_a_server(mlflow_server: str, folder: Path) -> None:
    """Over HTTP a component with files comes back whole, and its kind, schema and uses hold."""
    registry = Registry(RegistryClient(mlflow_server, experiment="allele_benchmark_registry"))
    for files in (folder / "weights", None, folder / "weights"):
        registry.register_component("reservoir", {"size": 100}, kind="reservoir", files=files)
    registry.promote("reservoir", 1, PRODUCTION, reason="good")
    loaded = registry.load_component("reservoir@production")
    assert loaded.files == {"readout.bin": bytes(range(256)), "deep/notes.txt": b"seed 7"}
    assert registry.verify("reservoir").problems == ()
    with pytest.raises(RegistryError, match="of the kind reservoir, not genome"):
        registry.register("reservoir", genome(0.1))
    time = registry.history("reservoir").entries[-1].time
    tags = {"allele.uses.reservoir": f"reservoir@production {time}"}
    runs = tag_runs(mlflow_server, {"user": tags, "none": {"allele.uses.other": "x"}})
    found = uses_of(registry, mlflow_server, "reservoir", 1)
    assert [one.run_id for one in found] == [runs["user"]]
