"""
One version of a model: what it is, where it comes from, what it has shown, and who used it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.dashboard.pages.models import model_instances
from allele_mlflow.dashboard.pages.page import PAIR_COLUMNS, Ask, Column, Kind, Page, Params
from allele_mlflow.dashboard.pages.registry_rows import (
    CHECK_COLUMNS,
    FITNESS_COLUMNS,
    VERSION_PATH,
    FitnessRow,
    fitness_rows,
)
from allele_mlflow.dashboard.pages.transitions import Transition, read_transitions
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Paged, page_of
from allele_mlflow.errors import NotFoundError, RegistryError, TrackingError
from allele_mlflow.numerals import whole_number
from allele_mlflow.registry.components import Component
from allele_mlflow.registry.contents import Kept, kind_of
from allele_mlflow.registry.differences import number_of, parts_of
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.fitness import FITNESS_PREFIX
from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.lineage import Lineage, read_lineage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.registry.uses import read_uses
from allele_mlflow.registry.version_files import sha256
from allele_mlflow.reports.figures import trait_profile


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """
    A trait, or a part of a document by its path. `value` is the number that it is; None for what is
    none.
    """

    where: str
    text: str
    value: float | None

    @property
    def shown(self) -> str:
        """
        The number without what is noise, else the text.
        """
        return self.text if self.value is None else f"{self.value:.6g}"


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A file of a component.
    """

    path: str
    size_bytes: int
    sha256: str


class Relative(msgspec.Struct, frozen=True, kw_only=True):
    """
    A parent by the id that the version names, or a child; None where it is not registered.
    """

    role: str
    name: str
    identity: str
    version: int | None


class UseRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run that used the version, how it named it, and since when.
    """

    run_id: str
    run_name: str
    reference: str
    time: str


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """
    A tag.
    """

    key: str
    value: str


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """
    A version. `problem`: why what it keeps cannot be shown; then `kind` is None and nothing is in
    `parts`. `uses_problem`: why it is not known who used it.
    """

    name: str
    version: int
    stage: Stage
    stages_held: list[Stage]
    kind: str | None
    problem: str | None
    content: str
    registered: str
    by: str
    reason: str
    run: str | None
    commit: str | None
    evidence: str | None
    fitness: list[FitnessRow]
    parts: list[Part]
    files: list[FileRow]
    relatives: list[Relative]
    transitions: list[Transition]
    uses: Paged[UseRow]
    uses_problem: str | None
    tags: list[Pair]


PART_COLUMNS = (Column("where", "Name", Kind.NAME), Column("shown", "Value"))
FILE_COLUMNS = (
    Column("path", "File", Kind.NAME),
    Column("size_bytes", "Size", Kind.BYTES),
    Column("sha256", "SHA-256", Kind.CODE),
)
RELATIVE_COLUMNS = (
    Column("role", "Is"),
    Column("version", "Version", Kind.CODE, path=VERSION_PATH),
    Column("identity", "By the id", Kind.NAME),
)
USE_COLUMNS = (
    Column("run_name", "Run", Kind.NAME, path="/runs/{run_id}"),
    Column("reference", "As", Kind.CODE),
    Column("time", "Since", Kind.TIME),
)


def query(ask: Ask) -> Version:
    """
    The version, every hash of what it keeps checked.

    Raises:
        NotFoundError: there is no such model.
        RefusalError: 404: there is no registry, or no such version.
        RegistryError: the journal is damaged.
        TrackingError: the registry does not answer.
    """
    registry = ask.source.registries.open()
    name, number = find_version(registry, ask.params)
    chain = registry.history(name)
    entry = chain.registrations()[number]
    standing = chain.standing()
    lineage = read_lineage(registry, f"{name}/{number}")
    tags = registry.version(name, number).tags
    kept, problem = _kept(registry, name, number)
    uses, uses_problem = _uses(ask, registry, name, number)
    return Version(
        name=name,
        version=number,
        stage=standing.stages[number],
        stages_held=[one for one, holder in standing.holders.items() if holder == number],
        kind=kind_of(kept) if kept is not None else None,
        problem=problem,
        content=entry.content,
        registered=entry.time,
        by=entry.by,
        reason=entry.reason,
        run=lineage.run,
        commit=lineage.commit,
        evidence=tags.get(EVIDENCE_TAG),
        fitness=fitness_rows(tags),
        parts=_parts(kept),
        files=_files(kept),
        relatives=_relatives(lineage),
        transitions=read_transitions(registry, name, number),
        uses=page_of(uses, ask.view),
        uses_problem=uses_problem,
        tags=_pairs(tags),
    )


def find_version(registry: Registry, params: Params) -> tuple[str, int]:
    """
    The model and version that a path names.

    Raises:
        RefusalError: 404: it names none.
        NotFoundError: there is no such model.
        RegistryError: the journal is damaged.
        TrackingError: the registry does not answer.
    """
    name, text = params["name"], params["version"]
    number = whole_number(text)
    if number is None or number not in registry.history(name).registrations():
        raise RefusalError(404, f"{name!r} has no version {text}")
    return name, number


def _kept(registry: Registry, name: str, number: int) -> tuple[Kept | None, str | None]:
    try:
        return registry.load_version(f"{name}/{number}"), None
    except (RegistryError, NotFoundError) as exc:
        return None, str(exc)


def _parts(kept: Kept | None) -> list[Part]:
    found = parts_of(kept) if kept is not None else {}
    if isinstance(kept, Component):
        found = {where: text for where, text in found.items() if where.startswith("$")}
    return [
        Part(where=where, text=text, value=number_of(text)) for where, text in sorted(found.items())
    ]


def _files(kept: Kept | None) -> list[FileRow]:
    files = kept.files if isinstance(kept, Component) else {}
    return [
        FileRow(path=path, size_bytes=len(data), sha256=sha256(data))
        for path, data in sorted(files.items())
    ]


def _relatives(lineage: Lineage) -> list[Relative]:
    name = lineage.name
    parents = [
        Relative(role="parent", name=name, identity=identity, version=version)
        for identity, versions in lineage.parents.items()
        for version in versions or (None,)
    ]
    children = [
        Relative(role="child", name=name, identity="", version=child) for child in lineage.children
    ]
    return parents + children


def _uses(ask: Ask, registry: Registry, name: str, number: int) -> tuple[list[UseRow], str | None]:
    try:
        with ask.source.reader() as reader:
            uses = read_uses(reader, registry.history(name), name, number)
    except (TrackingError, RefusalError) as exc:
        return [], str(exc)
    return [UseRow(**one._asdict()) for one in uses], None


def _pairs(tags: Mapping[str, str]) -> list[Pair]:
    return [
        Pair(key=key, value=value)
        for key, value in sorted(tags.items())
        if not key.startswith(FITNESS_PREFIX)
    ]


def _traits_figure(ask: Ask, is_dark: bool) -> Any:
    """
    The traits beside those of the holder of production, or of the version before.
    """
    registry = ask.source.registries.open()
    name, number = find_version(registry, ask.params)
    standing = registry.standing(name)
    holder = standing.holders.get(Stage.PRODUCTION)
    other = holder if holder not in (None, number) else number - 1
    labels = {number: f"version {number}", other: f"version {other}"}
    if holder in labels:
        labels[holder] += ", production"
    frame = profile_frame(registry, name, labels)
    return trait_profile(frame, is_dark=is_dark) if len(frame) else None


def profile_frame(registry: Registry, name: str, labels: Mapping[int, str]) -> pd.DataFrame:
    """
    The traits of versions by their labels, as `trait_profile` takes them; none of what is no
    genome, not there or changed.

    Raises:
        TrackingError: the registry does not answer.
    """
    rows: list[tuple[str, str, float]] = []
    for version, label in labels.items():
        with contextlib.suppress(RegistryError, NotFoundError):
            kept = registry.load_version(f"{name}/{version}")
            if isinstance(kept, Genome):
                rows += [(label, trait, value) for trait, value in kept.traits.items()]
    return pd.DataFrame(rows, columns=["genome", "trait", "value"])


def _instances(source: Source) -> Iterator[Params]:
    for model in model_instances(source):
        for version in source.registries.open().standing(model["name"]).stages:
            yield {**model, "version": str(version)}


PAGE = Page(
    name="version",
    path=VERSION_PATH,
    summary="A version: what it is, where it comes from, what it has shown, and who used it.",
    query=query,
    content=Version,
    template="version.html",
    columns={
        "fitness": FITNESS_COLUMNS,
        "parts": PART_COLUMNS,
        "files": FILE_COLUMNS,
        "relatives": RELATIVE_COLUMNS,
        "uses": USE_COLUMNS,
        "checks": CHECK_COLUMNS,
        "pairs": PAIR_COLUMNS,
    },
    knobs=Knobs(has_pages=True),
    figures={"traits": _traits_figure},
    instances=_instances,
)
