"""
Reading one stream: records, phase edges and events behind the cursor, and what became of them.

The slots are read first and the key definitions after them, to their end: a key's frame is written
before its first reading, so every visible reading has its name. A hole of a living writer is never
given up.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_ns
from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.counters import read_counters
from allele_mlflow.queue.cursor import CursorFile, CursorState, Position, SegmentPosition
from allele_mlflow.queue.events import EventReader, scan_end
from allele_mlflow.queue.segment_reader import RawRecord, SegmentReader, count_unread, exact_end
from allele_mlflow.records import (
    RECORD_KINDS,
    Event,
    KeyDefined,
    Ledger,
    Reading,
    RecordRejected,
)

EVENTS_PER_READ = 200
#: Passing shortages: the file is as good as it was, and is tried again.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
UNKNOWN_KEY = "unknown_key"
#: Slots at the end of a stream in which its present step is looked for.
NEWEST_SLOTS = 256


class PhaseEdge(NamedTuple):
    """
    A phase begins or ends in one process. `cpu_s` is that process's CPU time so far.
    """

    stream_id: str
    is_begin: bool
    instance: int
    name: str
    step: int | None
    timestamp_ns: int
    cpu_s: float


class Chunk(NamedTuple):
    """
    What one read of one stream gave, in the order of the file. `rejected` were readable but
    unusable.
    """

    readings: list[Reading]
    edges: list[PhaseEdge]
    events: list[Event]
    rejected: list[RecordRejected]

    @property
    def is_empty(self) -> bool:
        """
        Whether there is nothing in it.
        """
        return not (self.readings or self.edges or self.events or self.rejected)


class StreamMark(NamedTuple):
    """
    How far a stream was written at one moment: the end of each segment, in slots, and of the event
    log.
    """

    segments: dict[str, int]
    events_offset: int


class StreamReader:
    """
    One stream's unread part. Call `read`, deliver, then `commit`; what was not committed is read
    again by the next reader. Not thread-safe; one reader at a time (the sidecar's lock sees to it).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stream_id = folder.name
        #: What could not be read, in words, and the names of those files.
        self.damage: list[str] = []
        self.damaged_files: list[str] = []
        self.page = self._read_page()
        self.is_sampler = self.page is not None and self.page.role == layout.ROLE_SAMPLER
        self._cursor = CursorFile(folder / layout.CURSOR)
        state = self._cursor.load()
        self.totals = state.totals if state else Ledger()
        position = state.position if state else Position()
        self._known: dict[str, SegmentPosition] = dict(position.segments)
        self._segments: dict[str, SegmentReader] = {}
        self._events = EventReader(folder / layout.EVENT_LOG, position.events_offset)
        self._key_scan = EventReader(folder / layout.EVENT_LOG)
        self._keys: dict[int, str] = {}
        self.is_finished = state is not None and state.is_finished
        self._is_dead = self.is_finished
        self._has_uncommitted = False
        self._is_series_first = False
        self._has_series = any(name[0] == layout.SERIES_LANE for name in self._known)
        self._has_shortage = False
        #: The writer is gone and every event of its was read.
        self.has_read_last_event = self.is_finished
        if self.is_finished:  # by a reader that was stopped before it had cleared up
            self._remove_files(self._segment_names())
        if state is None:
            names = sorted(name for name in self._segment_names() if name[0] == layout.METRIC_LANE)
            if names and names[0] != layout.segment_name(layout.METRIC_LANE, 0):
                self.totals.recounted_from = names[0]

    def read(self, limit: int) -> Chunk:
        """
        About `limit` readings and edges, and the events up to a bound; empty where there is no
        news.
        """
        chunk = Chunk([], [], [], [])
        if self.is_finished:
            return chunk
        # looked at before reading: what a writer did before it died is visible after
        self._is_dead = self._is_dead or not spool.is_writer_alive(self.folder)
        wanted = limit
        for segment in self._unfinished_segments() if wanted > 0 else ():
            before = len(chunk.readings) + len(chunk.edges)
            if segment.is_series:
                self._read_pages(segment, wanted, chunk)
            else:
                for record in segment.records(wanted, is_final=self._is_dead):
                    self._sort_in(record, chunk)
            if segment.is_finished:
                segment.close()
            wanted -= len(chunk.readings) + len(chunk.edges) - before
            if wanted <= 0:
                break
        frames = self._events.read(limit=EVENTS_PER_READ, is_final=self._is_dead)
        self.has_read_last_event = self._is_dead and len(frames) < EVENTS_PER_READ
        for frame in frames:
            if isinstance(frame.event, KeyDefined):
                self._keys[frame.event.key_id] = frame.event.name
            else:
                chunk.events.append(frame.event)
        if not chunk.is_empty:
            self._has_uncommitted = True
        elif self._is_dead and limit > 0 and not (self._has_uncommitted or self._has_shortage):
            self._finish()
        return chunk

    @property
    def has_live_writer(self) -> bool:
        """
        Whether the writer lived at the last read.
        """
        return not self._is_dead

    def commit(self, outcome: Ledger) -> None:
        """
        Record that everything read so far is dealt with, and remove segments that are read to the
        end.

        Args:
            outcome: What became of the records since the last commit.
        Raises:
            OSError: the cursor could not be written; nothing is lost, the records will be sent
                again.
        """
        self.totals.add(outcome)
        self._has_uncommitted = False
        self._store_cursor()
        self._remove([name for name, s in self._segments.items() if s.is_finished])

    def ledger(self, *, is_exact: bool = False) -> Ledger:
        """
        Where this stream's records are, with those still pending and those its writer refused.

        Args:
            is_exact: Count the pending ones slot by slot, and not by where the written ones end.
        """
        ledger = Ledger()
        ledger.add(self.totals)
        with contextlib.suppress(OSError):
            ledger.add(read_counters((self.folder / layout.STREAM_PAGE).read_bytes()))
        if not self.is_finished:
            ledger.pending += self.pending(is_exact=is_exact)
        return ledger

    def pending(self, *, is_exact: bool = False) -> int:
        """
        Records that were not read yet. (What was read and not committed is not among them.)
        """
        total = 0
        for name in self._segment_names():
            with contextlib.suppress(OSError, QueueFormatError):
                total += count_unread(
                    self.folder / name, self._position_of(name), is_exact=is_exact
                )
        scan = EventReader(self.folder / layout.EVENT_LOG, self._events.offset)
        while frames := scan.read(limit=EVENTS_PER_READ, is_final=True):
            total += sum(type(frame.event) in RECORD_KINDS for frame in frames)
        return total

    def mark(self) -> StreamMark:
        """
        How far the stream is written now; what was logged before is behind the mark.
        """
        segments = {}
        for name in self._segment_names():
            with contextlib.suppress(OSError, QueueFormatError):
                segments[name] = exact_end(self.folder / name, self._position_of(name))
        return StreamMark(segments, scan_end(self.folder / layout.EVENT_LOG))

    def has_passed(self, mark: StreamMark) -> bool:
        """
        Whether everything up to the mark was read.
        """
        if self.is_finished:
            return True
        return self._events.offset >= mark.events_offset and all(
            self._has_read(name, end) for name, end in mark.segments.items()
        )

    def newest_readings(self, limit: int) -> list[Reading]:
        """
        The newest reading of each key among the last `limit` slots, read past everything that
        waits.
        """
        names = sorted(n for n in self._segment_names() if n[0] == layout.METRIC_LANE)
        newest: dict[str, Reading] = {}
        for name in names[-2:]:
            with contextlib.suppress(OSError, QueueFormatError):
                segment = SegmentReader(self.folder / name, SegmentPosition(0))
                records = segment.records(segment.slot_count, is_final=True)[-limit:]
                segment.close()
                chunk = Chunk([], [], [], [])
                for record in records:
                    self._sort_in(record, chunk)
                newest.update((reading.key, reading) for reading in chunk.readings)
        return list(newest.values())

    def newest_step(self) -> tuple[int, int] | None:
        """
        Timestamp and step of where the benchmark is now, read at the end of what it wrote.

        The step of the innermost phase that is open among the last records and has one, else that
        of the last reading; None where neither is near the end.
        """
        names = sorted(n for n in self._segment_names() if n[0] == layout.METRIC_LANE)
        if not names:
            return None
        try:
            segment = SegmentReader(self.folder / names[-1], SegmentPosition(0))
        except (OSError, QueueFormatError):
            return None
        try:
            records = segment.newest(NEWEST_SLOTS)
        finally:
            segment.close()
        ended: set[int] = set()
        last_reading: tuple[int, int] | None = None
        for record in reversed(records):
            word = layout.unpack_word(record.word)
            if word.kind == layout.KIND_PHASE_END:
                ended.add(word.instance)
            elif word.kind == layout.KIND_PHASE_BEGIN:
                if word.instance not in ended and record.step != layout.NO_STEP:
                    return record.timestamp_ns, record.step
            elif word.kind == layout.KIND_METRIC and last_reading is None:
                last_reading = record.timestamp_ns, record.step
        return last_reading

    def prepare_spare(self) -> None:
        """
        Make the writer's next segment ahead of its need, where it can be made.
        """
        spare = self.folder / layout.SPARE
        present = max(self._segments.values(), key=lambda s: s.path.name, default=None)
        if present is None or present.is_series or self._is_dead or spare.exists():
            return
        size = present.slot_count * layout.RECORD_BYTES + layout.HEADER_BYTES
        with contextlib.suppress(OSError):
            spool.make_segment(spare, size, now_ns())

    def close(self) -> None:
        """
        Give back the descriptors.
        """
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        self._cursor.close()

    def _read_page(self) -> layout.StreamPage | None:
        path = self.folder / layout.STREAM_PAGE
        try:
            return layout.decode_stream_page(path.read_bytes(), str(path))
        except (OSError, QueueFormatError) as exc:
            self.damage.append(str(exc))
            return None

    def _segment_names(self) -> list[str]:
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        names = [name for name in names if layout.parse_segment_name(name)]
        self._has_series = self._has_series or any(name[0] == layout.SERIES_LANE for name in names)
        return names

    def _unfinished_segments(self) -> Iterator[SegmentReader]:
        """
        Segments with something to read, oldest first, the two lanes in turn: neither waits for the
        other's backlog.
        """
        self._has_shortage = False
        self._is_series_first = not self._is_series_first
        lanes = [layout.METRIC_LANE, layout.SERIES_LANE]
        for lane in reversed(lanes) if self._is_series_first else lanes:
            yield from self._unfinished_of(lane)

    def _unfinished_of(self, lane: str) -> Iterator[SegmentReader]:
        """
        Those at hand come first, and the folder is looked through only when they do not suffice: a
        backlog may have more segments than a process may have descriptors, and takes long to list.
        """
        for name in sorted(name for name in self._segments if name[0] == lane):
            if not self._segments[name].is_finished:
                yield self._segments[name]
        if lane == layout.SERIES_LANE and not self._is_series_there():
            return
        for name in sorted(self._segment_names()):
            if name[0] != lane or name in self._segments:
                continue
            segment = self._opened(name)
            if segment is not None and not segment.is_finished:
                yield segment

    def _is_series_there(self) -> bool:
        # most streams have none, and one look is cheaper than the whole folder
        first = self.folder / layout.segment_name(layout.SERIES_LANE, 0)
        self._has_series = self._has_series or first.exists()
        return self._has_series

    def _opened(self, name: str) -> SegmentReader | None:
        try:
            segment = SegmentReader(self.folder / name, self._position_of(name))
        except FileNotFoundError:
            return None
        except (OSError, QueueFormatError) as exc:
            if isinstance(exc, OSError) and exc.errno in SHORTAGES:
                self._has_shortage = True
            elif name not in self.damaged_files:
                self.damaged_files.append(name)
                self.damage.append(str(exc))
            return None
        self._segments[name] = segment
        return segment

    def _has_read(self, name: str, end: int) -> bool:
        segment = self._segments.get(name)
        if segment is not None:
            return segment.has_passed(end)
        if name in self.damaged_files or not (self.folder / name).exists():
            return True  # read, committed and removed
        return self._position_of(name).next >= end

    def _position_of(self, name: str) -> SegmentPosition:
        segment = self._segments.get(name)
        return segment.position if segment else self._known.get(name, SegmentPosition(0))

    def _read_pages(self, segment: SegmentReader, limit: int, chunk: Chunk) -> None:
        for page in segment.pages(limit, is_final=self._is_dead):
            word = layout.unpack_word(page.word)
            if word.kind == layout.KIND_VOID:
                continue
            name = self._name(word.key_id)
            timestamp_ms = page.timestamp_ns // 1_000_000
            if name is None:
                letter = _unknown_key(page.timestamp_ns, word.key_id, f"{len(page.values)} values")
                chunk.rejected.extend([letter] * len(page.values))
                continue
            chunk.readings.extend(
                Reading(name, value, timestamp_ms, step)
                for step, value in enumerate(page.values, page.first_step)
            )

    def _sort_in(self, record: RawRecord, chunk: Chunk) -> None:
        timestamp_ns, step, value, packed = record
        word = layout.unpack_word(packed)
        if word.kind == layout.KIND_VOID:
            return
        name = self._keys.get(word.key_id) or self._name(word.key_id)
        if name is None or word.kind > layout.KIND_PHASE_END:
            chunk.rejected.append(_unknown_key(timestamp_ns, word.key_id, repr(value)))
        elif word.kind == layout.KIND_METRIC:
            chunk.readings.append(Reading(name, value, timestamp_ns // 1_000_000, step))
        else:
            chunk.edges.append(
                PhaseEdge(
                    self.stream_id,
                    word.kind == layout.KIND_PHASE_BEGIN,
                    word.instance,
                    name,
                    None if step == layout.NO_STEP else step,
                    timestamp_ns,
                    value,
                )
            )

    def _name(self, key_id: int) -> str | None:
        if key_id not in self._keys:
            while frames := self._key_scan.read(limit=EVENTS_PER_READ, is_final=self._is_dead):
                for frame in frames:
                    if isinstance(frame.event, KeyDefined):
                        self._keys[frame.event.key_id] = frame.event.name
        return self._keys.get(key_id)

    def _finish(self) -> None:
        """
        The writer is gone and all is read: what is still open was taken by calls that never
        returned.
        """
        self.totals.torn += sum(segment.torn_readings() for segment in self._segments.values())
        self.is_finished = True
        with contextlib.suppress(OSError):
            self._store_cursor()
            self._remove(list(self._segments))
            self._remove_files([layout.SPARE])

    def _store_cursor(self) -> None:
        # finished segments are named until they are gone: a reader that finds one must not begin it
        segments = {name: segment.position for name, segment in self._segments.items()}
        self._cursor.store(
            CursorState(
                position=Position(segments=segments, events_offset=self._events.offset),
                totals=self.totals,
                is_finished=self.is_finished,
            )
        )

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._segments.pop(name).close()
            self._known.pop(name, None)
        self._remove_files(names)

    def _remove_files(self, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()


def _unknown_key(timestamp_ns: int, key_id: int, value: str) -> RecordRejected:
    return RecordRejected(
        timestamp_ns=timestamp_ns,
        reason=UNKNOWN_KEY,
        call="metric",
        key=f"#{key_id}",
        value=value,
        wanted="the key's definition, which is damaged in events.log",
    )
