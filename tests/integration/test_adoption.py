"""
What earlier boots and other containers left in a spool is taken up by a sidecar of this one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from allele_mlflow.queue import spool
from allele_mlflow.settings import load
from allele_mlflow.sidecar.adoption import adopt_scopes
from tests.integration.runs import Station, wait_for

pytestmark = pytest.mark.process

CRASH = """
import os, signal
from allele_mlflow import start_logger
log = start_logger("left", run_uid="left")
for step in range(500):
    log.metric("m", float(step), step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(sqlite_store: str, tmp_path: Path) -> Station:
    """
    A station whose only run was left by a boot before this one.
    """
    station = Station(tmp_path / "station", sqlite_store)
    station.folder.mkdir()
    # no sidecar can start: what it logs waits
    body = "import allele_mlflow.sidecar.launch as l\nl.ensure_sidecar = lambda *_: False\n" + CRASH
    with station.start_script(tmp_path, body) as script:
        script.communicate(timeout=60)
    assert script.returncode == -signal.SIGKILL
    station.scope.rename(station.scope.with_name("earlier-boot"))
    return station


def await_delivery(station: Station, scope: str = "earlier-boot") -> None:
    """
    Wait until the run that was left is in MLflow, whole and ended.
    """
    done = station.scope.with_name(scope) / spool.DONE / "left" / spool.STATE_FILE
    wait_for(done.exists, "the run that was left")


def test_next_start_delivers_what_an_earlier_boot_left(left: Station) -> None:
    """The sidecar of a new run takes up the old one, though its scope is another."""
    with left.start("new") as log:
        log.metric("m", 1.0, 1)
    assert log.close().is_complete
    await_delivery(left)
    runs = left.kept(str(log.run_id)).client.search_runs(
        [e.experiment_id for e in left.kept(str(log.run_id)).client.search_experiments()],
        "tags.`allele.run_uid` = 'left'",
    )
    assert [run.info.status for run in runs] == ["KILLED"]
    assert len(left.kept(runs[0].info.run_id).rows("m")) == 500
    left.stop()


def test_status_delivers_what_an_earlier_boot_left(left: Station, tmp_path: Path) -> None:
    """A look with `status` is enough for the run to leave the spool; `--look-only` starts none."""
    command = "from allele_mlflow.cli.main import main; main()"
    arguments = [sys.executable, "-c", command, "status", str(left.scope.parent), "--json"]
    body = f"import subprocess, sys; sys.exit(subprocess.call({[*arguments, '--look-only']!r}))"
    assert '"starting": false' in left.run_script(tmp_path, body)
    body = f"import subprocess, sys; sys.exit(subprocess.call({arguments!r}))"
    assert '"starting": true' in left.run_script(tmp_path, body)
    await_delivery(left)
    left.stop()


def test_only_ones_own_runs_are_taken_up(left: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of another store or other credentials are left to who can deliver them."""
    scope = spool.open_scope(left.scope.parent)
    others = load({"tracking_uri": "http://127.0.0.1:1"}, environ={})
    assert list(adopt_scopes(scope, others)) == []
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_TOKEN", "another")
        mine = load({"tracking_uri": left.tracking_uri}, environ={})
        assert list(adopt_scopes(scope, mine)) == []
    assert os.listdir(left.scope.with_name("earlier-boot") / spool.RUNS) == ["left"]
