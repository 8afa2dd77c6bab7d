"""
A version's files with a manifest of their hashes: packed, and taken back where every hash holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.records import canonical_json
from allele_mlflow.snapshots import artifact_problem
from allele_mlflow.tracking.artifact_names import needs_quoting

MANIFEST_FILE, MODEL_FILE = "manifest.json", "MLmodel"
FORMAT = 1
#: Of one version, its own few included.
MOST_FILES = 200
MOST_BYTES = 64 * 2**20


class Packed(NamedTuple):
    """
    The files of a version.

    Attributes:
        kind: What they are of: `genome`, `component`.
        content: The version's identity.
        files: By relative path, without the manifest.
        told: What else the manifest says.
    """

    kind: str
    content: str
    files: Mapping[str, bytes]
    told: Mapping[str, Any] = {}


def pack(packed: Packed) -> dict[str, bytes]:
    """
    The files with their manifest.

    Raises:
        RegistryError: they are too many or too large, or a path is none that every store keeps.
    """
    _check_limits(packed.files)
    manifest = {
        **packed.told,
        "format": FORMAT,
        "kind": packed.kind,
        "content": packed.content,
        "files": {path: sha256(data) for path, data in packed.files.items()},
    }
    return {**packed.files, MANIFEST_FILE: canonical_json(manifest) + b"\n"}


def unpack(fetch: Callable[[str], bytes], expected: str | None = None) -> Packed:
    """
    The files that a manifest names, once every hash is as it should be.

    Args:
        fetch: Gives a file by its relative path.
        expected: SHA-256 of the manifest; None where nobody noted it.
    Raises:
        RegistryError: a file was changed; says which.
    """
    told = fetch(MANIFEST_FILE)
    if expected is not None:
        _check_hash(MANIFEST_FILE, told, expected)
    try:
        manifest = msgspec.json.decode(told, type=dict[str, Any])
        hashes = msgspec.convert(manifest.pop("files"), dict[str, str])
        kind, content = str(manifest.pop("kind")), str(manifest.pop("content"))
    except (KeyError, msgspec.MsgspecError) as exc:
        raise tampered(MANIFEST_FILE, f"no manifest ({exc})") from exc
    if len(hashes) > MOST_FILES:
        raise tampered(MANIFEST_FILE, f"it names {len(hashes)} files")
    files = {}
    for path, wanted in hashes.items():
        if path_problem(path) is not None:
            raise tampered(MANIFEST_FILE, f"it names {path!r}")
        files[path] = fetch(path)
        _check_hash(path, files[path], wanted)
    return Packed(kind, content, files, manifest)


def path_problem(path: str) -> str | None:
    """
    What is wrong with the relative path of a version's file; None where every store keeps it.
    """
    problem = artifact_problem(path)
    if problem is None and (path.startswith("..") or needs_quoting(path)):
        problem = f"want a path without #, ?, % and control characters, got {path!r}"
    return problem


def sha256(data: bytes) -> str:
    """
    In hexadecimal.
    """
    return hashlib.sha256(data).hexdigest()


def tampered(name: str, what: str) -> RegistryError:
    """
    The error for a version's file that is not as it was kept, to be raised by the caller.
    """
    return RegistryError(
        f"{name} of the version was changed: {what}", kind=ErrorKind.TAMPERED, file=name
    )


def too_large(count: int, size_bytes: int) -> RegistryError:
    """
    The error for a version with too much in it, to be raised by the caller.
    """
    files = "file" if count == 1 else "files"
    return RegistryError(
        f"{size_bytes:,} bytes in {count:,} {files}: want at most {MOST_BYTES:,} in {MOST_FILES}; "
        "larger things are artifacts of a run",
        kind=ErrorKind.BAD_COMPONENT,
    )


def _check_limits(files: Mapping[str, bytes]) -> None:
    size_bytes = sum(map(len, files.values()))
    if len(files) > MOST_FILES or size_bytes > MOST_BYTES:
        raise too_large(len(files), size_bytes)


def _check_hash(path: str, data: bytes, wanted: str) -> None:
    got = sha256(data)
    if got != wanted:
        raise tampered(path, f"its hash is {got[:12]}..., want {wanted[:12]}...")
