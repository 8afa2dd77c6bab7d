"""
ALLELE_MLFLOW_ENABLED=false: every method of the logger exists, takes the same arguments, and does
nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import DeliveryReport, RunLogger, Settings, start_logger
from allele_mlflow.disabled import SILENCED, DisabledRunLogger

PUBLIC = [
    name for name in (*vars(RunLogger), *RunLogger.__annotations__) if not name.startswith("_")
]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunLogger]:
    """
    A disabled logger, in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    with start_logger("e", settings=Settings(enabled=False)) as log:
        yield log


def test_every_public_name_is_there(log: RunLogger) -> None:
    """
    Whatever a program calls on a logger, it can call on a disabled one.
    """
    assert isinstance(log, DisabledRunLogger)
    missing = []
    for name in PUBLIC:
        try:
            getattr(log, name)
        except AttributeError as error:
            missing.append(str(error))
    assert missing == []


def test_no_method_is_left_at_work() -> None:
    """
    Each public method of the logger is silenced, overridden, or only calls such.
    """
    composed = {"run_url"}  # asks status()
    overridden = set(vars(DisabledRunLogger))
    assert set(PUBLIC) - set(SILENCED) - overridden - composed == set()


@pytest.mark.parametrize("name", SILENCED)
def test_silenced_method_takes_anything(log: RunLogger, name: str) -> None:
    """
    A bad argument is no mistake where nothing is logged; nothing comes back.
    """
    method: Any = getattr(log, name)
    assert method(object(), object(), step="x") is None


def test_overridden_methods_take_the_same_arguments() -> None:
    """
    What works with a logger works with a disabled one, by position and by name.
    """
    for name in ("phase", "flush", "close", "detach", "handle", "status"):
        wanted = inspect.signature(getattr(RunLogger, name)).parameters
        assert list(inspect.signature(getattr(DisabledRunLogger, name)).parameters) == list(wanted)


def test_nothing_waits_and_nothing_is_known(log: RunLogger) -> None:
    """
    There is no run: no id, no address, no status, and everything of it is delivered.
    """
    assert (log.run_id, log.run_url, log.status(), log.handle()) == (None, None, None, "")
    assert log.flush(timeout_s=0.0)
    assert log.experiment == "allele_benchmark_e"


def test_blocks_and_children_work(log: RunLogger, tmp_path: Path) -> None:
    """
    `with` blocks run, phases and children too; an exception passes through.
    """
    child = log.child("c", params={"a": 1})
    with pytest.raises(KeyError), log, child, child.phase("p", step=3):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


async def test_async_blocks_work(log: RunLogger) -> None:
    """
    `async with` too.
    """
    async with log, log.phase("p"):
        pass


@pytest.mark.parametrize("end", [RunLogger.close.__name__, RunLogger.detach.__name__])
def test_end_gives_an_empty_report(log: RunLogger, end: str) -> None:
    """
    Close and detach say that there was nothing, and their lines can be printed.
    """
    report = getattr(log, end)()
    assert isinstance(report, DeliveryReport)
    assert (report.status, report.ledger.accepted, report.is_complete) == ("DISABLED", 0, True)
    assert report.lines()


def test_attach_is_disabled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `attach()` needs no run to attach to where logging is off.
    """
    from allele_mlflow import attach

    monkeypatch.setenv("ALLELE_MLFLOW_ENABLED", "false")
    monkeypatch.delenv("ALLELE_MLFLOW_RUN", raising=False)
    with attach() as log:
        log.metric("a", 1.0)
    assert isinstance(log, DisabledRunLogger)
