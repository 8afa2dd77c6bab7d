"""
In what two versions of a model differ.
"""

from __future__ import annotations

from typing import Any

import msgspec

from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.pages.registry_rows import STAGE_NAMES
from allele_mlflow.dashboard.pages.version import find_version, profile_frame
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of
from allele_mlflow.registry.differences import Change, find_changes, number_of
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.journal import Stage, Standing
from allele_mlflow.registry.registry import Registry
from allele_mlflow.reports.figures import trait_profile

ONE, OTHER = "one", "other"
#: Versions that are offered, newest first.
MOST_CHOICES = 300


class ChangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that is not the same: as JSON, None where it is not there. `delta` is of numbers.
    """

    where: str
    before: str | None
    after: str | None
    delta: float | None

    @property
    def shown_before(self) -> str | None:
        """
        A number without what is noise, else the text.
        """
        return _shown(self.before)

    @property
    def shown_after(self) -> str | None:
        """
        The same of the other version.
        """
        return _shown(self.after)


class VersionDiff(msgspec.Struct, frozen=True, kw_only=True):
    """
    Two versions, `one` before `other`, and what measured them; `versions` are others to choose.
    """

    name: str
    one: int
    other: int
    versions: list[int]
    one_evidence: str | None
    other_evidence: str | None
    changes: Paged[ChangeRow]


COLUMNS = (
    Column("where", "Name", Kind.NAME),
    Column("shown_before", "One"),
    Column("shown_after", "Other"),
    Column("delta", "Difference", Kind.NUMBER),
)


def query(ask: Ask) -> VersionDiff:
    """
    The changes from one version to the other; by default from the holder of production, or the
    version before it, to the newest.

    Raises:
        NotFoundError: there is no such model.
        RefusalError: 404: there is no registry, or no such version.
        RegistryError: the journal or a file was changed, or the two have nothing in common.
        TrackingError: the registry does not answer.
    """
    registry, name = ask.source.registries.open(), ask.params["name"]
    one, other = _chosen(ask, registry)
    before, after = (registry.load_version(f"{name}/{number}") for number in (one, other))
    evidence = [registry.version(name, number).tags.get(EVIDENCE_TAG) for number in (one, other)]
    return VersionDiff(
        name=name,
        one=one,
        other=other,
        versions=sorted(registry.history(name).registrations(), reverse=True)[:MOST_CHOICES],
        one_evidence=evidence[0],
        other_evidence=evidence[1],
        changes=page_of([_row(change) for change in find_changes(before, after)], ask.view),
    )


def _chosen(ask: Ask, registry: Registry) -> tuple[int, int]:
    name = ask.params["name"]
    standing = registry.standing(name)
    if not standing.stages:
        raise RefusalError(404, f"{name!r} has no version yet")
    newest = max(standing.stages)
    other = _number(registry, standing, name, ask.view.options[OTHER], newest)
    holder = standing.holders.get(Stage.PRODUCTION)
    usual = holder if holder not in (None, other) else other - 1
    return _number(registry, standing, name, ask.view.options[ONE], usual or other), other


def _number(registry: Registry, standing: Standing, name: str, text: str, usual: int | None) -> int:
    if text in STAGE_NAMES:
        holder = standing.holders.get(Stage(text))
        if holder is None:
            raise RefusalError(404, f"{name}@{text}: nobody holds it")
        return holder
    return find_version(registry, {"name": name, "version": text or str(usual)})[1]


def _row(change: Change) -> ChangeRow:
    return ChangeRow(
        where=change.where, before=change.before, after=change.after, delta=change.delta
    )


def _shown(text: str | None) -> str | None:
    value = number_of(text)
    return text if value is None else f"{value:.6g}"


def _traits_figure(ask: Ask, is_dark: bool) -> Any:
    registry = ask.source.registries.open()
    one, other = _chosen(ask, registry)
    labels = {one: f"version {one}", other: f"version {other}"}
    frame = profile_frame(registry, ask.params["name"], labels)
    return trait_profile(frame, is_dark=is_dark) if len(frame) else None


def _columns(content: VersionDiff) -> tuple[Column, ...]:
    where, _, _, delta = COLUMNS
    before = Column("shown_before", f"Version {content.one}", can_sort=False)
    after = Column("shown_after", f"Version {content.other}", can_sort=False)
    return where, before, after, delta


PAGE = Page(
    name="version_diff",
    path="/registry/{name}/diff",
    summary="In what two versions of a model differ.",
    query=query,
    content=VersionDiff,
    template="version_diff.html",
    columns={"changes": _columns},
    knobs=Knobs(has_pages=True, options=(Option(ONE, "Version"), Option(OTHER, "And version"))),
    figures={"traits": _traits_figure},
    instances=lambda source: [],
)
