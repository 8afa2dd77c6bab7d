"""
`trend` and `anomalies` on stores whose histories are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allele_mlflow import suite_tags as tags
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.records import Reading
from tests.integration.executions import DAY_MS, PREFIX, START_MS, Metrics, Store
from tests.integration.test_compare_command import run

AXES: dict[str, list[Any]] = {"size": [10, 20]}
COUNT = 24


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    """
    A store without any run.
    """
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    found = Store(tmp_path)
    yield found
    found.close()


def history(
    store: Store,
    *,
    slower_from: int | None = None,
    environments: Mapping[int, str] | None = None,
    fails_from: int | None = None,
    spike_at: int | None = None,
) -> None:
    """
    Executions with seeded noise of 2 %; the trials of size 20 are 30 % slower from one on.
    """
    environment = "env-1"
    for number in range(COUNT):
        environment = (environments or {}).get(number, environment)

        def measure(params: Mapping[str, Any], seed: int, number: int = number) -> Metrics | None:
            chance = np.random.default_rng([number, seed, params["size"]])
            is_large = params["size"] == 20
            if fails_from is not None and number >= fails_from and is_large:
                return None
            slower = slower_from is not None and number >= slower_from and is_large
            seconds = (1.3 if slower else 1.0) * (3.0 if number == spike_at and is_large else 1.0)
            noise = chance.normal(1.0, 0.02, 2)
            return {"score": 50 * noise[0], "trial/seconds": seconds * noise[1]}

        store.add(AXES, measure, repeats=2, environment_id=environment)


def scan(store: Store, *arguments: str, code: int) -> dict[str, Any]:
    """
    The document of a scan.
    """
    done = run(store.folder, "trend", "sorting", "--json", *arguments)
    assert done.returncode == code, done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_slowed_cell_is_found_named_and_dated(store: Store) -> None:
    """The one history that became worse is told with its cell, metric, date and commits; code 1,
    until somebody says that it is known.
    """
    history(store, slower_from=16)
    (finding,) = scan(store, code=1)["findings"]
    assert (finding["cell"], finding["metric"]) == ("size=20", "trial/seconds")
    assert (finding["kind"], finding["outcome"]) == ("change", "regression")
    assert finding["delta_ratio"] == pytest.approx(0.3, abs=0.05)
    assert finding["commit"] in {f"{number:040x}" for number in (15, 16, 17)}
    text = run(store.folder, "trend", "sorting")
    assert finding["id"] in text.stdout
    assert finding["time"][:10] in text.stdout
    said = run(
        store.folder, "trend", "sorting", "--acknowledge", finding["id"][:6], "--reason", "new disk"
    )
    assert (said.returncode, "acknowledged: new disk" in " ".join(said.stdout.split())) == (0, True)
    (again,) = scan(store, code=0)["findings"]
    assert (again["id"], again["state"], again["reason"]) == (
        finding["id"],
        "acknowledged",
        "new disk",
    )
    assert scan(store, "--reopen", finding["id"], code=1)["findings"][0]["state"] == "new"
    resolved = run(store.folder, "trend", "sorting", "--resolve", finding["id"])
    assert resolved.returncode == 0
    assert "0 findings" in resolved.stdout


def test_what_confirm_found_is_shown(store: Store) -> None:
    """The verdict of the newest confirmation of a finding stands beside it."""
    history(store, slower_from=16)
    (finding,) = scan(store, code=1)["findings"]
    assert finding["confirmation"] is None
    for day, verdict in ((2, "worse"), (1, "inconclusive")):
        told = {tags.FINDING: finding["id"], tags.CONFIRMATION: verdict}
        store.add_run(f"{PREFIX}sorting", {}, told=told, start_ms=START_MS + day * DAY_MS)
    (again,) = scan(store, code=1)["findings"]
    assert again["confirmation"] == "worse"
    words = " ".join(run(store.folder, "trend", "sorting").stdout.split())
    assert "run again side by side: worse" in words


def test_the_same_without_it_is_silent(store: Store) -> None:
    """Noise alone gives no finding and code 0."""
    history(store)
    found = scan(store, code=0)
    assert found["findings"] == []
    assert found["judged"] == 6


def test_another_machine_is_no_regression(store: Store) -> None:
    """A shift that comes with another environment is told as that, and fails nothing."""
    history(store, slower_from=16, environments={16: "env-2"})
    (finding,) = scan(store, code=0)["findings"]
    assert finding["kind"] == "environment change"
    assert finding["environments"] == ["env-1", "env-2"]


def test_one_slow_execution_is_an_outlier(store: Store) -> None:
    """A single spike is an outlier: shown with --all, and never a regression."""
    history(store, spike_at=12)
    (finding,) = scan(store, code=0)["findings"]
    assert finding["kind"] == "outlier"
    assert "0 findings" in run(store.folder, "trend", "sorting").stdout
    assert "outlier" in run(store.folder, "trend", "sorting", "--all").stdout


def test_failing_trials_are_a_regression(store: Store) -> None:
    """A cell whose trials begin to fail is found by its success ratio."""
    history(store, fails_from=16)
    findings = scan(store, code=1)["findings"]
    assert ("size=20", "run/success_ratio") in {(one["cell"], one["metric"]) for one in findings}


def test_too_short_histories_say_so(store: Store) -> None:
    """With two executions nothing can be judged: code 5, and the reason."""
    for _ in range(2):
        store.add(AXES, lambda params, seed: {"score": 1.0})
    done = run(store.folder, "trend", "sorting")
    assert done.returncode == ExitCode.NOTHING_MEASURED
    assert "want at least 6" in done.stdout


def test_what_is_no_finding(store: Store) -> None:
    """An unknown id and two states at once are refused in words."""
    history(store, slower_from=16)
    done = run(store.folder, "trend", "sorting", "--resolve", "nothing")
    assert (done.returncode, "there is no such finding" in done.stderr) == (2, True)
    done = run(store.folder, "trend", "sorting", "--resolve", "a", "--acknowledge", "b")
    assert done.returncode == 2
    done = run(store.folder, "trend", "nosuch")
    assert (done.returncode, "there is no such experiment" in done.stderr) == (2, True)


def test_anomalies_are_found_within_runs(store: Store) -> None:
    """A run whose loss became NaN and one whose objective is stuck are told, a healthy one not."""
    chance = np.random.default_rng(5)
    healthy = [float(1 / (1 + step) + 0.01 * chance.random()) for step in range(200)]
    for name, values in {
        "healthy": healthy,
        "broken": [*healthy[:150], *[float("nan")] * 50],
    }.items():
        one = store.add_run("training", {}, told={"which": name}, status=None)
        readings = [
            Reading("loss", value, 1_750_000_000_000 + 100 * step, step)
            for step, value in enumerate(values)
        ]
        store.tracking.log_batch(one, readings=readings)
        store.tracking.end_run(one, "FINISHED", 1_750_000_100_000)
    done = run(store.folder, "anomalies", "training", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["by_kind"] == {"not finite": 1}
    (anomaly,) = found["anomalies"]
    assert (anomaly["first_step"], anomaly["last_step"]) == (150, 199)
    assert (anomaly["source"], anomaly["status"]) == ("found", "FINISHED")
    silent = run(store.folder, "anomalies", "training[which == 'healthy']")
    assert (silent.returncode, "0 anomalies in 1 runs" in silent.stdout) == (0, True)
