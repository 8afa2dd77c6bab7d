"""
How a version of a registered model is written, and how a run says that it used one. Pure.

A run's tag `allele.uses.<model>` holds the references that were used, each with the time from which
on: `mutation@production 2026-11-28T12:00:00.000+00:00`. Whose stage that was is in the registry's
journal, with times of the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, NotFoundError
from allele_mlflow.numerals import whole_number

#: Of runs: begins the tag that names what they used.
USES_PREFIX = "allele.uses."
#: No key of a tag has a comma in it, so no name here has one.
_BETWEEN_USES = ", "


class Stage(StrEnum):
    """
    Where a version stands; the names of MLflow's aliases. A stage has one holder at most, archived
    has any number and no alias.
    """

    DEVELOPMENT = "development"
    CANDIDATE = "candidate"
    STAGING = "staging"
    PRODUCTION = "production"
    ARCHIVED = "archived"


class Reference(NamedTuple):
    """
    A version by its number, or by the stage that it holds; the other one is None.
    """

    name: str
    number: int | None
    stage: Stage | None

    def __str__(self) -> str:
        if self.stage is not None:
            return f"{self.name}@{self.stage.value}"
        return f"{self.name}/{self.number}"


def parse_reference(text: str) -> Reference:
    """
    The version that is written as `name@stage` or `name/number`.

    Raises:
        NotFoundError: it has neither form, or the stage is none.
    """
    name, mark, rest = text.rpartition("/")
    number = whole_number(rest)
    if mark and name and number is not None:
        return Reference(name, number, None)
    name, mark, rest = text.rpartition("@")
    if not (mark and name):
        raise _unknown(f"{text!r}: want name@stage or name/version")
    try:
        return Reference(name, None, Stage(rest))
    except ValueError as exc:
        stages = ", ".join(one.value for one in Stage if one is not Stage.ARCHIVED)
        raise _unknown(f"stage {rest!r}: want one of {stages}") from exc


def reference_of(what: object) -> Reference:
    """
    The version that is meant by a text, or by what a registry gave: it has a name and a version.

    Raises:
        NotFoundError: it is neither.
    """
    if isinstance(what, str):
        return parse_reference(str.__str__(what))
    name, version = getattr(what, "name", None), getattr(what, "version", None)
    if not isinstance(name, str) or not isinstance(version, int):
        raise _unknown(
            f"{type(what).__name__}: want name@stage, name/version, or what a registry loaded"
        )
    return Reference(str.__str__(name), int(version), None)


def encode_uses(uses: Mapping[str, str]) -> str:
    """
    The tag's text: references, each with the time (`clock.utc_iso`) from which on it was used.
    """
    return _BETWEEN_USES.join(f"{reference} {time}" for reference, time in uses.items())


def decode_uses(text: str) -> Iterator[tuple[Reference, str]]:
    """
    The references in a tag's text, and from when on; what is none of them is passed over.
    """
    for part in text.split(_BETWEEN_USES):
        reference, _, time = part.rpartition(" ")
        try:
            yield parse_reference(reference), time
        except NotFoundError:
            continue  # anybody may write tags


def _unknown(message: str) -> NotFoundError:
    return NotFoundError(message, kind=ErrorKind.NOT_FOUND)
