"""
Whether a spool may grow: its quota, and the low mark of its disk.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import spool

DEFAULT_QUOTA_BYTES = 10_000_000_000
DEFAULT_QUOTA_FREE_RATIO = 0.2
#: Free bytes under which nothing new is begun, so that the logger is not what fills the disk.
LOW_DISK_BYTES = 64 << 20
#: Looking through the spool takes at most this share of the time; how often at most, and how often
#: where there is no room.
LOOK_RATIO = 0.01
#: The unit of `st_blocks`, whatever the file system's own.
BLOCK_BYTES = 512
LOOK_EVERY_S = 1.0
LOOK_WHEN_FULL_S = 0.25


class Room:
    """
    The room of one spool, as far as one process needs to know it.

    Looks at the files now and then, and in between adds what this process has taken. Others may
    take room meanwhile, so the quota may be passed by what they take in a second.

    Args:
        scope: The scope's folder.
        quota_bytes: Most bytes of all its runs; 0: no limit but the disk's.
    Thread safety: any thread; two that ask at once may both get the last piece.
    """

    __slots__ = ("_due_s", "_due_when_full_s", "_quota_bytes", "_reason", "_scope", "_used_bytes")

    def __init__(self, scope: Path, quota_bytes: int) -> None:
        self._scope = scope
        self._quota_bytes = quota_bytes
        self._used_bytes = 0
        self._reason: str | None = None
        self._due_s = self._due_when_full_s = float("-inf")

    def refusal(self, size_bytes: int) -> str | None:
        """
        Why there is no room for so many bytes, as the ledger says it, or None: then they are taken.
        """
        now_s = now_monotonic_s()
        if now_s >= self._due_s:
            self._look(now_s)
        reason = self._reason_for(size_bytes)
        if reason is not None and now_s >= self._due_when_full_s:
            self._look(now_s)
            reason = self._reason_for(size_bytes)
        if reason is None:
            self._used_bytes += size_bytes
        return reason

    def is_half_full(self) -> bool:
        """
        Whether half of the quota is used.
        """
        now_s = now_monotonic_s()
        if now_s >= self._due_s:
            self._look(now_s)
        return bool(self._quota_bytes) and self._used_bytes * 2 > self._quota_bytes

    def _reason_for(self, size_bytes: int) -> str | None:
        if self._quota_bytes and self._used_bytes + size_bytes > self._quota_bytes:
            return self._reason or "dropped.quota"
        return self._reason

    def _look(self, now_s: float) -> None:
        try:
            disk = os.statvfs(self._scope)
        except OSError:
            self._reason = "dropped.no_spool"
        else:
            # on a file system that is small itself, the watermark is small too
            low = min(LOW_DISK_BYTES, disk.f_blocks * disk.f_frsize // 16)
            is_low = disk.f_bavail * disk.f_frsize < low
            self._reason = "dropped.disk_full" if is_low else None
        if self._quota_bytes:
            self._used_bytes = used_bytes(self._scope)
        end_s = now_monotonic_s()
        rest_s = (end_s - now_s) / LOOK_RATIO
        self._due_s = end_s + max(LOOK_EVERY_S, rest_s)
        self._due_when_full_s = end_s + max(LOOK_WHEN_FULL_S, rest_s)


def quota_bytes(scope: Path, wanted: int) -> int:
    """
    The spool's quota: what the user set, else the smaller of 10 GB and 20 % of the free space.
    """
    if wanted:
        return wanted
    try:
        free = shutil.disk_usage(scope).free
    except OSError:
        return DEFAULT_QUOTA_BYTES
    return min(DEFAULT_QUOTA_BYTES, int(free * DEFAULT_QUOTA_FREE_RATIO))


def used_bytes(scope: Path) -> int:
    """
    Bytes of all files in the scope's runs.
    """
    total = 0
    folders = [scope / spool.RUNS]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        # as the disk counts: a file may have holes
                        total += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
        except OSError:
            continue  # a run that was delivered and removed while we looked
    return total
