"""
Every model of the registry, and which version holds which stage.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page, Params
from allele_mlflow.dashboard.pages.registry_rows import STAGES
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Paged, page_of, sorted_rows
from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.registry import Listed


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A model, and the versions that hold its stages. `problem`: why they are not known.
    """

    name: str
    kind: str
    versions: int | None
    development: int | None
    candidate: int | None
    staging: int | None
    production: int | None
    problem: str | None


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """
    The models of the registry at an address. `problem`: why there is none to look into.
    """

    registry: str
    models: Paged[ModelRow]
    problem: str | None


COLUMNS = (
    Column("name", "Model", Kind.NAME, path="/registry/{name}"),
    Column("kind", "Keeps"),
    Column("versions", "Versions", Kind.COUNT),
    *(
        Column(
            stage.value,
            stage.value.capitalize(),
            Kind.COUNT,
            path=f"/registry/{{name}}/versions/{{{stage.value}}}",
        )
        for stage in reversed(STAGES)
    ),
    Column("problem", "Problem", Kind.SENTENCE, can_sort=False),
)


def query(ask: Ask) -> Models:
    """
    Every model that has a journal, by name.

    Raises:
        TrackingError: the registry does not answer.
    """
    registries = ask.source.registries
    problem = registries.problem()
    if problem is not None:
        return Models(registry=registries.address, models=page_of([], ask.view), problem=problem)
    wanted = ask.view.find.casefold()
    rows = [_row(one) for one in registries.open().overview() if wanted in one.name.casefold()]
    return Models(
        registry=registries.address,
        models=page_of(sorted_rows(rows, ask.view, getattr), ask.view),
        problem=None,
    )


def model_instances(source: Source) -> Iterator[Params]:
    """
    The models that can be shown, as values of a path.
    """
    if source.registries.problem() is None:
        for one in source.registries.open().overview():
            if one.standing is not None:
                yield {"name": one.name}


def _row(one: Listed) -> ModelRow:
    standing = one.standing
    holders = standing.holders if standing is not None else {}
    return ModelRow(
        name=one.name,
        kind=one.kind,
        versions=len(standing.stages) if standing is not None else None,
        development=holders.get(Stage.DEVELOPMENT),
        candidate=holders.get(Stage.CANDIDATE),
        staging=holders.get(Stage.STAGING),
        production=holders.get(Stage.PRODUCTION),
        problem=one.problem,
    )


def _columns(content: Models) -> tuple[Column, ...]:
    """
    Without the problems where there is none.
    """
    has_problem = any(row.problem is not None for row in content.models.rows)
    return COLUMNS if has_problem else COLUMNS[:-1]


PAGE = Page(
    name="models",
    path="/registry",
    title="Registry",
    summary="Every model of the registry, and which version holds which stage.",
    query=query,
    content=Models,
    template="models.html",
    columns={"models": _columns},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS if column.can_sort),
        default_sort="name",
        has_find=True,
        has_pages=True,
    ),
)
