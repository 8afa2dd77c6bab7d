"""
From a call to MLflow: what a run of a few lines leaves there, through the real sidecar.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from pathlib import Path

import pytest

from allele_mlflow import DeliveryReport, RunLogger
from allele_mlflow.clock import now_ns, process_cpu_s
from allele_mlflow.testing import assert_ledger_balanced
from allele_mlflow.tracking.limits import LARGEST_VALUE
from tests.integration.runs import PREFIX, KeptRun, Row, Station

pytestmark = pytest.mark.process

GENERATIONS = 3
WORK_S = 0.17
SERIES = [0.1 * number for number in range(700)]
PARAMS = {"population_size": 100, "rate": 0.05, "kind": None}


@dataclass(frozen=True)
class Told:
    """
    A run that was logged and closed, with what the caller knows of it.
    """

    log: RunLogger
    report: DeliveryReport
    kept: KeptRun
    began_ms: float
    closing_ms: float
    ended_ms: float


def now_ms() -> float:
    return now_ns() / 1e6


def burn(cpu_s: float) -> None:
    until_s = process_cpu_s() + cpu_s
    while process_cpu_s() < until_s:
        pass


@pytest.fixture(scope="module")
def told(station: Station) -> Told:
    """
    A run with a bit of everything.
    """
    began_ms = now_ms()
    log = station.start(
        "ten_lines",
        run_name="pop-100",
        params=PARAMS,
        tags={"team": "blue"},
        correlation_id="c-17",
    )
    for generation in range(GENERATIONS):
        with log.phase("selection", step=generation):
            log.metric("fitness/best", 0.5 + generation, step=generation)
            burn(WORK_S)
    log.metrics({"fitness/mean": 0.25, "diversity": 2}, step=GENERATIONS)
    for step, value in enumerate([math.nan, math.inf, -math.inf]):
        log.metric("edge", value, step)
    log.series("fitness/genome", array("d", SERIES), first_step=100)
    log.tag("verdict", "good")
    log.text("hello", "notes/hello.txt")
    closing_ms = now_ms()
    report = log.close()
    assert report.run_id is not None
    return Told(log, report, station.kept(report.run_id), began_ms, closing_ms, now_ms())


def test_description_arrives(told: Told) -> None:
    """
    Experiment, name, params and tags stand in MLflow as they were given, params as text.
    """
    kept = told.kept
    experiment = kept.client.get_experiment(kept.info.experiment_id)
    assert experiment.name == told.log.experiment == f"{PREFIX}ten_lines"
    assert kept.info.run_name == "pop-100"
    assert kept.params == {"population_size": "100", "rate": "0.05", "kind": "None"}
    assert kept.tags["team"] == "blue"
    assert kept.tags["verdict"] == "good"


def test_readings_arrive_exactly(told: Told) -> None:
    """
    Values to the last bit, steps, and the time of the call, not of the delivery.
    """
    rows = told.kept.rows("fitness/best")
    assert [(row.step, row.value) for row in rows] == [(0, 0.5), (1, 1.5), (2, 2.5)]
    times = [row.timestamp_ms for row in rows]
    assert times == sorted(times)
    assert told.began_ms - 1 <= times[0] <= times[-1] <= told.closing_ms
    assert times[-1] - times[0] >= 2000 * WORK_S - 1
    (mean,), (diversity,) = told.kept.rows("fitness/mean"), told.kept.rows("diversity")
    assert mean == Row(GENERATIONS, 0.25, diversity.timestamp_ms)
    assert diversity.value == 2.0


def test_nan_and_infinities_are_legal(told: Told) -> None:
    """
    They arrive as MLflow stores them: NaN as NaN, infinities as the largest doubles.
    """
    rows = told.kept.rows("edge")
    assert [row.step for row in rows] == [0, 1, 2]
    assert math.isnan(rows[0].value)
    assert [row.value for row in rows[1:]] == [LARGEST_VALUE, -LARGEST_VALUE]


def test_series_arrives_whole(told: Told) -> None:
    """
    An array becomes as many readings, steps in a row, all of the moment of the call.
    """
    rows = told.kept.rows("fitness/genome")
    assert [row.value for row in rows] == SERIES
    assert [row.step for row in rows] == list(range(100, 100 + len(SERIES)))
    assert len({row.timestamp_ms for row in rows}) == 1


def test_phases_are_summed_up(told: Told, tmp_path: Path) -> None:
    """
    Each phase stands in allele/phases.json with its CPU, and in sum as phase/<name>/ metrics.
    """
    document = told.kept.json("allele/phases.json", tmp_path)
    assert [(row["name"], row["step"]) for row in document["rows"]] == [
        ("selection", step) for step in range(GENERATIONS)
    ]
    assert all(row["complete"] and row["seconds"] >= WORK_S for row in document["rows"])
    latest = told.kept.latest
    assert latest["phase/selection/count"] == GENERATIONS
    seconds = latest["phase/selection/seconds"]
    assert seconds == pytest.approx(sum(row["seconds"] for row in document["rows"]))
    # exact however short: the edges carry the process's CPU time
    cpu_s = latest["phase/selection/cpu_percent_mean"] / 100 * seconds
    assert cpu_s == pytest.approx(WORK_S * GENERATIONS, rel=0.1)


def test_resources_are_sampled(told: Told) -> None:
    """
    A run of half a second has two samples or more, under MLflow's machine-wide names and ours.
    """
    for key in ("system/system_memory_usage_percentage", "system/process_rss_megabytes"):
        rows = told.kept.rows(key)
        assert len(rows) >= 2
        assert all(row.value > 0 for row in rows)
        assert len({row.timestamp_ms for row in rows}) == len(rows)
    assert told.report.ledger.sampled >= 2


def test_ledger_balances(told: Told) -> None:
    """
    Every record is delivered, and the run's tag says what the report said.
    """
    readings = GENERATIONS + 2 + 3 + len(SERIES)
    expected = {"metric": readings, "param": 3, "tag": 1, "artifact": 1, "phase": 6}
    ledger = told.report.ledger
    assert_ledger_balanced(ledger, accepted=sum(expected.values()))
    assert ledger.delivered == expected
    assert ledger.pending == 0
    assert told.report.is_complete
    assert told.kept.delivery["accepted"] == ledger.accepted
    assert told.kept.delivery["delivered"] == expected
    assert told.kept.delivery["sampled"] == ledger.sampled


def test_run_ends_when_it_ended(told: Told) -> None:
    """
    FINISHED, from the moment of the start to that of the close, not of the delivery.
    """
    info = told.kept.info
    assert told.report.status == info.status == "FINISHED"
    assert told.began_ms - 1 <= info.start_time <= told.began_ms + 200
    assert told.closing_ms - 1 <= info.end_time <= told.closing_ms + 200


def test_our_tags_are_there(told: Told, tmp_path: Path) -> None:
    """
    The run says whose it is, where it ran, how it ended and what its logger cost.
    """
    tags = told.kept.tags
    assert tags["allele.run_uid"] == told.log.run_uid
    assert tags["allele.correlation_id"] == "c-17"
    assert len(tags["allele.environment"]) == 16
    assert tags["allele.ended_by"] == "close"
    assert 0.0 <= float(tags["allele.logger_overhead_percent"]) < 100.0
    assert float(tags["allele.sidecar_cpu_s"]) >= 0.0
    assert not [name for name in tags if name.startswith("allele.error")]
    found = told.kept.json("allele/environment.json", tmp_path)
    assert "allele-mlflow" in found["packages"]


def test_second_close_gives_the_same_report(told: Told) -> None:
    """
    Closing twice, or detaching after it, ends nothing twice.
    """
    assert told.log.close() is told.report
    assert told.log.detach() is told.report
    assert told.log.close("FAILED") is told.report
    assert told.kept.run_id in str(told.log.run_url)
