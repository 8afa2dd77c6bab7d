"""
What a selection means, and what a suite's file says of metrics.
"""

from __future__ import annotations

import pytest

from allele_mlflow.analysis.selection import facts_of_suite, parse_target
from allele_mlflow.errors import AnalysisError, MatrixError
from allele_mlflow.units import Direction


@pytest.mark.parametrize(
    ("text", "name", "back", "wanted"),
    [
        ("sorting", "sorting", 0, None),
        (" sorting~2 ", "sorting", 2, None),
        ("a/b c[x > 1]", "a/b c", 0, "x > 1"),
        ("sorting~1[name == 'a]b']", "sorting", 1, "name == 'a]b'"),
        ("run~x", "run~x", 0, None),
    ],
)
def test_parts_of_a_selection(text: str, name: str, back: int, wanted: str | None) -> None:
    """Name, how far back and expression are told apart, whatever is in the name."""
    target = parse_target(text)
    assert (target.name, target.back) == (name, back)
    assert (target.wanted.text if target.wanted else None) == wanted


@pytest.mark.parametrize("text", ["", "[x > 1]", "name[x > 1", "name[x >]"])
def test_no_selection(text: str) -> None:
    """What has none of the forms is refused, with what is wanted."""
    with pytest.raises((AnalysisError, MatrixError), match="want"):
        parse_target(text)


def test_facts_of_a_suite() -> None:
    """Directions, units, objectives, and every parameter that tells cells apart, in order."""
    facts = facts_of_suite(
        {
            "matrix": {"size": [1], "rate": [2]},
            "zip": [{"a": [1], "b": [2]}],
            "include": [{"size": 9, "extra": 1}],
            "metrics": {
                "score": {"direction": "higher", "unit": "points", "objective": True},
                "other": {},
            },
        }
    )
    assert facts.axes == ("size", "rate", "a", "b", "extra")
    assert facts.metrics["score"] == (Direction.HIGHER, "points", True)
    assert facts.metrics["other"] == (Direction.NONE, "", False)


def test_a_damaged_suite_file_is_passed_over() -> None:
    """What is not as it should be costs itself alone, never the comparison."""
    facts = facts_of_suite(
        {"matrix": 3, "zip": "x", "metrics": {"a": {"direction": "sideways"}, "b": 7}}
    )
    assert facts.axes == ()
    assert "a" not in facts.metrics
    assert facts.metrics["b"].direction is Direction.NONE
