"""
What the logger's methods promise beside the plain log call: ids, flush, children, steps, numbers.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from allele_mlflow import current_logger, run_logger
from allele_mlflow.clock import now_monotonic_s, now_ns
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import Station, wait_for

pytestmark = pytest.mark.process


def test_run_id_waits_for_the_run(station: Station) -> None:
    """
    `run_uid` is known at once; `run_id` waits for the sidecar, and the run is there then.
    """
    with station.start() as log:
        log.param("a", 1)
        assert log.run_id is not None
        assert station.kept(log.run_id).tags["allele.run_uid"] == log.run_uid
        assert station.kept(log.run_id).info.status == "RUNNING"


def test_flush_means_delivered(station: Station) -> None:
    """
    When `flush` says True, everything logged before it can be read in MLflow, samples aside.
    """
    with station.start(sample_interval_s=0.01, metrics_batch_size=1000) as log:
        for round_ in range(3):
            log.series("loss", [float(round_)] * 2000, first_step=round_ * 2000)
            log.metric("rounds", 1.0, round_)
            assert log.flush()
            kept = station.kept(str(log.run_id))
            assert len(kept.rows("loss")) == 2000 * (round_ + 1)
            assert len(kept.rows("rounds")) == round_ + 1
            assert kept.info.status == "RUNNING"
    assert_ledger_balanced(log.close().ledger, accepted=6003)


def test_flush_survives_a_clock_that_is_set_back(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After the machine's clock jumped back, a flush does not take an earlier one's end for its own.
    """
    with station.start(delivery="quiet") as log:
        log.metric("loss", 0.5, 0)
        assert log.flush()
        monkeypatch.setattr(run_logger, "now_ns", lambda: now_ns() - 3600 * 10**9)
        log.metric("loss", 0.25, 1)
        assert log.flush()
        assert len(station.kept(str(log.run_id)).rows("loss")) == 2
    assert_ledger_balanced(log.close().ledger, accepted=2)


async def test_async_with(station: Station) -> None:
    """
    `async with` ends the run as `with` does, phases included, without blocking the loop.
    """
    async with station.start() as log, log.phase("train", step=1):
        log.metric("loss", 0.5, step=1)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=3)
    assert station.kept(str(report.run_id)).latest["loss"] == 0.5


def test_children_are_nested(station: Station) -> None:
    """
    A child is a run of its own in the same experiment, below its parent in MLflow's tree.
    """
    with station.start("family") as parent:
        with parent.child("first", params={"cell": 1}, tags={"k": "v"}) as child:
            child.metric("loss", 1.0, 0)
            with child.child("grandchild") as grandchild:
                pass
        parent.metric("total", 1.0, 0)
    kept_parent, kept_child, kept_grandchild = (
        station.kept(str(log.close().run_id)) for log in (parent, child, grandchild)
    )
    assert kept_child.tags["mlflow.parentRunId"] == kept_parent.run_id
    assert kept_grandchild.tags["mlflow.parentRunId"] == kept_child.run_id
    assert "mlflow.parentRunId" not in kept_parent.tags
    assert kept_child.info.experiment_id == kept_parent.info.experiment_id
    assert (kept_child.info.run_name, kept_child.params) == ("first", {"cell": "1"})
    assert set(kept_parent.latest) & {"loss", "total"} == {"total"}


def test_parent_by_run_id(station: Station) -> None:
    """
    The run above may be any run of MLflow's, by its id.
    """
    with station.start("family") as above:
        pass
    run_id = str(above.close().run_id)
    with station.start("family", parent=run_id) as log:
        pass
    assert station.finished(log.run_uid).tags["mlflow.parentRunId"] == run_id


def test_current_logger_is_the_last_open_one(station: Station) -> None:
    """
    `current_logger` finds the logger without being handed it, and none after the last close.
    """
    assert current_logger() is None
    with station.start() as outer:
        assert current_logger() is outer
        with outer.child() as inner:
            assert current_logger() is inner
        assert current_logger() is outer
    assert current_logger() is None


