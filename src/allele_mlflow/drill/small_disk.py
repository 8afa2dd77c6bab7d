"""
A small file system of a trial's own, which another program's file fills and gives back.

Mounted in a mount namespace of this process and its children: root's, else one in a user namespace
of its own. The kernel unmounts it with the last of them, whatever happens, and nobody else ever
sees it. Where neither is allowed, a faked one (`faked_disk`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from allele_mlflow.drill.faked_disk import FakedDisk

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
BALLAST = "ballast-of-another-program"
#: Pieces in which a disk is filled, down to the last block.
PIECES_BYTES = (1 << 20, 1 << 16, 1 << 12)
#: Longest wait for a tool that makes or mounts a file system.
TOOL_S = 30.0


class SmallDisk(Protocol):
    """
    What a trial does with its disk. `layer` names how it is made, `path` is where it is.
    """

    path: Path
    layer: str

    def fill(self, leaving_bytes: int = 0) -> None:
        """
        Another program takes all room but so much.
        """

    def make_room(self) -> None:
        """
        The other program's file goes.
        """

    def free_bytes(self) -> int:
        """
        Room that is left.
        """

    def forbid_writing(self, folder: Path) -> None:
        """
        Nothing can be made or opened for writing in a folder any more; what is open stays open.
        """

    def allow_writing(self, folder: Path) -> None:
        """
        As before `forbid_writing`.
        """

    def close(self) -> None:
        """
        Take it away.
        """


class MountedDisk:
    """
    A mounted one.

    Raises (on construction):
        OSError: it cannot be mounted here.
    """

    def __init__(self, path: Path, size_bytes: int, kind: str) -> None:
        self.path = path
        self.layer = kind
        path.mkdir(parents=True)
        if kind == "ext4":
            self._mount_image(size_bytes)
        else:
            _mount("tmpfs", path, "tmpfs", 0, f"size={size_bytes},mode=0700")
        self._ballast = path / BALLAST

    def fill(self, leaving_bytes: int = 0) -> None:
        """
        See `SmallDisk`.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._ballast, flags, 0o600)
        try:
            for piece in PIECES_BYTES:
                while self.free_bytes() - piece >= leaving_bytes:
                    try:
                        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, piece)
                    except OSError as exc:
                        if exc.errno != errno.ENOSPC:
                            raise
                        break
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        """
        See `SmallDisk`.
        """
        self._ballast.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """
        See `SmallDisk`.
        """
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def forbid_writing(self, folder: Path) -> None:
        """
        See `SmallDisk`: the folder once more over itself, read-only.
        """
        _mount(str(folder), folder, None, MS_BIND, None)
        _mount(None, folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)

    def allow_writing(self, folder: Path) -> None:
        """
        See `SmallDisk`.
        """
        _unmount(folder)

    def close(self) -> None:
        """
        See `SmallDisk`.
        """
        with contextlib.suppress(OSError):
            _unmount(self.path)

    def _mount_image(self, size_bytes: int) -> None:
        image = self.path.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(size_bytes)
        # -m 0: root's processes may not use more than others
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(self.path))


def enter_own_mounts() -> None:
    """
    From here on what this process and its children mount is seen by nobody else.

    Raises:
        OSError: this is not allowed here.
    """
    if not hasattr(ctypes.CDLL(None), "unshare"):
        raise OSError(errno.ENOSYS, "no mount namespaces here")
    uid, gid = os.getuid(), os.getgid()
    try:
        if os.geteuid() != 0:
            raise PermissionError(errno.EPERM, "not root")
        _call("unshare", CLONE_NEWNS)
    except OSError:
        _call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    _mount(None, Path("/"), None, MS_REC | MS_PRIVATE, None)


@contextlib.contextmanager
def opened_disk(path: Path, size_bytes: int, *, kind: str, is_faked: bool) -> Iterator[SmallDisk]:
    """
    A small disk that is gone afterwards.

    Args:
        path: Where; its parent is there.
        size_bytes: Of the file system.
        kind: "tmpfs", or "ext4", which is a tmpfs where it cannot be had.
        is_faked: Mount nothing.
    """
    disk = make_disk(path, size_bytes, kind=kind, is_faked=is_faked)
    try:
        yield disk
    finally:
        disk.close()


def make_disk(path: Path, size_bytes: int, *, kind: str, is_faked: bool) -> SmallDisk:
    """
    The best that this machine allows.
    """
    if not is_faked:
        is_faked = not _may_mount()
        if not is_faked:
            enter_own_mounts()
    for wanted in () if is_faked else dict.fromkeys((kind, "tmpfs")):
        with contextlib.suppress(OSError):
            return MountedDisk(path, size_bytes, wanted)
        shutil.rmtree(path, ignore_errors=True)
    return FakedDisk(path, size_bytes)


def _may_mount() -> bool:
    """
    Whether `enter_own_mounts` works here, tried in a child: half of it could not be undone.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            enter_own_mounts()
            code = 0
        except (OSError, AttributeError):
            pass
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TOOL_S)
    except subprocess.SubprocessError as exc:
        raise OSError(errno.EPERM, f"{command[0]}: {exc}") from exc


def _mount(
    source: str | None, target: Path, kind: str | None, flags: int, data: str | None
) -> None:
    texts = [text.encode() if text is not None else None for text in (source, kind, data)]
    _call("mount", texts[0], os.fsencode(target), texts[1], ctypes.c_ulong(flags), texts[2])


def _unmount(target: Path) -> None:
    try:
        _call("umount2", os.fsencode(target), 0)
    except OSError:
        _call("umount2", os.fsencode(target), MNT_DETACH)


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
