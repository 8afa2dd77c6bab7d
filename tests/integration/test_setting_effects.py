"""
Every setting that is in force does something: one test each, here or where `EFFECTS` says.

Where a setting slows something down, a second run without it says when to look: nobody sleeps.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas
import pytest

from allele_mlflow import RunLogger, Settings, SettingsError, current_logger, start_logger
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import layout
from allele_mlflow.records import Reading
from allele_mlflow.settings import load
from allele_mlflow.settings_table import SETTING_NAMES
from allele_mlflow.testing import assert_ledger_balanced
from allele_mlflow.tracking.client import MlflowTracking
from tests.integration.runs import Station, our_warnings, wait_for

pytestmark = pytest.mark.process

#: Where the effect of each setting is proved.
EFFECTS = {
    "enabled": "test_setting_effects.py::test_enabled_off_leaves_no_trace",
    "tracking_uri": "test_setting_effects.py::test_tracking_uri_says_where_runs_go",
    "experiment_prefix": "test_setting_effects.py::test_experiment_prefix_and_artifact_location",
    "artifact_location": "test_setting_effects.py::test_experiment_prefix_and_artifact_location",
    "metrics_batch_size": "test_setting_effects.py::test_metrics_batch_size_is_a_ceiling",
    "artifact_retention_days": "test_retention_command.py::test_the_setting_says_how_old",
    "spool_dir": "test_setting_effects.py::test_spool_dir_says_where_records_wait",
    "spool_quota_bytes": "test_setting_effects.py::test_spool_quota_drops_and_counts",
    "idle_timeout_s": "test_setting_effects.py::test_idle_sidecar_leaves",
    "sidecar_cpu_percent": "test_setting_effects.py::test_cpu_limit_slows_delivery",
    "delivery": "test_setting_effects.py::test_quiet_delivers_at_the_end",
    "durability": ("test_setting_effects.py::test_durability_power_writes_full_segments_through"),
    "flush_interval_s": "test_setting_effects.py::test_flush_interval_is_the_oldest_age",
    "sample_interval_s": "test_setting_effects.py::test_sample_interval",
    "exit": "test_setting_effects.py::test_detach_hands_over_at_once",
    "exit_timeout_s": "test_unreachable.py::test_nobody_answers",
    "auto_experiment_tracking": "test_suites.py::test_without_tracking_there_is_no_store",
    "auto_register_models": "test_registration.py::test_switched_off_nothing_is_registered",
    "bulk_store": "test_setting_effects.py::test_bulk_store_says_who_writes",
    "sampling": "test_setting_effects.py::test_sampling_thins_what_mlflow_shows",
    "alerts": "test_setting_effects.py::test_alerts_file_is_evaluated",
    "worker": "test_thread_worker.py::test_thread_delivers_the_same",
    "strict": "test_bad_input.py::test_mistake_raises_when_strict",
    "overhead_budget_percent": "test_setting_effects.py::test_overhead_above_budget_warns",
    "max_lag_s": "test_setting_effects.py::test_lag_lifts_the_cpu_limit",
    "artifact_copy_max_bytes": "test_artifacts.py::test_large_file_must_stay_as_it_is",
    "model_registry_enabled": "test_registry_command.py::test_disabled",
    "model_registry_uri": "test_registry_command.py::test_from_runs_to_production_and_back",
    "log_level": "test_closing_line.py::test_log_level_error_is_silent",
}


def delivered(log: RunLogger) -> int:
    """
    Readings in MLflow so far, as the sidecar published it.
    """
    state = log.status()
    return state.ledger.delivered.get("metric", 0) if state is not None else 0


def test_every_setting_has_an_effect_or_says_it_has_none() -> None:
    """
    A new setting needs a test of its effect, or it must warn that it has none yet.
    """
    assert set(EFFECTS) == set(SETTING_NAMES)
    for place in EFFECTS.values():
        file, _, test = place.partition("::")
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"def {test}(" in text, place


def test_ready_settings_and_overrides(offline: Station) -> None:
    """
    Ready settings count instead of the environment's; an override beside them changes only its own.
    """
    ready = load(offline.settings | {"strict": True, "flush_interval_s": 7.0})
    cases: list[dict[str, Any]] = [{}, {"metrics_batch_size": 17}]
    for given in cases:
        log = start_logger("tests", settings=ready, **given)
        assert log.settings.strict
        assert log.settings.flush_interval_s == 7.0
        assert log.settings.tracking_uri == "offline"
        assert log.settings.batch_size == given.get("metrics_batch_size", 100)
        assert log.settings.sidecar_cpu_percent == 100.0
        log.close()


def test_enabled_off_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    ALLELE_MLFLOW_ENABLED=false: no file, no variable, no process; every call is accepted.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALLELE_MLFLOW_ENABLED", "false")
    with start_logger("tests", params={"a": 1}) as log, log.phase("p", step=1):
        log.metric("a", 1.0, 0)
        log.artifact("no such file")
    assert log.close().status == "DISABLED"
    assert list(tmp_path.iterdir()) == []
    assert "ALLELE_MLFLOW_RUN" not in os.environ
    assert current_logger() is None


def test_tracking_uri_says_where_runs_go(station: Station, sqlite_store: str) -> None:
    """
    The run is in the store of the tracking URI.
    """
    with station.start(tracking_uri=sqlite_store, worker="thread", idle_timeout_s=0.0) as log:
        log.metric("a", 1.0, 0)
    report = log.close()
    kept = Station(station.folder, sqlite_store).kept(str(report.run_id))
    assert kept.latest["a"] == 1.0
    with pytest.raises(Exception, match="not found"):
        station.kept(str(report.run_id))


def test_experiment_prefix_and_artifact_location(station: Station, tmp_path: Path) -> None:
    """
    A new experiment has the prefix before its name, and its artifacts where we want them.
    """
    place = tmp_path / "artifacts"
    with station.start("own", experiment_prefix="mine/", artifact_location=str(place)) as log:
        log.text("x", "a.txt")
    kept = station.finished(log.run_uid)
    assert kept.client.get_experiment(kept.info.experiment_id).name == "mine/own"
    (found,) = place.rglob("a.txt")
    assert kept.run_id in str(found)


def test_metrics_batch_size_is_a_ceiling(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No call of MLflow's `log_batch` has more metrics, and full batches have as many.
    """
    sizes: list[int] = []
    log_batch = MlflowTracking.log_batch

    def counting(self: Any, run_id: Any, *, readings: Sequence[Reading] = (), **more: Any) -> None:
        sizes.append(len([one for one in readings if one.key == "a"]))
        assert len(readings) <= 17
        log_batch(self, run_id, readings=readings, **more)

    monkeypatch.setattr(MlflowTracking, "log_batch", counting)
    with station.start(
        metrics_batch_size=17, bulk_store="off", worker="thread", idle_timeout_s=0.0
    ) as log:
        for step in range(100):
            log.metric("a", 1.0, step)
        assert log.run_id
    assert sum(sizes) == 100
    assert max(sizes) == 17
    assert_ledger_balanced(log.close().ledger, accepted=100)


