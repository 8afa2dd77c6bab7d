"""
`allele-mlflow run` from end to end: real cells, real sidecar, real MLflow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from allele_mlflow import suite_tags as tags
from allele_mlflow.matrix.superseded import mark_superseded
from allele_mlflow.settings import load
from tests.integration.suites import Place, StoredRun, await_that, document

# each is a suite of real processes, and often several
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(150)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """
    A folder of its own.
    """
    return Place(tmp_path)


def of_kind(runs: list[StoredRun], kind: str) -> list[StoredRun]:
    """
    The runs of a kind.
    """
    return [run for run in runs if run.tags.get(tags.KIND) == kind]


def test_each_failure_has_its_category_and_the_rest_finishes(place: Place) -> None:
    """
    A failing, hanging, memory-eating, NaN, dying, exiting and importing cell: each its category, in
    the results and in MLflow; the fine ones finish; the tree of the hanging one is gone.
    """
    suite = place.write(
        "faults.toml",
        'executor = "process:2"\ntimeout_s = 4\nmemory_limit_bytes = 500_000_000\n'
        '[matrix]\nnumber = [1]\nmode = ["fine", "fail", "hang", "eat", "nan", "die", "exit", '
        '"import"]\n[[include]]\nnumber = 2',
    )
    done = place.run("run", str(suite), "--json")
    assert done.returncode == 3, done.stderr
    found = {
        (row["param.number"], row["param.mode"]): row["category"]
        for row in document(done)["results"]
    }
    assert found == {
        (1, "fine"): None,
        (1, "fail"): "configuration",
        (1, "hang"): "timeout",
        (1, "eat"): "out_of_memory",
        (1, "nan"): "numeric",
        (1, "die"): "unknown",
        (1, "exit"): "interrupted",
        (1, "import"): "dependency",
        (2, None): None,
    }
    stored = {
        run.params["mode"]: (run.status, run.tags.get("allele.error.category"))
        for run in place.cells()
        if run.params["number"] == "1"
    }
    assert stored == {
        "fine": ("FINISHED", None),
        "fail": ("FAILED", "configuration"),
        "hang": ("KILLED", "timeout"),
        "eat": ("KILLED", "out_of_memory"),
        "nan": ("FAILED", "numeric"),
        "die": ("KILLED", "unknown"),
        "exit": ("FAILED", "interrupted"),
        "import": ("FAILED", "dependency"),
    }
    hung = next(run for run in place.cells() if run.params["mode"] == "hang")
    tail = hung.artifact("allele/log_tail.txt").read_text()
    assert "begun 1 hang" in tail
    assert "in run" in tail, "where it hung"
    child = int(next(line for line in tail.splitlines() if line.startswith("child")).split()[1])
    assert not psutil.pid_exists(child)
    assert "ValueError: number 1 is no good" in done.stderr


def test_what_a_suite_leaves_in_mlflow(place: Place) -> None:
    """
    A parent with suite file, results, environment, figures and report; children below it with all
    parameters, seeds of their own, metrics, and the artifacts that were to be kept.
    """
    suite = place.write(
        "tidy.toml",
        'repeats = 2\nwarm_ups = 1\nartifacts = ["*.txt"]\ntags = {team = "a"}\n'
        "[matrix]\nnumber = [1, 2]",
    )
    done = place.run("run", str(suite))
    assert done.returncode == 0, done.stderr
    (parent,) = of_kind(place.runs(), "suite")
    assert parent.status == "FINISHED"
    assert parent.artifact("suite.toml").read_text() == suite.read_text()
    for name in (
        *("results.csv", "environment.json", "report.html", "report.md"),
        *("figures/score_by_cell.html",),
    ):
        assert parent.artifact(name).is_file(), name
    assert str(parent.artifact("report.html")) in done.stdout.replace("\n", "")
    assert (parent.metrics["suite/finished"], parent.metrics["objective/score/max"]) == (4, 2)
    cells = place.cells()
    assert len(cells) == 4
    for run in cells:
        assert run.tags["mlflow.parentRunId"] == parent.run_id
        assert run.tags[tags.EXECUTION] == parent.tags["allele.run_uid"]
        assert run.tags["team"] == "a"
        assert run.tags[tags.HOST] == parent.tags[tags.HOST] == os.uname().nodename
        assert run.params == {
            "number": run.params["number"],
            "mode": "fine",
            "seed": run.tags[tags.SEED],
        }
        assert run.metrics["score"] == float(run.params["number"])
        assert run.metrics["curve"] == float(run.params["number"]) + 4
        assert run.metrics["trial/seconds"] > 0
        assert "trial/warm_up_seconds" in run.metrics
        text = run.artifact("out.txt").read_text()
        assert text == f"{run.params['number']} {run.tags[tags.SEED]}"
    assert len({run.tags[tags.SEED] for run in cells}) == 2, "one for each repeat"
    assert sorted(int(run.tags[tags.ORDER]) for run in cells) == [0, 1, 2, 3]
    correlation = {run.tags["allele.correlation_id"] for run in (*cells, parent)}
    assert len(correlation) == 1


def test_report_compares_with_the_execution_before(place: Place) -> None:
    """
    The report of a second execution holds each objective against the first, with a verdict.
    """
    suite = place.write("again.toml", "[matrix]\nnumber = [1, 2]")
    for _ in range(2):
        done = place.run("run", str(suite), "--json")
        assert done.returncode == 0, done.stderr
    report = Path(document(done)["report"])
    told = report.with_suffix(".md").read_text(encoding="utf-8")
    assert "## Against the execution before" in told
    assert "| number=2 | score (points) | 2.000 | 2.000 |" in told
    assert "Not compared" not in told
    assert "candidate / baseline" in report.read_text(encoding="utf-8"), "the forest plot"


def test_killed_runner_leaves_a_suite_that_resumes(place: Place, tmp_path: Path) -> None:
    """
    Kill -9 of the runner half way: its cells die with it; `--resume` runs what is missing, and each
    trial has exactly one finished run, below the one parent.
    """
    begun = tmp_path / "begun"
    begun.mkdir()
    suite = place.write(
        "long.toml",
        'executor = "process:2"\nrepeats = 2\n[matrix]\nnumber = [1, 2, 3, 4]\nmode = ["wait"]',
    )
    process = place.start("run", str(suite), BEGUN_FOLDER=str(begun))
    await_that(lambda: len(list(begun.iterdir())) >= 4)
    pids = [int(path.name.rsplit("-", 1)[1]) for path in begun.iterdir()]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    await_that(lambda: not any(map(psutil.pid_exists, pids)))
    done = place.run("run", str(suite), "--resume", BEGUN_FOLDER=str(begun))
    assert done.returncode == 0, done.stderr
    assert len(place.finished()) == 8
    assert set(place.finished().values()) == {1}
    assert len(of_kind(place.runs(), "suite")) == 1
    again = place.run("run", str(suite), "--resume", "--json")
    assert again.returncode == 0
    assert len(place.cells()) == len(place.cells())
    assert set(place.finished().values()) == {1}, "there was nothing left to run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_suite_ends_at_once_and_resumes(
    place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    """
    Ctrl-C, or a batch system's SIGTERM: exit code 130, running cells end as interrupted, the parent
    is KILLED; `--resume` finishes it.
    """
    begun = tmp_path / "begun"
    begun.mkdir()
    suite = place.write(
        "stopped.toml",
        'executor = "process:2"\nrepeats = 3\n[matrix]\nnumber = [1, 2, 3]\nmode = ["wait"]',
    )
    process = place.start("run", str(suite), BEGUN_FOLDER=str(begun))
    await_that(lambda: len(list(begun.iterdir())) >= 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, output
    assert "--resume" in output
    (parent,) = of_kind(place.runs(), "suite")
    assert parent.status == "KILLED"
    done = place.run("run", str(suite), "--resume")
    assert done.returncode == 0, done.stderr
    assert len(place.finished()) == 9
    assert set(place.finished().values()) == {1}
    (parent,) = of_kind(place.runs(), "suite")
    assert parent.status == "FINISHED"


def test_failed_trials_alone_are_tried_again(place: Place) -> None:
    """
    `--retry-failed` runs the failed trial as its next attempt and nothing else; both attempts stay.
    """
    suite = place.write("mixed.toml", '[matrix]\nnumber = [1, 2]\nmode = ["fine", "fail"]')
    assert place.run("run", str(suite)).returncode == 3
    (place.folder / "bench.py").write_text(
        (place.folder / "bench.py").read_text() + "\n# the code is as it was\n"
    )
    done = place.run("run", str(suite), "--retry-failed")
    assert done.returncode == 3
    attempts = sorted((run.params["mode"], run.tags[tags.ATTEMPT]) for run in place.cells())
    assert attempts == [("fail", "0")] * 2 + [("fail", "1")] * 2 + [("fine", "0")] * 2


def test_retries_by_category(place: Place, tmp_path: Path) -> None:
    """
    A connection that fails once is tried again by itself, and the suite is fine.
    """
    marks = tmp_path / "marks"
    marks.mkdir()
    suite = place.write(
        "flaky.toml",
        f'[params]\nmarks = "{marks}"\n[retries]\ninfrastructure = 1\n[matrix]\nnumber = [1, 2]',
    )
    suite.write_text(suite.read_text().replace("bench:run", "bench:flaky"))
    done = place.run("run", str(suite))
    assert done.returncode == 0, done.stderr
    assert "trying again" in done.stderr
    assert sorted((r.status, r.tags[tags.ATTEMPT]) for r in place.cells()) == [
        *[("FAILED", "0")] * 2,
        *[("FINISHED", "1")] * 2,
    ]


@pytest.mark.parametrize("executor", ["inline", "bench:make_pool", "process:3"])
def test_executors_give_the_same_results(place: Place, executor: str) -> None:
    """
    In this process, in a pool of the user's own, in processes: the same metrics, params, seeds.
    """
    suite = place.write("same.toml", "repeats = 2\n[matrix]\nnumber = [1, 2, 3]")
    done = place.run("run", str(suite), "--executor", executor, "--json")
    assert done.returncode == 0, done.stderr
    results = document(done)["results"]
    assert [(row["param.number"], row["repeat"], row["metric.score"]) for row in results] == [
        (number, repeat, float(number)) for number in (1, 2, 3) for repeat in (0, 1)
    ]
    assert set(place.finished().values()) == {1}
    assert len(place.finished()) == 6
    (parent,) = of_kind(place.runs(), "suite")
    assert {run.tags["mlflow.parentRunId"] for run in place.cells()} == {parent.run_id}


def test_killed_dask_worker_loses_and_doubles_no_cell(place: Place, tmp_path: Path) -> None:
    """
    A cluster of three workers, one killed half way: every trial has exactly one finished run, and
    the cell of the killed worker is gone with it.
    """
    from distributed import LocalCluster

    begun = tmp_path / "begun"
    begun.mkdir()
    suite = place.write("far.toml", 'repeats = 3\n[matrix]\nnumber = [1, 2, 3, 4]\nmode = ["wait"]')
    os.environ["BEGUN_FOLDER"] = str(begun)  # the workers' environment is this process's
    try:
        with LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster:
            process = place.start(
                "run", str(suite), "--executor", f"dask:{cluster.scheduler_address}"
            )
            await_that(lambda: len(list(begun.iterdir())) >= 4)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
            output, _ = process.communicate(timeout=90)
    finally:
        del os.environ["BEGUN_FOLDER"]
    assert process.returncode == 0, output
    assert len(place.finished()) == 12
    assert set(place.finished().values()) == {1}


def test_without_tracking_there_is_no_store(place: Place) -> None:
    """
    `--no-track`, and the setting `auto_experiment_tracking` off: results, and nothing in MLflow.
    """
    suite = place.write("alone.toml", "[matrix]\nnumber = [1, 2]")
    for options, environ in (
        (["--no-track"], {}),
        ([], {"ALLELE_MLFLOW_AUTO_EXPERIMENT_TRACKING": "false"}),
    ):
        done = place.run("run", str(suite), *options, **environ)
        assert done.returncode == 0, done.stderr
        assert "2 finished" in done.stdout
        assert "--track" in done.stdout
        assert not (place.folder / "mlflow.db").exists()


def test_nothing_measured_is_a_failure(place: Place) -> None:
    """
    Every cell failed: exit code 5, and the parent says FAILED.
    """
    suite = place.write("none.toml", '[matrix]\nnumber = [1]\nmode = ["fail"]')
    done = place.run("run", str(suite), "--fail-fast")
    assert done.returncode == 5, done.stderr
    assert [run.status for run in of_kind(place.runs(), "suite")] == ["FAILED"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repeats = 0", "repeats"),
        ("[matrix]\nnmuber = [1]", "no parameter 'nmuber'; did you mean 'number'"),
        ("", "needs 'number'"),
        ('executor = "proces:2"\n[matrix]\nnumber = [1]', "proces"),
    ],
)
def test_a_wrong_suite_runs_nothing(place: Place, text: str, words: str) -> None:
    """
    Exit code 2 and one line that says what is wrong; no store is made.
    """
    done = place.run("run", str(place.write("wrong.toml", text)))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.cells() if (place.folder / "mlflow.db").exists() else True


def test_dry_run_shows_and_predicts(place: Place) -> None:
    """
    Before the first run no time is known; afterwards it is predicted from what was measured; with
    `--resume` nothing is left to run.
    """
    suite = place.write("plan.toml", 'repeats = 2\n[matrix]\nnumber = [1, 2]\nmode = ["wait"]')
    before = place.run("run", str(suite), "--dry-run")
    assert before.returncode == 0, before.stderr
    assert "not known" in before.stdout
    assert not (place.folder / "mlflow.db").exists()
    assert place.run("run", str(suite), "--only", "number == 1").returncode == 0
    after = document(place.run("run", str(suite), "--dry-run", "--resume", "--json"))
    assert [cell["runs"] for cell in after["cells"]] == [0, 2]
    assert after["runs"] == 2
    assert after["predicted_s"] == pytest.approx(0.8, rel=0.5)


def test_store_that_is_away_keeps_nobody_from_measuring(place: Place) -> None:
    """
    No MLflow: the suite runs, its results are shown, its records wait; `--strict` makes it exit 6.
    """
    suite = place.write("apart.toml", "[matrix]\nnumber = [1, 2]")
    away = {
        "ALLELE_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "ALLELE_MLFLOW_EXIT_TIMEOUT_S": "1",
    }
    done = place.run("run", str(suite), **away)
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stdout
    assert "sync" in done.stdout
    assert place.run("run", str(suite), "--strict", **away).returncode == 6


def test_reproduced_from_mlflow_alone(place: Place) -> None:
    """
    A run is run again with its parameters and seed: the same objective is exit code 0; where the
    code gives another one, 1, and it says so. No run is added.
    """
    suite = place.write("again.toml", "repeats = 2\n[matrix]\nnumber = [3]")
    assert place.run("run", str(suite)).returncode == 0
    (run, _) = place.cells()
    suite.unlink()
    same = place.run("reproduce", run.run_id, "--json")
    assert same.returncode == 0, same.stderr
    found = document(same)
    assert (found["cell"], found["seed"]) == ("again", int(run.tags[tags.SEED]))
    assert found["environment"]["verdict"] == "same", found["environment"]
    assert found["same_code"]
    bench = place.folder / "bench.py"
    bench.write_text(bench.read_text().replace("float(number)", "float(number) + 1"))
    other = place.run("reproduce", run.tags["allele.run_uid"])
    assert other.returncode == 1
    assert "DIFFERENT" in other.stdout
    assert "source is not what it was" in other.stdout
    assert len(place.cells()) == 2
    missing = place.run("reproduce", "no-such-run")
    assert missing.returncode == 2
    assert "no such run" in missing.stderr


def test_objective_that_is_only_logged_counts(place: Place) -> None:
    """
    The last reading of a key is its value, tracked or not; one that is neither logged nor returned
    fails its cell.
    """
    suite = place.write("logged.toml", "[matrix]\nnumber = [1, 5]")
    suite.write_text(suite.read_text().replace("[metrics.score]", "[metrics.curve]"))
    for options in ([], ["--no-track"]):
        done = place.run("run", str(suite), "--json", *options)
        assert done.returncode == 0, done.stderr
        assert [row["metric.curve"] for row in document(done)["results"]] == [5.0, 9.0]
    suite.write_text(suite.read_text().replace("[metrics.curve]", "[metrics.curv]"))
    done = place.run("run", str(suite))
    assert done.returncode == 5
    assert "did you mean 'curve'" in done.stderr


def test_second_finished_run_of_a_trial_is_marked(place: Place) -> None:
    """
    What an engine ran once more though it had finished: the run whose result arrived counts, the
    other one is marked, and a resume takes it for nothing. Runs of other trials are left alone.
    """
    suite = place.write("twice.toml", "repeats = 2\n[matrix]\nnumber = [1]")
    assert place.run("run", str(suite)).returncode == 0
    first, second = place.cells()
    script = (
        "import sys; from allele_mlflow import start_logger\n"
        "told = dict(one.split('=', 1) for one in sys.argv[1:])\n"
        "start_logger('twice', tags=told, exit='drain').close()\n"
    )
    told = {k: v for k, v in first.tags.items() if k.startswith("allele.") and "uid" not in k}
    arguments = [f"{key}={value}" for key, value in told.items()]
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=place.folder, check=True)
    assert place.finished()[first.tags[tags.CELL_KEY], first.tags[tags.REPEAT]] == 2
    settings = load({"tracking_uri": place.uri}, environ={}, folder=place.folder)
    counted = {run.tags[tags.RUN_UID] for run in (first, second)}
    marked = mark_superseded(settings, first.tags[tags.EXECUTION], counted)
    assert len(marked) == 1
    assert set(place.finished().values()) == {1}
    assert {run.run_id for run in place.cells()} == {first.run_id, second.run_id}
    assert mark_superseded(settings, first.tags[tags.EXECUTION], counted) == []
