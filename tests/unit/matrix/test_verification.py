"""
What is run when a genome is measured again: one cell, on seeds that its suite has not met.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.errors import MatrixError
from allele_mlflow.matrix.cells import make_cells, repeat_seed
from allele_mlflow.matrix.prepared import Prepared, prepare_suite
from allele_mlflow.matrix.suite_file import suite_of
from allele_mlflow.matrix.verification import fresh_seed, prepare_verification

MEASURES = """
def search(size):
    return {"score": size}


def measure(genome, *, seed):
    return {"score": seed}


def measure_nothing(seed):
    return {"score": seed}
"""
FIELDS = {
    "name": "s",
    "benchmark": "measures_of_verification.py:search",
    "matrix": {"size": [1, 2]},
    "seed": 7,
    "metrics": {
        "score": {"direction": "higher", "objective": True},
        "seconds": {"direction": "lower", "objective": True},
    },
}
EVALUATE = {"evaluate": "measures_of_verification.py:measure", "repeats": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    With the functions.
    """
    (tmp_path / "measures_of_verification.py").write_text(MEASURES)
    return tmp_path


def prepared(folder: Path, **more: Any) -> Prepared:
    """
    A suite of two cells.
    """
    suite = suite_of(FIELDS | {"genome": EVALUATE} | more)
    cells = make_cells(suite, version="1")
    return Prepared(suite, folder, cells, "1", "", Environment())


def test_seeds_are_fresh_and_the_same_for_every_genome(folder: Path) -> None:
    """
    No seed of a verification is one of the suite's own repeats; all genomes get the same ones, and
    more repeats go on with the same sequence.
    """
    suite = prepared(folder)
    one, other = (
        prepare_verification(suite, {"traits": {"a": level}}, repeats=repeats)
        for level, repeats in ((0.1, None), (0.2, 1_000))
    )
    few, many = (
        [repeat_seed(one.suite.seed, repeat) for repeat in range(one.suite.repeats)]
        for one in (one, other)
    )
    assert len(few) == 3
    assert many[:3] == few
    met = {repeat_seed(7, repeat) for repeat in range(-1, 1_000)}
    assert not met & set(many)
    assert fresh_seed(7) != fresh_seed(8)


def test_cells_of_two_genomes_have_one_name(folder: Path) -> None:
    """
    By name they can be compared; by key they are not taken for each other. Only the objective that
    the genome was chosen by has to be measured.
    """
    suite = prepared(folder)
    (one,), (other,) = (
        prepare_verification(suite, {"traits": {"a": level}}).cells for level in (0.1, 0.2)
    )
    assert one.name == other.name == "measures_of_verification.py:measure"
    assert one.key != other.key
    again = prepare_verification(suite, {"traits": {"a": 0.1}}).suite
    assert list(again.objectives) == ["score"]
    assert list(again.metrics) == ["score", "seconds"]


def test_a_table_for_genomes_changes_no_cell() -> None:
    """A suite that is given [genome] and [components] goes on with the cells that it has."""
    plain = make_cells(suite_of(FIELDS), version="1")
    more = FIELDS | {"genome": EVALUATE, "components": {"prompt": "prompt.json"}}
    assert make_cells(suite_of(more), version="1") == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "there is no such file or folder"), ("[1, 2]", "no JSON object"), ("{", "no JSON")],
)
def test_components_are_looked_at_before_anything_runs(
    folder: Path, text: str | None, words: str
) -> None:
    """A component whose file is missing or is no JSON object is refused, by its name and place."""
    if text is not None:
        (folder / "prompt.json").write_text(text)
    suite = suite_of(FIELDS | {"components": {"prompt": "prompt.json"}})
    with pytest.raises(MatrixError, match=rf"components.prompt: 'prompt.json': .*{words}"):
        prepare_suite(suite, folder)


def test_a_suite_that_cannot_measure_says_so(folder: Path) -> None:
    """Without the table, or with a function that takes no genome, nothing is run."""
    suite = suite_of(FIELDS)
    with pytest.raises(MatrixError, match=r"want a table \[genome\]"):
        prepare_verification(Prepared(suite, folder, [], "1", "", Environment()), {})
    wrong = EVALUATE | {"evaluate": "measures_of_verification.py:measure_nothing"}
    with pytest.raises(MatrixError, match="takes no parameter 'genome'"):
        prepare_suite(suite_of(FIELDS | {"genome": wrong}), folder)
