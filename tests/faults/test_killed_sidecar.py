"""
SIGKILL of the sidecar's own process: another one goes on from the cursor.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from allele_mlflow import start_logger
from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.testing import assert_ledger_balanced
from allele_mlflow.tracking.schema import prepare_schema

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(150)]
KILLS = 2
DEADLINE_S = 60.0


def living_sidecars(spool_dir: Path) -> set[int]:
    """
    Pids that the status files of a spool name.
    """
    pids = set()
    for path in spool_dir.glob("*/sidecar-*.json"):
        pid = json.loads(path.read_bytes())["pid"]
        if Path(f"/proc/{pid}").exists():
            pids.add(pid)
    return pids


def test_sidecar_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    """Two sidecars die by SIGKILL in the middle of a run: each record is one row, the run ends."""
    store = tmp_path / "mlflow.db"
    prepare_schema(store)
    log = start_logger(
        "killed",
        tracking_uri=f"sqlite:///{store}",
        spool_dir=tmp_path / "spool",
        artifact_location=tmp_path / "artifacts",
        flush_interval_s=0.05,
        metrics_batch_size=50,
        idle_timeout_s=0,
        exit_timeout_s=100,
        params={"a": 1},
    )
    killed: set[int] = set()
    step = 0
    try:
        deadline_s = now_monotonic_s() + DEADLINE_S
        while len(killed) < KILLS and now_monotonic_s() < deadline_s:
            with log.phase("work", step=step):  # where the logger looks for its sidecar
                log.metric("a", float(step), step)
                pause_s(0.02)
            step += 1
            state = log.status()
            for pid in living_sidecars(tmp_path / "spool") - killed:
                # in the middle of delivery: the run is there, and readings are under way
                if state is not None and state.run_id is not None and state.sidecar_cpu_s > 0:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
    finally:
        report = log.close()
    assert len(killed) == KILLS
    assert report.is_complete, (report.line(), report.waited_s, report.status, log.status())
    assert_ledger_balanced(report.ledger, accepted=step + 2 * step + 1)
    assert report.ledger.lost == 0
    with closing(sqlite3.connect(store)) as database:
        rows = database.execute("SELECT step FROM metrics WHERE key = 'a'").fetchall()
        runs = database.execute("SELECT status FROM runs").fetchall()
    assert sorted(row[0] for row in rows) == list(range(step))
    assert runs == [("FINISHED",)], "a run was created twice, or has not ended"
