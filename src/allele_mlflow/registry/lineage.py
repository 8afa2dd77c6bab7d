"""
Where a version comes from and what became of it: parents, children, run, commit, uses, entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from allele_mlflow.registry.contents import CONTENT_TAG, GENOME_ID_TAG, PARENTS_TAG
from allele_mlflow.registry.journal import Entry
from allele_mlflow.registry.registry import Registry
from allele_mlflow.tracking.registry_client import StoredVersion

#: Of a version: the run that it comes from, of a suite the run of its execution; and their commit.
RUN_TAG, COMMIT_TAG = "allele.run", "allele.commit"


@dataclass(frozen=True)
class Lineage:
    """
    A version among others of its model.

    Attributes:
        name: The model.
        version: Of it.
        content: Its identity.
        parents: By the ids that it names, the versions that have them; none where it is not
            registered.
        children: Versions that name it as a parent.
        run: That it comes from, None where nobody said so.
        commit: Of that run, likewise.
        entries: Of the journal, about it.
    """

    name: str
    version: int
    content: str
    parents: Mapping[str, tuple[int, ...]]
    children: tuple[int, ...]
    run: str | None
    commit: str | None
    entries: tuple[Entry, ...]


def read_lineage(registry: Registry, where: str) -> Lineage:
    """
    The lineage of a version.

    Args:
        registry: That has it.
        where: `name@stage` or `name/version`.
    Raises:
        NotFoundError: there is no such version.
        TrackingError: the store does not answer.

    Cost: reads the tags of all versions of the model.
    """
    name, number = registry.find(where)
    own = registry.version(name, number)
    others = registry.versions(name)
    entries = registry.history(name).entries
    return Lineage(
        name,
        number,
        own.tags.get(CONTENT_TAG, ""),
        {parent: _versions_with(parent, others) for parent in parents_of(own)},
        tuple(one.number for one in others if _ids_of(own) & set(parents_of(one))),
        own.tags.get(RUN_TAG),
        own.tags.get(COMMIT_TAG),
        tuple(entry for entry in entries if entry.version == number),
    )


def parents_of(version: StoredVersion) -> list[str]:
    """
    The ids that a version names as its parents': contents, or ids of genomes.
    """
    try:
        return msgspec.json.decode(version.tags.get(PARENTS_TAG, "[]"), type=list[str])
    except msgspec.MsgspecError:
        return []  # anybody may write tags


def _ids_of(version: StoredVersion) -> set[str]:
    told = (version.tags.get(tag) for tag in (CONTENT_TAG, GENOME_ID_TAG))
    return {one for one in told if one is not None}


def _versions_with(parent: str, versions: Iterable[StoredVersion]) -> tuple[int, ...]:
    return tuple(one.number for one in versions if parent in _ids_of(one))
