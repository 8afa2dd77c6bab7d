"""
What is read of a git checkout, with the real git, and that nothing of a repository is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from allele_mlflow.environment import checkout
from allele_mlflow.environment.checkout import Checkout, read_checkout
from allele_mlflow.environment.taking import take_environment
from tests.integration.repository import git

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody's own git configuration decides how a test ends.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """
    One commit with a program in a folder, and a rule of what to ignore.
    """
    folder = tmp_path / "repository"
    (folder / "suite").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "suite" / "bench.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=one")
    return folder


def test_clean_checkout(repository: Path) -> None:
    """
    From any folder inside: the commit, the branch, and nothing that differs from it.
    """
    found = read_checkout(repository / "suite")
    assert found == Checkout(git(repository, "rev-parse", "HEAD"), "main", False, "")
    git(repository, "checkout", "--quiet", "--detach")
    assert read_checkout(repository) == found._replace(branch=None)


def test_what_is_ignored_or_written_by_runs_is_no_code(repository: Path) -> None:
    """
    Logs that git ignores, and the store, spool and artifacts of runs: the checkout stays clean.
    """
    (repository / "a.log").write_text("ignored")
    (repository / "mlflow.db").write_text("a store")
    (repository / "mlflow.db-journal").write_text("beside it")
    (repository / "suite" / "mlruns").mkdir()
    (repository / "suite" / "mlruns" / "meta.yaml").write_text("of a run")
    assert read_checkout(repository).diff_hash == ""


def test_each_change_changes_the_hash(repository: Path) -> None:
    """
    An edit, a mode, a new file, its content, a deletion: each is seen, staged or not, and the same
    state has the same hash, wherever the repository lies.
    """
    program = repository / "suite" / "bench.py"
    seen = {read_checkout(repository).diff_hash}

    def assert_new() -> str | None:
        found = read_checkout(repository)
        assert found.is_dirty
        assert found.diff_hash not in seen
        seen.add(found.diff_hash)
        return found.diff_hash

    program.write_text("x = 2\n")
    edited = assert_new()
    git(repository, "add", ".")
    assert read_checkout(repository).diff_hash == edited
    program.chmod(0o755)
    assert_new()
    (repository / "new file\n.py").write_text("1")
    assert_new()
    (repository / "new file\n.py").write_text("2")
    newest = assert_new()
    moved = repository.rename(repository.with_name("moved"))
    assert read_checkout(moved).diff_hash == newest
    moved.rename(repository)
    program.unlink()
    assert_new()


def test_odd_files_are_named_and_not_opened(repository: Path) -> None:
    """
    A pipe would keep us waiting, a link may lead anywhere, and a file may be unreadable or large.
    """
    os.mkfifo(repository / "pipe")
    (repository / "link").symlink_to("/dev/zero")
    (repository / "endless").symlink_to("endless")
    with (repository / "sparse.bin").open("wb") as file:
        file.truncate(checkout.MOST_CONTENT_BYTES + 1)
    found = read_checkout(repository)
    assert found.is_dirty
    assert found.diff_hash
    (repository / "link").unlink()
    (repository / "link").symlink_to("/dev/full")
    assert read_checkout(repository).diff_hash != found.diff_hash


def test_too_many_files_have_no_hash(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where not all of it was looked at, the hash is unknown; that there are changes is not.
    """
    monkeypatch.setattr(checkout, "MOST_FILES", 3)
    for number in range(4):
        (repository / f"{number}.txt").write_text("x")
    found = read_checkout(repository)
    assert (found.is_dirty, found.diff_hash) == (True, None)


def test_no_repository_is_nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without a repository, a folder or git itself, and of a bare repository: None of everything.
    """
    assert read_checkout(tmp_path) == Checkout()
    assert read_checkout(tmp_path / "gone") == Checkout()
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    assert read_checkout(tmp_path / "bare") == Checkout()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_checkout(Path(__file__).parent) == Checkout()


def test_repository_without_a_commit(tmp_path: Path) -> None:
    """
    There is no commit yet; the files are there.
    """
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "empty")
    (tmp_path / "empty" / "bench.py").write_text("x = 1\n")
    found = read_checkout(tmp_path / "empty")
    assert (found.commit, found.branch, found.is_dirty) == (None, "main", True)


def test_shallow_clone(repository: Path, tmp_path: Path) -> None:
    """
    A clone of one commit knows its commit.
    """
    git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), "shallow")
    assert read_checkout(tmp_path / "shallow") == read_checkout(repository)


def test_submodules_count_by_their_commit(repository: Path, tmp_path: Path) -> None:
    """
    Another commit of a submodule is a change whose hash is not known; dirt inside it is not looked
    at.
    """
    allow = ("-c", "protocol.file.allow=always")
    git(tmp_path, "clone", "--quiet", repository.as_uri(), "above")
    above = tmp_path / "above"
    git(above, *allow, "submodule", "--quiet", "add", repository.as_uri(), "part")
    git(above, "commit", "--quiet", "--message=two")
    (above / "part" / "new.py").write_text("x")
    assert read_checkout(above).diff_hash == ""
    git(above / "part", "commit", "--quiet", "--allow-empty", "--message=three")
    found = read_checkout(above)
    assert (found.is_dirty, found.diff_hash) == (True, None)


def test_no_time_left_is_unknown(repository: Path) -> None:
    """
    A deadline that is over leaves all unknown, and raises nothing.
    """
    assert read_checkout(repository, deadline_s=0.0) == Checkout()


def test_nothing_of_the_repository_is_run_or_changed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Hooks, monitors, filters, diff drivers and a `git` in the folder itself are left alone, and so
    is git's index; the change that they would see to is still seen.
    """
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho run >> {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    shutil.copy(trap, repository / "git")
    for name in ("post-index-change", "fsmonitor-watchman", "pre-commit"):
        shutil.copy(trap, repository / ".git" / "hooks" / name)
    for name in (
        *("core.fsmonitor", "diff.external", "filter.evil.clean", "filter.evil.process"),
        *("diff.evil.textconv", "diff.evil.command", "core.pager", "core.sshCommand"),
    ):
        git(repository, "config", name, str(trap))
    git(repository, "config", "filter.evil.required", "true")
    (repository / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (repository / "suite" / "bench.py").write_text("x = 3\n")
    index = (repository / ".git" / "index").stat()
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    found = read_checkout(repository)
    assert not (tmp_path / "sprung").exists()
    assert found.is_dirty
    assert found.diff_hash
    after = (repository / ".git" / "index").stat()
    assert (after.st_ino, after.st_mtime_ns) == (index.st_ino, index.st_mtime_ns)
    # the trap works: the same status without our options springs it
    subprocess.run(["git", "status"], cwd=repository, capture_output=True, check=False)
    assert (tmp_path / "sprung").exists()


def test_variables_of_a_hook_do_not_lead_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Inside a git hook, GIT_DIR names another repository than the folder's.
    """
    git(tmp_path, "init", "--quiet", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert read_checkout(repository).commit is not None


def test_fingerprint_of_this_process(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The machine is known as far as any can be, twice the same; of the variables only those that
    limit threads are in it.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    found = take_environment(repository)
    assert found == take_environment(repository)
    assert found.cpu_count
    assert found.memory_bytes
    assert found.packages
    assert "allele-mlflow" in found.packages
    assert found.thread_limits is not None
    assert found.thread_limits["OMP_NUM_THREADS"] == "3"
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert b"hunter2" not in found.to_json()
    assert len(found.identity) == 16
