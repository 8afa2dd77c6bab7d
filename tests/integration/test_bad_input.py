"""
What a caller or the environment does wrong is told once, counted, kept, and spoils nothing else.

In each test the same good records stand before and after the bad one and arrive.
"""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from allele_mlflow import (
    DeliveryError,
    RecordError,
    RunLogger,
)
from allele_mlflow.records import Ledger
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import KeptRun, Station, assert_good_arrived, log_good, our_warnings

pytestmark = pytest.mark.process


class Grumpy:
    """
    Raises whatever is asked of it.
    """

    def __float__(self) -> float:
        raise ValueError("I am no number")

    def __repr__(self) -> str:
        raise RuntimeError("nor a text")

    __str__ = __repr__


@dataclass(frozen=True)
class Mistake:
    """
    One bad call, and what is to be said of it.
    """

    name: str
    make: Callable[[RunLogger], object]
    reason: str
    key: str
    value: str
    rule: str


def metric(name: str, value: Any, shown: str, rule: str = "want a number") -> Mistake:
    return Mistake(name, lambda log: log.metric(name, value, 0), "bad_value", name, shown, rule)


def step(name: str, step: Any, shown: str, rule: str = "want an integer step") -> Mistake:
    return Mistake(name, lambda log: log.metric(name, 1.0, step), "bad_step", name, shown, rule)


def key(name: str, key: Any, shown: str, rule: str) -> Mistake:
    return Mistake(name, lambda log: log.metric(key, 1.0, 0), "bad_key", shown, "", rule)


def artifact(name: str, make: Callable[[RunLogger], object], shown: str, rule: str) -> Mistake:
    return Mistake(name, make, "bad_artifact", shown, "", rule)


MISTAKES = [
    metric("text", "0.5", "0.5"),
    metric("none", None, "None"),
    metric("bool", True, "True", "want a number, got bool"),
    metric("numpy bool", np.bool_(True), "True"),
    metric("complex", 1j, "1j"),
    metric("list", [1.0], "[1.0]"),
    metric("huge", 10**400, "1000"),
    metric("array", np.zeros(3), "array", "use series() for arrays"),
    metric("grumpy", Grumpy(), "repr failed", "I am no number"),
    Mistake(
        "metrics", lambda log: log.metrics({"in a mapping": "x"}, 0), "bad_value",
        "in a mapping", "x", "want a number",
    ),
    Mistake(
        "no mapping", lambda log: log.metrics(["a"], 0),  # type: ignore[arg-type]
        "bad_value", "", "a", "want names and numbers",
    ),
    Mistake("series", lambda log: log.series("s", ["x"]), "bad_value", "s", "x", "want numbers"),
    Mistake(
        "matrix", lambda log: log.series("s", np.zeros((2, 2))), "bad_value",
        "s", "array", "want shape (n,), got (2, 2)",
    ),
    key("illegal key", "loss!", "loss!", "want letters, digits"),
    key("empty key", "", "''", "want 1 to 250 characters"),
    key("long key", "k" * 251, "kkkk", "want at most 250"),
    key("no key", 17, "17", "want text"),
    key("newline", "a\n", "a\\n", "in it"),
    key("path", "../a", "../a", "not a plain path"),
    Mistake(
        "series key", lambda log: log.series("a=b", array("d", [1.0])), "bad_key",
        "a=b", "1.0", "want letters",
    ),
    Mistake("tag key", lambda log: log.tag("a=b", "x"), "bad_key", "a=b", "x", "want letters"),
    Mistake("param", lambda log: log.param("p", Grumpy()), "bad_value", "p", "", "want text"),
    Mistake(
        "params", lambda log: log.params(["a"]),  # type: ignore[arg-type]
        "bad_value", "", "a", "want names and values",
    ),
    Mistake(
        "tags", lambda log: log.tags(None),  # type: ignore[arg-type]
        "bad_value", "", "None", "want names and values",
    ),
    step("half", 1.5, "1.5"),
    step("letter", "x", "x"),
    step("not a step", np.nan, "nan"),
    step("large", 2**63, "9223372036854775808", "want a step of 64 bits"),
    Mistake(
        "series step", lambda log: log.series("s", [1.0], 2**63), "bad_step", "s", "922", "64 bits",
    ),
    Mistake(
        "error step", lambda log: log.error(ValueError("e"), step="x"),  # type: ignore[arg-type]
        "bad_step", "ValueError", "x", "want an integer step",
    ),
    artifact("json", lambda log: log.json({"a": object()}, "a.json"), "a.json", "want something"),
    artifact("text bytes", lambda log: log.text(b"x", "a.txt"), "a.txt", "want text"),  # type: ignore[arg-type]
    artifact("table", lambda log: log.table([1], "a.csv"), "a.csv", "want a pandas DataFrame"),
    artifact("suffix", lambda log: log.table({}, "a.xls"), "a.xls", ".csv, .json, .parquet"),
    artifact("figure", lambda log: log.figure(3, "a.png"), "a.png", "matplotlib or plotly figure"),
    artifact("dots", lambda log: log.text("x", "../a.txt"), "../a.txt", "want a relative path"),
    artifact("absolute", lambda log: log.text("x", "/a.txt"), "/a.txt", "want a relative path"),
    artifact("bad name", lambda log: log.text("x", "\udcff"), "udcff", "want"),
    artifact("no name", lambda log: log.text("x", ""), "''", "want the artifact's path"),
    artifact("genome", lambda log: log.genome(object(), "g"), "g", "want something JSON knows"),
    Mistake("uses", lambda log: log.uses("m@x"), "bad_value", "m@x", "", "stage 'x': want one of"),
    Mistake(
        "uses a thing", lambda log: log.uses(Grumpy()), "bad_value",
        "repr failed", "", "what a registry loaded",
    ),
    Mistake("uses a name", lambda log: log.uses("a=b/3"), "bad_key", "a=b/3", "", "want letters"),
]  # fmt: skip


