"""
Expressions: what they compute, and what they cannot be made to do.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.errors import MatrixError
from allele_mlflow.expressions import parse_expression

PARAMS: dict[str, Any] = {"a": 3, "b": 0.5, "name": "adam", "sizes": [1, 2], "on": True}


@pytest.mark.parametrize(
    "text",
    [
        "a == 3",
        "a > 2 and b < 1",
        "a > 5 or name == 'adam'",
        "not (a == 4)",
        "1 < a <= 3",
        "name in ['adam', 'sgd']",
        "name not in ('x', 'y')",
        "a * b == 1.5",
        "a ** 2 - 1 == 8",
        "-a < 0",
        "a % 2 == 1 and a // 2 == 1",
        "max(a, 7) == 7 and min(a, 7) == 3 and abs(-a) == 3",
        "len(name) == 4 and len(sizes) == 2",
        "round(b * 3) == 2",
        "'x' + name == 'xadam'",
        "(a if on else 0) == 3",
        "on is True",
    ],
)
def test_what_holds_holds(text: str) -> None:
    """Each is true of the same parameters, as Python says; its negation is not."""
    assert parse_expression(text).holds(PARAMS)
    assert not parse_expression(f"not ({text})").holds(PARAMS)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "name.upper() == 'ADAM'",
        "sizes[0] == 1",
        "(lambda: 1)()",
        "[x for x in sizes]",
        "open('f')",
        "max(a, key=b)",
        "f'{a}'",
        "a := 3",
        "{'a': 1}",
        "a @ b",
        "*a",
        "",
        "a ==",
        "a" * 3000,
        "(" * 500 + "a" + ")" * 500,
    ],
)
def test_what_is_not_allowed_is_refused(text: str) -> None:
    """No attribute, index, call of anything else, comprehension: a suite file is data."""
    with pytest.raises(MatrixError):
        parse_expression(text)


@pytest.mark.parametrize("text", ["a > name", "9 ** 9999 > 1", "name * 3 == 'x'", "a / 0 > 1"])
def test_what_cannot_be_computed_says_so(text: str) -> None:
    """A number above a text, a huge power, a repeated text, a division by zero."""
    with pytest.raises(MatrixError, match="expression"):
        parse_expression(text).holds(PARAMS)


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    """Whatever the text: an expression, or MatrixError."""
    try:
        parse_expression(text).holds(PARAMS)
    except MatrixError:
        pass
