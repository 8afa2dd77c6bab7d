"""
Every benchmark runs once, tiny: for breakage only, never for its numbers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DEADLINE_S = 280.0
ARMS = (
    *("null", "allele_mlflow", "allele_mlflow_quiet", "deque_floor"),
    *("mlflow_sync", "mlflow_async", "mlflow_async_buffered"),
)

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]


def run(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    A benchmark in a working folder of its own.
    """
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_evolution_smoke_needs_no_other_file(tmp_path: Path) -> None:
    """
    A copy of evolution.py alone runs two cells and finds every reading of theirs in MLflow.
    """
    copy = tmp_path / "evolution.py"
    copy.write_bytes((BENCHMARKS / "evolution.py").read_bytes())
    done = run(copy, tmp_path, "--smoke", "--folder", str(tmp_path / "smoke"))
    assert "smoke passed" in done.stdout


def test_call_cost_runs(tmp_path: Path) -> None:
    """
    The call-cost benchmark writes exactly the promised keys, and leaves nothing behind.
    """
    output = tmp_path / "call_cost.json"
    run(BENCHMARKS / "call_cost.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report) == {
        *("floor", "metric_tmpfs", "metric_disk", "metrics_dict"),
        *("series_per_record_ns", "start_logger_ms", "import_ms"),
        *("ratio_p50_tmpfs", "ratio_p50_disk", "environment"),
    }
    assert set(report["floor"]) == {"p50_ns", "p99_ns", "p999_ns", "max_ns"}
    assert set(report["metric_disk"]) == set(report["floor"])
    assert set(report["metrics_dict"]) == {"per_call_ns_10_keys", "ratio_to_ten_metric_calls"}
    assert list(tmp_path.iterdir()) == [output]


def test_sidecar_cost_runs(tmp_path: Path) -> None:
    """
    The sidecar's benchmark writes exactly the promised keys, and leaves nothing behind.
    """
    output = tmp_path / "sidecar_cost.json"
    run(BENCHMARKS / "sidecar_cost.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report) == {
        *("close_s", "stock_log_batch_s", "close_minus_stock_s", "close_metrics", "detach_ms"),
        *("idle_cpu_percent", "silent_run_cpu_percent"),
        *("peak_rss_mib_2000", "peak_rss_mib_4000", "environment"),
    }
    assert list(tmp_path.iterdir()) == [output]


