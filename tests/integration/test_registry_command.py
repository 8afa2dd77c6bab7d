"""
`allele-mlflow registry`: from a suite's runs through the gate to production and back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.executions import Metrics, Store
from tests.integration.test_compare_command import Done, run

AXES: dict[str, list[Any]] = {"size": [10, 20]}


def measure(level: float) -> Any:
    """
    Scores around a level, one for each seed.
    """

    def measured(params: Mapping[str, Any], seed: int) -> Metrics:
        return {"score": level + float(np.random.default_rng([seed, params["size"]]).normal(0, 1))}

    return measured


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """
    Runs and a registry, both empty.
    """
    for name in ("mlflow.db", "mlflow_registry.db"):
        (tmp_path / name).write_bytes(empty_store.read_bytes())
    for name, level in (("low", 0.1), ("middle", 0.5), ("high", 0.9)):
        traits = {"genome_id": name, "traits": {"empathy": level, "creativity": 0.5}}
        (tmp_path / f"{name}.json").write_text(json.dumps(traits))
    gates = '[production]\nmin_runs = 6\nagainst_holder = "not worse"\nmax_alerts = 0\n'
    (tmp_path / "gates.toml").write_text(gates)
    found = Store(tmp_path)
    yield found
    found.close()


def command(store: Store, *arguments: str, code: int = 0) -> Done:
    """
    A command of the registry that ends with this code.
    """
    done = run(store.folder, "registry", *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def promote(store: Store, number: str, reason: str, *more: str, code: int = 0) -> Done:
    """
    A promotion to production, by the gates of the test.
    """
    where = ("promote", f"persona/{number}", "production", "--reason", reason)
    return command(store, *where, "--gates", "gates.toml", *more, code=code)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_from_runs_to_production_and_back(store: Store) -> None:
    """Too few runs are refused with how many; enough are promoted; a worse one is refused with what
    is worse; a better one is promoted; a rollback brings back; history and `at` tell it all.
    """
    store.add(AXES, measure(100.0), repeats=2)
    command(store, "register", "persona", "middle.json", "--evidence", "sorting", "--candidate")
    few = promote(store, "1", "first", code=1)
    assert "FAILED min_runs: 4 finished runs: want 6" in few.stdout
    assert "-" in command(store, "at", "persona", "2999").stdout.split("production")[1]
    store.add(AXES, measure(100.0), repeats=10, seed=8)
    promote(store, "1", "more", "--evidence", "sorting")
    store.add(AXES, measure(90.0), repeats=10, seed=9)
    command(store, "register", "persona", "low.json", "--evidence", "sorting")
    worse = promote(store, "2", "hope", code=1)
    assert "score of size=10: worse" in worse.stdout
    store.add(AXES, measure(110.0), repeats=10, seed=10)
    command(store, "register", "persona", "high.json", "--evidence", "sorting")
    dry = promote(store, "3", "up", "--dry-run")
    assert "persona/3 may hold production" in dry.stdout
    done = promote(store, "3", "up", "--json")
    found = json.loads(done.stdout)
    assert (found["is_refused"], found["entry"]["holder"]) == (False, 1)
    assert found["entry"]["evidence"] in found["entry"]["evidence_uri"]
    command(store, "rollback", "persona", "production", "--reason", "complaints")
    history = command(store, "history", "persona").stdout
    assert "put version 1 back into production, after version 3: complaints" in history
    told = json.loads(command(store, "history", "persona", "--json").stdout)
    assert [one["action"] for one in told["entries"]].count("promote") == 2
    then = [one for one in told["entries"] if one["action"] == "promote"][1]["time"]
    assert command(store, "at", "persona", then).stdout.split("production")[1].strip() == "3"
    listed = json.loads(command(store, "list", "--json").stdout)["models"]
    holders = {"production": 1}
    assert listed == [{"name": "persona", "kind": "genome", "versions": 3, "holders": holders}]
    assert "head " + told["head"] in command(store, "verify", "persona").stdout
    assert "empathy" in command(store, "diff", "persona/1", "persona/3").stdout
    assert "0.5" in command(store, "show", "persona@production").stdout


def test_what_is_wrong_is_said(store: Store) -> None:
    """Unknown models and versions, no JSON, a disabled registry: code 2 and words."""
    assert "not in this registry" in command(store, "history", "nothing", code=2).stderr
    (store.folder / "bad.json").write_text("{")
    assert "no JSON" in command(store, "register", "m", "bad.json", code=2).stderr
    command(store, "register", "m", "low.json")
    assert "has no version 7" in command(store, "archive", "m/7", "--reason", "x", code=2).stderr
    assert (
        "there is no such experiment"
        in command(store, "register", "m", "high.json", "--evidence", "nosuch", code=2).stderr
    )
    assert "'soon' is no time: want ISO 8601" in command(store, "at", "m", "soon", code=2).stderr
    assert "want 1 to 250" in command(store, "register", "a@b", "low.json", code=2).stderr
    assert "nothing differs" in command(store, "diff", "m/1", "m@development").stdout


def test_disabled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MODEL_REGISTRY_ENABLED=false every command ends with 2 and that reason."""
    monkeypatch.setenv("ALLELE_MLFLOW_MODEL_REGISTRY_ENABLED", "false")
    assert "model_registry_enabled is false" in command(store, "list", code=2).stderr


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_versions_are_compared_by_their_runs(store: Store) -> None:
    """Traits and verdicts beside each other, fitness with interval and n from the evidence, and
    where the version comes from.
    """
    made = store.add(AXES, measure(100.0))
    command(store, "register", "persona", "middle.json", "--evidence", "sorting")
    store.add(AXES, measure(110.0), seed=7)
    command(store, "register", "persona", "high.json", "--evidence", "sorting", "--candidate")
    shown = command(store, "show", "persona/1").stdout
    assert re.search(
        r"^score (99|100)\.?\d* \[9\d\.?\d*, 10\d\.?\d*\], n = 16$", shown, re.MULTILINE
    )
    compared = command(store, "compare", "persona/1", "persona@candidate").stdout
    assert re.search(r"empathy +0.5 +0.9 +\+0.4", compared)
    assert re.search(r"score .* better", compared)
    assert "8 and 8 runs, in pairs" in compared
    told = json.loads(command(store, "compare", "persona/1", "persona/2", "--json").stdout)
    assert [one["where"] for one in told["changes"]] == ["empathy"]
    assert {row["verdict"] for row in told["comparison"]["rows"]} == {"better"}
    lineage = json.loads(command(store, "lineage", "persona/1", "--json").stdout)
    assert (lineage["run"], lineage["commit"]) == (made.run_id, f"{0:040x}")
    command(store, "register", "persona", "low.json")
    none = command(store, "compare", "persona/1", "persona/3").stdout
    assert "the evidence is not compared: persona/3 has none" in none


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_components_by_commands(store: Store) -> None:
    """Registered with files, promoted, shown with who used it, told apart; a genome is refused
    under its name.
    """
    (store.folder / "operator.json").write_text('{"rate": 0.1}')
    (store.folder / "faster.json").write_text('{"rate": 0.2}')
    (store.folder / "weights").mkdir()
    (store.folder / "weights" / "table.csv").write_text("a,b")
    operator = ("register", "mutation", "operator.json", "--component", "operator")
    assert "mutation/1, content" in command(store, *operator, "--files", "weights").stdout
    command(store, "register", "mutation", "faster.json", "--component", "operator")
    command(store, "promote", "mutation/1", "candidate", "--reason", "first")
    time = json.loads(command(store, "history", "mutation", "--json").stdout)["entries"][-1]["time"]
    user = store.add_run("a", {}, told={"allele.uses.mutation": f"mutation@candidate {time}"})
    shown = command(store, "show", "mutation/1").stdout
    assert shown.startswith("mutation/1, operator, candidate, content")
    assert "files/table.csv 3 bytes" in shown
    assert "used by 1 runs" in shown
    assert user in command(store, "lineage", "mutation/1").stdout
    assert json.loads(command(store, "show", "mutation/2", "--json").stdout)["used_by"] == []
    diff = command(store, "diff", "mutation/1", "mutation/2").stdout
    assert re.search(r"\$.rate +0.1 +0.2 +\+0.1", diff)
    assert "files/table.csv" in diff
    refused = command(store, "register", "mutation", "low.json", code=2).stderr
    assert "of the kind operator, not genome" in refused
    assert "want --component" in command(store, *operator[:3], "--files", "weights", code=2).stderr


def test_a_store_of_runs_that_is_away_hides_no_version(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where runs cannot be read, a version is shown, and that its uses are not known is said."""
    command(store, "register", "m", "low.json")
    monkeypatch.setenv("ALLELE_MLFLOW_TRACKING_URI", f"sqlite:///{store.folder}/nowhere.db")
    done = command(store, "show", "m/1", "--json")
    assert "which runs used it is not known" in done.stderr
    assert json.loads(done.stdout)["used_by"] is None
    assert command(store, "lineage", "m/1").stdout.startswith("m/1, content")
