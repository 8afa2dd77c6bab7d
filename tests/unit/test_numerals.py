"""
Numbers in texts that anybody wrote.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.numerals import whole_number


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0), ("007", 7), (str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("9" * 5000, None)]
    + [("1764347846000000000", 1_764_347_846_000_000_000)]  # a time in nanoseconds
    + [(text, None) for text in ("", "-1", "+1", "1_000", "1.0", " 1", "²", "٣", "1\n", "one")],
)
def test_a_number_is_ascii_digits(text: str, wanted: int | None) -> None:
    """Also what `str.isdigit` takes and `int` refuses, and what `int` takes and no database."""
    assert whole_number(text) == wanted


def test_what_is_missing_is_no_number() -> None:
    """A tag that is not there."""
    assert whole_number(None) is None


@given(st.integers(0, 2**63 - 1))
def test_what_was_written_is_read(number: int) -> None:
    """Up to the largest."""
    assert whole_number(str(number)) == number


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    """And no exception."""
    found = whole_number(text)
    assert found is None or int(text) == found
