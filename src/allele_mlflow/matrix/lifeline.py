"""
What ties a cell's process to whoever started it: neither outlives the other unseen, nor does what
the cell has started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from allele_mlflow.clock import pause_s
from allele_mlflow.sidecar.launch import is_sidecar_command

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.2
_IS_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True) if _IS_LINUX else None


def die_with_parent(parent: int | None = None, *, by: signal.Signals = signal.SIGKILL) -> None:
    """
    Have the kernel send this process a signal when the thread that started it ends. Linux only.

    Args:
        parent: Who that is; this process ends at once where it is gone already.
        by: The signal.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """
    Become the parent of every descendant that loses its own, whatever group or session it has gone
    to. Linux only.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for(pid: int) -> int:
    """
    The wait status of a child that leads a process group, once it has ended and its group is gone,
    and what it has left to us.

    Where the kernel does not see to it, a parent of our own that has gone ends the child and us.
    """
    parent = os.getppid()
    options = os.WEXITED | os.WNOWAIT | (0 if _IS_LINUX else os.WNOHANG)
    while (ended := os.waitid(os.P_ALL, 0, options)) is None or ended.si_pid != pid:
        if ended is not None:
            os.waitpid(ended.si_pid, 0)  # an orphan: who waits for its end must see no zombie
            continue
        if os.getppid() != parent:
            end_group(pid)
            os._exit(1)
        pause_s(_LOOK_S)
    end_group(pid)  # before its number is given to somebody else
    status = os.waitpid(pid, 0)[1]
    end_children()
    return status


def end_group(pid: int) -> None:
    """
    Kill what is left of a process group.
    """
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def end_children() -> None:
    """
    Kill the children of this process, and those that they leave to it, until there are none but
    sidecars, which serve others too, and processes that are not ours to kill. Linux only.

    Cost: one call of the kernel where there are none, else a look at every process.
    """
    while _IS_LINUX and _has_children():
        killed = [pid for pid in _children() if not _is_sidecar(pid) and _has_killed(pid)]
        if not killed:
            return
        for pid in killed:
            os.waitpid(pid, 0)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """
    Those that have ended and were not waited for are among them.
    """
    own = str(os.getpid())
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # gone meanwhile
                stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
                if stat.rpartition(")")[2].split()[1] == own:
                    found.append(int(name))
    return found


def _is_sidecar(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return is_sidecar_command(os.fsdecode(command).split("\0"))


def _has_killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:  # it has become another user's
        return False
    return True
