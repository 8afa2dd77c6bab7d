"""
From one entry of Allele's results to the run that it becomes. Pure.

An entry stands under a key such as "model::personality::benchmark":

    {"config": {...}, "score": 0.7, "raw_results": ..., "execution_time": 12.5,
     "error": null, "timestamp": "2025-11-02T10:11:12"}
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from allele_mlflow import suite_tags as tags
from allele_mlflow.failures import categorise_text
from allele_mlflow.records import Reading, RunStatus
from allele_mlflow.tracking import limits

T = TypeVar("T")

#: Of one entry; the rest is counted in a tag and stands in the artifact.
MOST_PARAMS = 500
MOST_READINGS = 100_000
#: `allele.kind` of the runs of an import: no execution of a suite that could be resumed.
KIND_OF_IMPORT = "import"
KIND_OF_ENTRY = "imported"
TIMESTAMP_TAG = "allele.imported.timestamp"
LEFT_OUT_TAG = "allele.imported.left_out"
RAW = "raw"
#: What the parts of a key are called.
KEY_PARTS = ("model", "personality", "benchmark")

_UID_LENGTH = 24
_MESSAGE_LENGTH = 1000
#: Larger numbers than this are milliseconds: as seconds they are 3,000 years away.
_LARGEST_SECONDS = 1e11
_LATEST_MS = 1 << 53
_BAD_CHARACTERS = re.compile(r"[^/\w.\- :]")


class MalformedEntryError(ValueError):
    """
    It is no result of a finished configuration; the text says why.
    """


@dataclass(frozen=True)
class ImportedRun:
    """
    What an entry becomes.

    Attributes:
        run_uid: Made of the content, so that the same entry is the same run.
        left_out_count: Params and numbers beyond what a run can hold.
    """

    run_uid: str
    run_name: str
    params: dict[str, str]
    readings: list[Reading]
    tags: dict[str, str]
    status: RunStatus
    start_ms: int
    end_ms: int
    left_out_count: int = 0


def uid_of(*content: Any) -> str:
    """
    The run uid that some content has, on any machine.
    """
    text = json.dumps(content, sort_keys=True)  # unlike our canonical JSON it takes any number
    return f"import-{hashlib.sha256(text.encode()).hexdigest()[:_UID_LENGTH]}"


def plan_entry(key: str, value: Any, *, suite: str, now_ms: int) -> ImportedRun:
    """
    The run of one entry.

    Args:
        key: Its own.
        value: As JSON gives it.
        suite: What it is a part of.
        now_ms: For entries without a time of their own.
    Raises:
        MalformedEntryError: it is none.
    """
    if not isinstance(value, Mapping):
        raise MalformedEntryError(f"want an object, got {type(value).__name__}")
    config = value.get("config")
    if not isinstance(config, Mapping):
        raise MalformedEntryError(f"config: want an object, got {type(config).__name__}")
    error = value.get("error")
    if error in (None, "") and value.get("score") is None and value.get("raw_results") is None:
        raise MalformedEntryError("neither score nor raw_results nor error: not finished")
    told_ms = time_ms(value.get("timestamp"))
    end_ms = now_ms if told_ms is None else told_ms
    params, more_params = _bounded(_params(key, config), MOST_PARAMS)
    readings, more_readings = _bounded(_readings(value, end_ms), MOST_READINGS)
    left_out = more_params + more_readings
    seconds = _number(value.get("execution_time"))
    length_ms = (
        int(seconds * 1000) if seconds is not None and 0 <= seconds < _LARGEST_SECONDS else 0
    )
    return ImportedRun(
        run_uid=uid_of(suite, key, value),
        run_name=_storable(key)[: limits.RUN_NAME_LENGTH] or "(no key)",
        params=dict(params),
        readings=readings,
        tags=_tags(key, value, suite, left_out),
        status="FINISHED" if error in (None, "") else "FAILED",
        start_ms=max(0, end_ms - length_ms),
        end_ms=end_ms,
        left_out_count=left_out,
    )


def time_ms(value: Any) -> int | None:
    """
    A time as milliseconds since 1970, None where it is none: ISO 8601 (without a zone, as UTC), or
    a number of seconds or milliseconds.
    """
    number = _number(value)
    if number is not None:
        found = number if number > _LARGEST_SECONDS else number * 1000
    elif isinstance(value, str):
        try:
            when = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        found = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() * 1000
    else:
        return None
    return int(found) if 0 < found < _LATEST_MS else None


def legal_key(text: str) -> str:
    """
    A key that MLflow takes: the text itself where it is one, else as near as can be, with a few
    digits that keep different texts apart.
    """
    if limits.check_key(text) is None:
        return text
    digits = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:6]
    parts = [part for part in _BAD_CHARACTERS.sub("_", text).split("/") if part.strip(".")]
    return f"{'/'.join(parts).lstrip('.')[: limits.KEY_LENGTH - 7]}-{digits}"


def _bounded(items: Iterator[T], most: int) -> tuple[list[T], int]:
    """
    The first items, and how many more there are.
    """
    kept = list(islice(items, most))
    return kept, sum(1 for _ in items)


def _params(key: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for path, value in _leaves(config, ".", lists=False):
        name = legal_key(path)
        seen.add(name)
        yield name, _param_text(value)
    parts = key.split("::")
    if len(parts) == len(KEY_PARTS):
        for name, part in zip(KEY_PARTS, parts, strict=True):
            if name not in seen:
                yield name, _param_text(part)


def _param_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value) if value is not None else "None"
    text = _storable(text)
    if len(text) <= limits.PARAM_VALUE_LENGTH:
        return text
    note = f" ... [{len(text)} characters]"
    return text[: limits.PARAM_VALUE_LENGTH - len(note)] + note


def _readings(entry: Mapping[str, Any], timestamp_ms: int) -> Iterator[Reading]:
    for name in ("score", "execution_time"):
        number = _number(entry.get(name))
        if number is not None:
            yield Reading(name, number, timestamp_ms, 0)
    for path, value in _leaves({RAW: entry.get("raw_results")}, "/", lists=True):
        series = value if isinstance(value, list) else [value]
        numbers = [_number(one) for one in series]
        if numbers and None not in numbers:
            name = legal_key(path)
            for step, number in enumerate(numbers):
                if number is not None:
                    yield Reading(name, number, timestamp_ms, step)


def _leaves(value: Mapping[str, Any], separator: str, *, lists: bool) -> Iterator[tuple[str, Any]]:
    """
    What is no object, by its path; with `lists`, lists of numbers are leaves and others are opened.
    """
    waiting: list[tuple[str, Any]] = [
        (str(name), one) for name, one in reversed(list(value.items()))
    ]
    while waiting:
        path, one = waiting.pop()
        if isinstance(one, Mapping):
            inner: Iterator[tuple[Any, Any]] = reversed(list(one.items()))
        elif lists and isinstance(one, list) and any(_number(item) is None for item in one):
            inner = reversed(list(enumerate(one)))
        else:
            yield path, one
            continue
        waiting += [(f"{path}{separator}{name}", item) for name, item in inner]


def _tags(key: str, entry: Mapping[str, Any], suite: str, left_out: int) -> dict[str, str]:
    found = {tags.KIND: KIND_OF_ENTRY, tags.SUITE: suite, tags.CELL: key}
    if entry.get("timestamp") is not None:
        found[TIMESTAMP_TAG] = str(entry["timestamp"])
    if left_out:
        found[LEFT_OUT_TAG] = str(left_out)
    error = entry.get("error")
    if error not in (None, ""):
        text = error if isinstance(error, str) else json.dumps(error)
        category, error_type = categorise_text(text)
        found |= {
            "allele.error.category": category.value,
            "allele.error.type": error_type[: limits.KEY_LENGTH],
            "allele.error.message": text[:_MESSAGE_LENGTH],
            "allele.error.count": "1",
        }
    return {name: _storable(value)[: limits.TAG_VALUE_LENGTH] for name, value in found.items()}


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # half characters, as JSON may hold them


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
