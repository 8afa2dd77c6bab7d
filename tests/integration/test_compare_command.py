"""
`compare`, `design` and `export` on stores that hold what is known.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.main import commands
from allele_mlflow.environment.taking import take_environment
from allele_mlflow.errors import MatrixError, SettingsError
from tests.integration.executions import Metrics, Store

AXES: dict[str, list[Any]] = {"size": [10, 20], "method": ["merge", "heap"]}


def noisy(shift: float = 0.0, *, fails: int = 0, seconds: float = 1.0) -> Any:
    """
    A measure with seeded noise: `score` near 100 + shift, and a time.
    """
    failed: list[int] = []

    def measure(params: Mapping[str, Any], seed: int) -> Metrics | None:
        if params["method"] == "heap" and len(failed) < fails:
            failed.append(seed)
            return None
        chance = np.random.default_rng([seed, int(params["size"])])
        score, time = chance.normal(0, 1, 2)
        moved = shift if params["method"] == "heap" else 0.0
        return {"score": 100 + score + moved, "trial/seconds": seconds * (1 + 0.01 * time)}

    return measure


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    """
    A store without any run.
    """
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    found = Store(tmp_path)
    yield found
    found.close()


class Done(NamedTuple):
    """
    How a command ended.
    """

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, *arguments: str) -> Done:
    """
    A command to its end, in this process: the libraries that it imports take seconds.
    """
    with contextlib.chdir(folder):
        result = CliRunner().invoke(commands, arguments, standalone_mode=False)
    error = result.exception
    if isinstance(error, click.ClickException):
        return Done(error.exit_code, result.stdout, error.format_message())
    if isinstance(error, (MatrixError, SettingsError)):
        return Done(ExitCode.USAGE, result.stdout, str(error))
    if error is not None:
        raise error
    return Done(int(result.return_value), result.stdout, result.stderr)


def verdicts(folder: Path, *arguments: str) -> dict[tuple[str, str], str]:
    """
    The verdict on each cell and metric.
    """
    done = run(folder, "compare", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["comparisons"][0]["rows"]
    return {(row["cell"], row["metric"]): row["verdict"] for row in rows}


def test_a_worse_operator_is_found(store: Store) -> None:
    """The cells that became worse are named, the others are not; `--fail-on worse` ends with 1."""
    store.add(AXES, noisy(), repeats=12)
    store.add(AXES, noisy(-6.0), repeats=12)
    found = verdicts(store.folder, "sorting~1", "sorting", "--metric", "score")
    assert {cell for (cell, _), one in found.items() if one == "worse"} == {
        "size=10 method=heap",
        "size=20 method=heap",
    }
    assert not set(found.values()) & {"better", "different"}
    done = run(store.folder, "compare", "sorting~1", "sorting", "--fail-on", "worse")
    assert done.returncode == 1
    assert "size=10 method=heap" in done.stdout
    assert "worse" in done.stdout
    back = verdicts(store.folder, "sorting", "sorting~1", "--metric", "score")
    assert "better" in back.values()


def test_the_same_again_is_silent(store: Store) -> None:
    """Two executions that differ by nothing but noise are never called better or worse."""
    store.add(AXES, noisy(), repeats=8)
    store.add(AXES, noisy(), repeats=8, seed=8)
    found = verdicts(store.folder, "sorting~1", "sorting")
    assert len(found) == 8
    assert set(found.values()) <= {"inconclusive", "equivalent"}
    done = run(store.folder, "compare", "sorting~1", "sorting", "--fail-on", "different")
    assert done.returncode == 0


def test_failed_runs_cannot_win(store: Store) -> None:
    """A side whose failed runs are left out would be better; they count as the worst."""
    store.add(AXES, noisy(), repeats=10)
    store.add(AXES, noisy(1.0, fails=9), repeats=10, seed=9)
    done = run(store.folder, "compare", "sorting~1", "sorting", "--metric", "score", "--json")
    rows = json.loads(done.stdout)["comparisons"][0]["rows"]
    heaps = [row for row in rows if "heap" in row["cell"]]
    assert "better" not in {row["verdict"] for row in heaps if row["metric"] == "score"}
    assert {"run/success_ratio"} <= {row["metric"] for row in heaps}


def test_too_few_repeats_say_so(store: Store) -> None:
    """Three repeats never show anything: it says which p is reachable, and `--require-evidence`
    ends with 4.
    """
    store.add(AXES, noisy(), repeats=3)
    store.add(AXES, noisy(-50.0), repeats=3, seed=8)
    done = run(
        store.folder, "compare", "sorting~1", "sorting", "--require-evidence", "--metric", "score"
    )
    assert done.returncode == 4
    assert "smallest reachable p is 0.1" in done.stdout


def test_cells_of_one_execution_are_compared_by_expression(store: Store) -> None:
    """What an expression chooses names no cell, so that the rest of the cells meet."""
    store.add(AXES, noisy(-6.0), repeats=12)
    found = verdicts(
        store.folder, "sorting[method == 'merge']", "sorting[method == 'heap']", "--metric", "score"
    )
    assert found == {("size=10", "score"): "worse", ("size=20", "score"): "worse"}


def test_timings_of_other_machines_are_not_compared(store: Store) -> None:
    """Timings from environments that differ decisively are left out, told, and not corrected for;
    scores are compared all the same.
    """
    here = take_environment(store.folder)
    there = msgspec.structs.replace(here, cpu_model="something else", usable_cpu_count=999)
    store.add(AXES, noisy(), environment=here)
    store.add(AXES, noisy(-6.0, seconds=3.0), environment=there, environment_id="env-2")
    done = run(store.folder, "compare", "sorting~1", "sorting", "--json")
    (compared,) = json.loads(done.stdout)["comparisons"]
    assert compared["not_compared"] == ["trial/seconds"]
    assert compared["environments"]["verdict"] == "different"
    assert {row["metric"] for row in compared["rows"]} == {"score"}
    forced = verdicts(store.folder, "sorting~1", "sorting", "--across-environments")
    assert forced["size=10 method=merge", "trial/seconds"] == "worse"


def test_runs_of_no_suite(store: Store) -> None:
    """MLflow's own runs are chosen by params and tags, and grouped by a param."""
    chance = np.random.default_rng(3)
    for rate in (0.1, 0.5):
        for size in (1, 2):
            for number in range(8):
                store.add_run(
                    "training",
                    {"loss": float(chance.normal(2 if rate == 0.1 else 1, 0.1)), "system/x": 1.0},
                    params={"rate": rate, "size": size, "seed": number},
                    told={"team": "red", "model-kind": "a"},
                )
    store.add_run("training", {"loss": 99.0}, params={"rate": 0.1}, status=None)
    sides = ("training[rate < 0.2]", "training[rate > 0.2 and model_kind == 'a']")
    assert verdicts(store.folder, *sides, "--lower", "loss") == {("", "loss"): "better"}
    by = verdicts(store.folder, *sides, "--lower", "loss", "--by", "size")
    assert by == {("size=1", "loss"): "better", ("size=2", "loss"): "better"}
    unsaid = verdicts(store.folder, *sides)
    assert unsaid == {("", "loss"): "different"}


