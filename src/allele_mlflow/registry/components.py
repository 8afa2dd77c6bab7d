"""
A component as a version's files: a JSON document and files beside it, known by their content.

An optimiser's configuration, an operator, the weights of a reservoir, a prompt: what a run uses and
what evolves beside the genomes. The identity is the SHA-256 of the canonical JSON of kind, document
and of every file's hash by path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.records import canonical_json, content_hash
from allele_mlflow.registry.genomes import GENOME_KIND
from allele_mlflow.registry.version_files import (
    FORMAT,
    MODEL_FILE,
    MOST_BYTES,
    MOST_FILES,
    Packed,
    path_problem,
    sha256,
    tampered,
    too_large,
)
from allele_mlflow.snapshots import ArtifactPaths, Unusable, find_files, plain_genome

COMPONENT_FILE = "component.json"
COMPONENT_KIND = "component"
FILES_FOLDER = "files"
#: Kinds that most projects have; any other word will do as well.
USUAL_KINDS = ("optimizer", "operator", "reservoir", "prompt", "configuration")
_is_kind = re.compile(r"[a-z][a-z0-9_-]{0,39}").fullmatch
#: What stands beside the component's own files in a version: document, model, manifest.
_OWN_FILES = 3


@dataclass(frozen=True)
class Component:
    """
    A component as it was when it was given.

    Attributes:
        kind: What it is: `optimizer`, `prompt`, ...
        document: Plain data.
        files: By relative path.
        content: Its identity, in hexadecimal.
        name: The model, where a registry gave it.
        version: Of that model, likewise.
    """

    kind: str
    document: Mapping[str, Any]
    files: Mapping[str, bytes]
    content: str
    name: str | None = None
    version: int | None = None

    def write_files(self, folder: Path) -> list[Path]:
        """
        Write the files below a folder, which is made where it is not there; what has their names
        there is replaced.

        Raises:
            RegistryError: a link in the folder leads one of them out of it.
            OSError: there is no room, or no right to write there.
        """
        folder = folder.resolve()
        written = []
        for path, data in self.files.items():
            target = folder / path
            if not target.resolve().is_relative_to(folder):
                raise _bad(f"file {path!r} would leave {folder}: a link leads elsewhere")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            written.append(target)
        return written


def read_component(
    document: Any, *, kind: str, files: Path | Mapping[str, Path] | None = None
) -> Component:
    """
    A component from plain data and files; all of it is copied at once.

    Args:
        document: A mapping, or an object with `to_dict`.
        kind: A word.
        files: A folder with all that is in it, a file, or files by the paths that they are to have.
    Raises:
        RegistryError: it is no such thing, too much, or a file cannot be read.
    """
    if kind == GENOME_KIND or _is_kind(kind) is None:
        raise _bad(
            f"has the kind {kind!r}: want a word of small letters, such as {', '.join(USUAL_KINDS)}"
        )
    plain = _plain_document(document)
    kept = dict(_read_files(_found_files(files)))
    return Component(kind, plain, kept, _content(kind, plain, kept))


def pack_component(component: Component) -> Packed:
    """
    The files of a version: document, files, and MLflow's description of a model.
    """
    files = {
        COMPONENT_FILE: canonical_json(component.document) + b"\n",
        MODEL_FILE: _model_text(component).encode(),
        **{f"{FILES_FOLDER}/{path}": data for path, data in component.files.items()},
    }
    return Packed(COMPONENT_KIND, component.content, files, {"component": component.kind})


def unpack_component(packed: Packed, content: str) -> Component:
    """
    The component of a version's files.

    Args:
        packed: Files whose hashes hold.
        content: What the registry says its identity is.
    Raises:
        RegistryError: it is another one.
    """
    try:
        document = msgspec.json.decode(packed.files.get(COMPONENT_FILE, b""), type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise tampered(COMPONENT_FILE, f"no document ({exc})") from exc
    start = f"{FILES_FOLDER}/"
    files = {
        path.removeprefix(start): data
        for path, data in packed.files.items()
        if path.startswith(start)
    }
    kind = str(packed.told.get("component"))
    found = Component(kind, document, files, _content(kind, document, files))
    for said in (packed.content, content):
        if found.content != said:
            raise tampered(COMPONENT_FILE, f"the content is {found.content[:12]}..., want {said}")
    return found


def _content(kind: str, document: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    hashes = {path: sha256(data) for path, data in files.items()}
    return content_hash({"kind": kind, "document": document, "files": hashes})


def _plain_document(given: Any) -> dict[str, Any]:
    try:
        value = given.to_dict() if hasattr(given, "to_dict") else given
        problem = next(_problems(value), None)
        plain = plain_genome(value)
    except Exception as exc:
        raise _bad(f"cannot be read ({exc})") from exc
    if problem is not None:
        raise _bad(f"has {problem}")
    if not isinstance(plain, dict):
        raise _bad(f"is {type(plain).__name__}: want a mapping, or an object with to_dict")
    size_bytes = len(canonical_json(plain))
    if size_bytes > MOST_BYTES:
        raise too_large(1, size_bytes)
    return plain


def _problems(value: Any, path: str = "$") -> Iterator[str]:
    """
    What would become JSON, and not mean the same: no number, or in an order of its own.
    """
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path}={value}: want a finite number"
    elif isinstance(value, (set, frozenset)):
        yield f"a set at {path}: want a list"
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _problems(inner, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _problems(inner, f"{path}[{number}]")


def _found_files(files: Path | Mapping[str, Path] | None) -> dict[str, Path]:
    """
    Where each file is, by the path that it is to have.
    """
    if files is None:
        return {}
    if isinstance(files, Mapping):
        return {str(path): Path(place) for path, place in files.items()}
    top = Path(files)
    try:
        entries = find_files(top, leaving_out=None)
    except Unusable as exc:
        raise _bad(f"has no files: {exc}") from exc
    for entry in entries:
        if entry.problem is not None:
            raise _bad(f"has the file {entry.path}: {entry.problem}")
    if not top.is_dir():
        return {entry.name: entry.path for entry in entries}
    return {entry.path.relative_to(top).as_posix(): entry.path for entry in entries}


def _read_files(found: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    taken = ArtifactPaths()
    for path in found:
        problem = path_problem(path) or taken.clash(path)
        if problem is not None:
            raise _bad(f"has a file of a bad name: {problem}")
        taken.add(path)
    try:
        size_bytes = sum(place.stat().st_size for place in found.values())
        if len(found) + _OWN_FILES > MOST_FILES or size_bytes > MOST_BYTES:
            raise too_large(len(found), size_bytes)
        for path, place in found.items():
            if not place.is_file():  # to open a pipe would wait for its other end
                raise _bad(f"has {str(place)!r} for a file: want a file")
            yield path, place.read_bytes()
    except OSError as exc:
        raise _bad(f"has the file {exc.filename!r}: {exc.strerror}") from exc


def _model_text(component: Component) -> str:
    return "\n".join(
        (
            f"artifact_path: component-{component.content[:16]}",
            "flavors:",
            "  allele_component:",
            f"    data: {COMPONENT_FILE}",
            f'    kind: "{component.kind}"',
            f"    schema_version: {FORMAT}",
            "",
        )
    )


def _bad(what: str) -> RegistryError:
    return RegistryError(f"the component {what}", kind=ErrorKind.BAD_COMPONENT)
