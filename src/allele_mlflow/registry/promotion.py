"""
What a stage's gate says of a version: the facts out of the stores, held against the policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from allele_mlflow.registry.evidence_document import (
    EVIDENCE_TAG,
    evidence_document,
    gather_nothing,
)
from allele_mlflow.registry.gates import Check, Facts, Policy, check_gate, policy_of
from allele_mlflow.registry.journal import NOBODY, Stage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.reader import open_reader


@dataclass(frozen=True)
class Judged:
    """
    What a gate says.

    Attributes:
        checks: Every rule, in order.
        holder: Who held the stage when it was asked, or `NOBODY`: hand it to `Registry.promote`.
        evidence: The document to keep with the promotion.
    """

    checks: list[Check]
    holder: int
    evidence: bytes

    @property
    def is_passed(self) -> bool:
        """
        Whether every rule passed.
        """
        return all(one.is_passed for one in self.checks)


def judge(
    registry: Registry,
    settings: Settings,
    name: str,
    version: int,
    stage: Stage,
    *,
    policies: Mapping[Stage, Policy] | None = None,
    evidence: str | None = None,
) -> Judged:
    """
    Hold a version against the gate of a stage; every hash of it is checked first.

        judged = judge(registry, settings, "persona", 3, Stage.PRODUCTION)
        if judged.is_passed:
            registry.promote(
                "persona", 3, Stage.PRODUCTION, reason="better",
                holder=judged.holder, evidence=judged.evidence,
            )

    Args:
        registry: The registry.
        settings: Of the store of runs.
        name: The model's.
        version: Of it.
        stage: Where it is to go.
        policies: By stage, as of `read_policies`; None for what is usual.
        evidence: A selection of runs, pinned to the version from now on.
    Raises:
        NotFoundError: there is no such version.
        RegistryError: a file or the journal was changed.
        AnalysisError: the evidence means nothing.
        TrackingError: a store does not answer.
    """
    if evidence is not None:
        pin_evidence(registry, settings, name, version, evidence)
    content = registry.load_version(f"{name}/{version}").content
    pinned = registry.version(name, version).tags.get(EVIDENCE_TAG)
    holder = registry.standing(name).holders.get(stage)
    theirs = registry.version(name, holder).tags if holder is not None else {}
    policy = policy_of(stage, policies)
    if pinned is None:
        facts, document = gather_nothing(holder)
    else:
        facts, document = _gather(
            settings, policy, content, (pinned, theirs.get(EVIDENCE_TAG)), holder
        )
    chain = registry.history(name)
    checks = check_gate(
        policy,
        replace(facts, approvals=chain.approvals(version, stage), author=chain.author(version)),
    )
    data, _ = evidence_document(document, checks)
    return Judged(checks, NOBODY if holder is None else holder, data)


def pin_evidence(
    registry: Registry, settings: Settings, name: str, version: int, evidence: str
) -> None:
    """
    Have a version's tags say which runs measured it, and what they say of its fitness.

    Raises:
        AnalysisError: the selection means nothing.
        TrackingError: a store does not answer.
    """
    from allele_mlflow.registry.evidence import evidence_tags, select_evidence

    for key, value in evidence_tags(select_evidence(settings, evidence)).items():
        registry.tag(name, version, key, value)


def _gather(
    settings: Settings,
    policy: Policy,
    content: str,
    evidence: tuple[str, str | None],
    holder: int | None,
) -> tuple[Facts, dict[str, Any]]:
    # not above: pandas and SciPy are for who has evidence
    from allele_mlflow.registry.evidence import gather_facts

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        return gather_facts(
            reader,
            uri,
            policy,
            content=content,
            evidence=evidence[0],
            holder=holder,
            holder_evidence=evidence[1],
            prefix=settings.experiment_prefix,
        )
