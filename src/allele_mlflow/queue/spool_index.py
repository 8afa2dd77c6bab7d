"""
Which spools this user has: one small file for each in his state folder.

    <state folder>/allele-mlflow/spools/<digest of the path>   the spool's path, and nothing else

The index finds what was forgotten and nothing depends on it: where it cannot be written or read,
only `status` and `stop --all` see less.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from allele_mlflow.queue import spool

FOLDER = "spools"
#: A longer file is none of ours: PATH_MAX is 4096 on Linux.
LONGEST_BYTES = 1 << 14


def state_folder() -> Path:
    """
    Our folder in the user's state folder; need not exist.

    Cost: imports platformdirs, which a benchmark does without but at the first run in a place.
    """
    import platformdirs

    return Path(platformdirs.user_state_dir("allele-mlflow"))


def register(spool_dir: Path) -> None:
    """
    Put a spool into the index, where it is not in it yet. Never raises: without a place to write
    to there is no entry.

    Process safety: any number at once; the file appears whole.
    """
    with contextlib.suppress(OSError, ValueError):
        path = os.path.realpath(spool_dir)
        folder = state_folder() / FOLDER
        entry = folder / _name_of(path)
        if _read(entry) == path:
            return
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        spool.write_whole(entry, os.fsencode(path))


def registered() -> list[Path]:
    """
    The spools of the index that are there, in the order of their paths. Entries of those that are
    gone are removed.
    """
    found = []
    folder = state_folder() / FOLDER
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        entry = folder / name
        path = None if name.startswith(".") else _read(entry)
        if path is None or name != _name_of(path):
            continue
        if _is_gone(path):
            with contextlib.suppress(OSError):
                entry.unlink()
        else:
            found.append(Path(path))
    return sorted(found)


def _name_of(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _read(entry: Path) -> str | None:
    """
    The path in an entry, None where there is none.
    """
    try:
        # neither a pipe nor another's link may hold us up
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        descriptor = os.open(entry, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = os.read(descriptor, LONGEST_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return os.fsdecode(data) if data.startswith(b"/") and b"\0" not in data else None


def _is_gone(path: str) -> bool:
    """
    Whether there is surely no such folder; one that cannot be looked at may come back.
    """
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
