"""
The public interface as typed programs use it. Never run: mypy and pyright check it.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import assert_type

import numpy as np

from allele_mlflow import (
    AlertRule,
    AlleleMlflowError,
    AlleleMlflowWarning,
    Component,
    DeliveryError,
    DeliveryReport,
    ErrorKind,
    Genome,
    Ledger,
    QueueError,
    RecordError,
    RunLogger,
    RunState,
    Settings,
    SettingsError,
    TransientTrackingError,
    __version__,
    attach,
    compare_environments,
    correlation_context,
    correlation_id,
    current_logger,
    load_component,
    load_genome,
    start_logger,
    take_environment,
)


def start() -> Iterator[RunLogger]:
    """
    Every way to begin.
    """
    yield start_logger("evolution")
    with start_logger(
        "evolution",
        run_name="pop-100",
        params={"population_size": 100, "rate": 0.5, "kind": None},
        tags={"team": "blue"},
        correlation_id="c-1",
        on_error=print,
        tracking_uri="sqlite:///mlflow.db",
        spool_dir="/var/spool/x",
        metrics_batch_size=500,
        exit_timeout_s=float("inf"),
        worker="thread",
        strict=True,
    ) as log:
        assert_type(log, RunLogger)
        yield log
    yield start_logger("evolution", settings=Settings(enabled=False))
    yield start_logger("evolution", parent=log)
    yield start_logger("evolution", parent="0123456789abcdef")
    yield start_logger("evolution", run_id="0123", run_uid="4567")
    yield start_logger("evolution", alerts="alerts.toml")
    yield start_logger("evolution", alerts=Path("alerts.toml"))
    yield start_logger(
        "evolution", alerts=[AlertRule(name="n", metric="m", condition="gt", threshold=1.0)]
    )
    AlertRule(name="n", metric="m", condition="above")  # type: ignore[arg-type]
    yield attach()
    yield attach(log.handle())
    assert_type(current_logger(), RunLogger | None)
    start_logger("evolution", "pop-100")  # type: ignore[call-arg]
    start_logger("evolution", run_name=100)  # type: ignore[arg-type]
    start_logger("evolution", parent=3)  # type: ignore[arg-type]


def log_numbers(log: RunLogger) -> None:
    """
    Readings of all kinds, the step by position as MLflow's own functions take it.
    """
    log.metric("fitness/best", 0.93)
    log.metric("fitness/best", 1, 3)
    log.metric("fitness/best", np.float32(0.5), step=4)
    log.metrics({"mean": 0.81, "diversity": 2})
    log.metrics({"mean": np.float64(0.81)}, step=5)
    log.series("genome", [0.1, 0.2])
    log.series("genome", array("d", [0.1]), first_step=100)
    log.series("genome", np.zeros(3), 7)
    log.metric(3, 1.0)  # type: ignore[arg-type]
    log.metric("a", 1.0, "x")  # type: ignore[arg-type]
    log.metrics({1: 2.0})  # type: ignore[dict-item]


def log_things(log: RunLogger, mapping: Mapping[str, object]) -> None:
    """
    What describes a run, and its files.
    """
    log.param("size", 3)
    log.params(mapping)
    log.tag("verdict", "good")
    log.tags(mapping)
    log.artifact("report.html")
    log.artifact(Path("report.html"), "reports", copy=True)
    log.text("hello", "notes.txt")
    log.json({"a": [1]}, "a.json")
    log.table({"a": [1]}, "a.csv")
    log.figure(object(), "a.png")
    assert_type(log.genome({"traits": [0.5]}, "best"), str | None)
    log.uses("mutation@production")
    log.error(ValueError("survived"), step=3)
    log.artifact(3)  # type: ignore[arg-type]
    log.artifact("report.html", None, True)  # type: ignore[call-arg]
    log.error("text")  # type: ignore[arg-type]
    log.alert("name", severity="error", value=3, threshold=0.5, step=4, context={"a": 1})
    log.alert(object())
    log.feed([{"alert_id": "a"}])
    log.recommendation({"title": "t"})
    log.prediction(object())
    log.alert("name", "error")  # type: ignore[call-arg]
    log.alert("name", value="high")  # type: ignore[arg-type]


def use_blocks(log: RunLogger) -> None:
    """
    Phases, children and loggers are context managers that give themselves.
    """
    phase: AbstractContextManager[object] = log.phase("selection", step=3)
    with phase, log.phase("mutation"):
        pass
    with log.child("c", params={"a": 1}, tags={"b": "c"}) as child:
        assert_type(child, RunLogger)


async def use_async_blocks(log: RunLogger) -> None:
    """
    And asynchronous ones.
    """
    phase: AbstractAsyncContextManager[object] = log.phase("selection")
    async with log as same, phase:
        assert_type(same, RunLogger)


def look(log: RunLogger) -> DeliveryReport:
    """
    What a logger tells.
    """
    assert_type(log.run_uid, str)
    assert_type(log.experiment, str)
    assert_type(log.settings, Settings)
    assert_type(log.run_id, str | None)
    assert_type(log.run_url, str | None)
    assert_type(log.handle(), str)
    assert_type(log.status(), RunState | None)
    assert_type(log.flush(), bool)
    assert_type(log.flush(timeout_s=0.5), bool)
    assert_type(log.detach(), DeliveryReport)
    log.close("FAILED")
    log.close("BROKEN")  # type: ignore[arg-type]
    report = log.close()
    assert_type(report, DeliveryReport)
    assert_type(report.ledger, Ledger)
    assert_type(report.ledger.delivered, dict[str, int])
    assert_type(report.ledger.accepted, int)
    assert_type(report.ledger.lost, int)
    assert_type(report.line(), str)
    assert_type(report.lines(), list[str])
    assert_type(report.spool, Path | None)
    assert_type(report.overhead_ratio, float | None)
    report.status = "FAILED"  # type: ignore[misc]
    return report


def handle_errors(log: RunLogger) -> str:
    """
    One tree of errors, grouped by what a handler would do; ours are built-in ones too.
    """
    try:
        log.close()
    except DeliveryError as error:
        assert_type(error.kind, ErrorKind)
        assert_type(error.message, str)
    except TransientTrackingError as error:
        assert_type(error.retry_after_s, float | None)
    except (SettingsError, RecordError) as error:
        mistake: ValueError = error
        return str(mistake)
    except QueueError as error:
        return repr(pickle.loads(pickle.dumps(error)))
    except AlleleMlflowError as error:
        return str(error.facts)
    warning: type[UserWarning] = AlleleMlflowWarning
    return f"{__version__} {warning}"


def where_and_why(folder: Path) -> None:
    """
    Fingerprints and their verdict; ids of log lines.
    """
    found = compare_environments(take_environment(folder), take_environment(folder))
    assert_type(found.line(), str)
    with correlation_context(cell="rate=0.1") as held:
        assert_type(held, str)
    assert_type(correlation_id(), str | None)


def use_the_registry(log: RunLogger) -> None:
    """
    What a registry gives, a logger takes.
    """
    genome = load_genome("tutor@production")
    assert_type(genome, Genome)
    assert_type(genome.version, int | None)
    component = load_component("mutation/1", settings=Settings())
    assert_type(component, Component)
    assert_type(component.files, Mapping[str, bytes])
    assert_type(component.write_files(Path("there")), list[Path])
    log.uses(genome)
    log.uses(component)
    log.uses("mutation@production", 3)  # type: ignore[call-arg]
