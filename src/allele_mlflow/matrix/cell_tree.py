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
from allele_mlflow.sidecar.launch import is_sidecar_command

_LOOK_S = 0.01


def tree_of(pid: int, origin: int | None) -> list[psutil.Process]:
    """
    A cell's process and its descendants, and what has left them: the process that the cell was
    forked from adopts it; where the kernel does not see to that, it may have kept the session.

    Args:
        pid: The cell.
        origin: What it was forked from, for this cell alone; None where that is gone. A sidecar
            below it is nobody's.
    """
    found = {one.pid: one for one in (_descendants(origin) if origin is not None else ())}
    for one in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if one.pid not in found and os.getsid(one.pid) == pid:
                found[one.pid] = one
    return list(found.values())


def resident_bytes(origin: int) -> int:
    """
    Resident memory of a cell's processes; pages that they share count for each.

    Args:
        origin: See `tree_of`.
    """
    total = 0
    for one in _descendants(origin):
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def _descendants(origin: int) -> list[psutil.Process]:
    try:
        found = psutil.Process(origin).children(recursive=True)
    except psutil.Error:
        return []
    spared: set[psutil.Process] = set()
    for one in found:
        with contextlib.suppress(psutil.Error):
            if is_sidecar_command(one.cmdline()):
                spared.update((one, *one.children(recursive=True)))
    return [one for one in found if one not in spared]


def send(pid: int, number: signal.Signals) -> None:
    """
    Send a signal to a process that may be gone.
    """
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def end_tree(pid: int, origin: int | None, *, grace_s: float) -> None:
    """
    End a cell's processes: asked by SIGTERM, and killed where they are still there `grace_s` later.
    See `tree_of`.
    """
    tree = tree_of(pid, origin)
    _send_all(tree, signal.SIGTERM)
    deadline_s = now_monotonic_s() + grace_s
    while now_monotonic_s() < deadline_s and any(map(_is_running, tree)):
        pause_s(_LOOK_S)
    _send_all({*tree, *tree_of(pid, origin)}, signal.SIGKILL)


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _send_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for one in processes:
        with contextlib.suppress(psutil.Error):  # it looks whether the number is still its own
            one.send_signal(number)
