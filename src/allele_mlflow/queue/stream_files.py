"""
The files of one stream as its writer holds them: stream page, event log, segments.

A `StreamFiles` belongs to one process and is never changed after it was opened, so that whoever
loaded a lane has keys, descriptors and map of one and the same stream.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any, Self

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.counters import OwnedDescriptor, ReasonCounters
from allele_mlflow.queue.events import append_event
from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.queue.room import Room
from allele_mlflow.records import Event, RunEnded

#: keys (name -> word), offsets, pack(target, offset, timestamp_ns, step, value, word), target,
#: segment.
Lane = tuple[dict[str, int], Iterator[int], Callable[..., None], Any, "Segment"]

MADV_POPULATE_WRITE = 23


class NoRoomError(Exception):
    """
    No segment can be had now; `reason` is the ledger's name for it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Segment:
    """
    What belongs to a lane's present segment besides the map: whose it is, its name and size.
    """

    __slots__ = ("name", "size_bytes", "stream")

    def __init__(self, stream: StreamFiles | None, name: str, size_bytes: int) -> None:
        self.stream = stream
        self.name = name
        self.size_bytes = size_bytes


class WrittenSegment:
    """
    The target of write mode: the same bytes as a map's, through `os.pwrite`.
    """

    __slots__ = ("file", "size_bytes")

    def __init__(self, file: OwnedDescriptor, size_bytes: int) -> None:
        self.file = file
        self.size_bytes = size_bytes


