"""
Reading one stream: records, phase edges and events behind the cursor, and what became of them.

The slots are read first and the key definitions after them, to their end: a key's frame is written
before its first reading, so every visible reading has its name. A hole of a living writer is never
given up. Beside the reading, an ear runs ahead through the event lane (`event_ear`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout
from allele_mlflow.queue.counters import find_counter_damage, read_counters
from allele_mlflow.queue.cursor import CursorFile, CursorState, Position
from allele_mlflow.queue.event_ear import EventEar, find_farewell, find_flushes
from allele_mlflow.queue.events import MAX_RANGES, EventFrame, EventReader, scan_end
from allele_mlflow.queue.locks import is_writer_alive
from allele_mlflow.queue.segment_reader import RawRecord, SegmentReader, SeriesPage
from allele_mlflow.queue.stream_newest import newest_ns, newest_pages, newest_records, newest_step
from allele_mlflow.queue.stream_segments import StreamSegments
from allele_mlflow.queue.unusable import bad_step, unknown_key
from allele_mlflow.records import (
    RECORD_KINDS,
    Event,
    FlushAsked,
    KeyDefined,
    Ledger,
    Reading,
    RecordRejected,
    RunEnded,
    StreamEnded,
)

EVENTS_PER_READ = 200
#: Frames that the ear takes in at once, so that nobody waits for it.
FRAMES_PER_LISTEN = 2000
#: How often to look whether a writer lives that writes no events.
LOOK_EVERY_S = 0.2
#: Texts of damage that a cursor keeps.
MAX_DAMAGE = 100


class PhaseEdge(NamedTuple):
    """
    A phase begins or ends in one process. `cpu_s` is that process's CPU time so far;
    `readings_before` is how many readings of the chunk stand before it.
    """

    stream_id: str
    is_begin: bool
    instance: int
    name: str
    step: int | None
    timestamp_ns: int
    cpu_s: float
    readings_before: int = 0


class Chunk(NamedTuple):
    """
    What one read of one stream gave, in the order of the file. `rejected` were readable but
    unusable; an event stands with the offset behind it.
    """

    readings: list[Reading]
    edges: list[PhaseEdge]
    events: list[EventFrame]
    rejected: list[RecordRejected]

    @property
    def is_empty(self) -> bool:
        """
        Whether there is nothing in it.
        """
        return not (self.readings or self.edges or self.events or self.rejected)

    @property
    def record_count(self) -> int:
        """
        Readings and phase edges in it: what a read's limit bounds.
        """
        return len(self.readings) + len(self.edges)


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
        self._cursor = CursorFile(folder / layout.CURSOR)
        state = self._cursor.load()
        self.totals = state.totals if state else Ledger()
        position = state.position if state else Position()
        self._segments = StreamSegments(folder, position.segments)
        #: Damage of before, and that of the stream page.
        self._damage = list(state.damage) if state else []
        self._is_page_damaged = False
        self.page = self._read_page()
        self.is_sampler = self.page is not None and self.page.role == layout.ROLE_SAMPLER
        log = folder / layout.EVENT_LOG
        self._events = EventReader(log, position.events_offset)
        self._read_records = 0
        self._began_offset = position.events_offset
        self._ear = EventEar(log, position.events_offset)
        self._key_scan = EventReader(log)
        self._keys: dict[int, str] = {}
        self.is_finished = state is not None and state.is_finished
        self._is_dead = self.is_finished
        self._has_uncommitted = False
        self._look_at_s, self._looked_at = 0.0, -1
        #: The writer is gone and every event of its was heard.
        self.has_heard_last_event = self.is_finished
        if state is None or self._cursor.is_damaged:
            names = self._segments.names(layout.METRIC_LANE)
            first = names[0] if names else layout.EVENT_LOG
            was_begun = bool(names) and first != layout.segment_name(layout.METRIC_LANE, 0)
            if was_begun or self._cursor.is_damaged:
                self.totals.recounted_from = first

    def read(self, limit: int) -> Chunk:
        """
        About `limit` readings and edges, and the events up to a bound; empty where there is no
        news.
        """
        chunk = Chunk([], [], [], [])
        if self.is_finished:
            return chunk
        self._look()
        wanted = limit
        for segment in self._segments.unfinished():
            before = chunk.record_count
            if segment.is_series:
                self._read_pages(segment, wanted, chunk)
            else:
                for record in segment.records(wanted, is_final=self._is_dead):
                    self._sort_in(record, chunk)
            if segment.is_finished:
                segment.close()
            wanted -= chunk.record_count - before
            if wanted <= 0:
                break
        for frame in self._events.read(limit=EVENTS_PER_READ, is_final=self._is_dead):
            if isinstance(frame.event, KeyDefined):
                self._keys[frame.event.key_id] = frame.event.name
            else:
                self._read_records += type(frame.event) in RECORD_KINDS
                chunk.events.append(frame)
        if not chunk.is_empty:
            self._has_uncommitted = True
        elif self._is_dead and not (self._has_uncommitted or self._segments.has_shortage):
            self._finish()
        return chunk

    def listen(self) -> list[Event]:
        """
        Flushes and ends in the event lane that were not heard before; what is read does not move.
        """
        if not self.has_heard_last_event:  # which may still be ahead of what is read, or behind it
            self._look()
            if self._ear.hear(FRAMES_PER_LISTEN, is_final=self._is_dead):
                self.has_heard_last_event = self._is_dead
        return self._ear.take_heard()

    def earlier_flushes(self, after_id: int) -> list[FlushAsked]:
        """
        Flushes with higher ids in what was read before this reader began, by the event log.
        """
        return find_flushes(self._events.path, self._began_offset, after_id)

    def farewell(self) -> RunEnded | StreamEnded | None:
        """
        The writer's last word, looked for in the whole event log and in the stream page; None where
        there is none.
        """
        found = find_farewell(self._events.path)
        if found is None:
            with contextlib.suppress(OSError):
                page = (self.folder / layout.STREAM_PAGE).read_bytes()
                noted = layout.decode_farewell(page)
                if noted is not None:
                    found = RunEnded(timestamp_ns=noted[0], status=noted[1], slots={})
        return found

    @property
    def has_live_writer(self) -> bool:
        """
        Whether the writer lived at the last read.
        """
        return not self._is_dead

    @property
    def events_offset(self) -> int:
        """
        How far the event lane was read.
        """
        return self._events.offset

    def commit(self, outcome: Ledger, *, is_kept: bool = True) -> None:
        """
        Record that everything read so far is dealt with, and remove segments that are read to the
        end.

        Args:
            outcome: What became of the records since the last commit.
            is_kept: False where a part of that is only in this process's memory: then it is noted
                with the next commit.
        Raises:
            OSError: the cursor could not be written; nothing is lost, the records will be sent
                again.
        """
        self.totals.add(outcome)
        self._has_uncommitted = False
        if is_kept:
            self._store_cursor()
            self._segments.remove_finished()

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
        limit = sys.maxsize if is_exact else FRAMES_PER_LISTEN
        self._ear.hear(limit, is_final=self._is_dead)
        unread_events = max(0, self._ear.record_count - self._read_records)
        return self._segments.unread(is_exact=is_exact) + unread_events

    def unread_outside(self, segments: Container[str]) -> int:
        """
        Readings and edges that were not read yet and stand in no segment of these.
        """
        return self._segments.unread(is_exact=False, leaving_out=segments)

    def mark(self) -> StreamMark:
        """
        How far the stream is written now; what was logged before is behind the mark.
        """
        return StreamMark(self._segments.ends(), scan_end(self._events.path))

    def has_passed(self, mark: StreamMark) -> bool:
        """
        Whether everything up to the mark was read.
        """
        if self.is_finished:
            return True
        return self._has_read_events(mark.events_offset) and self._segments.has_read(mark.segments)

    def newest_readings(self, limit: int) -> list[Reading]:
        """
        The newest reading of each key among the last `limit` slots, read past everything that
        waits.
        """
        chunk = Chunk([], [], [], [])
        for record in newest_records(self._paths(layout.METRIC_LANE)[-2:], limit):
            self._sort_in(record, chunk)
        return list({reading.key: reading for reading in chunk.readings}.values())

    def newest_unread(self, limit: int) -> Chunk:
        """
        The last readings and edges that were not read, about `limit` of the metric lane and the
        last pages of series; what is read does not move.
        """
        chunk = Chunk([], [], [], [])
        if self.is_finished:
            return chunk
        positions = self._segments.positions()
        for page in newest_pages(self._paths(layout.SERIES_LANE)[-2:], positions):
            self._sort_in_page(page, chunk)
        for record in newest_records(self._paths(layout.METRIC_LANE)[-2:], limit, positions):
            self._sort_in(record, chunk)
        return chunk

    def newest_ns(self) -> int:
        """
        When the writer logged last, as far as that was not removed yet; 0 where it was.
        """
        return max(self._ear.newest_ns, newest_ns(self._paths()))

    def newest_step(self) -> tuple[int, int] | None:
        """
        Timestamp and step of where the benchmark is now; see `stream_newest.newest_step`.
        """
        names = self._segments.names(layout.METRIC_LANE)
        return newest_step(self.folder / names[-1]) if names else None

    def prepare_spare(self) -> None:
        """
        Make the writer's next segment ahead of its need, where it can be made.
        """
        if not self._is_dead:
            self._segments.prepare_spare()

    @property
    def damage(self) -> list[str]:
        """
        What could not be read, in words.
        """
        log = self._events
        ranges = list(log.skipped)
        # the last one may still grow; a text is said once and stays
        if ranges and not self._is_dead and log.offset == ranges[-1][1]:
            ranges.pop()
        if len(ranges) == MAX_RANGES and not self.is_finished:
            ranges.pop()
        if log.cut and not self._has_dropped():
            ranges += log.cut
        skipped = [f"{log.path}: no frames in bytes {a} to {b}" for a, b in ranges]
        return list(dict.fromkeys([*self._damage, *self._segments.damage, *skipped]))

    def _has_dropped(self) -> bool:
        """
        Whether the writer counted records as dropped: a frame that is cut is one of them.
        """
        try:
            page = (self.folder / layout.STREAM_PAGE).read_bytes()
        except OSError:
            return False
        return bool(read_counters(page).dropped)

    @property
    def damaged_files(self) -> list[str]:
        """
        The names of the files that could not be read, or not to the last byte.
        """
        names = list(self._segments.damaged_files)
        if any(layout.EVENT_LOG in text for text in self.damage):
            names.append(layout.EVENT_LOG)
        return [*names, layout.STREAM_PAGE] if self._is_page_damaged else names

    def clear_up(self) -> None:
        """
        See `StreamSegments.clear_up`; only for a stream that is finished.
        """
        self._segments.clear_up()

    def close(self) -> None:
        """
        Give back the descriptors.
        """
        self._segments.close()
        self._cursor.close()

    def _paths(self, lane: str | None = None) -> list[Path]:
        return [self.folder / name for name in self._segments.names(lane)]

    def _read_page(self) -> layout.StreamPage | None:
        path = self.folder / layout.STREAM_PAGE
        text = page = None
        try:
            data = path.read_bytes()
            wrong = find_counter_damage(data)
            text = f"{path}: {wrong}" if wrong else None
            page = layout.decode_stream_page(data, str(path))
        except (FileNotFoundError, NotADirectoryError, QueueFormatError) as exc:
            text = str(exc)
        if text is not None:
            self._is_page_damaged = True
            self._damage += [text] if text not in self._damage else []
        return page

    def _look(self) -> None:
        # before reading: what a writer did before it died is visible after
        now_s, written = now_monotonic_s(), scan_end(self._events.path)
        if self._is_dead or (now_s < self._look_at_s and written == self._looked_at):
            return  # with thousands of idle streams every look counts; a farewell is written
        self._look_at_s, self._looked_at = now_s + LOOK_EVERY_S, written
        self._is_dead = not is_writer_alive(self.folder)

    def _has_read_events(self, end: int) -> bool:
        if self._events.offset >= end:
            return True
        # a frame that was cut short is no record, and may be the last for ever
        rest = EventReader(self._events.path, self._events.offset)
        return not rest.read(limit=1, is_final=self._is_dead)

    def _read_pages(self, segment: SegmentReader, limit: int, chunk: Chunk) -> None:
        for page in segment.pages(limit, is_final=self._is_dead):
            self._sort_in_page(page, chunk)

    def _sort_in_page(self, page: SeriesPage, chunk: Chunk) -> None:
        word = layout.unpack_word(page.word)
        if word.kind == layout.KIND_VOID:
            return
        name = self._name(word.key_id)
        if name is None:
            letter = unknown_key(page.timestamp_ns, word.key_id, f"{len(page.values)} values")
            chunk.rejected.extend([letter] * len(page.values))
        elif page.first_step + len(page.values) > layout.STEP_MAX:
            chunk.rejected.extend([bad_step(page, name)] * len(page.values))
        else:
            timestamp_ms = page.timestamp_ns // 1_000_000
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
        if name is None or not layout.KIND_METRIC <= word.kind <= layout.KIND_PHASE_END:
            chunk.rejected.append(unknown_key(timestamp_ns, word.key_id, repr(value)))
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
                    len(chunk.readings),
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
        farewell = self.farewell()
        self.totals.torn += self._segments.torn_readings(farewell.slots if farewell else {})
        self.is_finished = True
        with contextlib.suppress(OSError):
            self._store_cursor()
            self._segments.remove_finished(is_over=True)
            self._segments.remove_spare()
        self._cursor.close()

    def _store_cursor(self) -> None:
        # finished segments are named until they are gone: a reader that finds one must not begin it
        position = Position(segments=self._segments.positions(), events_offset=self._events.offset)
        self._cursor.store(
            CursorState(
                position=position,
                totals=self.totals,
                is_finished=self.is_finished,
                damage=self.damage[:MAX_DAMAGE],
            )
        )
