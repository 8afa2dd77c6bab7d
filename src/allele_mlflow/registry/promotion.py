"""
What a stage's gate says of a version: the facts out of the stores, held against the policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from allele_mlflow.registry.evidence import (
    EVIDENCE_TAG,
    evidence_document,
    evidence_tags,
    gather_facts,
    select_evidence,
)
from allele_mlflow.registry.gates import Check, Policy, check_gate, policy_of
from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.reader import open_reader


@dataclass(frozen=True)
class Judged:
    """
    What a gate says.

    Attributes:
        checks: Every rule, in order.
        holder: Who held the stage when it was asked: hand it to `Registry.promote`.
        evidence: The document to keep with the promotion.
    """

    checks: list[Check]
    holder: int | None
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
        for key, value in evidence_tags(select_evidence(settings, evidence)).items():
            registry.tag(name, version, key, value)
    content = registry.load_version(f"{name}/{version}").content
    told = registry.version(name, version).tags
    holder = registry.standing(name).holders.get(stage)
    theirs = registry.version(name, holder).tags if holder is not None else {}
    policy = policy_of(stage, policies)
    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        facts, document = gather_facts(
            reader,
            uri,
            policy,
            content=content,
            evidence=told.get(EVIDENCE_TAG),
            holder=holder,
            holder_evidence=theirs.get(EVIDENCE_TAG),
            prefix=settings.experiment_prefix,
        )
    chain = registry.history(name)
    checks = check_gate(
        policy,
        replace(facts, approvals=chain.approvals(version, stage), author=chain.author(version)),
    )
    return Judged(checks, holder, evidence_document(document, checks)[0])
