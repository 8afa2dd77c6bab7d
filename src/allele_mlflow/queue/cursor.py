"""
The read cursor of one stream: how far it was delivered, and what became of the records.

Two slots, each with generation and CRC, written in turn by the sidecar alone: a kill in the middle
of one leaves the other. Losing both costs re-sends only, for every record is idempotent by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from pathlib import Path

import msgspec

from allele_mlflow.queue import layout
from allele_mlflow.records import Ledger

#: Most bytes of a slot, but for streams with hundreds of segments.
USUAL_BYTES = 4096


class SegmentPosition(msgspec.Struct, frozen=True, array_like=True):
    """
    How far one segment was read: everything below `next` but the `open` slots, which were still
    empty.
    """

    next: int
    open: tuple[int, ...] = ()


class Position(msgspec.Struct, frozen=True, array_like=True):
    """
    How far a stream was read. Segments that are not named have not been begun.
    """

    segments: dict[str, SegmentPosition] = {}
    events_offset: int = 0


class CursorState(msgspec.Struct, kw_only=True):
    """
    What one cursor slot holds. `totals` never counts pending records nor the writer's own counters.
    """

    position: Position = Position()
    totals: Ledger = msgspec.field(default_factory=Ledger)
    is_finished: bool = False
    #: What could not be read before `position`, in words.
    damage: list[str] = []


class CursorFile:
    """
    The cursor of a stream. One writer only; not thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 0
        self._descriptor = -1
        #: Whether a slot that was written does not check: it may have been the newer one.
        self.is_damaged = False

    def load(self) -> CursorState | None:
        """
        The newest slot that checks, or None where there is none.

        Raises:
            OSError: it cannot be read now.
        """
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):  # and nothing else: it would count anew
            return None
        best: CursorState | None = None
        unread = 0
        for start in (0, layout.CURSOR_SLOT_BYTES):
            slot = data[start : start + layout.CURSOR_SLOT_BYTES]
            found = _decode_slot(slot)
            unread += found is None
            if found is not None and found[0] > self._generation:
                self._generation, best = found
        # the first store is of one slot, every later one leaves two
        self.is_damaged = any(data) if best is None else bool(unread) and self._generation > 1
        return best

    def store(self, state: CursorState) -> None:
        """
        Write the state into the older slot.

        Raises:
            OSError: it could not be written; the other slot still stands.
        """
        payload = msgspec.msgpack.encode(state)
        if layout.CURSOR_HEAD.size + len(payload) > layout.CURSOR_SLOT_BYTES:
            # thousands of open slots: go back to the first of them, at the price of sending again
            payload = msgspec.msgpack.encode(
                CursorState(
                    position=_without_open(state.position),
                    totals=state.totals,
                    is_finished=state.is_finished,
                    damage=state.damage,
                )
            )
        generation = self._generation + 1
        head = layout.CURSOR_HEAD.pack(
            layout.CURSOR_MAGIC, generation, len(payload), _checksum(generation, payload)
        )
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
            with contextlib.suppress(
                OSError, AttributeError
            ):  # so that a full disk has room for what is usual
                os.posix_fallocate(self._descriptor, 0, USUAL_BYTES)
                os.posix_fallocate(self._descriptor, layout.CURSOR_SLOT_BYTES, USUAL_BYTES)
        data = head + payload
        if len(data) > layout.CURSOR_SLOT_BYTES:
            raise OSError(errno.EFBIG, f"{self.path}: {len(data)} bytes, want one slot's at most")
        start = generation % 2 * layout.CURSOR_SLOT_BYTES
        if os.pwrite(self._descriptor, data, start) != len(data):
            raise OSError(errno.ENOSPC, f"{self.path}: written in part")
        self._generation = generation

    def close(self) -> None:
        """
        Give back the descriptor.
        """
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _checksum(generation: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<Q", generation)))


def _decode_slot(slot: bytes) -> tuple[int, CursorState] | None:
    if len(slot) < layout.CURSOR_HEAD.size:
        return None
    magic, generation, length, crc = layout.CURSOR_HEAD.unpack_from(slot)
    payload = slot[layout.CURSOR_HEAD.size : layout.CURSOR_HEAD.size + length]
    if magic != layout.CURSOR_MAGIC or len(payload) != length:
        return None
    if _checksum(generation, payload) != crc:
        return None
    try:
        return generation, msgspec.msgpack.decode(payload, type=CursorState)
    except msgspec.MsgspecError:
        return None


def _without_open(position: Position) -> Position:
    return Position(
        segments={
            name: SegmentPosition(min(p.open, default=p.next))
            for name, p in position.segments.items()
        },
        events_offset=position.events_offset,
    )
