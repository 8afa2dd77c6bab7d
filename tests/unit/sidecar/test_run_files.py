"""
What the sidecar keeps of errors: the first ones whole, all of them counted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.records import ErrorLogged
from allele_mlflow.sidecar import run_files
from allele_mlflow.sidecar.run_files import RunFiles


def error(number: int, fingerprint: str) -> ErrorLogged:
    """
    An error that can be told from others.
    """
    return ErrorLogged(
        timestamp_ns=number,
        category="data",
        error_type="KeyError",
        message=str(number),
        traceback="...",
        fingerprint=fingerprint,
    )


def test_errors_are_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A week of errors is a list of bounded length, with the number of all and of each kind.
    """
    monkeypatch.setattr(run_files, "MAX_ERRORS", 3)
    files = RunFiles(tmp_path)
    for number in range(5):
        files.note_error(error(number, "ab"[number % 2]))
    found = RunFiles(tmp_path).errors()
    document = found.document()
    assert [line["message"] for line in document["errors"]] == ["0", "1", "2"]
    assert (document["count"], document["by_fingerprint"]) == (5, {"a": 3, "b": 2})
    assert found.last == error(4, "a")


def test_error_that_was_read_twice_is_one(tmp_path: Path) -> None:
    """
    A killed sidecar repeats lines: each error counts once.
    """
    files = RunFiles(tmp_path)
    for number in (1, 2, 1):
        files.note_error(error(number, "a"))
    assert files.errors().count == 2