def test_one_run_uid_is_one_run(station: Station) -> None:
    """
    Two starts with one `run_uid` join one run; the second to come does not end it.
    """
    first = station.start("joined")
    second = station.start("joined", run_uid=first.run_uid)
    second.metric("rank", 1.0, 1)
    second.close()
    first.metric("rank", 0.0, 0)
    report = first.close()
    assert_ledger_balanced(report.ledger, accepted=2)
    kept = station.finished(first.run_uid)
    assert [row.step for row in kept.rows("rank")] == [0, 1]
    assert kept.info.status == "FINISHED"


def test_run_goes_on(station: Station) -> None:
    """
    With `run_id` a later process goes on in the same MLflow run, and may end it otherwise.
    """
    with station.start("resumed", params={"a": 1}) as first:
        first.metric("loss", 1.0, 0)
    run_id = first.close().run_id
    second = station.start("resumed", run_id=run_id)
    second.metric("loss", 0.5, 1)
    assert second.close("FAILED").run_id == run_id
    kept = station.kept(str(run_id))
    assert [row.value for row in kept.rows("loss")] == [1.0, 0.5]
    assert kept.info.status == "FAILED"


def test_readings_without_step_are_numbered(station: Station) -> None:
    """
    The producer numbers each key's readings 0, 1, 2, ... by itself, however they are logged.
    """
    with station.start() as log:
        for value in (5.0, 6.0):
            log.metric("a", value)
        log.metrics({"a": 7.0, "b": 8})
    kept = station.kept(str(log.close().run_id))
    assert [row[:2] for row in kept.rows("a")] == [(0, 5.0), (1, 6.0), (2, 7.0)]
    assert [row[:2] for row in kept.rows("b")] == [(0, 8.0)]


class Tensor:
    """
    As much of a torch scalar as a logger meets.
    """

    ndim = 0

    def __float__(self) -> float:
        return 4.5


def test_numbers_of_many_kinds(station: Station) -> None:
    """
    Whatever converts to one float is a reading, and whatever is a whole number is a step.
    """
    values: list[Any] = [
        3,
        np.float32(0.5),
        np.int64(7),
        np.array(2.5),
        Decimal("0.125"),
        Fraction(1, 4),
        Tensor(),
    ]
    with station.start() as log:
        for step, value in enumerate(values):
            log.metric("value", value, np.int32(step))
        log.metric("whole", 1.0, step=3.0)  # type: ignore[arg-type]
        log.series("array", np.arange(4, dtype=np.int16), first_step=np.int64(2))
        log.series("list", (number for number in (1, 2.5)))
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=len(values) + 1 + 4 + 2)
    assert not report.ledger.lost
    kept = station.kept(str(report.run_id))
    rows = kept.rows("value")
    assert [row.value for row in rows] == [3.0, 0.5, 7.0, 2.5, 0.125, 0.25, 4.5]
    assert [row.step for row in rows] == list(range(len(values)))
    assert kept.rows("whole")[0].step == 3
    assert [row[:2] for row in kept.rows("array")] == [(2, 0.0), (3, 1.0), (4, 2.0), (5, 3.0)]
    assert [row[:2] for row in kept.rows("list")] == [(0, 1.0), (1, 2.5)]


def test_status_is_published_while_it_runs(station: Station) -> None:
    """
    `status` says from outside the benchmark what was delivered, and its ledger balances.
    """
    with station.start(flush_interval_s=0.05) as log:
        log.metrics({"a": 1.0, "b": 2.0}, step=0)
        began_s = now_monotonic_s()

        def delivered() -> bool:
            state = log.status()
            return state is not None and state.ledger.delivered == {"metric": 2}

        wait_for(delivered, "two readings in the status")
        state = log.status()
        assert state is not None
        assert (state.status, state.end, state.done) == ("RUNNING", None, False)
        assert state.lag_s < now_monotonic_s() - began_s + 5
        assert_ledger_balanced(state.ledger, accepted=2)
