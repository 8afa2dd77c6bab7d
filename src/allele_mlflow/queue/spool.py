"""
The spool's folders, small files and file systems.

    <spool>/<scope>/sidecar-<profile>.lock .json .log
    <spool>/<scope>/runs/<run_uid>/run.msgpack state.msgpack rejected.jsonl artifacts/ streams/...
    <spool>/<scope>/done/<run_uid>/            what is left of a delivered run: its spec, state,
    dead letters

Folders are 0700 and files 0600. `scope` separates boots, PID namespaces and hosts, inside which
process ids mean something.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from allele_mlflow.errors import ErrorKind, QueueError
from allele_mlflow.queue import layout

#: File systems on which a store to a fallocated, mapped page neither fails nor waits for a server.
MAPPABLE_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "apfs", "overlay"})
#: File systems of this machine alone, on which a lock tells of every process that could hold it.
LOCAL_FILE_SYSTEMS = MAPPABLE_FILE_SYSTEMS | {"btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs"}
GITIGNORE = "# the queue of allele-mlflow: nothing here belongs into a repository\n*\n"

RUN_FILE = "run.msgpack"
#: Held while a process takes over a run whose owner is gone.
CLAIM_FILE = "claim.lock"
STATE_FILE = "state.msgpack"
#: The last readings and phases, for who watches; see `queue.live`.
LIVE_FILE = "live.msgpack"
REJECTED_FILE = "rejected.jsonl"
PHASES_FILE = "phases.jsonl"
UPLOADS_FILE = "uploads.jsonl"
ERRORS_FILE = "errors.jsonl"
ALERTS_FILE = "alerts.jsonl"
#: Recommendations and predictions.
ADVICE_FILE = "advice.jsonl"
#: All readings of thinned keys, a file a stream; and what they are uploaded as.
READINGS = "readings"
READINGS_PARQUET = "readings.parquet"
READINGS_CSV = "readings.csv.gz"
RUNS = "runs"
DONE = "done"
ARTIFACTS = "artifacts"
STREAMS = "streams"
#: Of a run: files that cannot be read, or that the store refused for good.
DAMAGED = "damaged"

#: What a struct's file ends with, before the four bytes of its CRC-32: one more pair of its map.
CHECK_KEY = b"\xa5check\xce"
CHECK_BYTES = len(CHECK_KEY) + 4

T = TypeVar("T")


def new_uid() -> str:
    """
    A fresh id from the kernel: 16 hex digits, never from a seeded generator.
    """
    return os.urandom(8).hex()


@cache
def scope_name() -> str:
    """
    Name of this boot, PID namespace and host.
    """
    host = os.uname().nodename
    identity = [host]
    with contextlib.suppress(OSError):
        identity.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        identity.append(str(os.stat("/proc/self/ns/pid").st_ino))
    digest = hashlib.sha256("|".join(identity).encode()).hexdigest()[:12]
    readable = "".join(c if c.isalnum() or c in "-." else "-" for c in host)[:40]
    return f"{readable}-{digest}"


@cache
def user_umask() -> int:
    """
    The process's umask, without changing it where the kernel tells.
    """
    try:
        for line in (
            Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        ):
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    umask = os.umask(0o077)  # another thread may make a file meanwhile: a private one, then
    os.umask(umask)
    return umask


def open_scope(spool_dir: Path) -> Path:
    """
    The scope's folder, made where it is missing, with a `.gitignore` in the spool's own parent.

    Raises:
        QueueError: the folder cannot be written; `facts["reason"]` says why.
    """
    scope = spool_dir / scope_name()
    try:
        spool_dir.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in (spool_dir, scope, scope / RUNS, scope / DONE):
            folder.mkdir(mode=0o700, exist_ok=True)
        marker = spool_dir / ".gitignore"
        if not marker.exists():
            marker.write_text(GITIGNORE, encoding="ascii")
        probe = scope / f".probe-{new_uid()}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        probe.unlink()
    except OSError as exc:
        raise QueueError(
            f"spool folder {spool_dir} cannot be written: {exc.strerror or exc}",
            kind=ErrorKind.QUEUE_UNAVAILABLE,
            folder=str(spool_dir),
            reason=exc.strerror,
        ) from exc
    return scope


def write_all(descriptor: int, data: bytes) -> None:
    """
    Write every byte: near the end of a disk, `os.write` takes a part and reports success.

    Raises:
        OSError: there is no room for the rest.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(path: Path, data: bytes) -> None:
    """
    Replace a small file so that a reader sees the old bytes or the new ones, never a part.
    """
    temporary = path.with_name(f".{path.name}.{new_uid()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_struct(path: Path, value: msgspec.Struct) -> None:
    """
    Store a struct as a msgpack map, whole or not at all, with a check as its last pair.
    """
    write_whole(path, _with_check(msgspec.msgpack.encode(value)))


def read_struct(path: Path, struct_type: type[T]) -> T | None:
    """
    The struct in a file, or None where the file is missing, damaged, or cannot be read as one.
    """
    try:
        data = path.read_bytes()
        if data[-CHECK_BYTES:-4] != CHECK_KEY or data[-4:] != _crc(data[:-4]):
            return None
        return msgspec.msgpack.decode(data, type=struct_type)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def identity_of(path: Path) -> tuple[int, int] | None:
    """
    What changes when a file is written anew by `write_whole`; None where it cannot be looked at.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _with_check(packed: bytes) -> bytes:
    is_long = packed[0] == 0xDE
    pairs = int.from_bytes(packed[1:3], "big") if is_long else packed[0] & 0x0F
    body = packed[3:] if is_long else packed[1:]
    data = b"\xde" + (pairs + 1).to_bytes(2, "big") + body + CHECK_KEY
    return data + _crc(data)


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def file_system_of(path: Path) -> str:
    """
    Type of the file system that holds `path`, e.g. "ext4"; "unknown" where it cannot be told.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        wanted = os.fspath(path.resolve())
    except OSError:
        return "apfs" if os.uname().sysname == "Darwin" else "unknown"
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        mount_point = fields[4].replace("\\040", " ")
        inside = wanted == mount_point or wanted.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= best:
            best, kind = len(mount_point), right.split()[0]
    return kind


def can_map(folder: Path) -> bool:
    """
    Whether segments in this folder may be mapped; elsewhere the same bytes go through `os.pwrite`.
    """
    return file_system_of(folder) in MAPPABLE_FILE_SYSTEMS


def is_local(folder: Path) -> bool:
    """
    Whether the folder lies on a file system of this machine alone.
    """
    return file_system_of(folder) in LOCAL_FILE_SYSTEMS


def is_here(run: Path) -> bool:
    """
    Whether a run's folder is of this boot, host and PID namespace, so that its process ids mean
    something.
    """
    return run.parent.parent.name == scope_name()


def allocate(descriptor: int, size_bytes: int) -> None:
    """
    Give a file its blocks, so that a later store to its map cannot find the disk full.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    block = bytes(1 << 16)
    for offset in range(0, size_bytes, len(block)):
        os.pwrite(descriptor, block[: size_bytes - offset], offset)


def make_segment(path: Path, segment_bytes: int, created_ns: int) -> None:
    """
    Make an empty segment under a temporary name and publish it whole.

    Raises:
        OSError: no room, or a file of that name stands already.
    """
    temporary = path.with_name(f".{path.name}.{new_uid()}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            allocate(descriptor, segment_bytes)
            os.pwrite(descriptor, layout.encode_segment_header(segment_bytes, created_ns), 0)
        finally:
            os.close(descriptor)
        os.link(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
