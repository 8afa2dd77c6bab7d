"""
Finding, versioning and calling benchmarks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allele_mlflow.errors import MatrixError
from allele_mlflow.matrix.benchmark import (
    SUITE_ATTRIBUTE,
    benchmark,
    call_benchmark,
    check_objectives,
    check_params,
    find_benchmark,
    full_params,
    plain_metrics,
    reference_of,
    source_version,
)
from allele_mlflow.matrix.suite import Suite

CODE = '''
"""Doc."""
import helper_that_is_beside

def run(size, rate=0.5, *, seed, log):
    """Doc."""
    return {"m": size * rate}

class Holder:
    @staticmethod
    def inner():
        return 1

value = 3
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """
    A folder with a module and what it imports; the interpreter is as it was, afterwards.
    """
    before, modules = list(sys.path), set(sys.modules)
    (tmp_path / "helper_that_is_beside.py").write_text("x = 1\n")
    (tmp_path / "some_benchmark.py").write_text(CODE)
    yield tmp_path
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("reference", ["some_benchmark:run", "some_benchmark.py:run"])
def test_found_by_module_and_by_file(folder: Path, reference: str) -> None:
    """Both find the function, and what the module imports from beside it."""
    function = find_benchmark(reference, folder)
    assert function(2, seed=1, log=None) == {"m": 1.0}
    assert find_benchmark("some_benchmark.py:Holder.inner", folder)() == 1


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nothing_here:run", "no module 'nothing_here'"),
        ("nothing_here.py:run", "no file"),
        ("some_benchmark:rum", "did you mean 'run'"),
        ("some_benchmark:value", "want a function, got int"),
    ],
)
def test_what_is_not_there_is_told(folder: Path, reference: str, words: str) -> None:
    """No module, no file, no such name (and the nearest), no function."""
    with pytest.raises(MatrixError, match=words):
        find_benchmark(reference, folder)


def test_a_module_that_lacks_its_own_imports_says_which(folder: Path) -> None:
    """The module is there; what is missing is what it imports, and that error is its own."""
    (folder / "broken_benchmark.py").write_text("import surely_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        find_benchmark("broken_benchmark:run", folder)


def test_version_follows_code_and_not_its_looks(folder: Path) -> None:
    """Comments, layout and docstrings change nothing; a number does; `version=` stands for all."""
    function = find_benchmark("some_benchmark.py:run", folder)
    before = source_version(function)
    path = folder / "some_benchmark.py"
    path.write_text(CODE.replace('"""Doc."""', '"""Other."""') + "\n# a comment\n")
    assert source_version(function) == before
    path.write_text(CODE.replace("0.5", "0.6"))
    assert source_version(function) != before
    assert source_version(versioned_benchmark) == "7"


def test_parameters_are_checked_before_anything_runs(folder: Path) -> None:
    """A name that it does not take, one that it needs, and what it asks the runner for."""
    function = find_benchmark("some_benchmark.py:run", folder)
    check_params(function, ["size"], "r")
    check_params(function, ["size", "rate"], "r")
    with pytest.raises(MatrixError, match="no parameter 'siez'; did you mean 'size'"):
        check_params(function, ["siez"], "r")
    with pytest.raises(MatrixError, match="needs 'size'"):
        check_params(function, ["rate"], "r")
    check_params(lambda **anything: None, ["a", "b"], "r")


def test_full_params_are_those_of_the_call(folder: Path) -> None:
    """Defaults are parameters too; what the runner passes is not."""
    function = find_benchmark("some_benchmark.py:run", folder)
    assert full_params(function, {"size": 3}) == {"size": 3, "rate": 0.5}


def test_called_by_name_with_what_it_asks_for() -> None:
    """Only what is asked for is passed, to functions and to coroutine functions."""

    async def slow(size: int, seed: int) -> dict[str, Any]:
        return {"m": size + seed}

    offered = {"seed": 5, "log": object(), "folder": None}
    assert call_benchmark(slow, {"size": 1}, offered) == {"m": 6.0}
    assert call_benchmark(lambda size: size, {"size": 2}, offered) == {"result": 2.0}


def test_numbers_of_all_kinds_are_metrics() -> None:
    """NumPy scalars, decimals, booleans, NaN; nothing at all."""
    found = plain_metrics({"a": np.float32(0.5), "b": Decimal("1.5"), "c": True, "d": math.nan})
    assert (found["a"], found["b"], found["c"]) == (0.5, 1.5, 1.0)
    assert math.isnan(found["d"])
    assert plain_metrics(None) == {}


@pytest.mark.parametrize("bad", ["text", [1, 2], {"a": "1"}, {"a": None}, {3: 1.0}, {"": 1.0}])
def test_anything_else_is_an_error_that_says_what_is_wanted(bad: object) -> None:
    """A text, a list, a text as a number, no number, a name that is none."""
    with pytest.raises(TypeError, match="want"):
        plain_metrics(bad)


def test_objectives_that_are_no_numbers() -> None:
    """NaN and infinity are numeric failures; a missing one names what is near."""
    check_objectives({"a": 1.0}, ["a"])
    for value in (math.nan, math.inf):
        with pytest.raises(FloatingPointError, match="'a' is"):
            check_objectives({"a": value}, ["a"])
    with pytest.raises(LookupError, match=r"neither returned nor logged.*did you mean 'loss'"):
        check_objectives({"loss": 1.0}, ["los"])


@benchmark(matrix={"size": [1, 2]}, repeats=3)
def marked_benchmark(size: int) -> int:
    """
    A benchmark that knows its suite.
    """
    return size


@benchmark(version="7")
def versioned_benchmark() -> None:
    """
    A benchmark whose version is said.
    """


def test_marked_function_knows_its_suite() -> None:
    """The suite is named after the function, finds it again, and the function is as it was."""
    suite: Suite = getattr(marked_benchmark, SUITE_ATTRIBUTE)
    assert (suite.name, suite.repeats, suite.matrix) == ("marked_benchmark", 3, {"size": [1, 2]})
    assert suite.benchmark == f"{__name__}:marked_benchmark"
    assert marked_benchmark(4) == 4


def test_bad_marks_are_refused_at_once() -> None:
    """A field that no suite has; a function that no other process could find."""
    with pytest.raises(MatrixError, match="'repeat'; did you mean 'repeats'"):
        benchmark(repeat=3)(marked_benchmark)
    with pytest.raises(MatrixError, match="top of a module"):
        reference_of(lambda: None)
