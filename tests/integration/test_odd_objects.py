"""
Objects that nobody thought of: good ones are logged, the others reach nobody's loop.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allele_mlflow import RunLogger
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import Station, our_warnings

pytestmark = pytest.mark.process


class Keys(StrEnum):
    """
    Keys of a class of their own.
    """

    LOSS = "loss"


class Grumpy:
    """
    Has no text.
    """

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Moody:
    """
    Raises when it is looked at.
    """

    @property
    def ndim(self) -> int:
        raise RuntimeError("do not look at me")


class Pairless(dict[str, float]):
    """
    A mapping whose items are no pairs.
    """

    def items(self) -> Any:
        return [1.0, 2.0]


def enter(log: RunLogger, name: object) -> None:
    with log.phase(name):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    "make",
    [
        lambda log: log.metric("a", Moody(), 0),
        lambda log: log.metric(Moody(), 1.0, 0),
        lambda log: log.metric(["a"], 1.0, 0),
        lambda log: log.metrics(Pairless(a=1.0), 0),
        lambda log: log.metrics({Moody(): 1.0}, 0),
        lambda log: log.series(["a"], [1.0]),
        lambda log: log.series("a", Moody()),
        lambda log: log.series("a", None),
        lambda log: log.params(Pairless(a=1.0)),
        lambda log: log.tag(["a"], 1),
        lambda log: log.error("no exception"),
        lambda log: log.error(ValueError(Grumpy())),
        lambda log: log.text("x", ["a"]),
        lambda log: log.json(Moody(), "a.json"),
        lambda log: log.table(Moody(), "a.csv"),
        lambda log: log.table({"a": [1]}, 3),
        lambda log: log.figure(Moody(), None),
        lambda log: log.artifact(None),
        lambda log: log.artifact("\0"),
        lambda log: log.artifact(__file__, "\udcff"),
        lambda log: log.genome(Moody(), ["a"]),
        lambda log: enter(log, "\udcff"),
        lambda log: enter(log, Grumpy()),
        lambda log: enter(log, "p" * 70_000),
    ],
    ids=[f"call {number}" for number in range(24)],
)
def test_no_object_reaches_the_benchmark(make: Callable[[Any], object], offline: Station) -> None:
    """
    Whatever is handed over, a call of a log that is not strict comes back, and is counted.
    """
    with offline.start() as log, our_warnings():
        make(log)
    report = log.close()
    assert_ledger_balanced(report.ledger)
    assert report.ledger.accepted >= 1


def test_error_in_an_oddly_named_phase(station: Station, tmp_path: Path) -> None:
    """
    Phases named by no text, or by none that UTF-8 knows, are phases, and errors know them.
    """
    with station.start() as log:
        for name in (7, Keys.LOSS, "\udcff"):
            with log.phase(name, step=1):  # type: ignore[arg-type]
                log.error(ValueError("inside"))
    report = log.close()
    assert report.ledger.delivered == {"phase": 6, "error": 3}
    assert_ledger_balanced(report.ledger, accepted=9)
    kept = station.kept(str(report.run_id))
    errors = kept.json("allele/errors.json", tmp_path)["errors"]
    assert [error["phase"] for error in errors] == ["7", "loss", "\\udcff"]
    assert kept.latest["phase/loss/count"] == 1


def test_keys_of_a_class_of_their_own(station: Station, tmp_path: Path) -> None:
    """
    Enumerations' and NumPy's texts are good keys, everywhere.
    """
    with station.start() as log:
        log.metric(Keys.LOSS, 1.0, 0)
        log.metric(np.str_("numpy"), 2, 0)
        log.metrics({Keys.LOSS: 3}, 1)
        log.series(np.str_("series"), [1.0])
        log.param(np.str_("param"), 1)
        log.tag(Keys.LOSS, np.str_("tag"))
        with log.phase(Keys.LOSS):
            pass
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=8)
    assert not report.ledger.lost
    kept = station.kept(str(report.run_id))
    assert [row[:2] for row in kept.rows("loss")] == [(0, 1.0), (1, 3.0)]
    assert kept.latest["numpy"] == 2.0
    assert kept.params == {"param": "1"}
    assert kept.tags["loss"] == "tag"
