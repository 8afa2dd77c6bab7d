"""
In what two versions differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.errors import RegistryError
from allele_mlflow.registry.components import read_component
from allele_mlflow.registry.differences import Change, find_changes
from allele_mlflow.registry.genomes import read_genome

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.text(max_size=3), JSON, max_size=4)


def prompt(document: dict[str, Any], **files: Path) -> Any:
    """
    A component.
    """
    return read_component(document, kind="prompt", files=files)


def test_parts_are_told_by_their_path(tmp_path: Path) -> None:
    """A number with its difference, what is new, what is gone, a file by its size and hash."""
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").write_text("two.")
    before = prompt({"a": {"b": [1, 2.5]}, "gone": "x"}, file=tmp_path / "one")
    after = prompt({"a": {"b": [1, 3.0]}, "new key": None}, file=tmp_path / "two")
    found = find_changes(before, after)
    assert found[:2] == [
        Change("$.a.b[1]", "2.5", "3.0", 0.5),
        Change("$.gone", '"x"', None, None),
    ]
    assert found[2] == Change('$["new key"]', None, "null", None)
    assert (found[3].where, found[3].delta) == ("files/file", None)
    assert (str(found[3].before)[:8], str(found[3].after)[:8]) == ("3 bytes,", "4 bytes,")


def test_of_genomes_only_what_acts_counts() -> None:
    """Traits by name, own fields by path; ids and scores are no difference."""
    one = read_genome({"genome_id": "a", "traits": {"empathy": 0.5}, "fitness_score": 0.1})
    other = read_genome({"genome_id": "b", "traits": {"empathy": 0.75, "humour": 1}, "depth": 2})
    assert find_changes(one, other) == [
        Change("$.depth", None, "2", None),
        Change("empathy", "0.5", "0.75", 0.25),
        Change("humour", None, "1", None),
    ]
    with pytest.raises(RegistryError, match="nothing in common"):
        find_changes(one, prompt({"a": 1}))


@given(DOCUMENTS, DOCUMENTS)
def test_what_differs_is_told(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two documents have no change exactly where they are the same JSON."""
    is_same = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    assert (find_changes(prompt(one), prompt(other)) == []) == is_same