def test_several_configurations_are_ranked(store: Store) -> None:
    """With three selections or more each is ranked, with intervals, and the best is first."""
    axes: dict[str, list[Any]] = {"size": [1, 2, 3, 4, 5, 6], "method": ["merge", "heap", "quick"]}

    def measure(params: Mapping[str, Any], seed: int) -> Metrics:
        better = {"merge": 0.0, "heap": 5.0, "quick": 10.0}[params["method"]]
        return {"score": float(np.random.default_rng([seed, params["size"]]).normal(better, 0.5))}

    store.add(axes, measure, repeats=6)
    methods = [f"sorting[method == '{name}']" for name in axes["method"]]
    done = run(store.folder, "compare", *methods, "--json")
    found = json.loads(done.stdout)
    assert len(found["comparisons"]) == 2
    (ranking,) = found["rankings"]
    assert list(ranking["mean_ranks"].values()) == [1.0, 2.0, 3.0]
    assert next(iter(ranking["mean_ranks"])) == methods[2]
    assert ranking["friedman_p"] < 0.01
    text = run(store.folder, "compare", *methods)
    assert "Friedman" in text.stdout
    markdown = run(store.folder, "compare", *methods, "--markdown", "--output", "report.md")
    assert markdown.returncode == 0
    assert "| configuration | mean rank |" in (store.folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("nothing", "there is no such experiment, run id, uid or name; experiments: Default, sort"),
        ("sorting~9", "the suite has 2 executions"),
        ("sorting[colour == 1]", "no run has a param or tag 'colour'; there are method, size"),
        ("sorting[size > 99]", "it is true of none"),
        ("sorting[size >]", "want an expression"),
        ("sorting[__import__('os')]", "is not allowed"),
        ("[size > 1]", "want NAME, NAME~N or NAME[EXPRESSION]"),
    ],
)
def test_what_is_no_selection(store: Store, selection: str, words: str) -> None:
    """A wrong selection is told in words, with what there is; code 2."""
    store.add(AXES, noisy(), repeats=1)
    store.add(AXES, noisy(), repeats=1)
    done = run(store.folder, "compare", "sorting", selection)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_no_store(tmp_path: Path) -> None:
    """A store that is not there is said in a line; code 6, and nothing is made."""
    done = run(tmp_path, "compare", "a", "b", "--tracking-uri", "sqlite:///missing.db")
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "missing.db").exists()


