"""
Before something is taken away: a stage that is given back, a version that is archived.
"""

from __future__ import annotations

import msgspec

from allele_mlflow.dashboard.pages.gate import STAGE, Verdict, ask_gate
from allele_mlflow.dashboard.pages.page import Ask, Page
from allele_mlflow.dashboard.pages.registry_rows import CHECK_COLUMNS, STAGE_NAMES
from allele_mlflow.dashboard.pages.version import find_version
from allele_mlflow.dashboard.views import Knobs, Option
from allele_mlflow.registry.journal import Stage


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """
    A stage, who holds it, and the version that held it before and would come `back`; `verdict` is
    what the gate would say of that one: a rollback does not ask it.
    """

    name: str
    stage: Stage
    holder: int | None
    back: int | None
    verdict: Verdict | None


class Archiving(msgspec.Struct, frozen=True, kw_only=True):
    """
    A version, where it stands, and whether nobody would hold that stage without it.
    """

    name: str
    version: int
    stands: Stage
    is_holder: bool


def query_rollback(ask: Ask) -> Rollback:
    """
    What a rollback of the view's stage would do.

    Raises:
        NotFoundError: there is no such model.
        RefusalError: 404: there is no registry.
        RegistryError: the journal is damaged.
        TrackingError: a store does not answer.
    """
    registry, name = ask.source.registries.open(), ask.params["name"]
    stage = Stage(ask.view.options[STAGE])
    standing = registry.standing(name)
    before = standing.before.get(stage, ())
    back = before[-1] if before else None
    return Rollback(
        name=name,
        stage=stage,
        holder=standing.holders.get(stage),
        back=back,
        verdict=ask_gate(ask.source, registry, name, back, stage) if back is not None else None,
    )


def query_archiving(ask: Ask) -> Archiving:
    """
    What archiving a version would do.

    Raises:
        NotFoundError: there is no such model.
        RefusalError: 404: there is no registry, or no such version.
        RegistryError: the journal is damaged.
        TrackingError: the registry does not answer.
    """
    registry = ask.source.registries.open()
    name, number = find_version(registry, ask.params)
    standing = registry.standing(name)
    stands = standing.stages[number]
    return Archiving(
        name=name,
        version=number,
        stands=stands,
        is_holder=standing.holders.get(stands) == number,
    )


ROLLBACK = Page(
    name="rollback",
    path="/registry/{name}/rollback",
    summary="What giving a stage back to who held it before would do.",
    query=query_rollback,
    content=Rollback,
    template="rollback.html",
    columns={"checks": CHECK_COLUMNS},
    knobs=Knobs(options=(Option(STAGE, "Stage", STAGE_NAMES, Stage.PRODUCTION.value),)),
    instances=lambda source: [],
)
ARCHIVING = Page(
    name="archiving",
    path="/registry/{name}/versions/{version}/archive",
    summary="What taking a version out of use would do.",
    query=query_archiving,
    content=Archiving,
    template="archive.html",
    instances=lambda source: [],
)
