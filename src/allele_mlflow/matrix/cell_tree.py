"""
The processes of a running cell, as its supervisor sees them: their memory, and their end.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

import psutil

from allele_mlflow.clock import now_monotonic_s, pause_s

_LOOK_S = 0.01


def tree_of(pid: int) -> list[psutil.Process]:
    """
    A process and its descendants, and those that left it and kept its session.
    """
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        found = {one.pid: one for one in (top, *top.children(recursive=True))}
    for one in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if one.pid not in found and os.getsid(one.pid) == pid:
                found[one.pid] = one
    return list(found.values())


def resident_bytes(pid: int) -> int:
    """
    Resident memory of a process and its descendants; pages that they share count for each.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for one in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def send(pid: int, number: signal.Signals) -> None:
    """
    Send a signal to a process that may be gone.
    """
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def end_tree(pid: int, *, grace_s: float) -> None:
    """
    End a cell's processes: asked by SIGTERM, and killed where they are still there `grace_s` later.
    """
    tree = tree_of(pid)
    _send_all(tree, signal.SIGTERM)
    deadline_s = now_monotonic_s() + grace_s
    while now_monotonic_s() < deadline_s and any(map(_is_running, tree)):
        pause_s(_LOOK_S)
    _send_all({*tree, *tree_of(pid)}, signal.SIGKILL)


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _send_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for one in processes:
        with contextlib.suppress(psutil.Error):  # it looks whether the number is still its own
            one.send_signal(number)
