"""
Importing Allele's results into the real MLflow on SQLite, by the command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.main import commands

ENTRY = {
    "config": {"model": "llama3", "temperature": 0.7},
    "score": 0.5,
    "raw_results": {"tokens": [1, 2, 3], "answer": "ja"},
    "execution_time": 2.0,
    "error": None,
    "timestamp": "2025-11-02T10:11:12",
}
ENTRY_MS = 1_762_078_272_000


@pytest.fixture(autouse=True)
def place(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A working folder of the test's own, whose settings name its store.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALLELE_MLFLOW_TRACKING_URI", sqlite_store)
    # the command arranges MLflow's environment for itself, as for a process of its own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


def write(folder: Path, entries: dict[str, Any], name: str = "results.json") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def run_import(*arguments: str) -> tuple[int, str]:
    """
    Exit code and output of the command.
    """
    result = CliRunner().invoke(commands, ["import", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout


def test_matrix_is_in_mlflow(sqlite_store: str, tmp_path: Path) -> None:
    """
    MLflow's own client finds each configuration below the import, with params, readings of the
    entry's time, status and file; a second import adds nothing.
    """
    failed = ENTRY | {"error": "TimeoutError: no answer", "score": None}
    path = write(tmp_path / "matrix_full", {"llama3::x::y": ENTRY, "b::x::y": failed})
    code, text = run_import(str(path))
    assert code == ExitCode.FINE
    assert "allele_benchmark_matrix_full: 2 imported (1 of them failed runs)" in text
    client = MlflowClient(sqlite_store)
    experiment = client.get_experiment_by_name("allele_benchmark_matrix_full")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"matrix_full", "llama3::x::y", "b::x::y"}
    good, bad = runs["llama3::x::y"], runs["b::x::y"]
    parent = runs["matrix_full"].info.run_id
    assert good.data.tags["mlflow.parentRunId"] == bad.data.tags["mlflow.parentRunId"] == parent
    assert good.data.params["temperature"] == "0.7"
    assert good.data.metrics == {"score": 0.5, "execution_time": 2.0, "raw/tokens": 3.0}
    history = client.get_metric_history(good.info.run_id, "raw/tokens")
    assert [(one.step, one.value, one.timestamp) for one in history] == [
        (step, step + 1.0, ENTRY_MS) for step in range(3)
    ]
    assert (good.info.status, good.info.start_time, good.info.end_time) == (
        *("FINISHED", ENTRY_MS - 2000),
        ENTRY_MS,
    )
    assert (bad.info.status, bad.data.tags["allele.error.category"]) == ("FAILED", "timeout")
    local = client.download_artifacts(good.info.run_id, "allele/imported_entry.json", str(tmp_path))
    assert json.loads(Path(local).read_bytes()) == ENTRY
    code, text = run_import(str(path))
    assert (code, "0 imported" in text, "2 there already" in text) == (ExitCode.FINE, True, True)
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_exit_codes(tmp_path: Path) -> None:
    """
    7 for entries that could not be imported, 5 for none at all; and JSON for programs.
    """
    path = write(tmp_path / "odd", {"\x1b[2Jbad": 3, "a::x::y": ENTRY})
    code, text = run_import(str(path), "--name", "named", "--experiment", "odd")
    assert code == ExitCode.LOST
    assert "allele_benchmark_odd: 1 imported" in text
    assert "\x1b" not in text
    code, text = run_import(str(path), "--name", "named", "--experiment", "odd", "--json")
    found = json.loads(text)
    assert (code, found["present_count"], found["suite"]) == (ExitCode.LOST, 1, "named")
    assert found["malformed"] == [["\x1b[2Jbad", "want an object, got int"]]
    assert run_import(str(write(tmp_path / "empty", {})))[0] == ExitCode.NOTHING_MEASURED


def test_what_is_no_results_file_is_a_wrong_argument(tmp_path: Path) -> None:
    """
    The error names the file and what is wanted.
    """
    path = tmp_path / "notes.json"
    path.write_text("[]")
    with pytest.raises(Exception, match="want a JSON object of entries") as caught:
        run_import(str(path))
    assert getattr(caught.value, "exit_code", None) == ExitCode.USAGE


def test_store_that_is_not_there(tmp_path: Path) -> None:
    """
    Exit code 6, and nothing is lost by importing again.
    """
    path = write(tmp_path / "matrix", {"a::x::y": ENTRY})
    place = f"sqlite:///{path}/mlflow.db"  # below a file
    assert run_import(str(path), "--tracking-uri", place)[0] == ExitCode.UNREACHABLE
