"""
SIGKILL of the sidecar's own process in the middle of a run with rules: each alert is there once.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from allele_mlflow import AlertRule, start_logger
from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.testing import assert_ledger_balanced
from allele_mlflow.tracking.schema import prepare_schema
from tests.faults.test_killed_sidecar import living_sidecars
from tests.integration.runs import KeptRun

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(150)]
KILLS = 2
DEADLINE_S = 60.0
RULES = [AlertRule(name="tenth", metric="a", condition="eq", threshold=0.0, cooldown_s=0)]


def test_alerts_of_a_killed_sidecar_come_once(tmp_path: Path) -> None:
    """Two sidecars die by SIGKILL: every tenth reading has its alert once, and so has each call."""
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
        alerts=RULES,
    )
    killed: set[int] = set()
    step = 0
    try:
        deadline_s = now_monotonic_s() + DEADLINE_S
        while len(killed) < KILLS and now_monotonic_s() < deadline_s:
            with log.phase("work", step=step):  # where the logger looks for its sidecar
                log.metric("a", float(step % 10), step)
                log.alert("called", severity="info", context={"step": step})
                pause_s(0.02)
            step += 1
            state = log.status()
            for pid in living_sidecars(tmp_path / "spool") - killed:
                # in the middle: some alerts are told already, and readings are under way
                if state is not None and state.run_id is not None and state.alert_counts:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
    finally:
        report = log.close()
    assert len(killed) == KILLS
    assert report.is_complete, (report.line(), log.status())
    assert_ledger_balanced(report.ledger, accepted=step + 2 * step + step)
    kept = KeptRun(f"sqlite:///{store}", str(report.run_id))
    folder = Path(url2pathname(urlsplit(kept.info.artifact_uri).path))
    document = json.loads((folder / "allele" / "alerts.json").read_bytes())
    found = Counter((one["name"], one["step"]) for one in document["alerts"])
    wanted = [("tenth", number) for number in range(0, step, 10)]
    assert found == Counter(wanted + [("called", number) for number in range(step)])
    assert {one["phase"] for one in document["alerts"]} == {"work"}
