"""
Loggers as objects: copied, pickled, wrongly called, outliving their run, their spool, their task.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import (
    RecordError,
    RunLogger,
    Settings,
    current_logger,
    start_logger,
)
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import Station, our_warnings

pytestmark = pytest.mark.process


@dataclass
class Job:
    """
    A user's object that keeps a logger and one of its methods.
    """

    log: RunLogger
    metric: Any


def test_copies_log_into_the_same_run(station: Station) -> None:
    """
    A copy of whatever holds a logger is no second logger, and closes nobody's files.
    """
    with station.start() as log:
        job = Job(log, log.metric)
        for number, made in enumerate((copy.copy(job), copy.deepcopy(job))):
            made.metric("a", 1.0, number)
            assert made.log is log
        assert asdict(job)["log"] is log
        for thing in (log, log.metric, log.phase("p")):
            with pytest.raises(TypeError, match=r"log\.handle\(\)"):
                pickle.dumps(thing)
        log.metric("a", 1.0, 2)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=3)
    assert report.ledger.delivered == {"metric": 3}


async def test_error_is_put_into_the_phase_of_its_task(station: Station, tmp_path: Path) -> None:
    """
    Asyncio tasks have phases of their own; an error has the phase and step that it came from.
    """
    with station.start() as log:

        async def work(number: int) -> None:
            with log.phase(f"task {number}", step=number):
                await asyncio.sleep(0.01)
                try:
                    raise ValueError(number)
                except ValueError as exc:
                    await asyncio.sleep(0.01)
                    log.error(exc)

        await asyncio.gather(*(work(number) for number in range(3)))
    errors = station.finished(log.run_uid).json("allele/errors.json", tmp_path)["errors"]
    found = sorted((error["message"], error["phase"], error["step"]) for error in errors)
    assert found == [(str(n), f"task {n}", n) for n in range(3)]


def test_error_that_ends_the_run_has_its_phase(station: Station, tmp_path: Path) -> None:
    """
    The blocks are closed when the run learns of the exception; the innermost is remembered.
    """
    with pytest.raises(ZeroDivisionError), station.start() as log:  # noqa: PT012, SIM117 - nested
        with log.phase("outer", step=1):
            with log.phase("inner", step=7):
                1 / 0  # noqa: B018 - raises
    (error,) = station.finished(log.run_uid).json("allele/errors.json", tmp_path)["errors"]
    assert (error["phase"], error["step"]) == ("inner", 7)


def test_cancelled_task_is_killed(station: Station) -> None:
    """
    Ctrl-C inside asyncio comes as the cancelling of the task: KILLED, not FAILED.
    """

    async def main() -> None:
        async with station.start() as log:
            seen.append(log)
            await asyncio.Event().wait()

    async def cancel() -> None:
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        while not seen:  # noqa: ASYNC110 - it is there after the first step
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    seen: list[RunLogger] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert station.finished(seen[0].run_uid).info.status == "KILLED"


@pytest.mark.parametrize(("given", "status"), [("failed", "FAILED"), ("Killed", "KILLED")])
def test_status_of_close_may_be_in_small_letters(station: Station, given: Any, status: str) -> None:
    """
    `close("failed")` says what it means.
    """
    log = station.start()
    assert log.close(given).status == status
    assert station.finished(log.run_uid).info.status == status


def test_unknown_status_is_an_error_and_the_run_goes_on(offline: Station) -> None:
    """
    A status that MLflow does not know closes nothing.
    """
    log = offline.start()
    wrong: Any = "done"
    with pytest.raises(RecordError, match="status='done': want one of FINISHED, FAILED, KILLED"):
        log.close(wrong)
    log.metric("a", 1.0, 0)
    assert_ledger_balanced(log.close().ledger, accepted=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_id": 5}, "run_id=5: want the MLflow id"),
        ({"run_id": ""}, "run_id='': want the MLflow id"),
        ({"parent": object}, "parent=<class 'object'>: want a logger"),
        ({"run_uid": "../x"}, r"run_uid='\.\./x': want 1 to 100"),
        ({"experiment": "\udc80"}, "experiment=.*want text"),
    ],
)
def test_wrong_argument_is_told_before_any_work(
    offline: Station, arguments: dict[str, Any], message: str
) -> None:
    """
    What `start_logger` cannot use raises at once, naming argument, value and what is wanted.
    """
    with pytest.raises(RecordError, match=message):
        offline.start(**arguments)
    assert current_logger() is None


def test_odd_tags_and_params_are_set_aside(offline: Station) -> None:
    """
    Tags that are no mapping are a mistake like any other: counted, and the run goes on.
    """
    odd: Any = ["a"]
    with our_warnings() as said:
        log = offline.start(tags=odd, params=odd)
    assert len(said) == 1
    assert log.close().ledger.rejected == {"bad_value": 2}


def test_strict_start_leaves_no_open_run(offline: Station) -> None:
    """
    A strict start that raises for a bad param has ended its run: nobody has a logger to close it.
    """
    with pytest.raises(RecordError, match="a=b"):
        offline.start(strict=True, params={"a=b": 1})
    assert current_logger() is None


def test_logging_after_close_warns(offline: Station) -> None:
    """
    What is logged into a closed run is counted, and a warning says so.
    """
    log = offline.start()
    log.close()
    with our_warnings() as said:
        log.metric("a", 1.0, 0)
        log.tag("t", "v")
    assert said == ["logged after the run was closed: dropped, and counted"]


def test_warning_points_at_the_users_line(offline: Station) -> None:
    """
    A warning names the file that made the mistake, not one of ours.
    """
    log = offline.start()
    with pytest.warns(UserWarning, match="want a number") as caught:
        log.metric("a", "1", 0)
    assert caught[0].filename == __file__
    log.close()


def test_deleted_spool_is_told_and_counted(offline: Station) -> None:
    """
    A spool that is deleted under the run costs its records: a warning, and numbers at the close.
    """
    log = offline.start(tracking_uri="http://127.0.0.1:1")
    for step in range(500):
        log.metric("a", 1.0, step)
    shutil.rmtree(offline.folder / "spool")
    log._looked_s -= 10  # a second has passed
    with our_warnings() as said:
        with log.phase("p"):
            pass
        report = log.close()
    assert any("was deleted" in text for text in said)
    assert report.ledger.dropped["spool_deleted"] >= 500
    assert "dropped" in report.line()


@pytest.mark.parametrize("first", ["report", "report/page1.txt"])
def test_artifact_that_is_file_and_folder_at_once_blocks_nobody(
    station: Station, first: str
) -> None:
    """
    The second of two artifacts that cannot both be is refused at the call; all else arrives.
    """
    second = {"report": "report/page1.txt", "report/page1.txt": "report"}[first]
    with our_warnings() as said, station.start() as log:
        log.text("a", first)
        log.text("b", second)
        log.metric("m", 1.0, 0)
    ledger = log.close().ledger
    assert len(said) == 1
    assert ledger.rejected == {"bad_artifact": 1}
    assert ledger.delivered == {"artifact": 1, "metric": 1}
    assert first in station.finished(log.run_uid).artifacts


def test_clash_between_processes_blocks_nobody(station: Station) -> None:
    """
    Two loggers of one run know nothing of each other's names: the store refuses, and only that.
    """
    uid = "clash"
    with station.start(run_uid=uid) as log:
        with station.start(run_uid=uid) as other:
            log.text("a", "report")
            assert log.flush()
            other.text("b", "report/page1.txt")
        log.metric("m", 1.0, 0)
    ledger = log.close().ledger
    assert ledger.delivered == {"artifact": 1, "metric": 1}
    assert sum(ledger.rejected.values()) == 1


def test_artifact_store_that_does_not_work_stops_no_number(
    station: Station, tmp_path: Path
) -> None:
    """
    Where files cannot be kept, params, metrics and the end of the run arrive; only the files wait.
    """
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    log = station.start(
        "no_artifacts", artifact_location=str(tmp_path / "file" / "x"), exit_timeout_s=5.0
    )
    log.text("a", "a.txt")
    log.param("p", 1)
    for step in range(300):
        log.metric("m", 1.0, step)
    report = log.close()
    assert report.ledger.delivered == {"metric": 300, "param": 1}
    assert (report.ledger.pending, report.is_complete) == (1, False)
    kept = station.kept(str(report.run_id))
    assert kept.info.status == "FINISHED"
    assert len(kept.rows("m")) == 300
    (tmp_path / "file").unlink()
    assert "a.txt" in station.finished(log.run_uid).artifacts


def test_disabled_logger_is_the_current_one() -> None:
    """
    A program that asks for the current logger runs on when logging is switched off.
    """
    with start_logger("tests", settings=Settings(enabled=False)) as log:
        assert current_logger() is log
    assert current_logger() is None
