"""
How a process ended that is not our child: asked of the kernel, never guessed.

Two places tell. A pidfd that was opened while the process was there gives its wait status once its
parent has reaped it (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15 or newer); until then, for a
zombie, the last field of /proc/<pid>/stat does. Without a pidfd (macOS, an old kernel, a sandbox)
nobody tells.

Source: include/uapi/linux/pidfd.h; proc_pid_stat(5)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.records import ProcessEnd

#: `struct pidfd_info` in its first size: a mask (u64) of what is asked for, and then of what is
#: told; other numbers; the wait status (i32), its last field.
INFO_BYTES = 64
INFO_EXIT = 1 << 3
_MASK = struct.Struct("<Q")
_STATUS = struct.Struct("<i")
_STATUS_OFFSET = 60
#: _IOWR(0xFF, 11, struct pidfd_info)
GET_INFO = 3 << 30 | INFO_BYTES << 16 | 0xFF << 8 | 11
#: Fields of /proc/<pid>/stat, counted behind the name.
_STATE, _START_TIME, _EXIT_STATUS = 0, 19, 49


class ProcessStat(NamedTuple):
    """
    What /proc/<pid>/stat says. `start_time` in clock ticks since boot; `wait_status` only of a
    zombie, and None where it has none.
    """

    start_time: int
    is_zombie: bool
    wait_status: int | None


def parse_stat(text: str) -> ProcessStat | None:
    """
    The text of /proc/<pid>/stat; None where it is none.
    """
    fields = text.rpartition(")")[2].split()
    try:
        start_time, is_zombie = int(fields[_START_TIME]), fields[_STATE] in "ZX"
        has_status = is_zombie and len(fields) > _EXIT_STATUS
        return ProcessStat(start_time, is_zombie, int(fields[_EXIT_STATUS]) if has_status else None)
    except (ValueError, IndexError):
        return None


def parse_info(info: bytes) -> int | None:
    """
    The wait status in a `struct pidfd_info`; None where the process was not reaped yet.
    """
    if len(info) < INFO_BYTES or not _MASK.unpack_from(info)[0] & INFO_EXIT:
        return None
    status: int = _STATUS.unpack_from(info, _STATUS_OFFSET)[0]
    return status


def decode_wait_status(status: int) -> ProcessEnd:
    """
    What wait(2) tells with this number, of a process that has ended.
    """
    signal = status & 0x7F
    if signal:
        return ProcessEnd(signal=signal)
    return ProcessEnd(exit_code=status >> 8 & 0xFF)


class ProcessWatch:
    """
    One process, held by a pidfd, so that nobody who gets its number later is taken for it.

    Args:
        pid: Its number, in our PID namespace.
        start_time: The kernel's start time of it; another process is not watched.
    Thread safety: none; one owner.
    """

    def __init__(self, pid: int, start_time: int) -> None:
        self._pid = pid
        self._start_time = start_time
        self._descriptor = -1
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(pid)
        # looked at after the pidfd was opened: who has the number now had it then
        stat = self._stat()
        if self._descriptor >= 0 and stat is None:
            self.close()
        self.was_alive = self._descriptor >= 0 and stat is not None and not stat.is_zombie

    @property
    def is_open(self) -> bool:
        """
        Whether the process was there to be watched.
        """
        return self._descriptor >= 0

    def find_end(self) -> ProcessEnd | None:
        """
        How it ended; None while it lives, and where the kernel does not tell (yet).

        Cost: two or three system calls; never waits.
        """
        if self._descriptor < 0 or not self._is_gone():
            return None
        for look in (self._ask_kernel, self._ask_zombie, self._ask_kernel):  # it may be reaped now
            status = look()
            if status is not None:
                return decode_wait_status(status)
        return None

    def close(self) -> None:
        """
        Give back the descriptor.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _is_gone(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _ask_kernel(self) -> int | None:
        info = bytearray(INFO_BYTES)
        _MASK.pack_into(info, 0, INFO_EXIT)
        try:
            fcntl.ioctl(self._descriptor, GET_INFO, info)
        except OSError:  # an older kernel
            return None
        return parse_info(bytes(info))

    def _ask_zombie(self) -> int | None:
        # to who may not look, the kernel shows a status of 0; a zombie has no link, but has rights
        try:
            os.readlink(f"/proc/{self._pid}/exe")
        except PermissionError:
            return None
        except OSError:
            pass
        stat = self._stat()
        return stat.wait_status if stat is not None else None

    def _stat(self) -> ProcessStat | None:
        try:
            text = Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        stat = parse_stat(text)
        return stat if stat is not None and stat.start_time == self._start_time else None
