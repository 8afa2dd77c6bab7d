"""
How a version comes to be: its files are kept, MLflow is told, and the journal says so, once for the
same content, whoever registers it and whenever they die.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, RegistryError, TrackingError
from allele_mlflow.registry.contents import (
    CONTENT_TAG,
    SCHEMA_TAG,
    Kept,
    as_genome,
    check_schema,
    schema_of,
)
from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.journal import Chain, Entry, Stage
from allele_mlflow.registry.kept_journal import KeptJournal, next_entry
from allele_mlflow.registry.kept_versions import MANIFEST_TAG, keep_version, load_version
from allele_mlflow.tracking.registry_client import RegistryClient


@dataclass(frozen=True)
class Registered:
    """
    A version of a model; `is_new` is False where the same content was there already.
    """

    name: str
    version: int
    content: str
    is_new: bool


class Wanted(NamedTuple):
    """
    A version that is to be there, where it goes and why; `is_new_schema`: a genome whose traits may
    have other names than those of the versions that are there.
    """

    kept: Kept
    stage: Stage
    reason: str
    tags: Mapping[str, str]
    is_new_schema: bool


def check_stage(stage: Stage) -> None:
    """
    Refuse a stage that nothing is registered into.

    Raises:
        RegistryError: it is one that wants a promotion.
    """
    if stage not in (Stage.DEVELOPMENT, Stage.CANDIDATE):
        raise RegistryError(
            f"register as {stage}: want development or candidate; promote for the others",
            kind=ErrorKind.BAD_REGISTRY,
        )


def register_version(
    client: RegistryClient, journal: KeptJournal, wanted: Wanted, *, by: str
) -> Registered:
    """
    The version of a content, kept now where it is not there yet.

    Args:
        client: The registry's store.
        journal: Of the model.
        wanted: What it is.
        by: Who registers it.
    Raises:
        RegistryError: its traits have other names, or its files are too many or too large.
        TrackingError: the store does not answer.
    """
    name, content = journal.name, wanted.kept.content
    chain = journal.read()
    known = chain.version_with(content)
    if known is not None:
        return Registered(name, known, content, is_new=False)
    if isinstance(wanted.kept, Genome) and not wanted.is_new_schema:
        _check_schema(client, wanted.kept, name, chain)
    found = client.find_version(name, CONTENT_TAG, content)
    if found is not None:  # somebody has died before the entry, or is about to write it
        version, manifest = found.number, found.tags.get(MANIFEST_TAG)
    else:
        version, manifest = keep_version(client, name, journal.run_id, wanted.kept, wanted.tags)

    def entry(chain: Chain) -> Entry | None:
        if chain.version_with(content) is not None:
            return None  # somebody else has registered the same meanwhile
        return next_entry(
            *(chain, "register", name, version, wanted.stage),
            by=by,
            reason=wanted.reason,
            content=content,
            manifest=manifest,
        )

    journal.append(entry)
    number = journal.mirror().version_with(content)
    assert number is not None
    if number != version and found is None:
        with suppress(TrackingError):  # ours is one too many; else `verify` reports it
            client.delete_version(name, version)
    return Registered(name, number, content, is_new=number == version)


def _check_schema(client: RegistryClient, genome: Genome, name: str, chain: Chain) -> None:
    entries = chain.registrations()
    schema = schema_of(genome.traits)
    if not entries or client.find_version(name, SCHEMA_TAG, schema) is not None:
        return
    newest = max(entries)
    where = f"{name}/{newest}"
    check_schema(genome, as_genome(load_version(client, entries[newest]), where), where)
