"""
Whether timings from two environments may be compared, and what differs between them.

The rule, by what differs:

    different    a decisive thing: system, architecture, processor, cores (of the machine, usable,
                 allowed), governor, Python's implementation, minor version or build flags, thread
                 limits, GPUs, a BLAS library or its threads, another major version of a package
                 that computes (`packages.COMPUTING`), or such a package on one side only
    comparable   a minor thing: the kernel's minor version, Python's patch, memory, the GPU driver's
                 major version, any other package that is no tool; or something above is known on
                 one side only
    same         none of these

The code never counts: commit and changed files are what a comparison is usually about, so they
are told (`Weight.CODE`) and leave the verdict alone. Nor do the host's name, which means nothing in
a container, patches of the kernel and development tools (`Weight.NOTE`). What neither side knows
is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

from allele_mlflow.environment.fingerprint import ASPECTS, Aspect, Environment, ThreadPool, Weight
from allele_mlflow.environment.packages import COMPUTING, is_tool, series_of

_CODE_FIELDS = ("commit", "branch", "is_dirty", "diff_hash")
_TOLD_COUNT = 5
_ABSENT = "not installed"


class Verdict(StrEnum):
    """
    What two environments allow. Append only.
    """

    SAME = "same"
    COMPARABLE = "comparable"
    DIFFERENT = "different"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that differs: what each side has, as text; None where it is not known or not there.
    """

    field: str
    a: str | None
    b: str | None
    weight: Weight

    def __str__(self) -> str:
        return f"{self.field} {_or_unknown(self.a)} / {_or_unknown(self.b)}"


class Comparability(msgspec.Struct, frozen=True, kw_only=True):
    """
    The verdict on two environments and all that differs, what decides first.
    """

    verdict: Verdict
    differences: tuple[Difference, ...] = ()

    def of_weight(self, weight: Weight) -> list[Difference]:
        """
        The differences of one weight.
        """
        return [one for one in self.differences if one.weight is weight]

    @property
    def is_other_code(self) -> bool:
        """
        Whether commit or changed files differ, as in a comparison of two versions.
        """
        return bool(self.of_weight(Weight.CODE))

    def line(self) -> str:
        """
        The verdict and what made it, in one line for a table or a log.
        """
        told = self.of_weight(Weight.DECISIVE) + self.of_weight(Weight.MINOR)
        shown = "; ".join(str(one) for one in told[:_TOLD_COUNT])
        more = f"; and {len(told) - _TOLD_COUNT} more" if len(told) > _TOLD_COUNT else ""
        return f"{self.verdict.value}: {shown}{more}" if told else self.verdict.value


def compare_environments(a: Environment, b: Environment) -> Comparability:
    """
    Whether timings from `a` and `b` may be compared; the module says by which rule.

    The order of the two changes nothing but the sides. Environments that are the same have one
    `identity`.
    """
    found = [
        *_aspect_differences(a, b),
        *_blas_differences(a.blas, b.blas),
        *_package_differences(a.packages, b.packages),
        *_differences_in(_CODE_FIELDS, a, b, Weight.CODE),
        *_differences_in(("host",), a, b, Weight.NOTE),
    ]
    order = list(Weight)
    found.sort(key=lambda one: order.index(one.weight))
    weights = {one.weight for one in found}
    if Weight.DECISIVE in weights:
        verdict = Verdict.DIFFERENT
    else:
        verdict = Verdict.COMPARABLE if Weight.MINOR in weights else Verdict.SAME
    return Comparability(verdict=verdict, differences=tuple(found))


def _aspect_differences(a: Environment, b: Environment) -> Iterator[Difference]:
    for field in dict.fromkeys(aspect.field for aspect in ASPECTS):
        weight = _weight_of([one for one in ASPECTS if one.field == field], a, b)
        if weight is None and getattr(a, field) != getattr(b, field):
            weight = Weight.NOTE  # only in a part that does not matter
        if weight is not None:
            yield _difference(field, getattr(a, field), getattr(b, field), weight)


def _weight_of(aspects: Iterable[Aspect], a: Environment, b: Environment) -> Weight | None:
    """
    The weight of the first of a field's aspects that differs; None where none does.
    """
    for aspect in aspects:
        of_a, of_b = aspect.value(a), aspect.value(b)
        if of_a != of_b:
            return Weight.MINOR if of_a is None or of_b is None else aspect.weight
    return None


def _blas_differences(
    a: list[ThreadPool] | None, b: list[ThreadPool] | None
) -> Iterator[Difference]:
    """
    Known only where a process has loaded one, so one side alone says nothing.
    """
    if a == b:
        return
    if a is None or b is None:
        weight = Weight.NOTE
    elif _without_versions(a) != _without_versions(b):
        weight = Weight.DECISIVE
    else:
        weight = Weight.MINOR
    yield _difference("blas", a, b, weight)


def _without_versions(pools: list[ThreadPool]) -> set[tuple[str, int | None]]:
    return {(pool.library, pool.thread_count) for pool in pools}


def _package_differences(
    a: dict[str, str] | None, b: dict[str, str] | None
) -> Iterator[Difference]:
    if a is None or b is None:
        if a is not b:
            yield _difference("packages", _count(a), _count(b), Weight.MINOR)
        return
    for name in sorted(a.keys() | b.keys()):
        of_a, of_b = a.get(name), b.get(name)
        if of_a != of_b:
            weight = _weight_of_package(name, of_a, of_b)
            yield _difference(f"packages.{name}", of_a or _ABSENT, of_b or _ABSENT, weight)


def _count(packages: dict[str, str] | None) -> str | None:
    return None if packages is None else f"{len(packages)} packages"


def _weight_of_package(name: str, a: str | None, b: str | None) -> Weight:
    if is_tool(name):
        return Weight.NOTE
    if name in COMPUTING and (a is None or b is None or series_of(a) != series_of(b)):
        return Weight.DECISIVE
    return Weight.MINOR


def _differences_in(
    fields: Iterable[str], a: Environment, b: Environment, weight: Weight
) -> Iterator[Difference]:
    for field in fields:
        of_a, of_b = getattr(a, field), getattr(b, field)
        if of_a != of_b:
            yield _difference(field, of_a, of_b, weight)


def _difference(field: str, a: Any, b: Any, weight: Weight) -> Difference:
    return Difference(field=field, a=_shown(a), b=_shown(b), weight=weight)


def _shown(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in sorted(value.items())) or "none"
    if isinstance(value, list):
        return ", ".join(_shown_item(one) for one in value) or "none"
    return str(value)


def _shown_item(item: Any) -> str:
    if isinstance(item, ThreadPool):
        parts = (item.library, item.version, item.thread_count and f"x{item.thread_count}")
        return " ".join(part for part in parts if part)
    return str(item.name)


def _or_unknown(text: str | None) -> str:
    return "unknown" if text is None else text or "none"
