"""
What the gate of a stage would say now of a version: asked, and nothing moved.
"""

from __future__ import annotations

import msgspec

from allele_mlflow.dashboard.pages.page import Ask, Page
from allele_mlflow.dashboard.pages.registry_rows import (
    CHECK_COLUMNS,
    STAGE_NAMES,
    CheckRow,
    check_rows,
)
from allele_mlflow.dashboard.pages.version import find_version
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Option
from allele_mlflow.errors import AnalysisError, NotFoundError, RegistryError
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.promotion import judge
from allele_mlflow.registry.registry import Registry

STAGE = "stage"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a gate says of a version. `problem`: why it cannot say; then it lets nobody through.
    """

    is_passed: bool
    checks: list[CheckRow]
    problem: str | None = None


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """
    A version before the gate of a stage. `stands` is where it stands, `holder` who holds the stage.
    """

    name: str
    version: int
    stage: Stage
    stands: Stage
    holder: int | None
    author: str | None
    approvals: list[str]
    evidence: str | None
    verdict: Verdict


def query(ask: Ask) -> Gate:
    """
    The verdict of the view's stage, each rule with by how much.

    Raises:
        NotFoundError: there is no such model.
        RefusalError: 404: there is no registry, or no such version.
        RegistryError: the journal is damaged.
        TrackingError: a store does not answer.
    """
    registry = ask.source.registries.open()
    name, number = find_version(registry, ask.params)
    stage = Stage(ask.view.options[STAGE])
    chain = registry.history(name)
    standing = chain.standing()
    return Gate(
        name=name,
        version=number,
        stage=stage,
        stands=standing.stages[number],
        holder=standing.holders.get(stage),
        author=chain.author(number),
        approvals=list(chain.approvals(number, stage)),
        evidence=registry.version(name, number).tags.get(EVIDENCE_TAG),
        verdict=ask_gate(ask.source, registry, name, number, stage),
    )


def ask_gate(source: Source, registry: Registry, name: str, version: int, stage: Stage) -> Verdict:
    """
    What the gate of a stage says of a version now.

    Raises:
        TrackingError: a store does not answer.
    """
    policies = source.registries.policies
    try:
        judged = judge(registry, source.settings, name, version, stage, policies=policies)
    except (AnalysisError, NotFoundError, RegistryError) as exc:
        return Verdict(is_passed=False, checks=[], problem=str(exc))
    return Verdict(is_passed=judged.is_passed, checks=check_rows(judged.checks))


PAGE = Page(
    name="gate",
    path="/registry/{name}/versions/{version}/gate",
    summary="What the gate of a stage would say now of a version.",
    query=query,
    content=Gate,
    template="gate.html",
    columns={"checks": CHECK_COLUMNS},
    knobs=Knobs(options=(Option(STAGE, "Stage", STAGE_NAMES, Stage.PRODUCTION.value),)),
    instances=lambda source: [],
)
