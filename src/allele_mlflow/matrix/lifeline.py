"""
What ties a cell's process to whoever started it: neither outlives the other unseen.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from allele_mlflow.clock import pause_s

_PR_SET_PDEATHSIG = 1
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


def wait_for(pid: int) -> int:
    """
    The wait status of a child that leads a process group, once it has ended and its group is gone.

    Where the kernel does not see to it, a parent of our own that has gone ends the child and us.
    """
    parent = os.getppid()
    while (
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | (0 if _IS_LINUX else os.WNOHANG)) is None
    ):
        if os.getppid() != parent:
            end_group(pid)
            os._exit(1)
        pause_s(_LOOK_S)
    end_group(pid)  # before its number is given to somebody else
    return os.waitpid(pid, 0)[1]


def end_group(pid: int) -> None:
    """
    Kill what is left of a process group.
    """
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
