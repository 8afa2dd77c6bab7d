"""
From suites to cells and their order.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.errors import MatrixError
from allele_mlflow.matrix.cells import Cell, block_order, make_cells, repeat_seed, select_cells
from allele_mlflow.matrix.suite import Suite


def suite(**fields: Any) -> Suite:
    """
    A suite with these fields.
    """
    return Suite(**{"name": "s", "benchmark": "m:f"} | fields)


def cells_of(**fields: Any) -> list[Cell]:
    """
    The cells of a suite with these fields.
    """
    return make_cells(suite(**fields), version="1")


def points(cells: list[Cell]) -> list[dict[str, Any]]:
    """
    Their parameters.
    """
    return [dict(cell.params) for cell in cells]


def test_product_in_the_order_of_the_file() -> None:
    """The last axis varies fastest; constants are in every cell, and not in its name."""
    cells = cells_of(matrix={"a": [1, 2], "b": ["x", "y"]}, params={"c": 0})
    assert points(cells) == [{"c": 0, "a": a, "b": b} for a in (1, 2) for b in ("x", "y")]
    assert cells[0].name == "a=1 b=x"


def test_zip_groups_go_together_and_multiply() -> None:
    """A group of two lists is one axis."""
    cells = cells_of(matrix={"a": [1, 2]}, zip=[{"x": [10, 20], "y": ["p", "q"]}])
    assert points(cells) == [
        {"a": a, "x": x, "y": y} for a in (1, 2) for x, y in ((10, "p"), (20, "q"))
    ]


def test_exclude_constraints_include() -> None:
    """Excludes and constraints take from the product; includes stand beside it as they are."""
    cells = cells_of(
        matrix={"a": [1, 2, 3], "b": [1, 2]},
        exclude=[{"a": 1, "b": 2}],
        constraints=["a * b < 6"],
        include=[{"a": 9, "b": 9, "extra": True}],
    )
    assert points(cells) == [
        {"a": 1, "b": 1},
        {"a": 2, "b": 1},
        {"a": 2, "b": 2},
        {"a": 3, "b": 1},
        {"a": 9, "b": 9, "extra": True},
    ]


def test_without_any_axis_there_is_one_cell() -> None:
    """A suite without a matrix is one benchmark, repeated; its cell goes by the suite's name."""
    (cell,) = cells_of(params={"a": 1})
    assert (dict(cell.params), cell.name) == ({"a": 1}, "s")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"matrix": {"a": [1]}, "exclude": [{"a": 2}]}, "no such cell"),
        ({"matrix": {"a": [1]}, "constraints": ["a > 1"]}, "no cell"),
        ({"matrix": {"a": [1]}, "include": [{"a": 1}]}, "twice"),
        ({"matrix": {"a": ["x"]}, "constraints": ["a > 1"]}, "not supported"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    """An exclude of nothing, constraints that leave nothing, a cell twice, a text over a number."""
    with pytest.raises(MatrixError, match=words):
        cells_of(**fields)


def test_key_is_of_the_content_and_not_of_the_place() -> None:
    """The same cell has the same key in a larger matrix and in another order of axes."""
    small = cells_of(matrix={"a": [1], "b": [2]})[0]
    large = {c.key for c in cells_of(matrix={"b": [3, 2], "a": [0, 1]})}
    assert small.key in large


def test_key_changes_with_what_results_depend_on() -> None:
    """Version, seed, parameters, types of values, the benchmark: each makes another cell."""
    base = suite(matrix={"a": [1]})
    keys = {make_cells(base, version="1")[0].key, make_cells(base, version="2")[0].key}
    for fields in ({"seed": 1}, {"matrix": {"a": [2]}}, {"benchmark": "m:g"}, {"params": {"b": 1}}):
        keys.add(make_cells(suite(**{"matrix": {"a": [1]}} | fields), version="1")[0].key)
    assert len(keys) == 6
    more = make_cells(suite(matrix={"a": [1]}, repeats=9, timeout_s=3), version="1")[0]
    assert more.key in keys, "how often and how long is no matter of the cell"


def test_selection_by_expression() -> None:
    """`--only` keeps the cells of which it is true; those without the parameter are left out."""
    cells = cells_of(matrix={"a": [1, 2, 3]}, include=[{"b": 5}])
    assert points(select_cells(cells, "a >= 2")) == [{"a": 2}, {"a": 3}]
    assert points(select_cells(cells, "b == 5")) == [{"b": 5}]
    with pytest.raises(MatrixError, match="'c' is no parameter"):
        select_cells(cells, "c == 1")
    with pytest.raises(MatrixError, match="none of 4 cells"):
        select_cells(cells, "a > 7")


@given(st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_blocks_are_complete_and_shuffled_by_seed(seed: int, repeat: int) -> None:
    """Every block holds every cell once; a part of the cells keeps its order in the whole."""
    cells = cells_of(matrix={"a": list(range(12))})
    order = block_order(cells, repeat=repeat, seed=seed)
    assert sorted(cell.key for cell in order) == sorted(cell.key for cell in cells)
    part = block_order(cells[::3], repeat=repeat, seed=seed)
    assert part == [cell for cell in order if cell in part]


def test_orders_differ_between_repeats() -> None:
    """Two blocks of twelve cells are in different orders, so drift meets each cell differently."""
    cells = cells_of(matrix={"a": list(range(12))})
    orders = {tuple(c.key for c in block_order(cells, repeat=r, seed=0)) for r in range(5)}
    assert len(orders) == 5


def test_seeds_of_repeats_differ_and_fit() -> None:
    """Each repeat has its own seed, below 2**32, the same on every machine."""
    seeds = [repeat_seed(0, repeat) for repeat in range(1000)]
    assert len(set(seeds)) == 1000
    assert max(seeds) < 2**32
    assert repeat_seed(0, 0) == 2893166218
