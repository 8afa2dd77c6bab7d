"""
The published fakes do what they say; `test_tracking_contract.py` compares MemoryTracking with
MLflow.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from allele_mlflow.clock import Clock
from allele_mlflow.errors import ErrorKind, PermanentTrackingError, TransientTrackingError
from allele_mlflow.records import Ledger, Reading, RunId
from allele_mlflow.testing import (
    FakeClock,
    Fault,
    FlakyTracking,
    MemoryTracking,
    MetricRow,
    assert_ledger_balanced,
)
from allele_mlflow.tracking import limits
from allele_mlflow.tracking.protocol import Tracking

DEADLINE_S = 10.0


def new_run(tracking: Tracking, *, start_ms: int = 1, run_uid: str = "uid") -> RunId:
    """
    A run in a new or known experiment.
    """
    experiment_id = tracking.ensure_experiment("evolution", artifact_location=None)
    return tracking.create_run(
        experiment_id, run_name="r", start_ms=start_ms, tags={"allele.run_uid": run_uid}
    )


def reading(value: float, *, key: str = "loss", timestamp_ms: int = 1, step: int = 0) -> Reading:
    """
    One reading.
    """
    return Reading(key, value, timestamp_ms, step)


def test_the_fake_clock_moves_when_told_to() -> None:
    """
    Both clocks stand still, and move together.
    """
    clock: Clock = FakeClock(now_ns=5, monotonic_s=2.0)
    assert isinstance(clock, FakeClock)
    assert (clock.now_ns(), clock.monotonic_s()) == (5, 2.0)
    clock.advance(1.5)
    assert (clock.now_ns(), clock.monotonic_s()) == (1_500_000_005, 3.5)
    with pytest.raises(ValueError, match="want 0 or more"):
        clock.advance(-1)


def test_memory_keeps_rows_as_the_sql_stores_do() -> None:
    """
    NaN and infinities are stored in MLflow's way, and a resent reading is one row.
    """
    tracking = MemoryTracking()
    run_id = new_run(tracking)
    readings = [reading(float("nan")), reading(float("inf")), reading(-0.0), reading(0.0)]
    tracking.log_batch(run_id, readings=readings)
    tracking.log_batch(run_id, readings=readings)
    assert tracking.runs[run_id].rows("loss") == [
        MetricRow("loss", 1, 0, 0.0, True),
        MetricRow("loss", 1, 0, limits.LARGEST_VALUE, False),
        MetricRow("loss", 1, 0, 0.0, False),
    ]
    assert tracking.calls["log_batch"] == 2


def test_memory_shows_the_latest_as_mlflow_does() -> None:
    """
    Step outranks time, time outranks value.
    """
    tracking = MemoryTracking()
    run_id = new_run(tracking)
    tracking.log_batch(run_id, readings=[reading(1.0, step=10, timestamp_ms=10)])
    tracking.log_batch(run_id, readings=[reading(2.0, step=3, timestamp_ms=99)])
    assert tracking.runs[run_id].latest["loss"].value == 1.0
    tracking.log_batch(run_id, readings=[reading(7.0, step=10, timestamp_ms=10)])
    assert tracking.runs[run_id].latest["loss"].value == 7.0


def test_memory_refuses_a_changed_param_and_the_rest_of_its_call() -> None:
    """
    A param is written once; a call that changes it leaves nothing behind.
    """
    tracking = MemoryTracking()
    run_id = new_run(tracking)
    tracking.log_batch(run_id, params={"depth": "3"})
    tracking.log_batch(run_id, params={"depth": "3"})
    with pytest.raises(PermanentTrackingError) as caught:
        tracking.log_batch(run_id, readings=[reading(1.0)], params={"depth": "5"}, tags={"a": "b"})
    assert caught.value.kind is ErrorKind.REFUSED
    run = tracking.runs[run_id]
    assert (run.params, run.metrics, "a" in run.tags) == ({"depth": "3"}, [], False)


@pytest.mark.parametrize(
    ("count", "params"), [(1001, 0), (0, 101), (950, 60)], ids=["metrics", "params", "items"]
)
def test_memory_refuses_what_a_store_would(count: int, params: int) -> None:
    """
    A planner that oversteps MLflow's limits is found out.
    """
    tracking = MemoryTracking()
    run_id = new_run(tracking)
    with pytest.raises(PermanentTrackingError, match="want at most"):
        tracking.log_batch(
            run_id,
            readings=[reading(1.0, step=step) for step in range(count)],
            params={f"p{number}": "1" for number in range(params)},
        )
    assert tracking.runs[run_id].metrics == []


def test_memory_is_safe_between_threads() -> None:
    """
    Eight threads create one experiment and lose no row of a shared run.
    """
    tracking = MemoryTracking()
    run_id = new_run(tracking)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(DEADLINE_S)
        tracking.ensure_experiment("shared", artifact_location=None)
        for step in range(50):
            tracking.log_batch(run_id, readings=[reading(1.0, key=f"k{number}", step=step)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(tracking.runs[run_id].metrics) == 400
    assert [experiment.name for experiment in tracking.experiments.values()] == [
        "evolution",
        "shared",
    ]


def test_memory_knows_its_missing_runs(tmp_path: Path) -> None:
    """
    Every call on a run that is not there says NOT_FOUND.
    """
    tracking = MemoryTracking()
    nobody = RunId("nobody")
    file = tmp_path / "f"
    file.write_bytes(b"")
    for call in (
        lambda: tracking.log_batch(nobody, tags={"a": "b"}),
        lambda: tracking.log_artifact(nobody, file, "f"),
        lambda: tracking.end_run(nobody, "FINISHED", 1),
        lambda: tracking.reopen_run(nobody),
        lambda: tracking.look_at_run(nobody),
    ):
        with pytest.raises(PermanentTrackingError) as caught:
            call()
        assert caught.value.kind is ErrorKind.NOT_FOUND


def test_flaky_follows_its_list() -> None:
    """
    Faults come in the order of the calls, and then the store is well.
    """
    inner = MemoryTracking()
    tracking = FlakyTracking(
        inner, {"log_batch": [Fault.transient(retry_after_s=3.0), None, Fault.permanent()]}
    )
    run_id = new_run(tracking)
    with pytest.raises(TransientTrackingError) as transient:
        tracking.log_batch(run_id, readings=[reading(1.0)])
    assert transient.value.retry_after_s == 3.0
    tracking.log_batch(run_id, readings=[reading(2.0)])
    with pytest.raises(PermanentTrackingError):
        tracking.log_batch(run_id, readings=[reading(3.0)])
    tracking.log_batch(run_id, readings=[reading(4.0)])
    assert [row.value for row in inner.runs[run_id].metrics] == [2.0, 4.0]
    assert tracking.calls == {"ensure_experiment": 1, "create_run": 1, "log_batch": 4}


def test_flaky_can_lose_the_answer() -> None:
    """
    The store has the run, and the caller is told of an error: the case that makes duplicates.
    """
    inner = MemoryTracking()
    tracking = FlakyTracking(inner, {"create_run": [Fault.answer_lost()]})
    with pytest.raises(TransientTrackingError):
        new_run(tracking)
    assert tracking.find_run("1", "uid") == next(iter(inner.runs))


def test_flaky_hangs_until_released() -> None:
    """
    A held call neither fails nor reaches the store before it is let go.
    """
    inner = MemoryTracking()
    run_id = new_run(inner)
    hold, entered = threading.Event(), threading.Event()
    tracking = FlakyTracking(inner, {"log_batch": [Fault(hold=hold, entered=entered)]})
    thread = threading.Thread(
        target=lambda: tracking.log_batch(run_id, readings=[reading(1.0)]), daemon=True
    )
    thread.start()
    assert entered.wait(DEADLINE_S)
    assert inner.runs[run_id].metrics == []
    hold.set()
    thread.join(DEADLINE_S)
    assert len(inner.runs[run_id].metrics) == 1


def test_flaky_takes_a_function() -> None:
    """
    A plan may depend on the method and the number of the call.
    """
    seen: list[tuple[str, int]] = []

    def plan(method: str, number: int) -> Fault | None:
        seen.append((method, number))
        return Fault.transient() if number == 1 else None

    tracking = FlakyTracking(MemoryTracking(), plan)
    tracking.ensure_experiment("a", artifact_location=None)
    with pytest.raises(TransientTrackingError):
        tracking.ensure_experiment("a", artifact_location=None)
    assert seen == [("ensure_experiment", 0), ("ensure_experiment", 1)]
    assert tracking.run_url("1", RunId("2")) == "memory:/#/experiments/1/runs/2"
    assert tracking.is_idempotent
    tracking.close()


def test_every_flaky_method_reaches_the_store(tmp_path: Path) -> None:
    """
    Without faults the wrapper is not to be noticed.
    """
    inner = MemoryTracking()
    tracking = FlakyTracking(inner, {})
    run_id = new_run(tracking)
    file = tmp_path / "f"
    file.write_bytes(b"x")
    tracking.log_artifact(run_id, file, "d/f")
    tracking.end_run(run_id, "KILLED", 9)
    assert tracking.reopen_run(run_id) == "1"
    assert tracking.look_at_run(run_id).experiment_id == "1"
    run = inner.runs[run_id]
    assert (run.artifacts, run.status, run.end_ms) == ({"d/f": b"x"}, "RUNNING", 9)


def test_a_balanced_ledger_passes() -> None:
    """
    Every part counts towards the sum, the sidecar's own samples do not.
    """
    ledger = Ledger(
        delivered={"metric": 5, "param": 1},
        archived={"every_10th": 2},
        rejected={"bad_value": 1},
        dropped={"quota": 3},
        torn=1,
        pending=4,
        sampled=99,
    )
    assert_ledger_balanced(ledger)
    assert_ledger_balanced(ledger, accepted=17)


@pytest.mark.parametrize(
    ("ledger", "accepted", "words"),
    [
        (Ledger(delivered={"metric": 5}), 6, r"6 records accepted, 5 accounted for \(-1\)"),
        (Ledger(delivered={"metric": 5}, pending=2), 6, r"\(\+1\): delivered\[metric\]=5"),
        (Ledger(delivered={"metric": 5}, pending=-1), 4, "negative counts pending"),
        (Ledger(sampled=-1), None, "negative counts sampled"),
    ],
)
def test_an_unbalanced_ledger_says_by_how_much(
    ledger: Ledger, accepted: int | None, words: str
) -> None:
    """
    The failure shows the whole ledger.
    """
    with pytest.raises(AssertionError, match=words):
        assert_ledger_balanced(ledger, accepted=accepted)