@pytest.fixture(scope="module")
def letters(
    station: Station, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ledger, list[dict[str, Any]], KeptRun, dict[str, list[str]]]:
    """
    The ledger and dead letters of a run in which every mistake was made twice.
    """
    said: dict[str, list[str]] = {}
    log = station.start("mistakes")
    log_good(log, 0)
    for mistake in MISTAKES:
        with our_warnings() as texts:
            mistake.make(log)
            mistake.make(log)
        said[mistake.name] = texts
    log_good(log, 1)
    report = log.close()
    kept = station.kept(str(report.run_id))
    found = kept.dead_letters(tmp_path_factory.mktemp("letters"))
    return report.ledger, found, kept, said


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_is_set_aside(
    mistake: Mistake,
    letters: tuple[Ledger, list[dict[str, Any]], KeptRun, dict[str, list[str]]],
) -> None:
    """
    By default a mistake warns at most once a key and stands in the dead letters with its rule.
    """
    _, found, _, said = letters
    fitting = [
        letter
        for letter in found
        if letter["reason"] == mistake.reason
        and mistake.key in letter["key"]
        and mistake.value in letter["value"]
        and mistake.rule in letter["wanted"]
    ]
    assert len(fitting) >= 2
    texts = said[mistake.name]
    keys = [other.key.strip("'") for other in MISTAKES]
    is_first = keys.index(mistake.key.strip("'")) == MISTAKES.index(mistake)
    assert len(texts) == int(is_first)
    for text in texts:
        assert mistake.key.strip("'") in text
        assert mistake.rule in text


def test_mistakes_are_counted_and_spoil_nothing(
    letters: tuple[Ledger, list[dict[str, Any]], KeptRun, dict[str, list[str]]],
) -> None:
    """
    Two of each mistake in the ledger, by reason, and all good records arrived.
    """
    ledger, found, kept, _ = letters
    reasons = [mistake.reason for mistake in MISTAKES] * 2
    assert ledger.rejected == {reason: reasons.count(reason) for reason in reasons}
    # an error with a bad step is kept without it
    assert ledger.delivered == {"metric": 2, "param": 2, "error": 2}
    assert_ledger_balanced(ledger, accepted=len(reasons) + 6)
    assert len(found) == len(reasons)
    assert_good_arrived(kept)


@pytest.fixture(scope="module")
def strict_log(station: Station) -> Iterator[RunLogger]:
    """
    A strict logger for all mistakes.
    """
    log = station.start("strict", strict=True)
    log_good(log, 0)
    yield log
    with pytest.raises(DeliveryError, match="rejected") as caught:
        log.close()
    assert caught.value.facts["report"] is log.close()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_raises_when_strict(mistake: Mistake, strict_log: RunLogger) -> None:
    """
    With `strict=True` the call raises RecordError, which names key, value and rule.
    """
    with pytest.raises(RecordError) as caught:
        mistake.make(strict_log)
    error = caught.value
    assert mistake.key.strip("'") in str(error.facts["key"])
    assert mistake.value in str(error.facts["value"])
    assert mistake.rule in str(error)
    assert error.kind == mistake.reason


def test_on_error_hears_of_it(station: Station) -> None:
    """
    The callback gets each key's first mistake as text; one that raises reaches nobody.
    """
    heard: list[str] = []

    def on_error(text: str) -> None:
        heard.append(text)
        raise RuntimeError("the callback's own fault")

    with our_warnings() as said:
        log = station.start(on_error=on_error)
        log.metric("a", "x", 0)
        log.metric("a", "y", 0)
    assert heard == said == ["not logged: metric('a', 'x'): want a number, got str"]
    assert_ledger_balanced(log.close().ledger, accepted=2)


def test_error_filters_do_not_reach_the_benchmark(station: Station) -> None:
    """
    Where warnings are errors, neither a mistake nor a close over the budget raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with station.start(overhead_budget_percent=1e-9) as log:
            log.metric("a", "x", 0)
            log.metric("a", 1.0, 0)
            assert log.run_id  # by then it was long enough for its overhead to be known
    assert log.close().overhead_ratio
    assert_ledger_balanced(log.close().ledger, accepted=2)
