"""
What was done to a version, and the evidence that was kept of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from allele_mlflow.dashboard.pages.registry_rows import (
    CheckRow,
    EntryRow,
    check_rows,
    entry_rows,
)
from allele_mlflow.errors import NotFoundError, RegistryError
from allele_mlflow.registry.gates import Check
from allele_mlflow.registry.registry import Registry

#: Documents of evidence that are read for one page, newest first.
MOST_DOCUMENTS = 50


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a gate saw. `problem`: why it cannot be read; then all else is empty.
    """

    sha256: str
    problem: str | None = None
    selection: str | None = None
    runs: int = 0
    holder: int | None = None
    holder_selection: str | None = None
    checks: list[CheckRow] = []


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """
    An entry of the journal; `evidence` is None where none was kept.
    """

    entry: EntryRow
    evidence: Evidence | None


class _Document(msgspec.Struct, frozen=True):
    """
    What is read of a document of evidence.
    """

    evidence: str | None = None
    runs: list[str] = []
    holder: int | None = None
    holder_evidence: str | None = None
    checks: list[dict[str, Any]] = []


def read_transitions(registry: Registry, name: str, version: int) -> list[Transition]:
    """
    The entries about a version with their evidence, newest first.

    Raises:
        RegistryError: the journal is damaged.
        TrackingError: the registry does not answer.
    """
    chain = registry.history(name)
    rows = [row for row in entry_rows(chain.entries, chain.hashes) if row.version == version]
    found, read = [], 0
    for row in rows:
        evidence = None
        if row.evidence is not None:
            read += 1
            evidence = (
                read_evidence(registry, name, row.evidence)
                if read <= MOST_DOCUMENTS
                else Evidence(sha256=row.evidence, problem="too old to be read here")
            )
        found.append(Transition(entry=row, evidence=evidence))
    return found


def read_evidence(registry: Registry, name: str, digest: str) -> Evidence:
    """
    A document of evidence by its hash, which is checked.

    Raises:
        TrackingError: the registry does not answer.
    """
    try:
        told = msgspec.json.decode(registry.evidence(name, digest), type=_Document)
        checks = msgspec.convert(told.checks, list[Check])
    except (NotFoundError, RegistryError, msgspec.MsgspecError) as exc:
        return Evidence(sha256=digest, problem=str(exc))
    return Evidence(
        sha256=digest,
        selection=told.evidence,
        runs=len(told.runs),
        holder=told.holder,
        holder_selection=told.holder_evidence,
        checks=check_rows(checks),
    )
