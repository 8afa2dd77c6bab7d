"""
The store that benchmarks read: as MLflow itself would have written it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from allele_mlflow.tracking.client_reader import ClientReader
from allele_mlflow.tracking.sql_reader import SqlReader
from benchmarks.make_store import FilledStore, StoreShape, fill_store, main

SHAPE = StoreShape(suite="it's ☃", runs=25, metrics=3, steps=4, failed=5)


@pytest.fixture(scope="module")
def filled(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    """
    A small one.
    """
    path = tmp_path_factory.mktemp("filled") / "mlflow.db"
    shutil.copyfile(empty_store, path)
    return fill_store(path, SHAPE)


@pytest.mark.parametrize("kind", [SqlReader, ClientReader])
def test_store_reads_as_any_other(
    kind: type[SqlReader] | type[ClientReader], filled: FilledStore
) -> None:
    """A parent and its runs come back by SQL and through MLflow, with all their readings."""
    reader = kind(filled.uri)
    found = reader.runs([filled.experiment_id], with_tags={"allele.suite": SHAPE.suite})
    assert len(found.runs) == SHAPE.runs + 1
    assert (found.runs.status == "FAILED").sum() == SHAPE.failed
    kinds = found.tags[found.tags.key == "allele.kind"].value.value_counts()
    assert dict(kinds) == {"cell": 25, "suite": 1}
    parents = found.tags[found.tags.key == "mlflow.parentRunId"].value
    assert list(parents) == [filled.parent_run_id] * SHAPE.runs
    cells = found.tags[found.tags.key == "allele.cell_key"].value
    assert sorted(cells.value_counts()) == [5, 10, 10]
    assert len(found.metrics) == SHAPE.runs * SHAPE.metrics
    (page,) = reader.history(found.runs.run_id)
    assert len(page) == filled.rows["metrics"] == SHAPE.metrics * (20 * 4 + 5 * 2)
    last = page.groupby(["run_id", "key"]).value.last().sort_index()
    assert list(last) == list(found.metrics.set_index(["run_id", "key"]).value.sort_index())
    reader.close()


def test_same_shape_is_the_same_store(
    filled: FilledStore, empty_store: Path, tmp_path: Path
) -> None:
    """Two stores of one shape have the same runs, so that measurements may be compared."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    again = fill_store(tmp_path / "mlflow.db", SHAPE)
    assert again.parent_run_id == filled.parent_run_id
    assert again.rows == filled.rows


def test_existing_store_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command refuses a folder that has a store, and says what it wants."""
    (tmp_path / "mlflow.db").write_bytes(b"mine")
    assert main(["--folder", str(tmp_path)]) == 2
    assert "want a folder without mlflow.db" in capsys.readouterr().err
    assert (tmp_path / "mlflow.db").read_bytes() == b"mine"
