"""
`allele-mlflow confirm` with the real git: two commits of a small project, one of them worse.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import pytest
from click.testing import CliRunner

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.evidence import SUCCESS_METRIC
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.main import commands
from allele_mlflow.errors import MatrixError
from tests.integration.repository import git
from tests.integration.suites import Place, StoredRun, await_that

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(200),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]

BENCHMARK = '''
import os
import time

import algorithm


def run(number, *, seed, log):
    """Score of the algorithm, which lies in a package folder of its own."""
    with log.phase("work"):
        score = algorithm.score(number, seed)
    begun = os.environ.get("BEGUN_FOLDER")
    if begun:
        open(os.path.join(begun, str(os.getpid())), "w").close()
        time.sleep(60)
    return {"score": score}
'''
GOOD = "def score(number, seed):\n    return 10 * number + seed % 7 / 10\n"
WORSE = GOOD.replace("10 * number", "9 * number")
BROKEN = "def score(number, seed):\n    raise ValueError('broken')\n"

#: A project that is built without anything from the network.
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "algorithm"
version = "1"
"""
BACKEND = '''
import os
import zipfile


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """A wheel that puts the folder lib on the path."""
    name, about = "algorithm-1-py3-none-any.whl", "algorithm-1.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("algorithm.pth", os.path.abspath("lib"))
        told = "Metadata-Version: 2.1\\nName: algorithm\\nVersion: 1\\n"
        wheel.writestr(f"{about}/METADATA", told)
        tags = "Root-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\\nGenerator: t\\n{tags}")
        wheel.writestr(f"{about}/RECORD", "")
    return name
'''


class Done(NamedTuple):
    """
    How a command ended.
    """

    returncode: int
    stdout: str
    stderr: str


