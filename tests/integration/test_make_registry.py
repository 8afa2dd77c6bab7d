"""
The registry that benchmarks read: as the registry itself would have written it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.tracking.registry_client import RegistryClient
from benchmarks.make_registry import DATABASE, EXPERIMENT, RegistryShape, fill_registry, main


def test_registry_reads_as_any_other(empty_store: Path, tmp_path: Path) -> None:
    """Every model verifies, has its files, its holder and its history, and takes a new version."""
    shutil.copyfile(empty_store, tmp_path / DATABASE)
    filled = fill_registry(tmp_path, RegistryShape(models=2, versions=25))
    registry = Registry(RegistryClient(filled.uri, experiment=EXPERIMENT))
    assert [one.name for one in registry.overview()] == filled.names
    for name in filled.names:
        found = registry.verify(name)
        assert (found.problems, found.repaired, found.notes) == ((), (), ())
        standing = registry.standing(name)
        assert standing.holders == {Stage.DEVELOPMENT: 25, Stage.PRODUCTION: 20}
        assert len(registry.history(name).entries) == filled.entries == 27
        assert registry.load(f"{name}@production").traits["level"] == 20
        traits = {**registry.load(f"{name}/1").traits, "level": 0.5}
        assert registry.register(name, {"traits": traits}).version == 26
        assert registry.rollback(name, Stage.PRODUCTION, reason="worse").version == 10


def test_existing_registry_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command refuses a folder that has one, and says what it wants."""
    (tmp_path / DATABASE).write_bytes(b"mine")
    assert main(["--folder", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / DATABASE).read_bytes() == b"mine"