@pytest.mark.parametrize(("bulk_store", "writes_by"), [("auto", "bulk"), ("off", "MLflow")])
def test_bulk_store_says_who_writes(station: Station, bulk_store: str, writes_by: str) -> None:
    """
    Batches go to a SQLite store in bulk, or through MLflow's own call; the sidecar says which.
    """
    with station.start(bulk_store=bulk_store) as log:
        log.metric("a", 1.0, 0)
        assert log.flush()

        def said() -> bool:
            texts = [path.read_bytes() for path in station.scope.glob("sidecar-*.json")]
            return any(json.loads(text)["writes_by"] == writes_by for text in texts)

        wait_for(said, "the sidecar's word")
    assert station.finished(log.run_uid).latest["a"] == 1.0


def test_spool_dir_says_where_records_wait(offline: Station, tmp_path: Path) -> None:
    """
    What is not delivered waits in the folder that was named, which keeps itself out of git.
    """
    place = tmp_path / "some" / "where"
    report = offline.start(spool_dir=str(place), idle_timeout_s=0).close()
    assert report.spool == place
    assert list(place.glob(f"*/runs/{report.run_uid}/run.msgpack"))
    assert (place / ".gitignore").read_text(encoding="ascii").endswith("*\n")
    assert place.stat().st_mode & 0o777 == 0o700


def test_spool_quota_drops_and_counts(offline: Station) -> None:
    """
    Above the quota the newest records are dropped and counted, and the spool stays below it.
    """
    quota = layout.SEGMENT_BYTES * 3 // 2
    log = offline.start(spool_quota_bytes=quota)
    for step in range(40_000):
        log.metric("a", 1.0, step)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=40_000)
    slots = (layout.SEGMENT_BYTES - layout.HEADER_BYTES) // layout.RECORD_BYTES
    assert report.ledger.pending == slots
    assert report.ledger.dropped == {"quota": 40_000 - slots}
    used = sum(path.stat().st_size for path in offline.scope.rglob("*") if path.is_file())
    assert used <= quota
    assert "dropped (quota" in report.line()


