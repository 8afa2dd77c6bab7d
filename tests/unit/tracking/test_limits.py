"""
Keys: what the logger refuses before it reaches MLflow.
"""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.tracking import limits


@pytest.mark.parametrize(
    "key",
    [
        "loss",
        "fitness/best",
        "system/gpu_0_memory",
        "a b",
        " a",
        "a:b",
        "a-b_c.d",
        "x..y",
        ".hidden",
        "Größe",
        "適応度",
        "٣",
        "k" * 250,
    ],
)
def test_fine_keys_pass(key: str) -> None:
    """
    What MLflow takes and can keep as a file name is not refused.
    """
    assert limits.check_key(key) is None


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("", "empty"),
        ("k" * 251, "251 characters: want at most 250"),
        ("loss\n", r"'\n'"),
        ("a\tb", r"'\t'"),
        ("p99%", "'%'"),
        ("x[y=1]", "'['"),
        ("a\\b", r"'\\'"),
        ("half \ud800", r"'\ud800'"),
        ("a\u200bb", r"'\u200b'"),
        ("/a", "plain path"),
        ("//a", "plain path"),
        ("a/", "plain path"),
        ("a//b", "plain path"),
        ("./a", "plain path"),
        ("a/./b", "plain path"),
        ("a/../b", "plain path"),
        (".", "plain path"),
        ("..", "plain path"),
        ("../a", "plain path"),
        ("..a", "plain path"),
        (None, "NoneType"),
        (3, "int"),
        (b"loss", "bytes"),
    ],
)
def test_bad_keys_name_their_rule(key: object, rule: str) -> None:
    """
    A refused key gets one line that says what was got and what is wanted.
    """
    mistake = limits.check_key(key)
    assert mistake is not None
    assert rule in mistake
    assert "want" in mistake
    assert "\n" not in mistake


def test_a_bad_key_runs_no_code_of_the_callers() -> None:
    """
    A key that is no text is named by its type: its own repr could raise, or be endless.
    """

    class Angry:
        def __repr__(self) -> str:
            raise AssertionError("repr was called")

    assert limits.check_key(Angry()) == "key of type Angry: want text"


def test_a_long_key_makes_a_short_text() -> None:
    """
    A megabyte for a key does not become a megabyte in a log file.
    """
    mistake = limits.check_key("k" * 1_000_000)
    assert mistake is not None
    assert len(mistake) < 200


@given(st.text(max_size=300) | st.text("/.ab: -_\n", max_size=12))
def test_an_accepted_key_is_a_safe_relative_path(key: str) -> None:
    """
    No accepted key leaves the folder it is used in, or names another file than another key.
    """
    if limits.check_key(key) is None:
        assert 0 < len(key) <= limits.KEY_LENGTH
        assert posixpath.normpath(posixpath.join("/run", key)) == f"/run/{key}"
        assert not set(key) & set("\0\n\r\\")
