"""
What an entry of Allele's results becomes.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.failures import Category, categorise_text
from allele_mlflow.matrix import imported_entry
from allele_mlflow.matrix.imported_entry import (
    ImportedRun,
    MalformedEntryError,
    legal_key,
    plan_entry,
    time_ms,
)
from allele_mlflow.records import Reading
from allele_mlflow.tracking import limits

NOW_MS = 1_800_000_000_000
ENTRY: dict[str, Any] = {
    "config": {"model": "llama3", "temperature": 0.7, "options": {"top p": 0.9, "stop": ["a"]}},
    "score": 0.75,
    "raw_results": {"times": [1, 2.5], "ok": True, "by": {"latency ms": 12, "name": "x"}},
    "execution_time": 12.5,
    "error": None,
    "timestamp": "2025-11-02T10:11:12",
}
ENTRY_MS = 1_762_078_272_000
KEY = "llama3::curious::reasoning"


def plan(value: Any, key: str = KEY) -> ImportedRun:
    return plan_entry(key, value, suite="matrix_full", now_ms=NOW_MS)


def test_whole_entry() -> None:
    """
    Config becomes params, numbers become readings of the entry's own time, and the run lasts as
    long as it took.
    """
    found = plan(ENTRY)
    assert found.params == {
        "model": "llama3",
        "temperature": "0.7",
        "options.top p": "0.9",
        "options.stop": '["a"]',
        "personality": "curious",
        "benchmark": "reasoning",
    }
    assert found.readings == [
        Reading("score", 0.75, ENTRY_MS, 0),
        Reading("execution_time", 12.5, ENTRY_MS, 0),
        Reading("raw/times", 1.0, ENTRY_MS, 0),
        Reading("raw/times", 2.5, ENTRY_MS, 1),
        Reading("raw/by/latency ms", 12.0, ENTRY_MS, 0),
    ]
    assert (found.status, found.start_ms, found.end_ms) == (
        *("FINISHED", ENTRY_MS - 12_500),
        ENTRY_MS,
    )
    assert found.run_name == KEY
    assert found.tags == {
        "allele.kind": "imported",
        "allele.suite": "matrix_full",
        "allele.cell": KEY,
        "allele.imported.timestamp": "2025-11-02T10:11:12",
    }


def test_uid_is_that_of_the_content() -> None:
    """
    The same entry has the same uid, in whatever order its fields stand; any change another one.
    """
    uid = plan(ENTRY).run_uid
    assert plan(dict(reversed(ENTRY.items()))).run_uid == uid
    others = {plan(ENTRY | {"score": 0.76}).run_uid, plan(ENTRY, key="a::b::c").run_uid}
    assert len(others | {uid}) == 3


@pytest.mark.parametrize(
    ("error", "category", "error_type"),
    [
        ("TimeoutError: no answer", Category.TIMEOUT, "TimeoutError"),
        ("requests.exceptions.Timeout: slow", Category.TIMEOUT, "requests.exceptions.Timeout"),
        ("request timed out after 300 s", Category.TIMEOUT, ""),
        ("CUDA out of memory. Tried to allocate", Category.OUT_OF_MEMORY, ""),
        ("KeyError: 'answer'", Category.DATA, "KeyError"),
        ("ValueError: cannot convert float NaN", Category.NUMERIC, "ValueError"),
        ("ConnectionError('refused')", Category.INFRASTRUCTURE, "ConnectionError"),
        ("it did not work", Category.UNKNOWN, ""),
        ({"code": 500}, Category.UNKNOWN, ""),
    ],
)
def test_error_fails_the_run(error: Any, category: Category, error_type: str) -> None:
    """
    By the class that its text begins with, else by what it speaks of; the score need not be there.
    """
    found = plan(ENTRY | {"error": error, "score": None})
    assert found.status == "FAILED"
    assert found.tags["allele.error.category"] == category
    assert found.tags["allele.error.type"] == error_type
    assert found.tags["allele.error.count"] == "1"


def test_text_that_names_no_class_is_no_type() -> None:
    """
    A sentence that begins with a word in capitals is no exception's name.
    """
    assert categorise_text("Error while reading") == (Category.UNKNOWN, "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "want an object, got NoneType"),
        ([ENTRY], "want an object, got list"),
        ({}, "config: want an object, got NoneType"),
        (ENTRY | {"config": "llama3"}, "config: want an object, got str"),
        ({"config": {}, "score": None, "error": None}, "not finished"),
    ],
)
def test_other_things_are_malformed(value: Any, reason: str) -> None:
    """
    And it is told why.
    """
    with pytest.raises(MalformedEntryError, match=reason):
        plan(value)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("2025-11-02T10:11:12", ENTRY_MS),
        ("2025-11-02T11:11:12+01:00", ENTRY_MS),
        ("2025-11-02 10:11:12Z", ENTRY_MS),
        (ENTRY_MS / 1000, ENTRY_MS),
        (ENTRY_MS, ENTRY_MS),
        ("yesterday", None),
        (None, None),
        (True, None),
        (-1, None),
        (math.nan, None),
        (1e300, None),
        ("0001-01-01T00:00:00", None),
    ],
)
def test_times(value: Any, ms: int | None) -> None:
    """
    ISO 8601 and numbers are times, without a zone in UTC; nothing else is guessed at.
    """
    assert time_ms(value) == ms


def test_time_that_is_none_stands_in_a_tag() -> None:
    """
    The readings then have the time of the import.
    """
    found = plan(ENTRY | {"timestamp": "yesterday"})
    assert found.tags["allele.imported.timestamp"] == "yesterday"
    assert {reading.timestamp_ms for reading in found.readings} == {NOW_MS}
    assert "allele.imported.timestamp" not in plan(ENTRY | {"timestamp": None}).tags


def test_odd_numbers() -> None:
    """
    Any number JSON can hold is a reading; what is none is left out.
    """
    raw = [math.nan, math.inf, 10**400, -(10**400)]
    found = plan(ENTRY | {"raw_results": raw, "score": "0.5", "execution_time": True})
    values = [reading.value for reading in found.readings]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, math.inf, -math.inf]
    mixed = plan(ENTRY | {"raw_results": [1, {"a": 2}, [3, 4], "x", []]}).readings[2:]
    assert [(one.key, one.value, one.step) for one in mixed] == [
        ("raw/0", 1.0, 0),
        ("raw/1/a", 2.0, 0),
        ("raw/2", 3.0, 0),
        ("raw/2", 4.0, 1),
    ]


def test_an_entry_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is too much for one run is counted in a tag, and never silently gone.
    """
    monkeypatch.setattr(imported_entry, "MOST_READINGS", 10)
    monkeypatch.setattr(imported_entry, "MOST_PARAMS", 5)
    config = {f"p{number}": "x" * 9000 for number in range(7)}
    found = plan({"config": config, "raw_results": list(range(12))}, key="one key")
    assert len(found.readings) == 10
    assert len(found.params) == 5
    assert {len(text) for text in found.params.values()} == {limits.PARAM_VALUE_LENGTH}
    assert found.left_out_count == 4
    assert found.tags["allele.imported.left_out"] == "4"


@given(st.text())
def test_any_name_becomes_a_key(text: str) -> None:
    """
    MLflow takes it, and a name that it takes already stays as it is.
    """
    key = legal_key(text)
    assert limits.check_key(key) is None
    assert (key == text) == (limits.check_key(text) is None)


def test_near_names_stay_apart() -> None:
    """
    Two names that differ in a bad character are two keys.
    """
    assert len({legal_key("accuracy (%)"), legal_key("accuracy [%]"), legal_key("accuracy")}) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("config", "score", "raw_results", "execution_time", "error", "timestamp")


@given(key=st.text(), value=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_any_json_is_a_run_or_malformed(key: str, value: dict[str, Any]) -> None:
    """
    Whatever stands in a file, an entry is planned within MLflow's limits, or refused with a reason.
    """
    try:
        found = plan_entry(key, value, suite="s", now_ms=NOW_MS)
    except MalformedEntryError:
        return
    keys = [*found.params, *(reading.key for reading in found.readings)]
    assert all(limits.check_key(one) is None for one in keys)
    assert 0 <= found.start_ms <= found.end_ms < 1 << 53
    texts = [*found.params.values(), *found.tags.values(), found.run_name]
    assert all(text.encode() is not None for text in texts)
