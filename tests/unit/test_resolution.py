"""
Rules of `SAMPLING`: what is read, what is refused, and which window a reading lies in.
"""

from __future__ import annotations

import pytest

from allele_mlflow.resolution import Rule, find_rule, parse_rules, text_of


def test_rules_are_read_in_order() -> None:
    """Rules stand between `;` or line ends; a key may have a colon; the first that fits is it."""
    rules = parse_rules(" a:b/*: every 10 ;*/loss:  mean  per 5 s\n*: max per 100 steps;")
    assert rules == (
        Rule("a:b/*", "one", 10, True, "a:b/*: every 10"),
        Rule("*/loss", "mean", 5000, False, "*/loss: mean per 5 s"),
        Rule("*", "max", 100, True, "*: max per 100 steps"),
    )
    assert [find_rule(rules, key) for key in ("a:b/loss", "x/loss", "X")] == list(rules)
    assert find_rule(rules[:2], "X") is None
    assert parse_rules("") == ()
    assert parse_rules(text_of({"a": "every 2", "b": "min per 1 step"}))[1].choice == "min"


@pytest.mark.parametrize(
    ("words", "size_ms"),
    [
        ("one per 500 ms", 500),
        ("one per 0.25s", 250),
        ("one per 2 min", 120_000),
        ("min per 1 h", 3_600_000),
    ],
)
def test_windows_of_time(words: str, size_ms: int) -> None:
    """A window of time has a size in whole milliseconds."""
    (rule,) = parse_rules(f"k: {words}")
    assert (rule.size, rule.is_by_step) == (size_ms, False)
    assert [rule.window_of(7, t) for t in (0, size_ms - 1, size_ms)] == [0, 0, 1]


def test_windows_of_steps() -> None:
    """Steps below zero have windows of their own."""
    (rule,) = parse_rules("k: every 10")
    assert [rule.window_of(step, 0) for step in (-11, -1, 0, 9, 10)] == [-2, -1, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("every 10", "want `glob: every 10`"),
        (": every 10", "want `glob: every 10`"),
        ("a: every 10; loss: ever 10", "got 'loss: ever 10'"),
        ("a: every 0", "1 or more, got 'a: every 0'"),
        ("a: one per 0.5 ms", "whole milliseconds, 1 or more, got 'a: one per 0.5 ms'"),
        ("a: mean per 2.5 steps", "whole steps, 1 or more, got 'a: mean per 2.5 steps'"),
        ("a: mean per 1.2.3 s", "want a number before 's', got 'a: mean per 1.2.3 s'"),
        ("a: median per 5 s", "got 'a: median per 5 s'"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, told: str) -> None:
    """The rule is named, and what is wanted."""
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        parse_rules(text)
