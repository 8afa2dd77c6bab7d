"""
Executors by their names.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from allele_mlflow.errors import MatrixError
from allele_mlflow.matrix.executors import UNKNOWN_WIDTH, open_executor

FACTORIES = """
from concurrent.futures import ThreadPoolExecutor

class Odd:
    def submit(self, *arguments):
        raise RuntimeError

def pool():
    return ThreadPoolExecutor(3)

def odd():
    return Odd()

def nothing():
    return 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A folder with factories.
    """
    (tmp_path / "factories_of_tests.py").write_text(FACTORIES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "factories_of_tests", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "width", "is_local"),
    [
        ("inline", 1, True),
        ("process:3", 3, True),
        ("factories_of_tests:pool", 3, False),
        ("factories_of_tests:odd", UNKNOWN_WIDTH, False),
    ],
)
def test_name_tells_how_many_at_once(folder: Path, name: str, width: int, is_local: bool) -> None:
    """Own executors know their width, others are asked, and what cannot tell gets a usual one."""
    executor = open_executor(name, folder)
    assert (executor.width, executor.is_local) == (width, is_local)
    if name != "factories_of_tests:odd":
        executor.close(waits=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("proces", "want inline, process:N"),
        ("process:0", "N from 1 to 10,000"),
        ("process:two", "N from 1 to 10,000"),
        ("dask:", "dask:local"),
        ("no_such_module:pool", "No module named"),
        ("factories_of_tests:nil", "nil"),
        ("factories_of_tests:nothing", "returned int: want a concurrent.futures.Executor"),
    ],
)
def test_what_is_none_says_what_is_wanted(folder: Path, name: str, words: str) -> None:
    """A misspelt kind, a width that is none, a factory that is not there or gives another thing."""
    with pytest.raises(MatrixError, match=words):
        open_executor(name, folder)


def test_what_waits_is_cancelled_at_the_end(folder: Path) -> None:
    """`close` gives up what has not begun; nothing is left running."""
    executor = open_executor("factories_of_tests:pool", folder)
    assert isinstance(executor._executor, ThreadPoolExecutor)
    executor.close(waits=True)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(b"", name="late")
