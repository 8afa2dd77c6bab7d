"""
A genome as a version's files: what it is, known by its content, and what is told of it.

Its identity is the SHA-256 of the canonical JSON of what acts: not its id, its scores or its times,
which another genome with the same traits may have otherwise. Everything that was given is kept, and
every file has its own hash in the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.records import canonical_json
from allele_mlflow.registry.version_files import FORMAT, MODEL_FILE, Packed, sha256, tampered
from allele_mlflow.snapshots import plain_genome

GENOME_FILE = "genome.json"
GENOME_KIND = "genome"
#: What tells of a genome's history, and not of what it is.
TOLD = frozenset(
    {"genome_id", "fitness_score", "fitness_history", "fitness_metrics", "generation", "metadata"}
)
#: The traits of a conversational genome of Allele's, each a number from 0 to 1.
ALLELE_TRAITS = frozenset(
    {
        *("empathy", "engagement", "technical_knowledge", "creativity"),
        *("conciseness", "context_awareness", "adaptability", "personability"),
    }
)
_LOADER = "allele_mlflow.registry.pyfunc_loader"


@dataclass(frozen=True)
class Genome:
    """
    A genome as it was when it was given.

    Attributes:
        document: All of it, as plain data.
        content: Its identity, in hexadecimal.
        traits: Its numbers by name; empty where it has none of that form.
        parents: Ids that it names as its parents'.
        name: The model, where a registry gave it.
        version: Of that model, likewise.
    """

    document: Mapping[str, Any]
    content: str
    traits: Mapping[str, float]
    parents: tuple[str, ...]
    name: str | None = None
    version: int | None = None

    @property
    def acting(self) -> dict[str, Any]:
        """
        The part of the document that makes it what it is.
        """
        return {name: value for name, value in self.document.items() if name not in TOLD}


def read_genome(given: Any) -> Genome:
    """
    A genome from an object with `to_dict`, or a mapping; copied at once, for live ones change.

    Raises:
        RegistryError: it is no mapping, has nothing in it, or a trait is no finite number; of
            Allele's traits, one that is not from 0 to 1.
    """
    try:
        document = plain_genome(given)
    except Exception as exc:
        raise _bad(f"cannot be read ({exc})") from exc
    if not isinstance(document, dict):
        raise _bad(f"is {type(document).__name__}: want a mapping, or an object with to_dict")
    acting = {name: value for name, value in document.items() if name not in TOLD}
    if not acting:
        raise _bad("has nothing that acts: want traits, or fields of its own")
    traits = _checked_traits(acting.get("traits", {}))
    try:
        content = sha256(canonical_json(acting))
    except Exception as exc:
        raise _bad(f"is no JSON ({exc})") from exc
    return Genome(document, content, traits, _parents(document))


def decode_genome(data: bytes) -> Genome:
    """
    The genome in a file.

    Raises:
        RegistryError: it is none.
    """
    try:
        return read_genome(msgspec.json.decode(data))
    except msgspec.MsgspecError as exc:
        raise _bad(f"file is no JSON ({exc})") from exc


def pack_genome(genome: Genome) -> Packed:
    """
    The files of a version: the genome, and MLflow's description of a model.
    """
    files = {
        GENOME_FILE: canonical_json(genome.document) + b"\n",
        MODEL_FILE: _model_text(genome).encode(),
    }
    return Packed(GENOME_KIND, genome.content, files)


def unpack_genome(packed: Packed, content: str) -> Genome:
    """
    The genome of a version's files.

    Args:
        packed: Files whose hashes hold.
        content: What the registry says its identity is.
    Raises:
        RegistryError: it is another one.
    """
    genome = decode_genome(packed.files.get(GENOME_FILE, b""))
    for said in (packed.content, content):
        if genome.content != said:
            raise tampered(GENOME_FILE, f"its content is {genome.content[:12]}..., want {said}")
    return genome


def _checked_traits(traits: Any) -> dict[str, float]:
    if not isinstance(traits, dict):
        raise _bad(f"has traits={traits!r}: want a number by name")
    is_of_allele = traits.keys() == ALLELE_TRAITS
    for name, value in traits.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise _bad(f"has the trait {name}={value!r}: want a finite number")
        if is_of_allele and not 0 <= value <= 1:
            raise _bad(f"has the trait {name}={value!r}: want a number from 0 to 1")
    return {name: float(value) for name, value in traits.items()}


def _parents(document: Mapping[str, Any]) -> tuple[str, ...]:
    told = document.get("metadata")
    found = told.get("parent_ids") if isinstance(told, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _model_text(genome: Genome) -> str:
    return "\n".join(
        (
            f"artifact_path: genome-{genome.content[:16]}",
            "flavors:",
            "  allele_genome:",
            f"    data: {GENOME_FILE}",
            f"    schema_version: {FORMAT}",
            "  python_function:",
            f"    data: {GENOME_FILE}",
            f"    loader_module: {_LOADER}",
            "",
        )
    )


def _bad(what: str) -> RegistryError:
    return RegistryError(f"the genome {what}", kind=ErrorKind.BAD_GENOME)
