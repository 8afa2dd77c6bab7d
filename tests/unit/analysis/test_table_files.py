"""
Frames as files: page after page, whole or not at all.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from allele_mlflow.analysis.frames import shaped
from allele_mlflow.analysis.table_files import open_table

COLUMNS = {
    "name": "object",
    "value": "float64",
    "count": "Int64",
    "is_good": "boolean",
    "at": "datetime64[ms, UTC]",
    "told": "object",
}


def page(*rows: dict[str, object]) -> pd.DataFrame:
    """
    Rows with the columns.
    """
    return shaped(pd.DataFrame(list(rows)), COLUMNS)


FULL = {
    "name": 'a "quoted", name\n',
    "value": 0.1 + 0.2,
    "count": 2**53 + 1,
    "is_good": True,
    "at": pd.Timestamp("2026-01-02T03:04:05.678Z"),
    "told": {"why": [1, 2]},
}


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_pages_come_back(tmp_path: Path, form: str) -> None:
    """An empty page, a full one and one without values are one table, exact to the last bit."""
    path = tmp_path / f"t.{form}"
    with open_table(path, form) as table:
        for one in (page(), page(FULL), page({"name": "b"})):
            table.add(one)
    assert path.stat().st_mode & 0o077 == 0
    if form == "json":
        rows = json.loads(path.read_text())
        first, second = rows
        assert first["told"] == {"why": [1, 2]}
        assert first["at"] == "2026-01-02T03:04:05.678000+00:00"
        assert second["value"] is None
    else:
        found = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
        first, second = found.to_dict("records")
        assert json.loads(first["told"]) == {"why": [1, 2]}
        assert pd.Timestamp(first["at"]) == FULL["at"]
        assert math.isnan(second["value"])
    assert first["name"] == FULL["name"]
    assert first["value"] == FULL["value"]
    assert bool(first["is_good"]) is True
    assert second["name"] == "b"


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_nothing_is_a_file_too(tmp_path: Path, form: str) -> None:
    """A table without rows can be read, and knows its columns."""
    path = tmp_path / f"t.{form}"
    with open_table(path, form) as table:
        table.add(page())
    if form == "json":
        assert json.loads(path.read_text()) == []
    else:
        found = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
        assert list(found.columns) == list(COLUMNS)


def test_what_fails_leaves_the_file_of_before(tmp_path: Path) -> None:
    """An error in the middle leaves neither half a file nor a scratch one."""
    path = tmp_path / "t.csv"
    path.write_text("of before")
    with pytest.raises(AttributeError), open_table(path, "csv") as table:
        table.add(None)
    assert path.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [path]
