"""
Rules of the house that no linter knows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_MODULE_LINES = 500
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py", "manager.py"}
#: Calls that wait for a time, and not for something to happen.
SLEEPS = {"sleep", "pause_s"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def long_sleeps(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        wait = node.args[0]
        if called not in SLEEPS or not isinstance(wait, ast.Constant):
            continue
        if isinstance(wait.value, int | float) and wait.value >= 1:
            yield node.lineno


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_states_a_promise(path: Path) -> None:
    """
    Each test function has a docstring that says what it promises.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = [
        f"{name_of(path)}:{function.lineno} {function.name}"
        for function in functions_of(tree)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_no_test_sleeps_long(path: Path) -> None:
    """
    Tests wait for something to happen, with a deadline; none sleeps a second or more.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [f"{name_of(path)}:{line}" for line in long_sleeps(tree)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    """
    Each module begins with a docstring; only sidecar/__init__.py is empty, on purpose.
    """
    text = path.read_text(encoding="utf-8")
    is_empty_room = name_of(path).endswith("sidecar/__init__.py") and not text.strip()
    assert is_empty_room or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_long_module_says_why(path: Path) -> None:
    """
    A module over 500 lines says at its top why it was not split.
    """
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) <= LONGEST_MODULE_LINES or "500 lines" in docstring


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_name_says_something(path: Path) -> None:
    """
    No module is called after nothing in particular.
    """
    assert path.name not in VAGUE_NAMES


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("time.sleep(1)", [1]),
        ("sleep(0.5)\nawait anyio.sleep(2.5)", [2]),
        ("pause_s(3)", [1]),
        ("sleep(delay)\nsleep()\nother(5)", []),
    ],
)
def test_long_sleeps_are_seen(text: str, lines: list[int]) -> None:
    """
    The rule against sleeping finds the usual ways to write it.
    """
    assert list(long_sleeps(ast.parse(text))) == lines
