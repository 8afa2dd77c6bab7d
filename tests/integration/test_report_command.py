"""
`report` on stores that hold what is known: what a page says was read from MLflow alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.environment.taking import take_environment
from allele_mlflow.records import Reading
from allele_mlflow.tracking.reader import artifact_folder
from tests.integration.executions import PREFIX, START_MS, Metrics, Store
from tests.integration.test_compare_command import run
from tests.report_tools import SIX_MB, ReadPage

AXES: dict[str, list[Any]] = {"size": [10, 20], "method": ["merge", "heap"]}


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    """
    A store without any run.
    """
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    found = Store(tmp_path)
    yield found
    found.close()


def noisy(*, shift: float = 0.0, fails: bool = False) -> Any:
    """
    A measure with seeded noise; of the heap the score is moved, or there is none.
    """

    def measure(params: Mapping[str, Any], seed: int) -> Metrics | None:
        chance = np.random.default_rng([seed, int(params["size"])])
        is_heap = params["method"] == "heap"
        if fails and is_heap and params["size"] == 20:
            return None
        moved = shift if is_heap else 0.0
        return {"score": 100 + moved + chance.normal(), "trial/seconds": 1 + 0.01 * chance.normal()}

    return measure


def read_page(store: Store, *arguments: str) -> ReadPage:
    """
    The page that the command writes.
    """
    path = store.folder / "page.html"
    done = run(store.folder, "report", *arguments, "--output", str(path))
    assert done.returncode == 0, done.stdout
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < SIX_MB
    return ReadPage(text)


def rows_of(page: ReadPage) -> str:
    return " ".join(page.visible())


def test_suite_is_reported_from_mlflow_alone(store: Store) -> None:
    """
    Cells, repeats, failures, settings and environment of an execution are those in the store.
    """
    environment = take_environment(store.folder)
    store.add(AXES, noisy(fails=True), environment=environment)
    page = read_page(store, "sorting")
    shown = rows_of(page)
    for text in (
        *("Benchmark suite", "sorting", "4: 3 finished, 1 failed", "32: 24 finished, 8 failed"),
        *("size=10 method=merge", "0 of 8", "Failures", "unknown", "bench:run"),
    ):
        assert text in shown
    assert str(environment.python) in shown
    kinds = [figure["traces"][0]["type"] for figure in page.figures()]
    assert kinds == ["bar", "scatter", "scatter"]


def test_execution_before_is_compared(store: Store) -> None:
    """
    A cell that became better than in the execution before is told with its verdict; of the first
    execution nothing is compared.
    """
    environment = take_environment(store.folder)
    axes = AXES | {"size": [10]}
    store.add(axes, noisy(), environment=environment)
    store.add(axes, noisy(shift=8.0), environment=environment)
    shown = rows_of(read_page(store, "sorting"))
    assert "Against the execution before" in shown
    assert shown.count(" better ") >= 1
    assert "Against the execution before" not in rows_of(read_page(store, "sorting~1"))


def test_searches_have_running_times(store: Store) -> None:
    """
    An objective that was logged step by step has its curve and the times to its targets.
    """
    made = store.add(AXES, noisy(), repeats=2)
    for number, cell in enumerate(made.cells):
        readings = [Reading("score", 50.0 + step + number, START_MS, step) for step in range(9)]
        store.tracking.log_batch(cell, readings=readings)
    page = read_page(store, "sorting")
    assert "Running times of searches by score (higher is better)" in page.visible()
    titles = [trace["name"] for figure in page.figures() for trace in figure["traces"]]
    assert titles.count("size=10 method=merge") >= 2


def test_run_is_reported(store: Store) -> None:
    """
    A run by its id: parameters, metrics with units, phases, alerts, errors and the ledger.
    """
    told = {
        "allele.delivery": json.dumps({"accepted": 12, "delivered": {"metric": 12}, "pending": 0}),
        "allele.error.category": "timeout",
        "allele.error.message": "<b>too slow</b>",
        "allele.logger_overhead_percent": "0.125",
    }
    run_id = store.add_run("plain", {"loss": 0.5}, params={"rate": "<i>0.1</i>"}, told=told)
    samples = [
        Reading(key, value, START_MS + 1000 * (second + 1), second)
        for second, value in enumerate((10.0, 90.0, 40.0))
        for key in ("system/process_cpu_percent", "system/process_rss_megabytes", "loss")
    ]
    store.tracking.log_batch(run_id, readings=samples)
    phases = {
        "format": 1,
        "rows": [
            {"name": "<b>load</b>", "step": 1, "begin": "2025-06-15T15:06:41Z", "seconds": 2.0}
            | {"cpu_percent": 80.0, "rss_mb_max": 33.0, "complete": True}
        ],
    }
    alerts = {
        "alerts": [
            {"name": "hot", "severity": "error", "message": "<script>", "phase": "<b>load</b>"}
            | {"time": "2025-06-15T15:06:42Z", "status": "active", "alert_id": "1"}
        ]
    }
    for name, document in (("phases.json", phases), ("alerts.json", alerts)):
        file = store.folder / name
        file.write_text(json.dumps(document))
        store.tracking.log_artifact(run_id, file, f"allele/{name}")
    for number in range(2):
        genome = {"genome_id": f"g{number}", "generation": number, "fitness_score": 0.25 + number}
        file.write_text(json.dumps(genome | {"metadata": {"parent_ids": ["g0"] * number}}))
        store.tracking.log_artifact(run_id, file, f"genomes/{number}.json")
    page = read_page(store, run_id)
    shown = rows_of(page)
    for text in (
        *("Run", "plain", "FINISHED", "<i>0.1</i>", "<b>load</b>", "<script>", "<b>too slow</b>"),
        *("delivered: metric", "12", "0.125", "80.00", "megabytes", "hot", "timeout", "g0"),
    ):
        assert text in shown
    timeline, curve, lineage = page.figures()
    assert [trace["y"] for trace in lineage["traces"]][-1] == [1.25]
    names = [trace["name"] for trace in timeline["traces"]]
    assert names == ["phase", "error alert", "CPU of the benchmark, of one core", "resident memory"]
    assert timeline["traces"][0]["base"] == [1.0]
    assert curve["traces"][-1]["y"] == [10.0, 90.0, 40.0]


def test_folder_of_artifacts_is_bounded(store: Store) -> None:
    """
    Of many files the first are read; one that is too large is left out, and those after it are not.
    """
    run_id = store.add_run("plain", {"loss": 0.5})
    for name, size in (("a", 10), ("b", 500), ("c", 20), ("d", 30)):
        file = store.folder / "file"
        file.write_bytes(b"x" * size)
        store.tracking.log_artifact(run_id, file, f"genomes/{name}.json")
    found = artifact_folder(store.uri, run_id, "genomes", most_files=3, most_bytes=100)
    assert {name: len(data) for name, data in found.items()} == {"a.json": 10, "c.json": 20}
    assert artifact_folder(store.uri, run_id, "none", most_files=3) == {}


def test_experiment_has_its_executions_and_trend(store: Store) -> None:
    """
    Executions newest first with how many trials finished, and a figure for each history, the one
    with a finding first.
    """
    for number in range(16):
        store.add({"size": [10, 20]}, shifted(number), repeats=1)
    page = read_page(store, "sorting", "--experiment")
    shown = rows_of(page)
    assert "regression: score of size=20 fell" in shown
    assert "2 of 2" in shown
    dates = [text[:10] for text in page.visible() if text.endswith("15:06:40 UTC")]
    assert dates[2:] == sorted(dates[2:], reverse=True)
    names = [trace["name"] for trace in page.figures()[0]["traces"]]
    assert names == ["value of an execution", "level", "regression"]
    assert len(page.figures()) == 4  # score and the success ratio of two cells


def shifted(number: int) -> Any:
    def measure(params: Mapping[str, Any], seed: int) -> Metrics:
        chance = np.random.default_rng([number, seed, params["size"]])
        is_worse = number >= 9 and params["size"] == 20
        return {"score": (70.0 if is_worse else 100.0) * chance.normal(1.0, 0.01)}

    return measure


def test_runs_of_no_suite_are_an_experiment(store: Store) -> None:
    """
    An experiment without suites is reported by its name, with or without the prefix.
    """
    for number in range(3):
        store.add_run(f"{PREFIX}loose", {"loss": 1.0 + number}, start_ms=START_MS + number)
    page = read_page(store, "loose")
    assert "Experiment" in page.visible()
    assert "3" in page.visible()


def test_markdown_has_the_same_tables(store: Store) -> None:
    """
    The summary for CI goes to a file or to stdout, and no HTML is written beside it.
    """
    store.add(AXES, noisy(), repeats=2)
    path = store.folder / "summary.md"
    assert run(store.folder, "report", "sorting", "--markdown", str(path)).returncode == 0
    done = run(store.folder, "report", "sorting", "--markdown", "-")
    assert done.stdout.strip() == path.read_text().strip()
    assert done.stdout.startswith("# sorting\n")
    assert "| size=10 method=merge |" in done.stdout
    assert list(store.folder.glob("*.html")) == []


def test_default_file_is_named_after_what_it_is_of(store: Store) -> None:
    """
    Without --output the file is in the working folder, and no name leads out of it.
    """
    store.add_run("../up and\\away", {"loss": 1.0})
    done = run(store.folder, "report", "../up and\\away")
    assert done.returncode == 0, done.stdout
    assert (store.folder / "report-up-and-away.html").is_file()


def test_folders_of_files_are_made(store: Store) -> None:
    """
    A file in a folder that is not there yet is written with it; where it cannot be, that is told.
    """
    store.add(AXES, noisy(), repeats=2)
    made = run(store.folder, "report", "sorting", "--output", "x/z.html", "--markdown", "x/w/z.md")
    assert made.returncode == 0, made.stdout
    assert (store.folder / "x/z.html").is_file()
    assert (store.folder / "x/w/z.md").is_file()
    for option in ("--output", "--markdown"):
        refused = run(store.folder, "report", "sorting", option, "mlflow.db/z")
        assert refused.returncode == ExitCode.USAGE
        assert "mlflow.db/z" in refused.stdout + refused.stderr


@pytest.mark.parametrize("name", ["nothing", "sorting~7", "sorting[size == 10]"])
def test_what_is_not_there(store: Store, name: str) -> None:
    """
    A name of nothing, an execution too far back, and an expression are refused with code 2.
    """
    store.add(AXES, noisy(), repeats=1)
    done = run(store.folder, "report", name)
    assert done.returncode == ExitCode.USAGE
    assert list(store.folder.glob("*.html")) == []


def test_unreachable_store(tmp_path: Path) -> None:
    """
    A store that is not there ends with code 6, and nothing is made.
    """
    uri = f"sqlite:///{tmp_path / 'none.db'}"
    done = run(tmp_path, "report", "sorting", "--tracking-uri", uri)
    assert done.returncode == ExitCode.UNREACHABLE
    assert list(tmp_path.iterdir()) == []
