"""
The sidecars of a spool: who they are, how they are, and how one is told to leave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.sidecar.launch import MODULE, is_sidecar_command
from allele_mlflow.sidecar.profile import lock_path
from allele_mlflow.sidecar.worker import SidecarStatus

#: A heartbeat comes each second; one that is older than this, on a busy machine too, has stopped.
SILENT_S = 10.0

Health = Literal["alive", "silent", "gone"]


@dataclass(frozen=True)
class Sidecar:
    """
    One profile of one scope. `is_held`: somebody holds its lock; `status`: what a sidecar of the
    profile said last, which may be an earlier one's.
    """

    scope: Path
    profile: str
    is_held: bool
    status: SidecarStatus | None

    @property
    def is_here(self) -> bool:
        """
        Whether its process ids mean something to us: the boot, host and PID namespace are ours.
        """
        return self.scope.name == spool.scope_name()

    @property
    def is_thread(self) -> bool:
        """
        Whether it is a thread of the benchmark's (`worker="thread"`), and no process of its own.
        """
        return "-thread-" in self.profile

    @property
    def pid(self) -> int | None:
        """
        Its process, None where it has not said so yet or ever.
        """
        return self.status.pid if self.status is not None else None

    @property
    def heartbeat_age_s(self) -> float | None:
        """
        Seconds since it last said anything.
        """
        if self.status is None:
            return None
        return max(0.0, (now_ns() - self.status.updated_ns) / 1e9)

    @cached_property
    def health(self) -> Health:
        """
        Whether it holds its lock, and if so whether its heart beats.
        """
        if not self.is_held:
            return "gone"
        age_s = self.heartbeat_age_s
        if age_s is None or age_s < SILENT_S:
            return "alive"
        if self.is_here and self.pid is not None and not psutil.pid_exists(self.pid):
            return "alive"  # the last word is an earlier one's: this one has just begun
        return "silent"

    def describe(self) -> dict[str, Any]:
        """
        As `--json` has it.
        """
        status = self.status
        return {
            "scope": self.scope.name,
            "is_this_boot": self.is_here,
            "profile": self.profile,
            "pid": self.pid,
            "alive": self.is_held,
            "health": self.health,
            "thread": self.is_thread,
            "heartbeat_age_s": self.heartbeat_age_s,
            "started_ns": status.started_ns if status else None,
            "runs": status.runs if status else [],
            "cpu_s": status.cpu_s if status else None,
            "store": status.store if status else None,
            "writes_by": status.writes_by if status else None,
            "last_error": status.last_error if status else None,
        }


def find_sidecars(scope: Path) -> list[Sidecar]:
    """
    All that served in a scope, those that are gone too.

    Raises:
        OSError: the scope cannot be listed.
    """
    profiles = {
        name[len("sidecar-") :].rpartition(".")[0]
        for name in os.listdir(scope)
        if name.startswith("sidecar-") and name.endswith((".lock", ".json"))
    }
    return [
        Sidecar(
            scope=scope,
            profile=profile,
            is_held=is_locked(lock_path(scope, profile)),
            status=_read_status(scope / f"sidecar-{profile}.json"),
        )
        for profile in sorted(profiles)
    ]


def find_process(sidecar: Sidecar) -> psutil.Process | None:
    """
    The process that holds the profile's lock and is our sidecar for its scope; None where there is
    none that is surely both.
    """
    if not sidecar.is_here or sidecar.is_thread:
        return None
    for process in _candidates(sidecar.pid):
        with contextlib.suppress(psutil.Error, OSError):
            if _is_sidecar_of(process, sidecar) and _holds_lock(process.pid, sidecar):
                return process
    return None


def ask_to_leave(process: psutil.Process, sidecar: Sidecar) -> bool:
    """
    Send SIGTERM to a sidecar's process; False where it is gone, or is another one by now.

    Raises:
        PermissionError: it is another user's.
    """
    handle = _pidfd_of(process.pid)
    try:
        # looked at again: from here on the handle cannot come to mean another process
        if not (process.is_running() and _is_sidecar_of(process, sidecar)):
            return False
        if handle is not None and sys.platform == "linux":
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        else:
            os.kill(process.pid, signal.SIGTERM)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def has_ended(process: psutil.Process) -> bool:
    """
    Whether a process is gone; a zombie is, for it holds nothing any more.
    """
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _pidfd_of(pid: int) -> int | None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an old kernel, or a sandbox
            return os.pidfd_open(pid)
    return None


def _read_status(path: Path) -> SidecarStatus | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SidecarStatus)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _candidates(pid: int | None) -> Iterator[psutil.Process]:
    """
    The process that is said to be it, then all others: its file may be an earlier one's, or not
    have been written.
    """
    if pid is not None:
        with contextlib.suppress(psutil.Error, ValueError):
            yield psutil.Process(pid)
    yield from psutil.process_iter()


def _is_sidecar_of(process: psutil.Process, sidecar: Sidecar) -> bool:
    command = process.cmdline()
    if not is_sidecar_command(command):
        return False
    arguments = command[command.index(MODULE) + 1 :]
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if given.get("--profile") != sidecar.profile or "--scope" not in given:
        return False
    return os.path.samefile(given["--scope"], sidecar.scope)


def _holds_lock(pid: int, sidecar: Sidecar) -> bool:
    """
    Whether one of the process's descriptors is the locked lock. Where no /proc tells: whether it
    is locked.
    """
    path = lock_path(sidecar.scope, sidecar.profile)
    descriptors = Path(f"/proc/{pid}/fd")
    if not descriptors.is_dir():
        return is_locked(path)
    wanted = path.stat()
    for name in os.listdir(descriptors):
        with contextlib.suppress(OSError):
            if os.path.samestat((descriptors / name).stat(), wanted):
                info = Path(f"/proc/{pid}/fdinfo/{name}").read_text(encoding="ascii")
                if "FLOCK" in info:
                    return True
    return False
