"""
The components that a suite names: read before it runs, registered at its end.

    [components]
    prompt = "prompts/tutor.json"    a JSON object, any other file, or a folder, beside the suite

What changed while the suite ran is not registered: nobody knows which runs used what.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import AlleleMlflowError, RegistryError
from allele_mlflow.matrix.suite import Suite, bad_suite

if TYPE_CHECKING:
    from allele_mlflow.matrix.prepared import Prepared
    from allele_mlflow.registry.registry import Registry

_logger = logging.getLogger(__name__)

#: What all of them are, for the registry.
COMPONENT_KIND = "configuration"


class Given(NamedTuple):
    """
    A component as the registry takes it.
    """

    document: Mapping[str, object]
    files: Path | None


def read_contents(suite: Suite, folder: Path) -> dict[str, str]:
    """
    The identity of each component as it is now, by name.

    Raises:
        MatrixError: a file is not there, or is none that can be registered.
    """
    if not suite.components:
        return {}
    from allele_mlflow.registry.components import read_component

    found = {}
    for name, place in suite.components.items():
        try:
            given = _given(folder / place)
            read = read_component(given.document, kind=COMPONENT_KIND, files=given.files)
        except (OSError, RegistryError) as exc:
            raise bad_suite(("components", name), f"components.{name}: {place!r}: {exc}") from exc
        found[name] = read.content
    return found


def register_components(prepared: Prepared, registry: Registry) -> list[str]:
    """
    Register the components of a suite that is over; what is to be said of it, in lines.

    Whatever goes wrong with one is said, and the others are registered.
    """
    said = []
    for name, place in prepared.suite.components.items():
        try:
            said += _register(prepared, registry, name, prepared.folder / place)
        except (OSError, AlleleMlflowError) as exc:
            said.append(f"component {name} is not registered: {exc}")
        except Exception as exc:
            # the suite is over and stands: what a component does to us is said, and no more
            _logger.exception("suite %s: component %s", prepared.suite.name, name)
            said.append(f"component {name} is not registered: {type(exc).__name__}: {exc}")
    return said


def _register(prepared: Prepared, registry: Registry, name: str, place: Path) -> list[str]:
    if read_contents(prepared.suite, prepared.folder).get(name) != prepared.components.get(name):
        return [f"component {name} is not registered: its files changed while the suite ran"]
    given = _given(place)
    made = registry.register_component(
        name,
        given.document,
        kind=COMPONENT_KIND,
        files=given.files,
        reason=f"suite {prepared.suite.name}",
        tags={tags.SUITE: prepared.suite.name},
    )
    return [f"registered component {name}/{made.version}"] if made.is_new else []


def _given(place: Path) -> Given:
    if not place.exists():
        raise FileNotFoundError(f"there is no such file or folder in {place.parent}")
    if place.suffix == ".json":
        try:
            return Given(msgspec.json.decode(place.read_bytes(), type=dict[str, object]), None)
        except msgspec.MsgspecError as exc:
            raise OSError(f"no JSON object: {exc}") from exc
    return Given({}, place)