def test_export_brings_all_back(store: Store) -> None:
    """Each frame is a file in each form, with the same rows, readable by its owner alone."""
    store.add(AXES, noisy(fails=1), repeats=2)
    for form, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet), ("json", pd.read_json)):
        done = run(store.folder, "export", "sorting", "--format", form, "--output", form)
        assert done.returncode == 0, done.stderr
        runs = read(store.folder / form / f"runs.{form}")
        assert len(runs) == 9
        assert (store.folder / form / f"runs.{form}").stat().st_mode & 0o077 == 0
        cells = read(store.folder / form / f"cells.{form}")
        assert set(cells["metric"]) == {"score", "trial/seconds"}
        heap = cells[cells["cell"] == "size=10 method=heap"].iloc[0]
        assert (heap["repeats"], heap["finished"]) == (2, 1)
        assert len(read(store.folder / form / f"histories.{form}")) == 14
        assert not list((store.folder / form).glob(".*"))
    done = run(store.folder, "export", "nosuch")
    assert done.returncode == 2
    assert "experiments: Default, sorting" in done.stderr


def test_design_says_never(store: Store) -> None:
    """With two repeats nothing can be significant: code 1, and how many can; with enough, code 0
    and the difference in percent of past runs.
    """
    (store.folder / "bench.py").write_text("def run(size, method): return {'score': 1.0}\n")
    text = (
        'name = "sorting"\nbenchmark = "bench:run"\nrepeats = 2\n[matrix]\nsize = [10, 20]\n'
        'method = ["merge", "heap"]\n[metrics.score]\ndirection = "higher"\nobjective = true\n'
    )
    (store.folder / "sorting.toml").write_text(text)
    unknown = run(store.folder, "design", "sorting.toml")
    assert unknown.returncode == 1
    assert "with 2 repeats nothing can ever be significant; 5 repeats can" in unknown.stdout
    assert "its scatter is not known" in unknown.stdout
    store.add(AXES, noisy(), repeats=10)
    done = run(store.folder, "design", "sorting.toml", "--repeats", "10", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["cells"], found["hypotheses"], found["is_reachable"]) == (4, 4, True)
    assert found["metrics"][0]["deviation"] == pytest.approx(1.0, rel=0.35)
    own = next(row for row in found["rows"] if row["repeats"] == 10)
    assert own["ratios"]["score"] == pytest.approx(
        own["effect_sd"] * found["metrics"][0]["deviation"] / found["metrics"][0]["mean"]
    )
