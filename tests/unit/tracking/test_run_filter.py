"""
Filters of MLflow's language.
"""

from __future__ import annotations

import pytest

from allele_mlflow.tracking.run_filter import filter_of_tags


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        ("evolution", "= 'evolution'"),
        ("", "= ''"),
        ("100 %; naïve ☃", "= '100 %; naïve ☃'"),
        ("it's", '= "it\'s"'),
        ('say "x"', "= 'say \"x\"'"),
        ("both ' and \"", "!= ''"),
        ("ends in \\", "!= ''"),
        ("two\nlines", "!= ''"),
    ],
)
def test_value_is_quoted_or_asked_for_by_less(value: str, condition: str) -> None:
    """A value stands between quotes that are not in it; one that cannot, is asked for by less."""
    assert filter_of_tags({"allele.suite": value}) == f"tags.`allele.suite` {condition}"


def test_any_value_is_asked_for() -> None:
    """Where the tag only has to be there, with any text."""
    assert filter_of_tags({"allele.suite": None}) == "tags.`allele.suite` != ''"


def test_several_tags_are_joined() -> None:
    """All of them must be there; no tags are no condition."""
    assert filter_of_tags({"a": "b", "c": "d"}) == "tags.`a` = 'b' AND tags.`c` = 'd'"
    assert filter_of_tags({}) == ""
