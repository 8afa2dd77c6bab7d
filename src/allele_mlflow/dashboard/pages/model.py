"""
One model of the registry: its stages, now or at a time, its versions, and what was done to it.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.clock import read_iso
from allele_mlflow.dashboard.pages.models import model_instances
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.pages.registry_rows import (
    ENTRY_COLUMNS,
    HASH_SHOWN,
    STAGES,
    VERSION_PATH,
    EntryRow,
    FitnessRow,
    entry_rows,
    fitness_rows,
)
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.journal import EXCLUSIVE, Chain, Entry, Stage, Standing
from allele_mlflow.reports.figures import version_fitness
from allele_mlflow.tracking.registry_client import StoredVersion

AT, METRIC = "at", "metric"
#: Entries of the journal that are shown here; all are on a page of their own.
MOST_ENTRIES = 8


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A stage: which version holds it, since when and why; and which one did before, where it can be
    given back.
    """

    stage: Stage
    name: str
    version: int | None
    since: str | None
    by: str | None
    reason: str | None
    before: int | None


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A version. What follows `runs` is of its registration; `evidence` the runs that measured it.
    """

    name: str
    version: int
    stage: Stage
    mean: float | None
    low: float | None
    high: float | None
    runs: int | None
    registered: str
    by: str
    reason: str
    evidence: str | None
    content: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """
    A model, as it stood `at` a time or, where that is None, as it stands. `metric` is that of the
    fitness in `versions`. `entries` are the newest.
    """

    name: str
    kind: str
    head: str
    at: str | None
    entry_count: int
    metric: str
    metrics: list[str]
    stages: list[StageRow]
    versions: Paged[VersionRow]
    entries: list[EntryRow]


STAGE_COLUMNS = (
    Column("stage", "Stage", Kind.STATUS),
    Column("version", "Version", Kind.CODE, path=VERSION_PATH),
    Column("since", "Since", Kind.TIME),
    Column("by", "By", Kind.NAME),
    Column("reason", "Why", Kind.SENTENCE),
    Column("before", "Before it", Kind.CODE),
)
COLUMNS = (
    Column("version", "Version", Kind.CODE, path=VERSION_PATH),
    Column("stage", "Stage", Kind.STATUS),
    Column("mean", "Fitness", Kind.NUMBER),
    Column("low", "95 % from", Kind.NUMBER, can_sort=False),
    Column("high", "to", Kind.NUMBER, can_sort=False),
    Column("runs", "Runs", Kind.COUNT),
    Column("registered", "Registered", Kind.TIME),
    Column("by", "By", Kind.NAME),
    Column("reason", "Why", Kind.SENTENCE, can_sort=False),
    Column("evidence", "Evidence", Kind.SENTENCE, can_sort=False),
    Column("content", "Content", Kind.WORDS, can_sort=False),
)


def query(ask: Ask) -> Model:
    """
    The model; of its versions the newest first where the view names no order.

    Raises:
        NotFoundError: there is no such model.
        RegistryError: its journal is damaged.
        RefusalError: 400: the time is none; 404: there is no registry.
        TrackingError: the registry does not answer.
    """
    name, at = ask.params["name"], ask.view.options[AT]
    registry = ask.source.registries.open()
    chain = _until(registry.history(name), at)
    standing = chain.standing()
    stored = {one.number: one for one in registry.versions(name)}
    fitness = {number: fitness_rows(one.tags) for number, one in stored.items()}
    metrics = list(dict.fromkeys(row.metric for rows in fitness.values() for row in rows))
    metric = ask.view.options[METRIC] or next(iter(metrics), "")
    rows = [
        _version_row(entry, standing, stored.get(number), _of(metric, fitness.get(number, [])))
        for number, entry in chain.registrations().items()
    ]
    return Model(
        name=name,
        kind=next(one.kind for one in registry.models() if one.name == name),
        head=chain.head,
        at=at or None,
        entry_count=len(chain.entries),
        metric=metric,
        metrics=metrics,
        stages=[_stage_row(name, stage, standing, chain) for stage in reversed(STAGES)],
        versions=page_of(sorted_rows(rows, ask.view, getattr), ask.view),
        entries=entry_rows(chain.entries[-MOST_ENTRIES:], chain.hashes[-MOST_ENTRIES:]),
    )


def _until(chain: Chain, at: str) -> Chain:
    """
    The chain as it was at a time: up to the first entry that says it is later.
    """
    if not at:
        return chain
    try:
        moment = read_iso(at)
    except ValueError as exc:
        raise RefusalError(400, f"at={exc}") from exc
    entries = tuple(takewhile(lambda one: read_iso(one.time) <= moment, chain.entries))
    return Chain(entries, chain.hashes[: len(entries)])


def _of(metric: str, rows: list[FitnessRow]) -> FitnessRow | None:
    return next((row for row in rows if row.metric == metric), None)


def _version_row(
    entry: Entry, standing: Standing, stored: StoredVersion | None, fitness: FitnessRow | None
) -> VersionRow:
    return VersionRow(
        name=entry.model,
        version=entry.version,
        stage=standing.stages[entry.version],
        mean=fitness.mean if fitness is not None else None,
        low=fitness.low if fitness is not None else None,
        high=fitness.high if fitness is not None else None,
        runs=fitness.runs if fitness is not None else None,
        registered=entry.time,
        by=entry.by,
        reason=entry.reason,
        evidence=stored.tags.get(EVIDENCE_TAG) if stored is not None else None,
        content=entry.content[:HASH_SHOWN],
    )


def _stage_row(name: str, stage: Stage, standing: Standing, chain: Chain) -> StageRow:
    holder = standing.holders.get(stage)
    since = _since(chain, stage, holder)
    before = standing.before.get(stage, ()) if stage in EXCLUSIVE else ()
    return StageRow(
        stage=stage,
        name=name,
        version=holder,
        since=since.time if since is not None else None,
        by=since.by if since is not None else None,
        reason=since.reason if since is not None else None,
        before=before[-1] if before else None,
    )


def _since(chain: Chain, stage: Stage, holder: int | None) -> Entry | None:
    """
    The entry by which a version came to hold a stage.
    """
    for entry in reversed(chain.entries):
        if entry.action != "approve" and (entry.stage, entry.version) == (stage, holder):
            return entry
    return None


def _fitness_figure(ask: Ask, is_dark: bool) -> Any:
    found = query(ask)
    rows = [row for row in found.versions.rows if row.mean is not None]
    if not rows:
        return None
    frame = pd.DataFrame(
        {
            "version": [row.version for row in rows],
            "stage": [row.stage.value for row in rows],
            **{
                name: pd.Series([getattr(row, name) for row in rows], dtype="float64")
                for name in ("mean", "low", "high", "runs")
            },
        }
    )
    return version_fitness(frame, metric=found.metric, is_dark=is_dark)


PAGE = Page(
    name="model",
    path="/registry/{name}",
    summary="A model: its stages, its versions with their fitness, and what was done to it.",
    query=query,
    content=Model,
    template="model.html",
    columns={"stages": STAGE_COLUMNS, "versions": COLUMNS, "entries": ENTRY_COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS if column.can_sort),
        default_sort="-version",
        has_pages=True,
        options=(Option(AT, "At a time"), Option(METRIC, "Fitness by")),
    ),
    figures={"fitness": _fitness_figure},
    instances=model_instances,
)
