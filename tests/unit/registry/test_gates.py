"""
Gates: each rule passes and fails where it should, and says by how much.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.errors import RegistryError
from allele_mlflow.registry.gates import (
    USUAL,
    Compared,
    Facts,
    Policy,
    check_gate,
    policy_of,
    read_policies,
)
from allele_mlflow.registry.journal import Stage

ROOT = Path(__file__).resolve().parents[3]


def said(policy: Policy, facts: Facts) -> list[tuple[bool, str]]:
    """
    Whether each rule passed, and its words.
    """
    return [(one.is_passed, one.said) for one in check_gate(policy, facts)]


def verdict(word: str) -> Compared:
    """
    On one metric.
    """
    return Compared("a=1", "score", word, "p = 0.5")


def test_few_runs_are_refused_by_how_many() -> None:
    """Too few runs, and none at all, are told apart."""
    policy = Policy(min_runs=8)
    assert said(policy, Facts(3)) == [(False, "3 finished runs: want 8")]
    assert said(policy, Facts(8)) == [(True, "8 finished runs: want 8")]
    assert said(policy, Facts(None)) == [(False, "no evidence was named: want 8")]


@pytest.mark.parametrize(
    ("rule", "passing"),
    [
        ("better", {"better"}),
        ("not worse", {"better", "equivalent"}),
        ("not shown worse", {"better", "equivalent", "inconclusive", "different"}),
    ],
)
def test_against_the_holder(rule: str, passing: set[str]) -> None:
    """Each rule lets through its verdicts and no other; inconclusive is no proof of not worse."""
    policy = Policy(against_holder=rule)  # type: ignore[arg-type]
    for word in ("better", "equivalent", "inconclusive", "different", "worse"):
        (check,) = check_gate(policy, Facts(9, holder=1, compared=[verdict(word)]))
        assert check.is_passed == (word in passing)
        assert check.said == f"score of a=1: {word} (p = 0.5)"


def test_one_bad_cell_refuses() -> None:
    """Better in one cell does not make up for worse in another."""
    facts = Facts(9, holder=1, compared=[verdict("better"), verdict("worse")])
    assert [one.is_passed for one in check_gate(Policy(against_holder="better"), facts)] == [
        True,
        False,
    ]


def test_a_holder_without_evidence_is_no_free_pass() -> None:
    """Only where nobody holds the stage is there nothing to compare with."""
    policy = Policy(against_holder="not worse")
    assert said(policy, Facts(9)) == [(True, "nobody holds the stage")]
    for compared in (None, ()):
        ((is_passed, _),) = said(policy, Facts(9, holder=2, compared=compared))
        assert not is_passed


def test_the_other_rules() -> None:
    """Age, verification, alerts and approvals by others than the author."""
    policy = Policy(max_age_days=30, is_verified=True, max_alerts=0, approvals=1)
    bad = Facts(4, age_days=31, unverified=1, open_alerts=2, approvals=("ann",), author="ann")
    assert [one.is_passed for one in check_gate(policy, bad)] == [False] * 4
    good = Facts(4, age_days=29, approvals=("ann", "bob"), author="ann")
    assert [one.is_passed for one in check_gate(policy, good)] == [True] * 4
    assert "1 approvals by others (bob): want 1" in [one.said for one in check_gate(policy, good)]


def test_policies_of_a_file(tmp_path: Path) -> None:
    """The shipped file can be read; a stage that a file does not name asks for nothing; a misspelt
    rule and a stage that is none are refused.
    """
    shipped = read_policies(ROOT / "config" / "gates.toml")
    assert shipped[Stage.PRODUCTION].against_holder == "not worse"
    assert policy_of(Stage.CANDIDATE, shipped) == Policy()
    assert policy_of(Stage.PRODUCTION, None) is USUAL[Stage.PRODUCTION]
    for text in ("[production]\nmin_run = 3\n", "[nowhere]\nmin_runs = 3\n", "x = ["):
        path = tmp_path / "gates.toml"
        path.write_text(text)
        with pytest.raises(RegistryError, match=r"gates.toml"):
            read_policies(path)
