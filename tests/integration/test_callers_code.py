"""
What a program hands over and puts in our way: exceptions, streams and objects that fail themselves.
Each costs its own record at most, is counted, and reaches nobody's loop.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import RunLogger, attach, start_logger
from allele_mlflow.queue import room
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import Station, our_warnings

pytestmark = pytest.mark.process


class SilentError(Exception):
    """
    Fails when it is asked what it says.
    """

    def __str__(self) -> str:
        raise RuntimeError("no text")


class DelegatingError(Exception):
    """
    Has any attribute that one asks for, as a careless wrapper does.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Grumpy:
    """
    Refuses to become anything.
    """

    def __float__(self) -> float:
        raise SilentError

    def __str__(self) -> str:
        raise SilentError

    def __iter__(self) -> Iterator[Any]:
        raise SilentError

    def to_dict(self) -> dict[str, Any]:
        raise SilentError


CALLS: dict[str, Callable[[RunLogger], Any]] = {
    "metric": lambda log: log.metric("a", Grumpy()),
    "metrics": lambda log: log.metrics({"a": Grumpy()}),
    "series": lambda log: log.series("a", [Grumpy()]),
    "param": lambda log: log.param("a", Grumpy()),
    "tag": lambda log: log.tag("a", Grumpy()),
    "params": lambda log: log.params(Grumpy()),  # type: ignore[arg-type]
    "json": lambda log: log.json(Grumpy(), "x.json"),
    "genome": lambda log: log.genome(Grumpy()),
    "cell": lambda log: log.table({"a": [Grumpy()]}, "a.csv"),
    "surrogate": lambda log: log.table({"a": ["\udc80"]}, "b.csv"),
    "column": lambda log: log.table({"a": Grumpy()}, "c.csv"),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_failing_object_is_one_rejection(offline: Station, name: str) -> None:
    """
    Not even its exception can say what was wrong: it is counted, and nothing is raised.
    """
    log = offline.start()
    with our_warnings():
        CALLS[name](log)
    log.metric("good", 1.0, 0)
    report = log.close()
    assert sum(report.ledger.rejected.values()) == 1
    assert_ledger_balanced(report.ledger, accepted=2)


@pytest.mark.parametrize("kind", [SilentError, DelegatingError])
def test_odd_exception_ends_the_run_and_goes_on(offline: Station, kind: type[Exception]) -> None:
    """
    The user's own exception leaves the block, whatever it is like, and the run has failed.
    """
    with (
        pytest.raises(kind),
        offline.start() as log,
        log.phase("p", step=1),
    ):
        raise kind
    report = log.close()
    assert report.status == "FAILED"
    assert_ledger_balanced(report.ledger, accepted=3)


class Redirected:
    """
    What a log redirector puts in stderr's place: it can only write.
    """

    def write(self, text: str) -> None:
        raise OSError("nobody reads")


@pytest.mark.parametrize("stream", [None, Redirected()])
def test_any_stderr_will_do(
    offline: Station, monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    """
    A mistake and the close of a program whose stderr is closed or no terminal raise nothing.
    """
    log = offline.start()
    monkeypatch.setattr(sys, "stderr", stream)
    with our_warnings():
        log.metric("a", "text", 0)
    assert log.close().ledger.rejected == {"bad_value": 1}


def test_refused_series_counts_its_readings(offline: Station) -> None:
    """
    A record is one reading, refused or not.
    """
    with our_warnings(), offline.start() as log:
        log.series("a=b", [1.0] * 10)
        log.series("a", [1.0] * 20, first_step="x")  # type: ignore[arg-type]
        log.series("a", ["x"] * 30)
    assert log.close().ledger.rejected == {"bad_key": 10, "bad_step": 20, "bad_value": 30}


def test_phases_of_interleaved_generators(offline: Station) -> None:
    """
    A phase that is over is open for nobody, in whatever order they end.
    """

    def steps(name: str) -> Iterator[int]:
        with log.phase(name, step=7):
            yield 1

    from allele_mlflow.run_phase import place_of

    with offline.start() as log:
        for _ in zip(steps("a"), steps("b"), strict=True):
            pass
        assert place_of(ValueError(), log._stream) == (None, None)


def test_any_name_becomes_an_artifact(station: Station, tmp_path: Path) -> None:
    """
    A name as long as a file system takes, in letters of several bytes, comes back.
    """
    name = "名" * 80 + ".txt"
    (tmp_path / name).write_text("hello", encoding="utf-8")
    with station.start() as log:
        log.artifact(tmp_path / name)
        log.text("ü", "ü.txt")
    report = log.close()
    assert report.ledger.delivered == {"artifact": 2}
    kept = station.kept(str(report.run_id))
    assert {name, "ü.txt"} <= kept.artifacts


def test_folder_that_may_not_be_entered_spoils_no_other(
    offline: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What cannot be read in a folder is refused one by one.
    """
    for name in ("a.txt", "closed", "z.txt"):
        (tmp_path / name).write_text("x", encoding="ascii")
    real = Path.is_dir

    def is_dir(path: Path) -> bool:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch, our_warnings():
        log = offline.start()
        patch.setattr(Path, "is_dir", is_dir)
        log.artifact(tmp_path)
    ledger = log.close().ledger
    assert (ledger.pending, ledger.rejected) == (2, {"bad_artifact": 1})


def test_genome_that_found_no_room_is_kept_later(
    offline: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its tag does not point to a file that never came.
    """
    for name in ("LOOK_EVERY_S", "LOOK_WHEN_FULL_S"):
        monkeypatch.setattr(room, name, 0.0)
    monkeypatch.setattr(room, "LOOK_RATIO", 1e9)
    log = offline.start(spool_quota_bytes=3_000_000)
    filler = Path(log.handle()) / "filler"
    genome = {"traits": [0.5] * 10}
    with our_warnings():
        filler.write_bytes(bytes(3_000_000))
        log.genome(genome)
        filler.unlink()
        log.genome(genome)
        log.genome(genome)
    ledger = log.close().ledger
    assert ledger.dropped == {"quota": 1}
    assert ledger.pending == 1


def test_artifact_after_the_end_says_so(offline: Station) -> None:
    """
    Dropped because the run is closed, and not for want of room.
    """
    log = offline.start()
    log.close()
    with our_warnings() as said:
        log.text("late", "late.txt")
    assert said == ["logged after the run was closed: dropped, and counted"]


def test_attached_logger_has_the_runs_settings(offline: Station, tmp_path: Path) -> None:
    """
    A child of an attached logger goes where its parent is, and not where the environment says.
    """
    with offline.start() as log, attach(log.handle()) as attached:
        assert attached.settings.is_offline
        with attached.child("kid") as kid:
            assert kid.settings.spool_dir == str(offline.folder / "spool")
        assert Path(kid.handle()).parent == Path(log.handle()).parent


def test_parent_may_be_in_another_spool(station: Station, tmp_path: Path) -> None:
    """
    The run stands below its parent all the same.
    """
    parent = station.start(run_name="parent")
    with start_logger(
        "tests",
        parent=parent,
        **(station.settings | {"spool_dir": str(tmp_path / "other"), "idle_timeout_s": 0.0}),
    ) as log:
        log.metric("m", 1.0, 0)
    report, above = log.close(), parent.close()
    kept = station.kept(str(report.run_id))
    assert kept.tags["mlflow.parentRunId"] == above.run_id


def test_error_filters_of_the_environment_do_not_reach_the_sidecar(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With PYTHONWARNINGS=error MLflow's own deprecations would keep everything from being delivered.
    """
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with station.start(idle_timeout_s=0.0, run_name="filtered") as log:
        log.metric("m", 1.0, 0)
    assert log.close().is_complete


def test_spool_that_cannot_be_looked_at_raises_nothing(
    offline: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A network file system that is away for a while (ESTALE, EACCES) is nobody's exception.
    """
    log = offline.start()
    scope = Path(log.handle()).parent.parent
    real = os.stat

    def stat(path: Any, *more: Any, **named: Any) -> Any:
        if str(path).startswith(str(scope)):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **named)

    with monkeypatch.context() as patch, our_warnings() as said:
        patch.setattr(os, "stat", stat)
        for call in (
            lambda: log.param("a", 1),
            lambda: log.tag("a", 1),
            lambda: log.error(ValueError("x")),
            lambda: log.phase("p").__enter__().__exit__(None, None, None),
            log.status,
        ):
            log._looked_s = -1e9
            call()
    assert not any("was deleted" in text for text in said)
    assert log.close().ledger.pending == 5
