"""
A disk that is small only by word: in every Python process of a trial the calls that take room fail
with ENOSPC once the files below a folder have taken what there is.

For machines on which a trial may mount nothing. `FakedDisk` puts a `sitecustomize.py` into the
trial's module path, which wraps the calls (`install`); nothing of this is in the code that is
attacked. What it cannot show: a store to a mapped page that has no room.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

#: The unit of `st_blocks`, and of what a file takes at least.
BLOCK_BYTES = 512
PAGE_BYTES = 4096
CONTROL = "room"
CUSTOMIZE = "from allele_mlflow.drill.faked_disk import install\n\ninstall({!r})\n"


class FakedDisk:
    """
    See `small_disk.SmallDisk`. Its processes need `module_path` in front of their PYTHONPATH.
    """

    layer = "faked"

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes
        path.mkdir(parents=True)
        self.module_path = path.with_suffix(".modules")
        self.module_path.mkdir()
        text = CUSTOMIZE.format(str(path))
        (self.module_path / "sitecustomize.py").write_text(text, encoding="utf-8")
        self._control = control_of(path)
        self.make_room()

    def fill(self, leaving_bytes: int = 0) -> None:
        """
        See `SmallDisk`.
        """
        self._set(used_bytes(self.path) + leaving_bytes)

    def make_room(self) -> None:
        """
        See `SmallDisk`.
        """
        self._set(self._size_bytes)

    def free_bytes(self) -> int:
        """
        See `SmallDisk`.
        """
        return max(0, int(self._control.read_text(encoding="ascii")) - used_bytes(self.path))

    def forbid_writing(self, folder: Path) -> None:
        """
        See `SmallDisk`; of the whole disk.
        """
        lock_of(self.path).touch()

    def allow_writing(self, folder: Path) -> None:
        """
        See `SmallDisk`.
        """
        lock_of(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """
        See `SmallDisk`.
        """
        shutil.rmtree(self.module_path, ignore_errors=True)

    def _set(self, size_bytes: int) -> None:
        temporary = self._control.with_suffix(".new")
        temporary.write_text(str(size_bytes), encoding="ascii")
        temporary.replace(self._control)


def control_of(path: Path) -> Path:
    """
    The file that says how many bytes all files of a faked disk may take.
    """
    return path.with_name(f"{path.name}.{CONTROL}")


def lock_of(path: Path) -> Path:
    """
    The file that makes a faked disk read-only while it is there.
    """
    return path.with_name(f"{path.name}.read-only")


def used_bytes(path: Path) -> int:
    """
    Bytes that the files below a folder take.
    """
    total = 0
    for above, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_blocks * BLOCK_BYTES
            except OSError:
                continue
    return total


class _Fake(NamedTuple):
    """
    The disk as the wrapped calls see it.
    """

    path: Path

    def check(self, size_bytes: int) -> None:
        """
        Raises OSError where so many more bytes have no room.
        """
        limit = self.limit()
        if limit is not None and used_bytes(self.path) + size_bytes > limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def check_writable(self) -> None:
        """
        Raises OSError where the disk is read-only.
        """
        if lock_of(self.path).exists():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def limit(self) -> int | None:
        """
        Bytes that the disk holds; None where nobody says so.
        """
        try:
            return int(control_of(self.path).read_bytes())
        except (OSError, ValueError):
            return None

    def holds(self, where: object) -> bool:
        """
        Whether a path, or the file of a descriptor, lies on the disk.
        """
        try:
            if isinstance(where, int):
                if not stat.S_ISREG(os.fstat(where).st_mode):
                    return False
                where = os.readlink(f"/proc/self/fd/{where}")
            return os.path.abspath(os.fsdecode(where)).startswith(f"{self.path}/")  # type: ignore[arg-type] # an OSError tells what else it may be
        except (OSError, TypeError):
            return False


def install(path: str) -> None:
    """
    Wrap this process's calls that take room on the faked disk.
    """
    fake = _Fake(Path(path))

    def new_bytes(descriptor: int, offset: int, size: int) -> int:
        # what a file holds already has its room
        found = os.fstat(descriptor)
        allocated = found.st_blocks * BLOCK_BYTES
        return max(0, offset + size - max(allocated, found.st_size))

    def wrap(name: str, cost: Callable[..., int | None]) -> None:
        original = getattr(os, name, None)
        if original is None:
            return

        @wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            size = cost(*arguments, **options)
            if size:
                fake.check(size)
            return original(*arguments, **options)

        setattr(os, name, wrapped)

    def of_open(file: Any, flags: int, *_: Any, **__: Any) -> int | None:
        if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) or not fake.holds(file):
            return None
        fake.check_writable()
        return PAGE_BYTES if flags & os.O_CREAT and not os.path.exists(file) else None

    def of_name(path: Any, *_: Any, **__: Any) -> int | None:
        if fake.holds(path):
            fake.check_writable()
        return None

    def of_mkdir(path: Any, *_: Any, **__: Any) -> int | None:
        of_name(path)
        return PAGE_BYTES if fake.holds(path) else None

    wrap("posix_fallocate", lambda fd, at, n: new_bytes(fd, at, n) if fake.holds(fd) else None)
    wrap("pwrite", lambda fd, data, at: new_bytes(fd, at, len(data)) if fake.holds(fd) else None)
    wrap("write", lambda fd, data: len(data) if fake.holds(fd) else None)
    wrap("open", of_open)
    wrap("mkdir", of_mkdir)
    for name in ("link", "rename", "replace", "unlink", "rmdir"):
        wrap(name, of_name)
    original_statvfs = os.statvfs

    def statvfs(path: Any) -> os.statvfs_result:
        found = original_statvfs(path)
        limit = fake.limit()
        if limit is None or not (fake.holds(path) or Path(path) == fake.path):
            return found
        values = list(found)
        blocks = limit // found.f_frsize
        free = max(0, limit - used_bytes(fake.path)) // found.f_frsize
        values[2:5] = [blocks, free, free]
        return os.statvfs_result(values)

    os.statvfs = statvfs