def pack_written(
    target: WrittenSegment, offset: int, timestamp_ns: int, step: int, value: float, word: int
) -> None:
    """
    The `pack` of write mode: one system call, so ENOSPC is an ordinary error.

    Raises:
        struct.error: the segment is full, as `Struct.pack_into` says it.
        OSError: the bytes were not taken.
    """
    data = layout.RECORD.pack(timestamp_ns, step, value, word)
    if offset + layout.RECORD_BYTES > target.size_bytes:
        raise struct.error("past the end of the segment")
    if os.pwrite(target.file.descriptor, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class StreamFiles:
    """
    One stream's folder, open for writing.

    Its descriptors close with the last reference, never before: a thread in the middle of an append
    must not find its number given to somebody else's file.

    Raises (on construction):
        OSError: the folder or its files cannot be made.
    """

    __slots__ = (
        "event_log",
        "folder",
        "is_mapped",
        "keys",
        "page_file",
        "room",
        "segment_bytes",
        "segment_ids",
        "stream_id",
    )

    def __init__(
        self,
        run_folder: Path,
        *,
        counters: ReasonCounters,
        segment_bytes: int,
        room: Room,
        role: int,
    ) -> None:
        self.stream_id = spool.new_uid()
        self.is_mapped = spool.can_map(run_folder)
        self.room = room
        self.segment_bytes = segment_bytes
        self.keys: dict[str, int] = {}
        self.segment_ids = {
            layout.METRIC_LANE: count().__next__,
            layout.SERIES_LANE: count().__next__,
        }
        streams = run_folder / spool.STREAMS
        streams.mkdir(mode=0o700, exist_ok=True)
        hidden = streams / f".{self.stream_id}"
        hidden.mkdir(mode=0o700)
        try:
            self._open(hidden, role, counters)
            # Visible only now: a stream that a reader can see is locked and has its page.
            self.folder = streams / self.stream_id
            hidden.rename(self.folder)
        except OSError:
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    def _open(self, folder: Path, role: int, counters: ReasonCounters) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.page_file = OwnedDescriptor(os.open(folder / layout.STREAM_PAGE, flags, 0o600))
        descriptor = self.page_file.descriptor
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        spool.allocate(descriptor, layout.PAGE_BYTES)
        pid = os.getpid()
        page = layout.StreamPage(pid, process_start_time(pid) or 0, now_ns(), role)
        os.pwrite(descriptor, layout.encode_stream_page(page), 0)
        counters.attach(self._mapped_page(descriptor) or self.page_file)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.event_log = OwnedDescriptor(os.open(folder / layout.EVENT_LOG, flags, 0o600))

    def _mapped_page(self, descriptor: int) -> mmap.mmap | None:
        if not self.is_mapped:
            return None
        try:
            return mmap.mmap(descriptor, layout.PAGE_BYTES)
        except OSError:  # as in _target
            return None

    def new_lane(self, lane: str) -> Lane:
        """
        A lane over a segment of its own; its index is nobody else's, so two callers never share
        one.

        Raises:
            NoRoomError: quota reached, disk full, or the spool is gone.
        """
        size_bytes = self._size_of(lane)
        reason = self.room.refusal(size_bytes)
        if reason is not None:
            raise NoRoomError(reason)
        index = self.segment_ids[lane]()
        name = layout.segment_name(lane, index)
        path = self.folder / name
        try:
            if not (lane == layout.METRIC_LANE and self._take_spare(path)):
                spool.make_segment(path, size_bytes, now_ns())
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            raise NoRoomError(reason_of(exc)) from exc
        target, pack = self._target(descriptor, size_bytes)
        step = layout.RECORD_BYTES if lane == layout.METRIC_LANE else layout.PAGE_BYTES
        segment = Segment(self, name, size_bytes)
        return (self.keys, _offsets(step), pack, target, segment)

    def _size_of(self, lane: str) -> int:
        """
        Whole slots: a reader that finds none in a segment is through with it.
        """
        if lane == layout.METRIC_LANE:
            return self.segment_bytes
        pages = max(1, (self.segment_bytes - layout.HEADER_BYTES) // layout.PAGE_BYTES)
        return layout.HEADER_BYTES + pages * layout.PAGE_BYTES

    def _target(self, descriptor: int, size_bytes: int) -> tuple[Any, Callable[..., None]]:
        if self.is_mapped:
            try:
                target = mmap.mmap(descriptor, size_bytes)
            except OSError:
                pass  # no address space or a limit on maps: the same bytes through pwrite
            else:
                os.close(descriptor)
                _prefault(target)
                return target, layout.PACK_RECORD
        return WrittenSegment(OwnedDescriptor(descriptor), size_bytes), pack_written

    def _take_spare(self, path: Path) -> bool:
        spare = self.folder / layout.SPARE
        try:
            if spare.stat().st_size != self.segment_bytes:
                return False
            # rename, not link: of two takers one gets it and the other finds nothing
            spare.rename(path)
        except OSError:
            return False
        return True

    def slots_given(self, lanes: list[Lane]) -> dict[str, int]:
        """
        How many slots (or pages) each lane's segment has given out; takes one more to know, and
        voids it.
        """
        slots: dict[str, int] = {}
        for _, offsets, pack, target, segment in lanes:
            if segment.stream is not self:
                continue
            step = (
                layout.PAGE_BYTES if segment.name[0] == layout.SERIES_LANE else layout.RECORD_BYTES
            )
            offset = min(next(offsets), segment.size_bytes)
            slots[segment.name] = (offset - layout.HEADER_BYTES) // step
            with contextlib.suppress(struct.error, OSError):
                pack(target, offset, 0, 0, 0.0, layout.KIND_VOID)
        return slots

    def append(self, event: Event) -> None:
        """
        Append to the event log.

        Raises:
            OSError: the event is not in the log.
        """
        append_event(self.event_log.descriptor, event)

    def note_end(self, end: RunEnded) -> None:
        """
        Note the run's end in the stream page too, which has its room on a full disk.
        """
        data = layout.encode_farewell(end.timestamp_ns, end.status)
        with contextlib.suppress(OSError):
            os.pwrite(self.page_file.descriptor, data, layout.FAREWELL_OFFSET)

    def release(self) -> None:
        """
        Give up the lock: the stream is complete.
        """
        with contextlib.suppress(OSError):
            fcntl.flock(self.page_file.descriptor, fcntl.LOCK_UN)

    def disown(self) -> None:
        """
        In a forked child: close our copies of the descriptors; the parent's lock stays the
        parent's.
        """
        self.page_file.close()
        self.event_log.close()


def empty_lane(keys: dict[str, int] | None = None) -> Lane:
    """
    A lane without room: every store fails over to the slow path, which decides what to do.
    """
    return ({} if keys is None else keys, repeat(0), layout.PACK_RECORD, b"", NO_SEGMENT)


NO_SEGMENT = Segment(None, "", 0)


def _offsets(step: int) -> Iterator[int]:
    """
    The offsets of a segment's slots, each given to one caller; to be taken with `next`, which is
    cheaper than the iterator's own method.
    """
    offsets = count(layout.HEADER_BYTES, step)
    is_gil_enabled = getattr(sys, "_is_gil_enabled", None)
    if is_gil_enabled is None or is_gil_enabled():
        return offsets
    return _Locked(offsets)  # without the GIL, count() is not atomic


class _Locked:
    """
    An iterator that threads may share where there is no GIL.
    """

    __slots__ = ("_iterator", "_lock")

    def __init__(self, iterator: Iterator[int]) -> None:
        self._iterator = iterator
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._iterator)


def _prefault(target: mmap.mmap) -> None:
    try:
        if sys.platform != "linux":
            raise OSError("the advice has another meaning here, or none")
        target.madvise(MADV_POPULATE_WRITE)
    except (OSError, ValueError):  # before Linux 5.14, and elsewhere
        for offset in range(layout.HEADER_BYTES, len(target), layout.PAGE_BYTES):
            target[offset] = 0


def reason_of(exc: OSError) -> str:
    """
    The ledger's name for why a file could not be made.
    """
    return "dropped.disk_full" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "dropped.no_spool"
