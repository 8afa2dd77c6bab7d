"""
What a registry keeps, whichever it is: a genome or a component, as files, as tags, and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.records import canonical_json, content_hash
from allele_mlflow.registry.components import (
    COMPONENT_KIND,
    Component,
    pack_component,
    unpack_component,
)
from allele_mlflow.registry.genomes import GENOME_KIND, Genome, pack_genome, unpack_genome
from allele_mlflow.registry.version_files import MANIFEST_FILE, pack, tampered, unpack

Kept = Genome | Component

#: Of versions.
CONTENT_TAG = "allele.content"
#: The names of a genome's traits, as a digest: the same for genomes that can be compared.
SCHEMA_TAG = "allele.schema"
GENOME_ID_TAG = "allele.genome_id"
#: Ids of the genomes that it came from, as a list in JSON.
PARENTS_TAG = "allele.parents"
_SCHEMA_DIGITS = 16


def kind_of(kept: Kept) -> str:
    """
    What a model keeps that has this as a version: genomes, or components of one kind.
    """
    return GENOME_KIND if isinstance(kept, Genome) else kept.kind


def files_of(kept: Kept) -> dict[str, bytes]:
    """
    The files of a version, with their manifest.

    Raises:
        RegistryError: they are too many or too large.
    """
    return pack(pack_genome(kept) if isinstance(kept, Genome) else pack_component(kept))


def read_kept(fetch: Callable[[str], bytes], *, content: str, manifest: str | None) -> Kept:
    """
    What a version's files hold, every hash checked.

    Args:
        fetch: Gives a file by its relative path.
        content: What the journal says its identity is.
        manifest: What the journal says the SHA-256 of the manifest is; None where it says nothing.
    Raises:
        RegistryError: a file was changed; says which.
    """
    packed = unpack(fetch, manifest)
    if packed.kind == GENOME_KIND:
        return unpack_genome(packed, content)
    if packed.kind == COMPONENT_KIND:
        return unpack_component(packed, content)
    raise tampered(MANIFEST_FILE, f"it is of a {packed.kind!r}")


def tags_of(kept: Kept) -> dict[str, str]:
    """
    What a version's tags say of it.
    """
    tags = {CONTENT_TAG: kept.content}
    if isinstance(kept, Genome):
        tags[SCHEMA_TAG] = schema_of(kept.traits)
        told = kept.document.get("genome_id")
        if told is not None:
            tags[GENOME_ID_TAG] = str(told)
        if kept.parents:
            tags[PARENTS_TAG] = canonical_json(kept.parents).decode()
    return tags


def schema_of(traits: Iterable[str]) -> str:
    """
    A digest of the names of traits.
    """
    return content_hash(sorted(traits))[:_SCHEMA_DIGITS]


def check_schema(genome: Genome, other: Genome, where: str) -> None:
    """
    Refuse a genome whose traits have other names than those that its model keeps.

    Args:
        genome: What is to be kept.
        other: A version of the model.
        where: Its name.
    Raises:
        RegistryError: names what is missing and what is new.
    """
    mine, theirs = genome.traits.keys(), other.traits.keys()
    told = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("without", theirs - mine), ("with", mine - theirs))
        if names
    ]
    if told:
        raise RegistryError(
            f"the genome has other traits than {where}: {'; '.join(told)}; want the same, another "
            "model, or is_new_schema (--new-schema)",
            kind=ErrorKind.BAD_GENOME,
        )


def as_genome(kept: Kept, where: str) -> Genome:
    """
    What was loaded, if it is a genome.

    Raises:
        RegistryError: it is a component.
    """
    if isinstance(kept, Genome):
        return kept
    raise RegistryError(
        f"{where} is a component ({kept.kind}): want load_component", kind=ErrorKind.BAD_REGISTRY
    )


def as_component(kept: Kept, where: str) -> Component:
    """
    What was loaded, if it is a component.

    Raises:
        RegistryError: it is a genome.
    """
    if isinstance(kept, Component):
        return kept
    raise RegistryError(f"{where} is a genome: want load_genome", kind=ErrorKind.BAD_REGISTRY)
