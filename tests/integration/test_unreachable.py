"""
No MLflow, no spool, no problem: the benchmark runs on, and every record is kept or counted.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from allele_mlflow import DeliveryError, RunLogger
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import Station, our_warnings, wait_for

pytestmark = pytest.mark.process

NOBODY = "http://127.0.0.1:1"
#: What does not wait for the store is over by then on any machine; what does waits 50 s (the
#: station's `exit_timeout_s`) or for ever.
SOON_S = 10.0


@pytest.fixture
def blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    A path where no folder can be made, and a state folder of this test's own.
    """
    path = tmp_path / "file"
    path.write_text("in the way", encoding="ascii")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield path / "spool"
    for spool_dir in (tmp_path / "state").rglob("spool"):
        Station(spool_dir.parent, "offline").stop()


class Door:
    """
    An address at which nobody listens until it is opened; then a server stands behind it.
    """

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (str(parts.hostname), int(parts.port or 0))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # ours, but refusing until it listens
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def open(self) -> None:
        """
        Let everybody through from now on.
        """
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                far = socket.create_connection(self._server)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError), source:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def log_some(log: RunLogger) -> int:
    """
    The number of records that were logged, of every kind.
    """
    log.param("p", 1)
    log.tag("t", "x")
    for step in range(10):
        log.metric("a", 0.5, step)
    log.metrics({"a": 1.0, "b": 2}, 11)
    log.series("s", [1.0, 2.0])
    log.text("x", "a.txt")
    log.error(ValueError("survived"))
    return 18


def last_error(station: Station, log: RunLogger) -> str:
    """
    What the sidecar says is in the way, or "".
    """
    state = station.state(log.run_uid)
    return (state.last_error or "") if state is not None else ""


def test_nobody_answers(tmp_path: Path) -> None:
    """
    A tracking URI that nobody answers: start and calls are fast, close is bounded, nothing is lost.
    """
    station = Station(tmp_path, NOBODY)
    try:
        began_s = now_monotonic_s()
        log = station.start(exit_timeout_s=0.3)
        assert now_monotonic_s() - began_s < SOON_S
        accepted = log_some(log)
        began_s = now_monotonic_s()
        report = log.close()
        assert now_monotonic_s() - began_s < SOON_S
        assert_ledger_balanced(report.ledger, accepted=accepted)
        assert report.ledger.pending == accepted
        assert (report.is_complete, report.run_id) == (False, None)
        assert f"{accepted} records wait in {tmp_path / 'spool'}" in "\n".join(report.lines())
    finally:
        station.stop()


def test_database_that_cannot_be_opened(tmp_path: Path) -> None:
    """
    The status says within seconds that the database cannot be opened; close does not wait for it.
    """
    (tmp_path / "mlflow.db").mkdir()
    station = Station(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        log = station.start(exit_timeout_s=0.1)
        accepted = log_some(log)
        assert log.close().ledger.pending == accepted
        wait_for(lambda: "mlflow.db" in last_error(station, log), "an error", deadline_s=20)
    finally:
        station.stop()


@pytest.mark.server
def test_store_comes_back(tmp_path: Path, mlflow_server: str) -> None:
    """
    What could not be delivered at close is delivered by the sidecar once the server is there.
    """
    with Door(mlflow_server) as door:
        station = Station(tmp_path, door.url)
        try:
            log = station.start("comes_back", exit_timeout_s=0.1, artifact_location=None)
            accepted = log_some(log)
            report = log.close()
            assert report.ledger.pending == accepted
            wait_for(lambda: last_error(station, log), "an error")
            door.open()
            kept = station.finished(log.run_uid)
            assert kept.info.status == "FINISHED"
            assert kept.info.end_time <= kept.info.start_time + report.elapsed_s * 1000 + 100
            assert len(kept.rows("a")) == 11
            assert kept.delivery["accepted"] == accepted
            assert sum(kept.delivery["delivered"].values()) == accepted
        finally:
            station.stop()


def test_spool_falls_back_to_the_state_folder(
    station: Station, blocked: Path, tmp_path: Path
) -> None:
    """
    A spool that cannot be written: one warning, and the run goes through the state folder.
    """
    with our_warnings() as said:
        log = station.start(
            spool_dir=str(blocked), tracking_uri="offline", exit_timeout_s=0.1, idle_timeout_s=0
        )
        accepted = log_some(log)
        report = log.close()
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert f"using {tmp_path / 'state'}" in said[0]
    assert str(tmp_path / "state") in str(report.spool)
    assert_ledger_balanced(report.ledger, accepted=accepted)
    assert report.ledger.pending == accepted


def test_no_spool_anywhere(station: Station, blocked: Path, tmp_path: Path) -> None:
    """
    With no folder to write to the run goes on; all is dropped and counted, with one warning.
    """
    (tmp_path / "state").write_text("in the way too", encoding="ascii")
    with our_warnings() as said:
        log = station.start(spool_dir=str(blocked), params={"q": 1})
        accepted = log_some(log) + 1
        assert log.run_id is None
        assert not log.flush(timeout_s=0.1)
        assert log.handle() == ""
        began_s = now_monotonic_s()
        report = log.close()
        assert now_monotonic_s() - began_s < SOON_S
    assert len(said) == 1
    assert "nothing of this run will be kept" in said[0]
    assert report.ledger.dropped == {"no_spool": accepted}
    assert_ledger_balanced(report.ledger, accepted=accepted)
    assert f"{accepted} dropped (no_spool {accepted})" in report.line()


def test_no_spool_is_an_error_at_a_strict_close(station: Station, blocked: Path) -> None:
    """
    With `strict=True` close raises DeliveryError for what was dropped, and carries the report.
    """
    blocked.parent.parent.joinpath("state").write_text("in the way too", encoding="ascii")
    with our_warnings():
        log = station.start(spool_dir=str(blocked), strict=True)
    log.metric("a", 1.0, 0)
    with pytest.raises(DeliveryError, match="1 dropped") as caught:
        log.close()
    assert caught.value.facts["report"].ledger.dropped == {"no_spool": 1}


def test_spool_deleted_under_the_run(offline: Station) -> None:
    """
    A spool folder that is deleted costs its records, each of which close names, and nothing else.
    """
    log = offline.start()
    log.metric("a", 1.0, 0)
    accepted = 1 + log_some(log)
    shutil.rmtree(offline.folder / "spool")
    accepted += log_some(log)
    report = log.close()
    assert report.status == "FINISHED"
    assert_ledger_balanced(report.ledger, accepted=accepted)
    assert report.ledger.dropped.keys() <= {"spool_deleted", "no_spool"}
