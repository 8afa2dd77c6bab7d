"""
Commits of a repository as folders: worktrees of git's, gone afterwards whatever happens.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from allele_mlflow.errors import ErrorKind, MatrixError

#: Of a git command.
DEADLINE_S = 120
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


def top_of(folder: Path) -> Path | None:
    """
    The top of the checkout that a folder is in; None where it is in none, or there is no git.
    """
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n")).resolve()
    except MatrixError:
        return None


def find_commit(top: Path, text: str) -> str | None:
    """
    The full hash of the commit that a text means in a repository, None where it means none.
    """
    if not text or text.startswith("-"):
        return None
    try:
        return _git(top, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}").strip()
    except MatrixError:
        return None


@contextlib.contextmanager
def worktree(top: Path, commit: str) -> Iterator[Path]:
    """
    A folder with a commit in it. Submodules are not.

    Raises:
        MatrixError: git does not make it.

    Ctrl-C and SIGTERM wait while git works, so that nothing half made is left.
    """
    with tempfile.TemporaryDirectory(prefix="allele-mlflow-commit-") as scratch:
        tree = Path(scratch).resolve() / "tree"
        try:
            with _interruptions_held():
                _git(top, "worktree", "add", "--detach", str(tree), commit)
            yield tree
        finally:
            with _interruptions_held(), contextlib.suppress(MatrixError):
                # twice: also what git has locked
                _git(top, "worktree", "remove", "--force", "--force", str(tree))


@contextlib.contextmanager
def _interruptions_held() -> Iterator[None]:
    """
    What would interrupt comes at the end instead. Elsewhere than in the main thread nothing does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {
        one: signal.signal(one, lambda number, frame: came.append((number, frame)))
        for one in _INTERRUPTIONS
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number, frame in came[:1]:
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            elif handler is signal.SIG_DFL:
                signal.raise_signal(number)


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_S,
            process_group=0,  # Ctrl-C in a terminal is for us
        )
    except subprocess.CalledProcessError as exc:
        text = (exc.stderr or "").strip().splitlines()
        raise MatrixError(
            f"git {arguments[0]} in {folder}: {text[-1] if text else exc}",
            kind=ErrorKind.BAD_SUITE,
        ) from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MatrixError(f"git: {exc}", kind=ErrorKind.BAD_SUITE) from exc
    return done.stdout