def test_outage_runs(tmp_path: Path) -> None:
    """
    With a store away nothing is lost, close is bounded, and nothing is left behind.
    """
    output = tmp_path / "outage.json"
    run(BENCHMARKS / "outage.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report["closes"]) == {"answering", "power", "refusing", "hanging"}
    for name in ("refusing", "hanging"):
        closed = report["closes"][name]
        assert closed["pending"] == closed["accepted"] > 0
        assert closed["lost"] == 0
    assert set(report["ratios"]) == set(report["raw"]["ratios"])
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.server
def test_store_runs(tmp_path: Path) -> None:
    """
    The benchmark of the stores has every arm on every database and through servers.
    """
    output = tmp_path / "store.json"
    run(BENCHMARKS / "store.py", tmp_path, "--quick", "--output", str(output))
    results = json.loads(output.read_text())["results"]
    assert {name: len(rows) for name, rows in results.items()} == {
        "sqlite": 1,
        "postgresql": 1,
        "servers": 1,
    }
    assert set(results["sqlite"][0]["to_stock"]) == {"floor", "bulk", "stock"}
    assert set(results["servers"][0]["to_stock"]) == {"stock", "compact", "plugin", "both"}
    assert list(tmp_path.iterdir()) == [output]


def test_drain_runs(tmp_path: Path) -> None:
    """
    A steady program and two backlogs are delivered whole, and nothing is left behind.
    """
    output = tmp_path / "drain.json"
    run(BENCHMARKS / "drain.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert [row["rate_per_s"] for row in report["steady"]] == [200]
    assert [row["records"] for row in report["backlogs"]] == [200, 2000]
    assert all(row["spool_bytes_left"] == 0 for row in report["backlogs"])
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("arm", ARMS)
def test_arm_runs(arm: str, empty_store: Path, tmp_path: Path) -> None:
    """
    Each arm runs in a process of its own, loses nothing, and leaves nothing behind.
    """
    result = tmp_path / "result.json"
    where = ("--folder", str(tmp_path), "--store", str(empty_store), "--result", str(result))
    run(BENCHMARKS / "arms.py", tmp_path, arm, *where, "--pairs", "2")
    found = json.loads(result.read_text())
    assert len(found["log_ratios"]) == 2
    assert found["lost"] == 0
    assert (found["metrics_per_s"] > 0) == (arm != "null")
    assert list(tmp_path.iterdir()) == [result]


def test_overhead_runs(tmp_path: Path) -> None:
    """
    Short blocks and the whole effect end in one report, with nothing lost and nothing left behind.
    """
    output = tmp_path / "overhead.json"
    arms = ("--arms", "null", "deque_floor")
    run(BENCHMARKS / "overhead.py", tmp_path, "--quick", *arms, "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report["arms"]) == {"null", "deque_floor"}
    assert report["lost"] == 0
    assert report["whole_effect"]["sidecar_cpu_us_per_metric"] > 0
    assert report["whole_effect_quiet"]["pairs"] == 1
    assert list(tmp_path.iterdir()) == [output]


def test_overhead_runs_with_alerts(tmp_path: Path) -> None:
    """
    `--alerts FILE`: the runs that are measured have its rules (a hook of one is called), and the
    report names them.
    """
    output, raised, rules = (tmp_path / name for name in ("out.json", "raised", "rules.toml"))
    rules.write_text(
        (BENCHMARKS / "alerts.toml").read_text()
        + '\n[[alerts]]\nname = "calls"\nmetric = "fitness/best"\ncondition = "gte"\n'
        f'threshold = 0.0\n[[alerts.hooks]]\ncommand = ["touch", "{raised}"]\n'
    )
    options = ("--arms", "null", "--alerts", str(rules), "--output", str(output))
    run(BENCHMARKS / "overhead.py", tmp_path, "--quick", *options)
    report = json.loads(output.read_text())
    assert len(report["alert_rules"]) == 9
    assert report["alert_rules"][-1] == "calls"
    assert report["lost"] == 0
    assert raised.exists()


def test_demo_runs(tmp_path: Path) -> None:
    """
    The demo's suite runs on Allele's real engine, and ends with a table and the place of a report.
    """
    start = "from allele_mlflow.cli.main import main; main()"
    suite = BENCHMARKS.parent / "config" / "evolution.toml"
    done = subprocess.run(
        [sys.executable, "-c", start, "run", str(suite), "--only", "population_size == 50"],
        cwd=tmp_path,
        env={**os.environ, "ALLELE_MLFLOW_EXIT_TIMEOUT_S": "60"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"population_size=50 .*\n +mutation_rate=0\.3 ", done.stdout)
    assert "4 finished, 0 failed" in done.stdout
    (place,) = re.findall(r"report: (\S+)", done.stdout)
    assert Path(place).is_file()


def test_recovery_runs(tmp_path: Path) -> None:
    """
    The benchmark of a large backlog writes exactly the promised keys, and leaves nothing behind.
    """
    output = tmp_path / "recovery.json"
    run(BENCHMARKS / "recovery.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report) == {
        *("first_send_s_200", "first_send_s_2000", "peak_rss_mib_200", "peak_rss_mib_2000"),
        "environment",
    }
    assert list(tmp_path.iterdir()) == [output]


def test_evidence_runs(tmp_path: Path) -> None:
    """
    The benchmark of the statistics tries every case, says the seed, and leaves nothing behind.
    """
    output = tmp_path / "statistics.json"
    run(BENCHMARKS / "evidence.py", tmp_path, "--quick", "--seed", "3", "--output", str(output))
    report = json.loads(output.read_text())
    assert report["seed"] == 3
    assert {row["runs"] for row in report["false_rejections"]} == {5, 10, 15, 20, 30}
    assert len(report["coverage"]) == 2 * 3 * 2 * 3 * 4
    assert all(row["rows"] == 3 * row["cells"] for row in report["compare"])
    assert list(tmp_path.iterdir()) == [output]


def test_advice_runs(tmp_path: Path) -> None:
    """
    The benchmark of recommendations and predictions has a row for each design and noise, each
    strength of an effect, and each curve; all rates have their interval.
    """
    output = tmp_path / "advice.json"
    run(BENCHMARKS / "advice.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report) == {"environment", "seed", "count", "nulls", "slopes", "curves"}
    assert [len(report[name]) for name in ("nulls", "slopes", "curves")] == [15, 3, 16]
    rates = [row["clear"] for row in report["nulls"]] + [row["in_80"] for row in report["curves"]]
    assert all(0.0 <= one["low"] <= one["ratio"] <= one["high"] <= 1.0 for one in rates)
    assert list(tmp_path.iterdir()) == [output]


def test_registry_scale_runs(tmp_path: Path) -> None:
    """
    Every command of the registry is timed, and leaves nothing behind.
    """
    output = tmp_path / "registry_scale.json"
    run(BENCHMARKS / "registry_scale.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert (report["versions"], report["entries"], report["models"]) == (30, 33, 5)
    assert {"list", "show", "history", "promote", "at"} <= set(report["commands"])
    assert all(one["worst_s"] >= one["median_s"] > 0 for one in report["commands"].values())
    assert list(tmp_path.iterdir()) == [output]


def test_peers_run(tmp_path: Path) -> None:
    """
    The benchmark of other trackers measures those that are installed here, ours first.
    """
    output = tmp_path / "peers.json"
    run(BENCHMARKS / "peers.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert list(report["peers"]) == ["allele-mlflow", "mlflow"]
    assert not [one["error"] for one in report["peers"].values() if "error" in one]
    assert report["cheapest"]["call_p50_us"]["peer"] == "mlflow"
    assert list(tmp_path.iterdir()) == [output]


def test_retention_runs(tmp_path: Path) -> None:
    """
    The clean-up's benchmark writes exactly the promised keys, deletes exactly what it should, and
    leaves nothing behind.
    """
    output = tmp_path / "retention.json"
    run(BENCHMARKS / "retention.py", tmp_path, "--quick", "--output", str(output))
    report = json.loads(output.read_text())
    assert set(report) == {
        *("format", "environment", "runs", "reached", "deleted", "wrong"),
        *("plan_s", "delete_s", "delete_ms_per_run"),
    }
    assert (report["deleted"], report["wrong"]) == (40, 0)
    assert list(tmp_path.iterdir()) == [output]
