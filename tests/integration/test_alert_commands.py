"""
`allele-mlflow alerts`: alerts to their phases and phases to their alerts, from spool and store.
"""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import AlertRule
from tests.integration.runs import Station, wait_for
from tests.integration.test_commands import run_command

pytestmark = pytest.mark.process
RULES = [AlertRule(name="bad loss", metric="loss", condition="nan", severity="critical")]


def alerts(
    station: Station, folder: Path, *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """
    The command, in a folder of its own, looking into a station's spool and store.
    """
    done = run_command(
        "alerts",
        *arguments,
        folder=folder,
        ALLELE_MLFLOW_SPOOL_DIR=str(station.folder / "spool"),
        ALLELE_MLFLOW_TRACKING_URI=station.tracking_uri,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def runs_of(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """
    What `--json` printed.
    """
    found: list[Any] = json.loads(done.stdout)["runs"]
    return found


def test_run_that_waits_is_read_from_the_spool(offline: Station, tmp_path: Path) -> None:
    """
    Alerts that nobody has read yet are listed with their phases; escape sequences are shown, not
    obeyed; without an argument every waiting run is listed.
    """
    with offline.start(run_name="waits") as log:
        with log.phase("select", step=3):
            log.alert("first", severity="error", message="look\x1b[2J", value=1.5, metric="m")
            log.alert("second", severity="info")
        log.alert("outside", severity="critical")
    done = alerts(offline, tmp_path, "waits")
    assert "first: look\\x1b[2J" in done.stdout
    assert [word in done.stdout for word in ("select", "1.5", "active", "critical")] == [True] * 4
    by_phase = alerts(offline, tmp_path, "waits", "--by", "phase").stdout
    assert "(no phase)" in by_phase
    assert "1 error, 1 info" in by_phase
    (run,) = runs_of(alerts(offline, tmp_path, "--json"))
    assert [one["name"] for one in run["alerts"]] == ["first", "second", "outside"]
    ids = [one["alert_id"] for one in run["alerts"]]
    assert run["phases"] == {"select": ids[:2], "": ids[2:]}
    (grave,) = runs_of(alerts(offline, tmp_path, log.run_uid, "--json", "--severity", "error"))
    assert [one["name"] for one in grave["alerts"]] == ["first", "outside"]


def test_run_that_is_over_is_read_from_mlflow(station: Station, tmp_path: Path) -> None:
    """
    By its MLflow id, its uid, its name or its experiment, with and without the spool.
    """
    with (
        station.start("alerted", run_name="it's over", alerts=RULES) as log,
        log.phase("train", step=4),
    ):
        log.metric("loss", math.nan, 4)
    with station.start("alerted"):
        pass  # a run without alerts
    kept = station.finished(log.run_uid)
    elsewhere = Station(tmp_path / "elsewhere", station.tracking_uri)
    names = [kept.run_id, log.run_uid, "it's over", "alerted", "allele_benchmark_alerted"]
    for place, name in [(station, names[0]), (station, names[3])] + [
        (elsewhere, name) for name in names
    ]:
        (run,) = runs_of(alerts(place, tmp_path, name, "--json"))
        (alert,) = run["alerts"]
        assert (run["run_id"], alert["name"], alert["phase"]) == (kept.run_id, "bad loss", "train")
    shown = alerts(station, tmp_path, log.run_uid).stdout
    assert "bad loss: loss is nan" in shown


@pytest.mark.parametrize("name", ["nothing of that name", "'\""])
def test_unknown_name(station: Station, tmp_path: Path, name: str) -> None:
    """
    A name that is neither a run nor an experiment is a usage error that says where it was looked.
    """
    done = alerts(station, tmp_path, name, code=2)
    assert "no such run or experiment" in done.stderr


def test_store_that_is_not_there(offline: Station, tmp_path: Path) -> None:
    """
    Exit code 6, and no database is made on the way.
    """
    missing = tmp_path / "missing.db"
    done = alerts(offline, tmp_path, "x", "--tracking-uri", f"sqlite:///{missing}", code=6)
    assert "there is no such database" in done.stderr
    assert not missing.exists()


def test_status_shows_alerts(offline: Station, tmp_path: Path) -> None:
    """
    `status` counts the alerts of a run that goes on and shows the last one.
    """
    rules = [AlertRule(name="silent", metric="*", stalled_s=0.2, severity="error")]
    log = offline.start(run_name="hangs", alerts=rules)

    wait_for(
        lambda: (state := log.status()) is not None and state.alert_counts.get("error"),
        "the alert in the run's status",
    )
    done = run_command("status", str(offline.folder / "spool"), "--look-only", folder=tmp_path)
    assert "alerts of hangs: 1 error; last error: silent: no sign of life for 0.2 s" in done.stdout
    log.detach()