def test_idle_sidecar_leaves(tmp_path: Path) -> None:
    """
    Without work a sidecar leaves after this time, and not before.
    """
    short, long = (Station(tmp_path / name, "offline") for name in ("short", "long"))
    try:
        for station, idle_timeout_s in ((long, 60.0), (short, 0.2)):
            station.folder.mkdir()
            log = station.start(idle_timeout_s=idle_timeout_s)
            wait_for(station.sidecars, "its sidecar")
            log.close()
        wait_for(lambda: not short.sidecars(), "the idle one to leave")
        assert long.sidecars()
    finally:
        short.stop()
        long.stop()


def test_cpu_limit_slows_delivery(station: Station) -> None:
    """
    While the benchmark lives, a sidecar with less CPU delivers later; at the close it hurries.
    """
    number = 5000  # many times what the first 50 ms of CPU, which are free, deliver anywhere
    with station.start(sidecar_cpu_percent=1.0, bulk_store="off") as slow:
        slow.series("a", [1.0] * number)
        with station.start(bulk_store="off") as quick:
            quick.series("a", [1.0] * number)
            wait_for(lambda: delivered(quick) == number, "the quick one's readings")
        assert delivered(slow) < number / 2
    assert_ledger_balanced(slow.close().ledger, accepted=number)
    assert slow.close().ledger.pending == 0


def test_lag_lifts_the_cpu_limit(station: Station) -> None:
    """
    A delivery that lags more than MAX_LAG_S has no CPU limit any more, and the log says so.
    """
    with station.start(sidecar_cpu_percent=2.0, max_lag_s=1.0, bulk_store="off") as log:
        for step in range(1000):
            log.metric("a", 1.0, step)
        wait_for(lambda: delivered(log) == 1000, "all readings, without a flush")
    assert f"run {log.run_uid}: CPU limit lifted: delivery is" in station.sidecar_log()


def test_quiet_delivers_at_the_end(station: Station) -> None:
    """
    `quiet` only samples while the benchmark runs, and delivers everything when it ends.
    """
    with station.start(delivery="quiet", flush_interval_s=0.05, sample_interval_s=0.05) as quiet:
        quiet.metrics({"a": 1.0, "b": 2.0}, 0)
        quiet.param("p", 1)
        with station.start(flush_interval_s=0.05) as live:
            live.metric("a", 1.0, 0)
            wait_for(lambda: delivered(live) == 1, "the live one's reading")
        state = quiet.status()
        assert state is not None
        assert (state.run_id, state.ledger.delivered) == (None, {})
        assert state.ledger.pending == 3
    report = quiet.close()
    assert_ledger_balanced(report.ledger, accepted=3)
    assert report.ledger.delivered == {"metric": 2, "param": 1}
    assert len(station.kept(str(report.run_id)).rows("system/process_rss_megabytes")) >= 3


def test_flush_interval_is_the_oldest_age(station: Station) -> None:
    """
    A part-filled batch goes out when it is this old, and not before.
    """
    with station.start(flush_interval_s=600.0) as patient:
        patient.metric("a", 1.0, 0)
        with station.start(flush_interval_s=0.1) as hasty:
            hasty.metric("a", 1.0, 0)
            wait_for(lambda: delivered(hasty) == 1, "the hasty one's reading")
        assert delivered(patient) == 0
    assert delivered(patient) == 1


def test_sample_interval(station: Station) -> None:
    """
    Resources are sampled as often as wanted; the first and the last sample are always there.
    """
    rare = station.start(sample_interval_s=600.0)
    with rare, station.start(sample_interval_s=0.05, flush_interval_s=0.1) as often:
        wait_for(lambda: (s := often.status()) and s.ledger.sampled >= 100, "100 readings")
    key = "system/process_rss_megabytes"
    assert len(station.finished(rare.run_uid).rows(key)) == 2
    assert len(station.finished(often.run_uid).rows(key)) >= 4


def test_detach_hands_over_at_once(station: Station) -> None:
    """
    With `exit="detach"` close does not wait; the sidecar ends the run alone.
    """
    log = station.start(exit="detach")
    log.series("a", [1.0] * 5000)
    report = log.close()
    assert not report.is_complete
    assert_ledger_balanced(report.ledger, accepted=5000)
    kept = station.finished(log.run_uid)
    assert kept.info.status == "FINISHED"
    assert kept.delivery["delivered"] == {"metric": 5000}


