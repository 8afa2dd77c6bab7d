"""
In what two versions differ: traits, parts of a document by their path, files. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.records import canonical_json
from allele_mlflow.registry.components import FILES_FOLDER, Component
from allele_mlflow.registry.contents import Kept
from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.version_files import sha256

_is_plain_name = re.compile(r"[A-Za-z_]\w*").fullmatch
_HASH_SHOWN = 12


class Change(NamedTuple):
    """
    One thing that is not the same: as JSON, None where it is not there. `delta` is of numbers.
    """

    where: str
    before: str | None
    after: str | None
    delta: float | None


def find_changes(one: Kept, other: Kept) -> list[Change]:
    """
    In what the second differs from the first.

    Raises:
        RegistryError: one is a genome and the other a component.
    """
    if isinstance(one, Genome) is not isinstance(other, Genome):
        raise RegistryError(
            "a genome and a component have nothing in common: want two of either",
            kind=ErrorKind.BAD_REGISTRY,
        )
    before, after = parts_of(one), parts_of(other)
    return [
        _change(where, before.get(where), after.get(where))
        for where in sorted(before.keys() | after.keys())
        if before.get(where) != after.get(where)
    ]


def parts_of(kept: Kept) -> dict[str, str]:
    """
    Everything that makes it what it is, as JSON: traits by name, all else of the document by its
    path (`$.layers[0].size`), files by theirs, with size and hash.
    """
    if isinstance(kept, Component):
        files = kept.files.items()
        return dict(_flat(kept.document, "$")) | {
            f"{FILES_FOLDER}/{path}": f"{len(data):,} bytes, {sha256(data)[:_HASH_SHOWN]}"
            for path, data in files
        }
    acting = kept.acting
    traits = {name: _json(value) for name, value in acting.pop("traits", {}).items()}
    return traits | dict(_flat(acting, "$") if acting else ())


def number_of(text: str | None) -> float | None:
    """
    The number that a JSON text is, None where it is none.
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            is_plain = _is_plain_name(name) is not None
            yield from _flat(inner, f"{path}.{name}" if is_plain else f"{path}[{_json(name)}]")
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{number}]")
    else:
        yield path, _json(value)


def _json(value: Any) -> str:
    return canonical_json(value).decode()


def _change(where: str, before: str | None, after: str | None) -> Change:
    one, other = number_of(before), number_of(after)
    return Change(where, before, after, None if one is None or other is None else other - one)