def commit(place: Place, algorithm: str) -> str:
    """
    A commit with that algorithm; its hash.
    """
    (place.folder.parent / "src" / "algorithm.py").write_text(algorithm)
    git(place.folder, "add", "--all", "..")
    git(place.folder, "commit", "--quiet", "--allow-empty", "--message=more")
    return git(place.folder, "rev-parse", "HEAD")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Place:
    """
    A repository with a suite in one folder and what it measures in another; nothing committed. The
    folder for temporary files is `scratch`.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("ALLELE_MLFLOW_EXIT_TIMEOUT_S", "60")
    monkeypatch.setenv("ALLELE_MLFLOW_IDLE_TIMEOUT_S", "2")
    place = Place(tmp_path / "repository" / "suites")
    place.folder.mkdir(parents=True)
    (place.folder.parent / "src").mkdir()
    git(place.folder.parent, "init", "--quiet", "--initial-branch=main")
    (place.folder.parent / ".gitignore").write_text("mlflow*\n.allele*\nmlruns\n__pycache__\n")
    place.write("sums.toml", "repeats = 2\n[matrix]\nnumber = [3, 4]")
    (place.folder / "bench.py").write_text(BENCHMARK)
    shutil.copyfile(empty_store, place.folder / "mlflow.db")
    return place


def confirm(place: Place, *arguments: str) -> Done:
    """
    The command to its end, in this process: the libraries that it imports take seconds.
    """
    with contextlib.chdir(place.folder):
        result = CliRunner().invoke(commands, ["confirm", *arguments], standalone_mode=False)
    error = result.exception
    if isinstance(error, click.ClickException):
        return Done(error.exit_code, result.stdout, error.format_message())
    if isinstance(error, MatrixError):
        return Done(ExitCode.USAGE, result.stdout, str(error))
    if error is not None:
        raise error
    return Done(int(result.return_value), result.stdout, result.stderr)


def assert_nothing_is_left(place: Place) -> None:
    """
    One worktree, the user's own, with nothing changed.
    """
    assert len(git(place.folder, "worktree", "list", "--porcelain").split("\n\n")) == 1
    assert git(place.folder, "status", "--porcelain") == ""


def of_kind(runs: list[StoredRun], kind: tags.RunKind) -> list[StoredRun]:
    """
    The runs of that kind.
    """
    return [run for run in runs if run.tags.get(tags.KIND) == kind]


def test_a_worse_commit_is_confirmed_worse(place: Place) -> None:
    """
    The second commit scores 3 and 4 less: exit code 1, worse in both cells, paired, whatever lies
    uncommitted in the checkout. The candidate's run holds verdict, finding, commit and tables; the
    runs are no execution of the suite, and can be compared again by their ids.
    """
    one, two = commit(place, GOOD), commit(place, WORSE)
    (place.folder.parent / "src" / "algorithm.py").write_text(BROKEN)
    ends = ("--metric", "score", "--finding", "f-17", "--fail-on", "worse", "--json")
    done = confirm(place, "sums.toml", "--baseline", "HEAD~1", "--candidate", "main", *ends)
    assert done.returncode == ExitCode.FAILED, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "worse"
    assert [found["sides"][side]["commit"] for side in ("baseline", "candidate")] == [one, two]
    rows = {row["cell"]: row for row in found["comparison"]["rows"]}
    assert {name: round(row["difference"], 9) for name, row in rows.items()} == {
        "number=3": -3,
        "number=4": -4,
    }
    assert all(row["is_paired"] and row["verdict"] == "worse" for row in rows.values())
    assert found["repeats"] == 8 == rows["number=3"]["baseline_runs"]

    runs = place.runs()
    sides = {run.tags[tags.SIDE]: run for run in of_kind(runs, tags.RunKind.CONFIRMATION)}
    candidate = sides["candidate"]
    assert candidate.run_id == found["sides"]["candidate"]["run_id"]
    assert candidate.status == "FINISHED"
    assert candidate.tags[tags.COMMIT] == two
    assert candidate.tags[tags.CONFIRMATION] == "worse"
    assert candidate.tags[tags.FINDING] == "f-17"
    assert candidate.tags[tags.BASELINE] == sides["baseline"].tags[tags.RUN_UID]
    assert json.loads(candidate.artifact("confirmation.json").read_text()) == found
    assert "**worse**" in candidate.artifact("confirmation.md").read_text()
    cells = of_kind(runs, tags.RunKind.CONFIRMATION_CELL)
    assert len(cells) == 2 * 2 * 8
    assert sorted(int(run.tags[tags.ORDER]) for run in cells) == list(range(32))
    assert len({run.tags[tags.SEED] for run in cells}) == 8
    assert not of_kind(runs, tags.RunKind.SUITE)
    assert not place.cells()

    (place.folder.parent / "src" / "algorithm.py").write_text(WORSE)
    assert_nothing_is_left(place)
    phases = ("--metric", "phase/*/seconds")
    again = ("compare", sides["baseline"].run_id, candidate.run_id, *phases)
    with contextlib.chdir(place.folder):
        result = CliRunner().invoke(commands, [*again, "--json"], standalone_mode=False)
    rows = json.loads(result.stdout)["comparisons"][0]["rows"]
    assert {row["metric"] for row in rows} == {"phase/work/seconds"}


def test_the_same_commit_twice_is_not_worse(place: Place) -> None:
    """
    One commit on both sides gives the same scores for the same seeds: equivalent, exit code 0.
    """
    commit(place, GOOD)
    ends = ("--metric", "score", "--fail-on", "worse", "--require-evidence", "--markdown")
    done = confirm(place, "sums.toml", "--baseline", "HEAD", "--candidate", "HEAD", *ends)
    assert done.returncode == ExitCode.FINE, done.stderr
    assert "the candidate is equivalent" in done.stdout
    assert_nothing_is_left(place)


def test_the_checkout_as_it_is_against_its_commit(place: Place) -> None:
    """
    `.` is what lies in the checkout, uncommitted. A cell that fails there on every run is worse
    than one that finished, and --only leaves the other cell out.
    """
    commit(place, GOOD)
    (place.folder.parent / "src" / "algorithm.py").write_text(BROKEN)
    ends = ("--only", "number == 3", "--fail-on", "worse", "--json")
    done = confirm(place, "sums.toml", "--baseline", "HEAD", "--candidate", ".", *ends)
    assert done.returncode == ExitCode.FAILED, done.stderr
    found = json.loads(done.stdout)
    assert found["sides"]["candidate"]["commit"] is None
    rows = {row["metric"]: row["verdict"] for row in found["comparison"]["rows"]}
    assert rows[SUCCESS_METRIC] == "worse"
    assert {row["cell"] for row in found["comparison"]["rows"]} == {"number=3"}


def test_nothing_measured_on_either_side(place: Place) -> None:
    """
    Where no run of any side finishes there is no verdict, and the exit code is 5.
    """
    commit(place, BROKEN)
    ends = ("--only", "number == 3", "--repeats", "1", "--json")
    done = confirm(place, "sums.toml", "--baseline", "HEAD", "--candidate", "HEAD", *ends)
    assert done.returncode == ExitCode.NOTHING_MEASURED, done.stderr
    assert json.loads(done.stdout)["verdict"] is None
    assert "nothing can ever be significant" in done.stderr


def test_what_cannot_be_resolved_is_refused_before_anything_runs(place: Place) -> None:
    """
    No such commit, a name that is commit and folder, no suite at that commit, an interpreter that
    is missing or lacks this package, other cells: exit code 2, a message that names the side, no
    run, no worktree.
    """
    one = commit(place, GOOD)
    git(place.folder, "mv", "sums.toml", "other.toml")
    two = commit(place, GOOD)
    text = (place.folder / "other.toml").read_text()
    (place.folder / "other.toml").write_text(text.replace("[3, 4]", "[3, 5]"))
    commit(place, GOOD)
    (place.folder / "twice").mkdir()
    git(place.folder, "branch", "twice", one)
    bare = place.folder.parent.parent / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)

    def refused(suite: str, candidate: str, *more: str) -> str:
        done = confirm(place, suite, "--baseline", two, "--candidate", candidate, *more)
        assert done.returncode == ExitCode.USAGE, done
        return done.stderr

    assert "candidate 'nowhere': no commit of" in refused("other.toml", "nowhere")
    assert "both a commit and a folder" in refused("other.toml", "twice")
    assert "there is no such file" in refused("other.toml", one)
    python = ("--candidate-python", str(bare / "bin" / "python"))
    assert "No module named 'allele_mlflow'" in refused("other.toml", two, *python)
    assert "no interpreter" in refused("other.toml", two, "--candidate-python", "python99")
    assert "nothing to install" in refused("other.toml", two, "--install")
    assert "only the baseline has the cells number=4" in refused("other.toml", "main")
    assert place.runs() == []
    assert_nothing_is_left(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_confirmation_leaves_nothing(
    place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    """
    Ctrl-C or SIGTERM while a cell runs: exit code 130, the cell has ended, both runs are killed,
    and neither a worktree nor a folder is left.
    """
    commit(place, GOOD)
    begun, scratch = tmp_path / "begun", tmp_path / "scratch"
    begun.mkdir()
    scratch.mkdir()
    more = {"BEGUN_FOLDER": str(begun), "TMPDIR": str(scratch)}
    sides = ("--baseline", "HEAD", "--candidate", "HEAD")
    process = place.start("confirm", "sums.toml", *sides, **more)
    await_that(lambda: len(list(begun.iterdir())) == 1, seconds=60)
    pid = int(next(begun.iterdir()).name)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, output
    await_that(lambda: not psutil.pid_exists(pid))
    assert list(scratch.iterdir()) == []
    assert_nothing_is_left(place)
    killed = of_kind(place.runs(), tags.RunKind.CONFIRMATION)
    assert [run.status for run in killed] == ["KILLED", "KILLED"]


def test_code_of_the_checkout_is_not_taken_for_the_commit(place: Place, tmp_path: Path) -> None:
    """
    A package that is installed from the checkout (editable) and lies where a worktree's is not
    found would be the same code on both sides: that is refused. With --install each side has its
    own, from its commit.
    """
    root = place.folder.parent
    (root / "src").rename(root / "lib")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "backend.py").write_text(BACKEND)
    for text in (GOOD, WORSE):
        (root / "lib" / "algorithm.py").write_text(text)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message=more")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/*/site-packages"))
    parents = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in parents]
    (site / "own.pth").write_text("\n".join([str(root / "lib"), *lines]))
    both = ("--baseline-python", str(python), "--candidate-python", str(python))
    sides = ("--baseline", "HEAD~1", "--candidate", "HEAD", "--metric", "score", *both)
    done = confirm(place, "sums.toml", *sides)
    assert done.returncode == ExitCode.USAGE
    assert "imports algorithm from the checkout, and not from this side" in done.stderr
    done = confirm(place, "sums.toml", *sides, "--install", "--fail-on", "worse")
    assert done.returncode == ExitCode.FAILED, done.stderr
    assert "the candidate is worse" in done.stdout
    assert_nothing_is_left(place)
