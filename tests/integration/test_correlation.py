"""
Every run has a correlation id: where it comes from, and that lines, children and other processes
have the same.
"""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from allele_mlflow import (
    LogContextHandler,
    attach,
    correlation_context,
    correlation_id,
    start_logger,
)
from allele_mlflow.queue import spool
from allele_mlflow.records import RunSpec
from allele_mlflow.run_logger import RunLogger
from tests.integration.runs import Station

pytestmark = pytest.mark.process


def described(log: RunLogger) -> RunSpec:
    """
    What the sidecar is told of a run.
    """
    spec = spool.read_struct(Path(log.handle()) / spool.RUN_FILE, RunSpec)
    assert spec is not None
    return spec


def test_id_comes_from_whoever_is_nearest(offline: Station) -> None:
    """
    What is given; else the parent's, by its logger or its handle; else that of the block around;
    else the run's own uid. The description says the same as the logger.
    """
    with offline.start() as plain:
        assert plain.correlation_id == plain.run_uid
    with correlation_context("block"), offline.start() as around:
        assert around.correlation_id == "block"
        with offline.start(correlation_id="given") as given:
            assert described(given).correlation_id == given.correlation_id == "given"
            children = [
                given.child("a"),
                offline.start(parent=given),
                offline.start(parent=given.handle()),
                offline.start(parent="0123456789abcdef"),
            ]
            found = [child.correlation_id for child in children]
            assert found == ["given", "given", "given", "block"]
            assert [described(child).correlation_id for child in children] == found
            for child in children:
                child.close()


def test_id_reaches_mlflow_and_whoever_joins(station: Station) -> None:
    """
    The tag says it; a logger that was attached, and one that joined the run, know it, also where
    they would have said another.
    """
    with correlation_context("job-17"):
        log = station.start(run_uid=f"joined-{spool.new_uid()}")
    with attach(log.handle()) as attached, correlation_context("other"):
        joined = station.start(run_uid=log.run_uid, correlation_id="another")
        assert joined.correlation_id == attached.correlation_id == "job-17"
        joined.close()
    report = log.close()
    assert report.run_id is not None
    assert station.kept(report.run_id).tags["allele.correlation_id"] == "job-17"


def test_resumed_run_keeps_its_id(station: Station) -> None:
    """
    A run that goes on is the same job: it keeps the id of its first part, unless it is given one.
    """
    uid = f"resumed-{spool.new_uid()}"
    with station.start(run_uid=uid, correlation_id="first"):
        pass
    station.finished(uid)
    with station.start(run_uid=uid) as log:
        assert log.correlation_id == "first"
    station.finished(uid)
    with station.start(run_uid=uid, correlation_id="second") as log:
        assert log.correlation_id == "second"


def test_lines_belong_to_the_open_run(offline: Station) -> None:
    """
    A line logged while a run is open names it, in any thread, without anything bound; after the end
    of the inner run the outer one, and then none.
    """
    stream = io.StringIO()
    handler = LogContextHandler(stream)
    logger = logging.getLogger("tests.correlation")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with offline.start(correlation_id="outer") as outer:
            with outer.child("inner") as inner:
                logger.info("1")
            logger.info("2")
            assert correlation_id() == "outer"
        logger.info("3")
        with start_logger("e", enabled=False):
            logger.info("4")
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["correlation_id"], line["run_uid"]) for line in lines] == [
        ("outer", inner.run_uid),
        ("outer", outer.run_uid),
        (None, None),
        (None, None),
    ]
