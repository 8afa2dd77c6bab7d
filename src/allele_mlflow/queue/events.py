"""
The event lane: one append-only log of framed msgpack a stream, for everything that is not a number.

A frame is written whole by one `os.write` on an O_APPEND descriptor, and no offset is kept across
calls, so a signal handler may append in the middle of another append. A frame that was cut short (a
full disk, a kill) is skipped by the reader, which finds the next magic.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from allele_mlflow.queue import layout
from allele_mlflow.records import AnyEvent, Event

READ_BYTES = 256 << 10
#: Ranges of damage that are told one by one; what follows makes the last one longer.
MAX_RANGES = 20

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(AnyEvent)


class EventFrame(NamedTuple):
    """
    One event and the offset behind its frame.
    """

    event: Event
    end_offset: int


def encode_frame(event: Event) -> bytes:
    """
    The bytes of one frame.
    """
    payload = _encoder.encode(event)
    head = layout.FRAME_HEAD.pack(layout.FRAME_MAGIC, len(payload), zlib.crc32(payload))
    return head + payload


def append_event(descriptor: int, event: Event) -> None:
    """
    Append one whole frame.

    Raises:
        OSError: the frame was not written, or only in part; the reader will skip it.
    """
    frame = encode_frame(event)
    written = os.write(descriptor, frame)
    if written != len(frame):
        raise OSError(28, f"{written} of {len(frame)} bytes of an event were written")


class EventReader:
    """
    Reads frames from an offset on; skips what is damaged and counts it. Not thread-safe.

    `skipped_bytes` are bytes that were no frame, `skipped` where they stand, as (start, end). `cut`
    is where a frame seems to have been begun and never written further, as a full disk leaves it.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.skipped_bytes = 0
        self.skipped: list[tuple[int, int]] = []
        self.cut: list[tuple[int, int]] = []

    def read(self, *, limit: int, is_final: bool = False) -> list[EventFrame]:
        """
        Up to `limit` whole frames that follow `offset`, which moves behind them.

        Args:
            limit: Most frames to give.
            is_final: The writer is gone: an unfinished frame at the end is damage, not news to
                come.
        """
        frames: list[EventFrame] = []
        try:
            if os.stat(self.path).st_size <= self.offset:  # the usual answer, and a cheap one
                return frames
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return frames
        try:
            end = os.fstat(descriptor).st_size
            while len(frames) < limit and self.offset < end:
                frame = self._read_one(descriptor, end, is_final=is_final)
                if frame is None:
                    break
                if frame.event is not _DAMAGED:
                    frames.append(frame)
        finally:
            os.close(descriptor)
        return frames

    def _read_one(self, descriptor: int, end: int, *, is_final: bool) -> EventFrame | None:
        head = os.pread(descriptor, layout.FRAME_HEAD.size, self.offset)
        if len(head) == layout.FRAME_HEAD.size:
            magic, length, crc = layout.FRAME_HEAD.unpack(head)
            start = self.offset + layout.FRAME_HEAD.size
            if magic == layout.FRAME_MAGIC and length <= layout.FRAME_MAX_BYTES:
                if start + length <= end:
                    payload = os.pread(descriptor, length, start)
                    # zeros have the checksum of nothing
                    if payload and len(payload) == length and zlib.crc32(payload) == crc:
                        self.offset = start + length
                        return EventFrame(_decode(payload), self.offset)
                elif not is_final and self._find_magic(descriptor, self.offset + 1, end) is None:
                    return None  # still being written
        elif not is_final:
            return None
        following = self._find_magic(descriptor, self.offset + 1, end)
        if following is None and not is_final:
            return None
        if following is not None and _is_cut(descriptor, self.offset, following):
            if len(self.cut) < MAX_RANGES:
                self.cut.append((self.offset, following))
            self.offset = following
            return EventFrame(_DAMAGED, following)
        following = end if following is None else following
        self.skipped_bytes += following - self.offset
        last = self.skipped[-1] if self.skipped else None
        if last is not None and (last[1] == self.offset or len(self.skipped) == MAX_RANGES):
            self.skipped[-1] = (last[0], following)
        else:
            self.skipped.append((self.offset, following))
        self.offset = following
        return EventFrame(_DAMAGED, following)

    def _find_magic(self, descriptor: int, start: int, end: int) -> int | None:
        while start < end:
            chunk = os.pread(descriptor, READ_BYTES, start)
            found = chunk.find(layout.FRAME_MAGIC)
            if found >= 0:
                return start + found
            if len(chunk) < READ_BYTES:
                return None
            start += len(chunk) - len(layout.FRAME_MAGIC) + 1
        return None


class UnknownEvent(Event, frozen=True):
    """
    A frame that checks but that this version does not know.
    """


_DAMAGED = Event(timestamp_ns=0)


def _is_cut(descriptor: int, start: int, end: int) -> bool:
    """
    Whether these bytes are the begin of a frame that was never written further.
    """
    if end - start > layout.FRAME_HEAD.size + layout.FRAME_MAX_BYTES:
        return False
    piece = os.pread(descriptor, end - start, start)
    if len(piece) < layout.FRAME_HEAD.size:
        return piece.startswith(layout.FRAME_MAGIC[: len(piece)])
    magic, length, crc = layout.FRAME_HEAD.unpack_from(piece)
    payload = piece[layout.FRAME_HEAD.size :]
    if magic != layout.FRAME_MAGIC or not len(payload) < length <= layout.FRAME_MAX_BYTES:
        return False
    return zlib.crc32(payload) != int(crc)  # a whole frame with a damaged length has its checksum


def _decode(payload: bytes) -> Event:
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError:
        return UnknownEvent(timestamp_ns=0)


def scan_end(path: Path) -> int:
    """
    Size of the log in bytes, 0 where there is none.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
