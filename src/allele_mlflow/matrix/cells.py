"""
From a suite to its cells, and from cells to trials in the order in which they are run. Pure.

A cell is a point of the matrix; its key is the hash of what its results depend on, so it is the
same cell wherever it stands. A trial is one repeat of one cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from allele_mlflow.expressions import Expression, parse_expression
from allele_mlflow.matrix.suite import Suite, Value, bad_suite, nearest
from allele_mlflow.records import content_hash

#: Seeds fit into what NumPy's older generator takes.
SEED_BITS = 32
#: Longest name of a run that is still readable in a table.
NAME_LENGTH = 200


class Cell(NamedTuple):
    """
    One point of the matrix.

    Attributes:
        params: What the benchmark is called with, constants included.
        name: The parameters that vary, for people.
        key: Hex digits of what its results depend on.
        params_hash: Of the parameters alone: the cell, whatever the code's version.
    """

    params: Mapping[str, Value]
    name: str
    key: str
    params_hash: str


class Trial(NamedTuple):
    """
    One repeat of one cell: `order` is its place among all, `block` the repeat's number.
    """

    cell: Cell
    repeat: int
    order: int

    @property
    def identity(self) -> tuple[str, int]:
        """
        Whatever attempt, the same trial.
        """
        return self.cell.key, self.repeat


def make_cells(suite: Suite, *, version: str) -> list[Cell]:
    """
    The suite's cells, in the order of the file.

    Args:
        suite: Its matrix, zip, exclude, constraints, include.
        version: Of the benchmark's source, see `benchmark.source_version`.
    Raises:
        MatrixError: an exclude or a constraint that cannot be meant, a cell that stands there twice
            or none at all.
    """
    points = list(_product(suite))
    points = _without_excluded(suite, points)
    for number, text in enumerate(suite.constraints):
        expression = parse_expression(text)
        points = [point for point in points if _fulfils(suite, number, expression, point)]
    varying = _varying(suite)
    cells = [_cell(suite, point, varying, version) for point in [*points, *suite.include]]
    if not cells:
        raise bad_suite((), "the suite has no cell: its excludes and constraints leave none")
    seen: set[str] = set()
    for cell in cells:
        if cell.key in seen:
            raise bad_suite(
                ("include",), f"the cell {cell.name or '(no parameters)'} is there twice"
            )
        seen.add(cell.key)
    return cells


def _product(suite: Suite) -> Iterable[dict[str, Value]]:
    axes: list[list[dict[str, Value]]] = [
        [{name: value} for value in axis] for name, axis in suite.matrix.items()
    ]
    axes += [
        [dict(zip(group, values, strict=True)) for values in zip(*group.values(), strict=True)]
        for group in suite.zip
    ]
    if not axes and suite.include:
        return  # its cells are those alone
    for parts in product(*axes):
        point: dict[str, Value] = {}
        for part in parts:
            point |= part
        yield point


def _without_excluded(suite: Suite, points: list[dict[str, Value]]) -> list[dict[str, Value]]:
    for number, entry in enumerate(suite.exclude):
        kept = [point for point in points if any(point[k] != v for k, v in entry.items())]
        if len(kept) == len(points):
            told = ", ".join(f"{name}={value!r}" for name, value in entry.items())
            raise bad_suite(("exclude", number), f"exclude {told}: there is no such cell")
        points = kept
    return points


def _fulfils(suite: Suite, number: int, expression: Expression, point: dict[str, Value]) -> bool:
    try:
        return expression.holds({**suite.params, **point})
    except ValueError as exc:
        raise bad_suite(("constraints", number), str(exc)) from exc


def _varying(suite: Suite) -> list[str]:
    names = [name for name, axis in suite.matrix.items() if len(axis) > 1 or suite.include]
    names += [name for group in suite.zip for name in group]
    for entry in suite.include:
        names += [name for name in entry if name not in names]
    return names


def _cell(suite: Suite, point: Mapping[str, Value], varying: Sequence[str], version: str) -> Cell:
    params = {**suite.params, **point}
    told = [f"{name}={_shown(params[name])}" for name in varying if name in point]
    name = " ".join(told) or suite.name
    key = content_hash({"params": params, "version": version, "settings": _that_matter(suite)})
    if len(name) > NAME_LENGTH:
        name = f"{name[: NAME_LENGTH - 12]}... {key[:8]}"
    return Cell(params, name, key[:32], content_hash(params)[:32])


def _that_matter(suite: Suite) -> dict[str, Any]:
    """
    What of a suite's settings a cell's results depend on.
    """
    return {"benchmark": suite.benchmark, "seed": suite.seed, "warm_ups": suite.warm_ups}


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}" if _is_float(value) else str(value)


def _is_float(value: Value) -> bool:
    return isinstance(value, float) and float(f"{value:g}") == value


def select_cells(cells: Sequence[Cell], text: str) -> list[Cell]:
    """
    The cells of which an expression is true; one that lacks a parameter of it is left out.

    Raises:
        MatrixError: no expression, a parameter that no cell has, or no cell is left.
    """
    expression = parse_expression(text)
    known = sorted({name for cell in cells for name in cell.params})
    for name in sorted(expression.names - set(known)):
        raise bad_suite((), f"--only {text!r}: {name!r} is no parameter{nearest(name, known)}")
    found = [
        cell
        for cell in cells
        if expression.names <= set(cell.params) and expression.holds(cell.params)
    ]
    if not found:
        raise bad_suite((), f"--only {text!r} is true of none of {len(cells)} cells")
    return found


def block_order(cells: Iterable[Cell], *, repeat: int, seed: int) -> list[Cell]:
    """
    All cells once, shuffled by seed and repeat: one randomised complete block.

    By the cells' own keys, so that a part of them keeps the order that it has in the whole.
    """
    return sorted(cells, key=lambda cell: _digest(f"{seed}:{repeat}:{cell.key}"))


def repeat_seed(seed: int, repeat: int) -> int:
    """
    The seed of a repeat: the same for all cells, so that they meet the same chance and can be
    compared pair by pair. Below 2**32.
    """
    return int.from_bytes(_digest(f"{seed}:{repeat}")[: SEED_BITS // 8])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
