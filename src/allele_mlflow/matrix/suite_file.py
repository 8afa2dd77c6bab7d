"""
Suite files: TOML in, `Suite` out; mistakes with the file, the line and the nearest right name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import tomli_w

from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.failures import Category
from allele_mlflow.matrix.suite import (
    Adaptive,
    Axis,
    GenomeEvaluation,
    MetricFacts,
    Suite,
    bad_suite,
    nearest,
)

TomlPath = tuple[str | int, ...]

_HINTS = get_type_hints(Suite, include_extras=True)
#: Tables whose values are converted one by one, for msgspec does not tell in which the mistake is.
_BY_KEY: dict[str, Any] = {
    "matrix": Axis,
    "metrics": MetricFacts,
    "tags": str,
    "retries": int,
    "components": str,
}
#: Tables of fixed fields.
_TABLES: dict[str, type[msgspec.Struct]] = {"adaptive": Adaptive, "genome": GenomeEvaluation}
_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\[(\d+)\]|\.([^.\[]+)|\[\.\.\.\]")
_TOML_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


def read_suite(path: Path) -> Suite:
    """
    The suite of a file.

    Raises:
        MatrixError: not a file that can be read, not TOML, or not a suite; the text begins with the
            file and, where it is known, the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise _in_file(path, None, f"not a suite file that can be read: {reason}") from exc
    return parse_suite(text, path)


def parse_suite(text: str, path: Path) -> Suite:
    """
    The suite that a text is.

    Args:
        text: TOML.
        path: Where it is from, for messages.
    Raises:
        MatrixError: see `read_suite`.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = _TOML_LINE.search(str(exc))
        line = int(found[1]) if found else None
        raise _in_file(path, line, f"not TOML: {_TOML_LINE.sub('', str(exc))}") from exc
    try:
        return suite_of(raw)
    except MatrixError as exc:
        where: TomlPath = exc.facts.get("path", ())
        raise _in_file(path, find_line(text, where), exc.message, where) from exc


def suite_of(raw: Mapping[str, Any]) -> Suite:
    """
    The suite that plain data is, as TOML or JSON give it.

    Raises:
        MatrixError: `facts["path"]` tells where the mistake is.
    """
    given = dict(raw)
    _check_fields(given, Suite, ())
    for name in ("name", "benchmark"):
        if name not in given:
            raise bad_suite((), f'{name} is missing: want {name} = "..."')
    fields = {name: _convert(name, value) for name, value in given.items()}
    return Suite(**fields)


def checked_suite(suite: Suite) -> Suite:
    """
    The suite with every field checked: one that was made in Python may hold anything.

    Raises:
        MatrixError: see `suite_of`.
    """
    try:
        return suite_of(msgspec.to_builtins(suite))
    except (TypeError, AttributeError) as exc:
        raise bad_suite((), f"suite {suite.name!r}: want numbers, texts, lists: {exc}") from exc


def suite_text(suite: Suite) -> str:
    """
    The suite as TOML that `parse_suite` reads as the same suite; what is left at its default is
    left out.
    """
    values = msgspec.to_builtins(suite)
    defaults = msgspec.to_builtins(Suite(name=suite.name, benchmark=suite.benchmark))
    kept = {
        name: _without_none(value)
        for name, value in values.items()
        if name in ("name", "benchmark") or value != defaults[name]
    }
    return tomli_w.dumps(kept)


def _without_none(value: Any) -> Any:
    """
    TOML has no null: a field that is None is one that is not there.
    """
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_none(one) for one in value]
    return value


def _convert(name: str, value: Any) -> Any:
    if name == "retries" and isinstance(value, dict):
        for key in value:
            _check_category(key)
    if name in _TABLES and isinstance(value, dict):
        _check_fields(value, _TABLES[name], (name,))
    wanted = _BY_KEY.get(name)
    if wanted is None or not isinstance(value, dict):
        return _converted(value, _HINTS[name], (name,))
    found = {}
    for key, one in value.items():
        if wanted is MetricFacts and isinstance(one, dict):
            _check_fields(one, MetricFacts, (name, key))
        found[key] = _converted(one, wanted, (name, key))
    return _converted(found, _HINTS[name], (name,))


def _check_category(name: str) -> None:
    known = [category.value for category in Category]
    if name not in known:
        raise bad_suite(
            ("retries", name),
            f"retries: {name!r} is no category of errors{nearest(name, known)} "
            f"(there are {', '.join(known)})",
        )


def _converted(value: Any, wanted: Any, path: TomlPath) -> Any:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as exc:
        text = str(exc)
        found = _AT.search(text)
        below = _steps(found["path"]) if found else ()
        shown = ".".join(map(str, (*path, *below)))
        message = _AT.sub("", text)
        raise bad_suite((*path, *below), f"{shown}: {message[:1].lower()}{message[1:]}") from exc


def _steps(path: str) -> TomlPath:
    """
    The part of msgspec's path that is known: of keys of mappings it only says that there is one.
    """
    steps: list[str | int] = []
    for index, name in _STEP.findall(path):
        if not index and not name:
            break
        steps.append(int(index) if index else name)
    return tuple(steps)


def _check_fields(given: Mapping[str, Any], struct: type[msgspec.Struct], path: TomlPath) -> None:
    known = struct.__struct_fields__
    for name in given:
        if name not in known:
            where = f" in {'.'.join(map(str, path))}" if path else ""
            raise bad_suite(
                (*path, name),
                f"unknown field {name!r}{where}{nearest(name, known)}",
            )


def _in_file(path: Path, line: int | None, text: str, where: TomlPath = ()) -> MatrixError:
    place = f"{path}:{line}" if line is not None else str(path)
    return MatrixError(
        f"{place}: {text}", kind=ErrorKind.BAD_SUITE, file=str(path), line=line, path=where
    )


# --- lines --------------------------------------------------------------------------------------


def find_line(text: str, path: TomlPath) -> int | None:
    """
    The line, from 1, in which what stands at `path` begins; of what has none, that of what is
    around it. None where nothing of it is found.
    """
    lines: dict[TomlPath, int] = {}
    for number, found in _key_lines(text):
        lines.setdefault(found, number)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _key_lines(text: str) -> Iterator[tuple[int, TomlPath]]:
    table: TomlPath = ()
    counts: dict[TomlPath, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("[["):
            name = _header(stripped)
            if name is not None:
                counts[name] = counts.get(name, -1) + 1
                table = (*name, counts[name])
                yield number, table
        elif stripped.startswith("["):
            name = _header(stripped)
            if name is not None:
                table = name
                yield number, table
        else:
            key = _key(stripped)
            if key is not None:
                yield number, (*table, *key)


def _header(line: str) -> TomlPath | None:
    try:
        found: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:  # the second line of a list
        return None
    path: list[str] = []
    while isinstance(found, (dict, list)) and found:
        if isinstance(found, list):
            found = found[0]
            continue
        (name,) = found
        path.append(name)
        found = found[name]
    return tuple(path)


def _key(line: str) -> TomlPath | None:
    end = line.find("=")
    while end > 0:
        try:
            found: Any = tomllib.loads(f"{line[:end]} = 0")
        except tomllib.TOMLDecodeError:  # a sign of equality inside quotes
            end = line.find("=", end + 1)
            continue
        path: list[str] = []
        while isinstance(found, dict) and found:
            (name,) = found
            path.append(name)
            found = found[name]
        return tuple(path)
    return None
