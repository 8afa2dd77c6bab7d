"""
What a version has to show before it may hold a stage: a policy, and what became of each rule. Pure.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.registry.journal import Stage

#: Verdicts of a comparison that pass a rule.
_PASSING = {
    "better": frozenset({"better"}),
    "not worse": frozenset({"better", "equivalent"}),
    "not shown worse": frozenset({"better", "equivalent", "inconclusive", "different"}),
}


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The rules of a stage.

    Attributes:
        min_runs: Fewest finished runs of evidence.
        metrics: On which the version is compared with the holder; by default the objectives.
        against_holder: What the comparison has to say of each of them: better; not worse (better or
            equivalent); not shown worse (inconclusive passes too).
        equivalence_ratio: A difference up to this part of the holder's makes none in practice.
        max_age_days: Of the evidence; None for any.
        is_verified: Whether every run has to say that the fitness was earned again by the genome as
            it was kept (`allele.genome.best.verified`).
        max_alerts: Open critical alerts of the runs, at most.
        approvals: How many others than the author have to approve.
    """

    min_runs: Annotated[int, Meta(ge=0)] = 0
    metrics: list[str] = []
    against_holder: Literal["better", "not worse", "not shown worse"] | None = None
    equivalence_ratio: Annotated[float, Meta(ge=0)] = 0.02
    max_age_days: Annotated[float, Meta(gt=0)] | None = None
    is_verified: bool = False
    max_alerts: Annotated[int, Meta(ge=0)] | None = None
    approvals: Annotated[int, Meta(ge=0)] = 0


#: Where no file says otherwise.
USUAL: dict[Stage, Policy] = {
    Stage.STAGING: Policy(min_runs=3, max_alerts=0),
    Stage.PRODUCTION: Policy(
        min_runs=6, against_holder="not worse", max_age_days=90.0, max_alerts=0
    ),
}


@dataclass(frozen=True)
class Compared:
    """
    The verdict on one metric of one cell, against the holder.
    """

    cell: str
    metric: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """
    What is known of a version that is to be promoted.

    Attributes:
        runs: Finished runs of evidence; None where none was named.
        age_days: Of the oldest of them.
        unverified: Of them, those that do not say that the fitness was earned again.
        open_alerts: Critical ones.
        holder: Who holds the stage.
        compared: With the holder; None where the holder has no evidence.
        approvals: By whom.
        author: Who registered the version.
    """

    runs: int | None
    age_days: float = 0.0
    unverified: int = 0
    open_alerts: int = 0
    holder: int | None = None
    compared: Sequence[Compared] | None = ()
    approvals: Sequence[str] = ()
    author: str | None = None


@dataclass(frozen=True)
class Check:
    """
    One rule: whether it passed, and by how much in words.
    """

    rule: str
    is_passed: bool
    said: str


def check_gate(policy: Policy, facts: Facts) -> list[Check]:
    """
    Every rule of a policy, in its order.
    """
    return list(_checks(policy, facts))


def read_policies(path: Path) -> dict[Stage, Policy]:
    """
    The policies in a TOML file, a table a stage.

    Raises:
        RegistryError: it cannot be read, or a rule is none.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        return {Stage(name): msgspec.convert(table, Policy) for name, table in tables.items()}
    except (OSError, UnicodeDecodeError, ValueError, msgspec.ValidationError) as exc:
        raise RegistryError(f"{path}: {exc}", kind=ErrorKind.BAD_REGISTRY) from exc


def policy_of(stage: Stage, policies: Mapping[Stage, Policy] | None) -> Policy:
    """
    What is asked for a stage: of a file only that, else what is usual.
    """
    return (USUAL if policies is None else policies).get(stage, Policy())


def _checks(policy: Policy, facts: Facts) -> Iterator[Check]:
    runs = facts.runs or 0
    if policy.min_runs:
        said = "no evidence was named" if facts.runs is None else f"{runs} finished runs"
        yield Check("min_runs", runs >= policy.min_runs, f"{said}: want {policy.min_runs}")
    if policy.against_holder is not None:
        yield from _against_holder(policy, facts)
    if policy.max_age_days is not None and facts.runs:
        yield Check(
            "max_age_days",
            facts.age_days <= policy.max_age_days,
            f"the oldest run is {facts.age_days:.1f} days old: want at most "
            f"{policy.max_age_days:g}",
        )
    if policy.is_verified:
        yield Check(
            "is_verified",
            bool(runs) and not facts.unverified,
            f"{facts.unverified} of {runs} runs do not say that the fitness was earned again",
        )
    if policy.max_alerts is not None:
        yield Check(
            "max_alerts",
            facts.open_alerts <= policy.max_alerts,
            f"{facts.open_alerts} critical alerts are open: want at most {policy.max_alerts}",
        )
    if policy.approvals:
        others = [one for one in facts.approvals if one != facts.author]
        names = f" ({', '.join(others)})" if others else ""
        yield Check(
            "approvals",
            len(others) >= policy.approvals,
            f"{len(others)} approvals by others{names}: want {policy.approvals}",
        )


def _against_holder(policy: Policy, facts: Facts) -> Iterator[Check]:
    wanted = policy.against_holder
    assert wanted is not None
    rule = f"against_holder ({wanted})"
    if facts.holder is None:
        yield Check(rule, True, "nobody holds the stage")
    elif facts.compared is None:
        yield Check(rule, False, f"version {facts.holder}, the holder, has no evidence to compare")
    elif not facts.compared:
        yield Check(rule, False, "nothing could be compared with the holder")
    for one in facts.compared or () if facts.holder is not None else ():
        where = f"{one.metric} of {one.cell}" if one.cell else one.metric
        yield Check(rule, one.verdict in _PASSING[wanted], f"{where}: {one.verdict} ({one.reason})")
