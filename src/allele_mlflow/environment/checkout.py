"""
The code that a folder holds: the commit of its git checkout, and what differs from it.

git is asked, and nothing of the repository is run: its own configuration may name programs as
hooks, file system monitors, filters and transports, and all of them are switched off. So a file
that a filter of the repository's own configuration would clean (nbstripout, git-crypt) counts as
its bytes are. Nothing is written, not even git's index.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.settings import environment

#: All calls of git together; a status of a very large tree may take longer, and is not known then.
GIT_DEADLINE_S = 2.0
#: What is read of changed files: beyond it a file's name and size stand for its content.
MOST_CONTENT_BYTES = 32 << 20
MOST_FILES = 10_000
_MOST_OUTPUT_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_HASH_LENGTH = 16
_SUBMODULE = "160000"
#: What runs leave in their working folder by default; no code.
OUTPUTS = frozenset({".allele_mlflow", "mlflow_artifacts", "mlruns", "mlartifacts"})
OUTPUT_FILES = ("mlflow.db", "mlflow_registry.db")  # and SQLite's own beside them

#: Variables of git's that say where the user's own configuration and repositories are.
_KEPT_VARIABLES = frozenset(
    {
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_SYSTEM",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    }
)
_OPTIONS = (
    "--no-pager",
    "--no-optional-locks",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "protocol.allow=never"),  # a partial clone would fetch what it lacks
    *("-c", "status.renames=false"),
    *("-c", "submodule.recurse=false"),
)


class Checkout(NamedTuple):
    """
    See the fields of the same names in `Environment`.
    """

    commit: str | None = None
    branch: str | None = None
    is_dirty: bool | None = None
    diff_hash: str | None = None


class Change(NamedTuple):
    """
    One path that differs from the commit, or is not in it: `mode` as git writes it, None where git
    does not follow the file.
    """

    path: bytes
    mode: str | None


def read_checkout(folder: Path, *, deadline_s: float = GIT_DEADLINE_S) -> Checkout:
    """
    What git says of a folder's checkout; all None without git, or where there is no repository of
    this user's.

    Args:
        folder: Anywhere inside; the whole working tree counts, submodules by their commits alone.
        deadline_s: For all of it. What is not known by then is None.

    Cost: five calls of git, some milliseconds each, and reading the changed files.
    """
    git = _Git(folder, deadline_s)
    root = git.ask("rev-parse", "--show-toplevel")
    if not root:
        return Checkout()
    commit = (git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}") or b"").strip().decode()
    branch = (git.ask("symbolic-ref", "--short", "--quiet", "HEAD") or b"").strip()
    known = Checkout(commit or None, branch.decode("utf-8", "replace") or None)
    filters = git.own_filters()
    status = None if filters is None else git.ask(*filters, *_STATUS)
    changes = None if status is None else list(_changes_in(status))
    if changes is None:
        return known
    return known._replace(
        is_dirty=bool(changes), diff_hash=_hash_changes(os.fsdecode(root.rstrip(b"\n")), changes)
    )


_STATUS = (
    "status",
    "--porcelain=v2",
    "-z",
    "--untracked-files=all",
    "--ignore-submodules=dirty",
)


class _Git:
    """
    git in one folder, until a deadline.
    """

    def __init__(self, folder: Path, deadline_s: float) -> None:
        self._folder = folder
        self._until_s = now_monotonic_s() + deadline_s
        # looked for here: a relative entry of PATH must not find one in that folder
        found = shutil.which("git")
        self._program = None if found is None else os.path.abspath(found)
        self._environ = {
            name: value
            for name, value in environment().items()
            if not name.startswith("GIT_") or name in _KEPT_VARIABLES
        } | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}

    def ask(self, *arguments: str) -> bytes | None:
        """
        What a command prints; None where it fails, is too slow or says too much.
        """
        code, output = self._run(*arguments)
        return output if code == 0 else None

    def own_filters(self) -> list[str] | None:
        """
        Options that switch off the filters of the repository's own configuration, which are
        programs; None where they are not known.
        """
        pattern = r"^filter\..*\.(clean|smudge|process|required)$"
        code, output = self._run(
            "config", "--show-scope", "--name-only", "-z", "--get-regexp", pattern
        )
        if code == 1 and not output:  # there is none
            return []
        if code != 0:
            return None
        fields = output.decode("utf-8", "surrogateescape").split("\0")
        options = []
        for scope, name in zip(fields[::2], fields[1::2], strict=False):
            if scope not in ("local", "worktree"):
                continue
            if "=" in name:
                return None  # cannot be named in an option
            options += ["-c", f"{name}=false" if name.endswith(".required") else f"{name}="]
        return options

    def _run(self, *arguments: str) -> tuple[int | None, bytes]:
        left_s = self._until_s - now_monotonic_s()
        if self._program is None or left_s <= 0:
            return None, b""
        try:
            with tempfile.TemporaryFile() as output:
                done = subprocess.run(
                    [self._program, *_OPTIONS, *arguments],
                    cwd=self._folder,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.DEVNULL,
                    timeout=left_s,
                    check=False,
                )
                output.seek(0)
                data = output.read(_MOST_OUTPUT_BYTES + 1)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None, b""  # no such folder, no room for a temporary file, too slow
        return (done.returncode, data) if len(data) <= _MOST_OUTPUT_BYTES else (None, b"")


def _changes_in(status: bytes) -> Iterator[Change]:
    """
    The entries of `git status --porcelain=v2 -z`, outputs left out.

    Source: git-status(1), "Porcelain Format Version 2".
    """
    entries = iter(status.split(b"\0"))
    for entry in entries:
        kind = entry[:2]
        if kind == b"? ":
            path = entry[2:]
            if not _is_output(path):
                yield Change(path, None)
        elif kind in (b"1 ", b"2 ", b"u "):
            # XY, submodule, modes (u: three of the stages), then that in the working tree
            fields = entry.split(b" ", {b"1 ": 8, b"2 ": 9, b"u ": 10}[kind])
            yield Change(fields[-1], fields[6 if kind == b"u " else 5].decode())
            if kind == b"2 ":
                next(entries, None)  # where it was before


def _is_output(path: bytes) -> bool:
    parts = os.fsdecode(path).split("/")
    return not OUTPUTS.isdisjoint(parts) or parts[-1].startswith(OUTPUT_FILES)


def _hash_changes(root: str, changes: list[Change]) -> str | None:
    """
    One hash of all changed paths and of what they hold now; empty where there is none, None where
    that cannot be told: too many, or a submodule's other commit.
    """
    if len(changes) > MOST_FILES or any(change.mode == _SUBMODULE for change in changes):
        return None
    if not changes:
        return ""
    digest = hashlib.sha256()
    left_bytes = MOST_CONTENT_BYTES
    for change in sorted(changes, key=lambda one: one.path):
        content, taken_bytes = _content_of(os.path.join(os.fsencode(root), change.path), left_bytes)
        left_bytes -= taken_bytes
        for part in (change.path, (change.mode or "?").encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:_HASH_LENGTH]


def _content_of(path: bytes, most_bytes: int) -> tuple[bytes, int]:
    """
    What stands for a path's content, and how much was read for it.
    """
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return b"link " + os.readlink(path), 0
        if not stat.S_ISREG(found.st_mode):
            return b"no file", 0  # a pipe would keep us waiting
        if found.st_size > most_bytes:
            return b"size %d" % found.st_size, 0
        return _hash_file(path, most_bytes)
    except FileNotFoundError:
        return b"gone", 0
    except OSError:
        return b"unreadable", 0


def _hash_file(path: bytes, most_bytes: int) -> tuple[bytes, int]:
    digest = hashlib.sha256()
    taken_bytes = 0
    # it may be another thing by now than what was looked at
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        while taken_bytes < most_bytes and (block := file.read(_READ_BYTES)):
            digest.update(block)
            taken_bytes += len(block)
    return digest.digest(), taken_bytes
