"""
`allele-mlflow reproduce --checkout`: a cell once more at the commit of then, with the real git.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from allele_mlflow import suite_tags as tags
from tests.integration.repository import git
from tests.integration.suites import BENCHMARK, Place, await_that, document

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(150),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """
    A repository whose first commit has a suite in a folder, and a benchmark that takes its offset
    from a module beside it.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    repository = tmp_path / "repository"
    place = Place(repository / "suites")
    place.folder.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    (repository / ".gitignore").write_text(
        "mlflow.db*\n.allele*\nmlartifacts\nmlruns\n__pycache__\n"
    )
    place.write("again.toml", "[matrix]\nnumber = [3]")
    (place.folder / "bench.py").write_text(
        BENCHMARK.replace("float(number)", "float(number) + offset.OFFSET").replace(
            "import math", "import math\nimport offset", 1
        )
    )
    (place.folder / "offset.py").write_text("OFFSET = 0.5\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=one")
    return place


def test_checkout_reproduces_the_commit_of_the_run(place: Place) -> None:
    """
    The run was made at the first commit and the second computes something else: without
    `--checkout` the objectives differ (exit code 1), with it they are those of then (0), whatever
    is changed and not committed. No worktree is left, and the checkout is as it was.
    """
    suite = place.folder / "again.toml"
    done = place.run("run", str(suite))
    assert done.returncode == 0, done.stderr
    (run,) = place.cells()
    assert run.tags[tags.COMMIT] == git(place.folder, "rev-parse", "HEAD")
    (place.folder / "offset.py").write_text("OFFSET = 7\n")
    git(place.folder, "commit", "--quiet", "--all", "--message=two")
    (place.folder / "offset.py").write_text("OFFSET = 8\n")
    before = git(place.folder, "status", "--porcelain")

    now = place.run("reproduce", run.run_id, "--json")
    assert now.returncode == 1, now.stderr
    assert [(one["then"], one["now"]) for one in document(now)["objectives"]] == [(3.5, 11.0)]

    then = place.run("reproduce", run.run_id, "--checkout", "--json")
    assert then.returncode == 0, then.stderr
    assert [(one["then"], one["now"]) for one in document(then)["objectives"]] == [(3.5, 3.5)]
    assert document(then)["same_code"]

    assert len(git(place.folder, "worktree", "list", "--porcelain").split("\n\n")) == 1
    assert git(place.folder, "status", "--porcelain") == before
    assert len(place.cells()) == 1


def test_checkout_of_a_commit_that_is_gone_is_a_clear_error(place: Place, tmp_path: Path) -> None:
    """
    In another repository, without the commit: exit code 2, git's own words, no worktree left.
    """
    done = place.run("run", str(place.folder / "again.toml"))
    assert done.returncode == 0, done.stderr
    (run,) = place.cells()
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet", "--initial-branch=main")
    failed = place.run("reproduce", run.run_id, "--checkout", "--folder", str(other))
    assert failed.returncode == 2
    assert "git worktree" in failed.stderr
    assert run.tags[tags.COMMIT] in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(git(other, "worktree", "list", "--porcelain").split("\n\n")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_reproduction_leaves_nothing(
    place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    """
    Ctrl-C or SIGTERM while the cell runs: exit code 130, the cell has ended, and neither a worktree
    nor a folder is left.
    """
    begun, scratch = tmp_path / "begun", tmp_path / "scratch"
    begun.mkdir()
    scratch.mkdir()
    suite = place.write("waits.toml", '[matrix]\nnumber = [3]\nmode = ["wait"]')
    git(place.folder, "commit", "--quiet", "--all", "--message=waits")
    assert place.run("run", str(suite)).returncode == 0
    (run,) = place.cells()
    more = {"BEGUN_FOLDER": str(begun), "WAIT_S": "60", "TMPDIR": str(scratch)}
    process = place.start("reproduce", run.run_id, "--checkout", **more)
    await_that(lambda: len(list(begun.iterdir())) == 1)
    pid = int(next(begun.iterdir()).name.rsplit("-", 1)[1])
    process.send_signal(number)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, output
    await_that(lambda: not psutil.pid_exists(pid))
    assert len(git(place.folder, "worktree", "list", "--porcelain").split("\n\n")) == 1
    assert list(scratch.iterdir()) == []