@pytest.mark.parametrize(("budget_percent", "warned"), [(1e-6, 1), (100.0, 0)])
def test_overhead_above_budget_warns(offline: Station, budget_percent: float, warned: int) -> None:
    """
    Close says so, once, when the logger's own calls took more of the run than they may.
    """
    log = offline.start(overhead_budget_percent=budget_percent)
    until_s = now_monotonic_s() + 0.06
    while now_monotonic_s() < until_s:
        log.metric("a", 1.0, 0)
    with our_warnings() as said:
        report = log.close()
        log.close()
    assert len(said) == warned
    assert report.overhead_ratio is not None
    if warned:
        assert f"{report.overhead_ratio * 100:.1f} % of the run, over the budget" in said[0]


def test_settings_can_be_built_by_hand() -> None:
    """
    A Settings made directly, with names that `load` never saw, still counts.
    """
    log = start_logger("tests", settings=Settings(enabled=False))
    assert not log.settings.enabled
    assert log.close().status == "DISABLED"


def test_sampling_thins_what_mlflow_shows(station: Station) -> None:
    """A rule thins its key in MLflow, and all of its readings are in the run's artifact."""
    with station.start(sampling="loss: every 100") as log:
        for step in range(1000):
            log.metric("loss", float(step), step)
            log.metric("other", float(step), step)
    report = log.close()
    assert report.ledger.delivered == {"metric": 1010}
    assert report.ledger.archived == {"loss: every 100": 990}
    assert "990 archived (loss: every 100 990)" in report.line()
    kept = station.kept(str(report.run_id))
    assert [row.step for row in kept.rows("loss")] == [*range(0, 1000, 100), 999]
    assert len(kept.rows("other")) == 1000
    (file,) = Path(url2pathname(urlsplit(kept.info.artifact_uri).path)).rglob("readings.parquet")
    assert pandas.read_parquet(file).value.tolist() == [float(step) for step in range(1000)]


def test_alerts_file_is_evaluated(station: Station, tmp_path: Path) -> None:
    """A rule of the file raises an alert in the sidecar; a bad file is refused before any work."""
    file = tmp_path / "alerts.toml"
    file.write_text('[[alerts]]\nname = "high"\nmetric = "loss"\ncondition = "gt"\nthreshold = 5\n')
    with station.start(alerts=file) as log, log.phase("train", step=7):
        log.metric("loss", 9.0, 7)
    kept = station.finished(log.run_uid)
    assert kept.tags["allele.alerts.warning"] == kept.tags["allele.alerts.active"] == "1"
    (alert,) = kept.json("allele/alerts.json", tmp_path)["alerts"]
    assert (alert["name"], alert["phase"], alert["step"]) == ("high", "train", 7)
    file.write_text("[[alerts]]\nname = 'high'\nmetrics = 'loss'\n")
    with pytest.raises(SettingsError, match="rule 'high': metrics: no such field; did you mean"):
        station.start(alerts=file)


def test_durability_power_writes_full_segments_through(offline: Station) -> None:
    """With `durability="power"` the state says how many records a power failure would leave."""
    with offline.start(durability="power") as log:
        for step in range(70_000):
            log.metric("m", 1.0, step)
        wait_for(
            lambda: (state := log.status()) is not None and (state.durable_count or 0) > 65_000,
            "two full segments on the disk",
        )
        state = log.status()
        assert state is not None
        assert (state.durable_count or 0) < 70_000, "the last segment is still written to"
    with offline.start() as log:
        log.metric("m", 1.0, 1)
        state = wait_for(log.status, "a state")
        assert state.durable_count is None


def test_on_lag_and_on_error_tell_of_a_store_that_is_away(station: Station) -> None:
    """The callbacks hear of it in the caller's thread, and the run goes on."""
    lags: list[float] = []
    errors: list[str] = []
    threads: set[int] = set()

    def hear(lag_s: float) -> None:
        threads.add(threading.get_ident())
        lags.append(lag_s)

    log = station.start(
        tracking_uri="http://127.0.0.1:1",
        max_lag_s=0.2,
        exit_timeout_s=0.2,
        on_lag=hear,
        on_error=errors.append,
    )

    def has_heard() -> bool:
        with log.phase("look"):
            log.metric("m", 1.0)
        return bool(lags and errors)

    wait_for(has_heard, "both callbacks")
    log.close()
    assert threads == {threading.get_ident()}
    assert min(lags) > 0.2
    assert "127.0.0.1" in errors[0]
