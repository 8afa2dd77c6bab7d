"""
What the doctor says of a SQLite file, which it never makes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from allele_mlflow.cli.checks import database_file
from allele_mlflow.cli.checks.database_file import check_database_file
from allele_mlflow.cli.checks.findings import Level


def make_database(path: Path) -> Path:
    """
    A small SQLite file.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
    return path


def test_missing_database_is_not_made(tmp_path: Path) -> None:
    """
    A database that is not there stays away, and its folders too; that the first run can make it
    is said.
    """
    (found,) = check_database_file(tmp_path / "new" / "folder" / "mlflow.db")
    assert found.level is Level.NOTE
    assert f"the first run will make it; {tmp_path} can be written" in found.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_folder_that_cannot_be_written(
    tmp_path: Path, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without a writable folder SQLite has no journal: a problem, with or without the file.
    """
    path = tmp_path / "mlflow.db"
    if is_there:
        make_database(path)
    monkeypatch.setattr(database_file, "can_write", lambda folder: False)
    (found,) = check_database_file(path)
    assert (found.level, found.exit_code) == (Level.PROBLEM, 6)
    assert f"chmod u+w {tmp_path}" in found.remedy


def test_healthy_database_is_good(tmp_path: Path) -> None:
    """
    A database that can be written and locked is good, and is left as it was.
    """
    path = make_database(tmp_path / "mlflow.db")
    before = path.read_bytes()
    (found,) = check_database_file(path)
    assert found.level is Level.GOOD
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["mlflow.db"]


def test_locked_database_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another program's lasting transaction is named, and the program can be found.
    """
    monkeypatch.setattr(database_file, "LOCK_PATIENCE_S", 0.05)
    path = make_database(tmp_path / "mlflow.db")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        (found,) = check_database_file(path)
    assert (found.level, found.exit_code) == (Level.PROBLEM, 6)
    assert "is locked" in found.text
    assert f"fuser {path}" in found.remedy


@pytest.mark.parametrize(
    ("content", "text", "level"),
    [
        (b"", "is empty: the first run will make it", Level.NOTE),
        (b"<html>no database</html>", "is no SQLite database", Level.PROBLEM),
        (b"SQLite format 3\x00" + b"\xff" * 500, "mlflow.db: ", Level.PROBLEM),
    ],
)
def test_file_that_is_no_database(tmp_path: Path, content: bytes, text: str, level: Level) -> None:
    """
    What is in the place of the database is told apart, and nothing of it is changed.
    """
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    (found,) = check_database_file(path)
    assert found.level is level
    assert text in found.text
    assert path.read_bytes() == content
