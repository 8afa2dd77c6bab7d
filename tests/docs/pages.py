"""
The pages of the documentation, taken apart: fenced blocks, tables, links, code spans.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
#: What a stranger reads; each is run by test_snippets.
READ_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL_PAGES = [*READ_PAGES, *sorted(set(ROOT.glob("*.md")) - set(READ_PAGES))]

_FENCE = re.compile(r"^( *)```(.*)$")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_CODE_LINK = re.compile(r"\[`(\w+)`\]\(([^)\s]+\.py)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#{1,6} +(.*)$")


class Block(NamedTuple):
    """
    One fenced block. `line` is that of its first line of text; `info` what follows the language.
    """

    language: str
    info: str
    text: str
    line: int


def name_of(page: Path) -> str:
    """
    The page's path in the repository.
    """
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """
    The fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is not closed.
    """
    blocks: list[Block] = []
    opened: tuple[str, int] | None = None
    text: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence is not None:
            opened, text = (fence[2].strip(), number + 1), []
        elif opened is not None and fence is not None and not fence[2].strip():
            language, _, info = opened[0].partition(" ")
            blocks.append(Block(language, info, "\n".join(text) + "\n", opened[1]))
            opened = None
        elif opened is not None:
            text.append(line)
    if opened is not None:
        raise ValueError(f"{page}:{opened[1]}: a block is not closed")
    return blocks


def prose_of(page: Path) -> str:
    """
    The page without its fenced blocks.
    """
    return "\n".join(_prose_lines(page))


def links_of(page: Path) -> list[str]:
    """
    Where the page's links lead to.
    """
    return _LINK.findall(prose_of(page))


def links_to_code(text: str) -> list[tuple[str, str]]:
    """
    Name and file of each link whose text is the name of something in a Python file.
    """
    return _CODE_LINK.findall(text)


def code_spans(text: str) -> list[str]:
    """
    What stands between single backticks.
    """
    return _CODE.findall(text)


def anchors_of(page: Path) -> set[str]:
    """
    The names by which a link reaches a heading, as GitHub makes them.
    """
    anchors = set()
    for line in _prose_lines(page):
        heading = _HEADING.match(line)
        if heading is not None:
            text = re.sub(r"[^\w\- ]", "", heading[1].lower())
            anchors.add(text.strip().replace(" ", "-"))
    return anchors


def table_rows(page: Path) -> Iterator[list[str]]:
    """
    The rows of all tables of a page, cell by cell, without their heads.
    """
    lines = [*_prose_lines(page), ""]
    for line, following in pairwise(lines):
        if line.startswith("|") and not _is_rule(line) and not _is_rule(following):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            yield [cell.strip().replace("\\|", "|") for cell in cells]


def functions_in(path: Path) -> set[str]:
    """
    Names of a module's functions and classes, and of what it assigns a name to.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(one.id for one in node.targets if isinstance(one, ast.Name))
    return found


def _is_rule(line: str) -> bool:
    return line.startswith("|") and set(line) <= set("|-: ")


def _prose_lines(page: Path) -> list[str]:
    lines, is_inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            is_inside = not is_inside
        elif not is_inside:
            lines.append(line)
    return lines
