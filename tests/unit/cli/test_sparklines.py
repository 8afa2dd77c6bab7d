"""
Curves in a line: tables of values and what they look like.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.cli.sparklines import ASCII, UNICODE, glyphs_for, sparkline

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("values", "width", "wanted"),
    [
        ([], 10, ""),
        ([1.0], 0, ""),
        ([1.0], -3, ""),
        ([1.0], 10, "▄"),
        ([5.0, 5.0, 5.0], 10, "▄▄▄"),
        ([0.1] * 7, 3, "▄▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 8, "█▁"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([NAN], 5, "?"),
        ([NAN, INF, -INF], 5, "?↑↓"),
        ([0, NAN, 7, INF], 8, "▁?█↑"),
        # of many in a character one that is no number is not seen, half of them are
        ([0, 0, NAN, 7, 7, 7], 2, "▁█"),
        ([0, NAN, 7, 7], 2, "?▄"),
        ([-1.7e308, 1.7e308], 2, "▁█"),
        ([1.7e308] * 4 + [0.0] * 4, 2, "█▁"),
        ([1.6e308, 1.7e308, 1.6e308, 1.7e308], 2, "▄▄"),
        ([0.0, 5e-324], 2, "▄▄"),
    ],
)
def test_curves(values: list[float], width: int, wanted: str) -> None:
    """Each row of the table looks as it says."""
    assert sparkline(values, width) == wanted


def test_curve_in_ascii() -> None:
    """Where the encoding lacks the blocks, other characters stand for them."""
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, NAN, INF, -INF], 20, ASCII) == "_.,-=+*#?^v"


@pytest.mark.parametrize(
    ("encoding", "wanted"),
    [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII), ("no-such-encoding", ASCII)],
)
def test_characters_fit_the_encoding(encoding: str, wanted: object) -> None:
    """Only what can be written is."""
    assert glyphs_for(encoding) is wanted


@given(st.lists(st.floats(), max_size=200), st.integers(0, 130))
def test_curve_of_anything(values: list[float], width: int) -> None:
    """Whatever the values, a curve is as long as it may be and of the known characters."""
    curve = sparkline(values, width)
    assert len(curve) == min(width, len(values))
    assert set(curve) <= set("".join(vars(UNICODE).values()))
