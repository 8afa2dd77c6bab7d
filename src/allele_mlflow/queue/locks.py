"""
Locks that the kernel releases when their holder dies, and what they say about who lives.

flock, because an fcntl lock goes with the first descriptor of the file that the process closes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from pathlib import Path

from allele_mlflow.clock import pause_s
from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout, spool

#: Whoever only looks holds a lock for a moment: a taker looks again, so many times.
TRIES = 5
TRY_EVERY_S = 0.01


class HeldLock:
    """
    A lock that this process holds until `release`.

    Process safety: a forked child lets go of its copy, and the parent's release is a release.
    """

    __slots__ = ("__weakref__", "_descriptor")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """
        Give the lock up; the second call does nothing.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                # closing alone would leave it to a child that was forked behind Python's back
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


_held: weakref.WeakSet[HeldLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


def try_lock(path: Path) -> HeldLock | None:
    """
    The lock of a file, which is made where it is missing; None where somebody holds it.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return _locked(descriptor, tries=TRIES)


def try_lock_folder(path: Path) -> HeldLock | None:
    """
    The lock of a folder, which needs no room on the disk; None where somebody holds it, or where
    another folder stands under the name by now.

    Where the file system has no locks for folders, it is given without one.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock = _locked(descriptor, tries=1)
    if lock is None:
        return None
    try:
        is_same = os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        is_same = False
    if not is_same:
        lock.release()
        return None
    return lock


def _locked(descriptor: int, *, tries: int) -> HeldLock | None:
    for number in range(tries):
        if number:
            pause_s(TRY_EVERY_S)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return HeldLock(descriptor)  # no locks here
        else:
            return HeldLock(descriptor)
    os.close(descriptor)
    return None


def is_locked(path: Path) -> bool:
    """
    Whether somebody holds the file's lock; False where there is no such file.

    What cannot be found out (no descriptor left, another user's file) counts as held: wrongly
    waiting for somebody costs time, wrongly calling him dead costs records.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        # shared, so that two who only look do not see each other
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def process_start_time(pid: int) -> int | None:
    """
    The kernel's start time of a process, in clock ticks since boot: 0 where there is no such
    process (a zombie is none, it runs no more), None where it cannot be found out.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_process_alive(pid: int, start: int) -> bool:
    """
    Whether a process of this host and PID namespace lives, or may: where that cannot be found out
    it does.

    Args:
        pid: Its id, which another one may have by now.
        start: Its start time as of `process_start_time`; 0 where that is not known.
    """
    found = process_start_time(pid)
    return found is None or (found != 0 and found == (start or found))


def is_writer_alive(stream: Path) -> bool:
    """
    Whether the process that writes a stream still can.

    A lock that is held while the recorded process is gone (a child forked behind Python's back
    holds a copy of the descriptor) counts as dead. Process ids mean something only in the scope
    that we are in ourselves.
    """
    page_path = stream / layout.STREAM_PAGE
    if not is_locked(page_path):
        return False
    if stream.parents[3].name != spool.scope_name():
        return True
    try:
        with page_path.open("rb") as file:
            page = layout.decode_stream_page(file.read(layout.STREAM_HEADER.size), str(page_path))
    except (OSError, QueueFormatError):
        return True  # a page that cannot be read says nothing; the lock does
    if not page.process_start:  # no /proc where it runs
        return True
    return process_start_time(page.pid) in (None, page.process_start)
