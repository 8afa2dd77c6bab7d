"""
Entries of a JSON object, one after another, whatever becomes of the file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.errors import RecordError
from allele_mlflow.matrix import json_entries
from allele_mlflow.matrix.json_entries import EntryReader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path, text: str, **options: Any) -> tuple[list[tuple[str, Any]], str | None]:
    """
    All entries of a text, and the problem.
    """
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    reader = EntryReader(path, **options)
    return list(reader), reader.problem


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("entries") / "results.json"


@given(
    content=st.dictionaries(st.text(), VALUES, max_size=5),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 40),
)
def test_reads_what_json_reads(
    file: Path, content: dict[str, Any], indent: int | None, chunk: int
) -> None:
    """
    Cut into pieces anywhere, it gives what reading all at once gives.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_entries, "_CHUNK", chunk)
        found, problem = read(file, json.dumps(content, indent=indent))
    assert (found, problem) == (list(content.items()), None)


@pytest.mark.parametrize("cut", range(1, 40))
def test_cut_off_file_gives_what_stands_before(file: Path, cut: int) -> None:
    """
    A checkpoint whose writer was killed: whole entries come, and the report says that it broke.
    """
    text = '{"a": {"score": 1}, "b": {"score": 22}}'
    found, problem = read(file, text[:cut])
    assert found == [("a", {"score": 1}), ("b", {"score": 22})][: len(found)]
    # what is whole is only known by what follows
    assert len(found) == (cut > 17) + (cut > 37)
    assert (problem is None) == (cut == len(text))


def test_what_python_writes_is_understood(file: Path) -> None:
    """
    NaN and infinities, a byte-order mark, bytes that are no UTF-8, keys that stand twice.
    """
    file.write_bytes(b'\xef\xbb\xbf {"a": NaN, "b": -Infinity, "a": "\xff"} ')
    (_, nan), *others = EntryReader(file)
    assert math.isnan(nan)
    assert others == [("b", -math.inf), ("a", "\ufffd")]


@pytest.mark.parametrize("text", ["", "[]", "null", "results: 3", "\x00"])
def test_other_files_are_refused(file: Path, text: str) -> None:
    """
    The error says how the file begins and what is wanted.
    """
    with pytest.raises(RecordError, match=r"it begins with .*; want a JSON object of entries"):
        read(file, text)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """
    And so is a folder.
    """
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(RecordError, match="want a JSON object of entries"):
            list(EntryReader(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": nonsense}', "after entry 'a': no JSON"),
        ('{"a": 1 "b": 2}', "after entry 'a'|after the beginning"),
        ('{"a": 1, 3: 4}', "want a key, got 3"),
        ('{"a": 1, "b" 2}', "want :, got 2"),
        ('{"a": 1, "b": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a": 1, "b": ' + "9" * 5000 + "}", "no JSON"),
    ],
)
def test_damage_is_told_and_not_fatal(file: Path, text: str, reason: str) -> None:
    """
    What stands before the damage comes, and where it is is told.
    """
    found, problem = read(file, text)
    assert found == [("a", 1)]
    assert problem is not None
    assert any(piece in problem for piece in reason.split("|"))


def test_too_long_an_entry_ends_the_reading(file: Path) -> None:
    """
    Memory is bounded: an entry beyond the limit is not read.
    """
    text = json.dumps({"a": 1, "b": "x" * 500_000})
    found, problem = read(file, text, most_characters=100_000)
    assert found == [("a", 1)]
    assert problem is not None
    assert "longer than 100,000 characters" in problem
