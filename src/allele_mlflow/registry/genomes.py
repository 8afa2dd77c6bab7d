"""
A genome as a version's files: what it is, known by its content, and what is told of it.

Its identity is the SHA-256 of the canonical JSON of what acts: not its id, its scores or its times,
which another genome with the same traits may have otherwise. Everything that was given is kept, and
every file has its own hash in the manifest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.records import canonical_json
from allele_mlflow.snapshots import plain_genome

GENOME_FILE, MANIFEST_FILE, MODEL_FILE = "genome.json", "manifest.json", "MLmodel"
SCHEMA_VERSION = 1
#: What tells of a genome's history, and not of what it is.
TOLD = frozenset(
    {"genome_id", "fitness_score", "fitness_history", "fitness_metrics", "generation", "metadata"}
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
    """

    document: Mapping[str, Any]
    content: str
    traits: Mapping[str, float]
    parents: tuple[str, ...]


def read_genome(given: Any) -> Genome:
    """
    A genome from an object with `to_dict`, or a mapping; copied at once, for live ones change.

    Raises:
        RegistryError: it is no mapping, has nothing in it, or a trait is no finite number.
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
    traits = acting.get("traits", {})
    if not isinstance(traits, dict):
        raise _bad(f"has traits={traits!r}: want a number by name")
    for name, value in traits.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise _bad(f"has the trait {name}={value!r}: want a finite number")
    try:
        content = hashlib.sha256(canonical_json(acting)).hexdigest()
    except Exception as exc:
        raise _bad(f"is no JSON ({exc})") from exc
    return Genome(document, content, {n: float(v) for n, v in traits.items()}, _parents(document))


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


def write_files(genome: Genome, folder: Path) -> None:
    """
    Write the files of a version: the genome, MLflow's description of a model, and the manifest.
    """
    files = {
        GENOME_FILE: canonical_json(genome.document) + b"\n",
        MODEL_FILE: _model_text(genome).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": SCHEMA_VERSION,
        "kind": "genome",
        "content": genome.content,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    (folder / MANIFEST_FILE).write_bytes(canonical_json(manifest) + b"\n")


def check_files(files: Mapping[str, bytes], content: str) -> Genome:
    """
    The genome of a version's files, once every hash is as it should be.

    Args:
        files: By name, the manifest among them.
        content: What the registry says its identity is.
    Raises:
        RegistryError: a file was changed; says which.
    """
    try:
        manifest = msgspec.json.decode(files[MANIFEST_FILE], type=dict[str, Any])
        hashes = dict(manifest["files"])
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as exc:
        raise _tampered(MANIFEST_FILE, f"no manifest ({exc})") from exc
    for name, wanted in hashes.items():
        got = hashlib.sha256(files.get(name, b"")).hexdigest()
        if got != wanted:
            raise _tampered(name, f"its hash is {got[:12]}..., want {str(wanted)[:12]}...")
    genome = decode_genome(files.get(GENOME_FILE, b""))
    for said in (manifest.get("content"), content):
        if genome.content != said:
            raise _tampered(GENOME_FILE, f"its content is {genome.content[:12]}..., want {said}")
    return genome


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
            f"    schema_version: {SCHEMA_VERSION}",
            "  python_function:",
            f"    data: {GENOME_FILE}",
            f"    loader_module: {_LOADER}",
            "",
        )
    )


def _bad(what: str) -> RegistryError:
    return RegistryError(f"the genome {what}", kind=ErrorKind.BAD_GENOME)


def _tampered(name: str, what: str) -> RegistryError:
    return RegistryError(
        f"{name} of the version was changed: {what}", kind=ErrorKind.BAD_GENOME, file=name
    )
