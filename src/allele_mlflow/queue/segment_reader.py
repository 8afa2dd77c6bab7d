"""
Reading one segment while it is being written: which slots hold a record, which are still open.

A slot is believed when its last word is not zero. The words are looked at first and the payload is
read again after them: a reader that copied payload and word in one go could see the new word beside
the old payload. That order is enough on x86, where stores become visible in program order;
elsewhere a pause lies between the two looks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, compress, count, islice
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import pause_s
from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout
from allele_mlflow.queue.cursor import SegmentPosition

IS_STRONGLY_ORDERED = os.uname().machine.lower() in {"x86_64", "amd64", "i686", "i386"}
SECOND_LOOK_S = 0.001
#: Slots looked at beyond what is wanted, to see past holes.
LOOK_AHEAD = 64
#: Every so many fruitless looks the whole rest of the segment is searched for records past a long
#: hole.
LONG_LOOK_EVERY = 16
#: Kinds of the words in a metric segment.
SLOT_KINDS = frozenset(
    {layout.KIND_METRIC, layout.KIND_PHASE_BEGIN, layout.KIND_PHASE_END, layout.KIND_VOID}
)


class RawRecord(NamedTuple):
    """
    One slot of the metric lane as it stands on disk.
    """

    timestamp_ns: int
    step: int
    value: float
    word: int


class SeriesPage(NamedTuple):
    """
    One page of the series lane.
    """

    timestamp_ns: int
    first_step: int
    word: int
    values: tuple[float, ...]


class SegmentReader:
    """
    The slots of one segment that have not been read yet. Not thread-safe.

    A header that is damaged costs no record: name and size of the file say as much as it does. Of
    such a file only what can be a record is one.

    Args:
        path: The segment.
        position: How far it was read.
        on_damage: Told in words what cannot be read, as often as it is met.
    Raises (on construction):
        OSError: the file cannot be opened.
        QueueFormatError: it is of a newer format.
    """

    def __init__(
        self,
        path: Path,
        position: SegmentPosition,
        *,
        on_damage: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = path
        self._on_damage = on_damage
        self.is_series = path.name.startswith(layout.SERIES_LANE)
        self._slot_bytes = layout.PAGE_BYTES if self.is_series else layout.RECORD_BYTES
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with ExitStack() as on_error:
            on_error.callback(os.close, self._descriptor)
            size = self._find_size()
            on_error.pop_all()
        self.slot_count, rest = divmod(max(0, size - layout.HEADER_BYTES), self._slot_bytes)
        if self.is_series and rest >= layout.SERIES_VALUES_OFFSET:
            self.slot_count += 1  # a page that was cut short: its values up to there are whole
        self.next = min(position.next, self.slot_count)
        self.open = {slot for slot in position.open if slot < self.slot_count}
        self._fruitless = 0

    def _find_size(self) -> int:
        size = os.fstat(self._descriptor).st_size
        header = os.pread(self._descriptor, layout.SEGMENT_HEADER.size, 0)
        self._is_doubtful = False
        try:
            promised = layout.check_segment_header(header, str(self.path))
        except QueueFormatError as exc:
            if "version" in exc.facts:
                raise
            self._is_doubtful = True
            self._on_damage(str(exc))
            return size
        if size < promised:
            self._on_damage(f"{self.path}: cut short, bytes {size} to {promised} are gone")
        return min(size, promised)

    @property
    def position(self) -> SegmentPosition:
        """
        How far it was read.
        """
        return SegmentPosition(self.next, tuple(sorted(self.open)))

    @property
    def is_finished(self) -> bool:
        """
        Whether every slot was read.
        """
        return self.next >= self.slot_count and not self.open

    def records(self, limit: int, *, is_final: bool) -> list[RawRecord]:
        """
        Up to `limit` records of the metric lane that were not given before, late ones first.

        Args:
            limit: Most records.
            is_final: The writer is gone, so the whole rest is searched.
        """
        slots = self._ready_slots(limit, is_final=is_final)
        records = [RawRecord(*record) for run in _runs(slots) for record in self._payload(*run)]
        if self._is_doubtful:
            return [record for record in records if record.word & 0xFF in SLOT_KINDS]
        return records

    def pages(self, limit: int, *, is_final: bool) -> list[SeriesPage]:
        """
        Pages of the series lane with together at least `limit` values, or as many as there are.
        """
        pages: list[SeriesPage] = []
        wanted = max(1, -(-limit // layout.SERIES_PAGE_VALUES))
        for slot in self._ready_slots(wanted, is_final=is_final):
            page = self._page(slot)
            if page is not None:
                pages.append(page)
        return pages

    def newest(self, limit: int) -> list[RawRecord]:
        """
        The last records of the metric lane that were not read, about; moves nothing.
        """
        end = self.written_end()
        first = max(self.next, end - limit)
        return [RawRecord(*r) for r in self._payload(first, max(0, end - first)) if r[3]]

    def newest_pages(self, limit: int) -> list[SeriesPage]:
        """
        The last pages of the series lane that were not read, about; moves nothing.
        """
        end = self.written_end()
        slots = [slot for slot in range(max(self.next, end - limit), end) if self.word(slot)]
        return [page for slot in slots if (page := self._page(slot)) is not None]

    def newest_ns(self) -> int:
        """
        Time of the last record or page, 0 where there is none.
        """
        last = self.written_end() - 1
        if last < 0:
            return 0
        data = os.pread(self._descriptor, 8, layout.HEADER_BYTES + last * self._slot_bytes)
        return int.from_bytes(data, "little", signed=True)

    def written_end(self) -> int:
        """
        About where the written slots end: a hole may mislead the search by some slots.
        """
        if self.slot_count and self.word(self.slot_count - 1):
            return self.slot_count
        low, high = 0, self.slot_count
        while low < high:
            middle = (low + high) // 2
            if self.word(middle):
                low = middle + 1
            else:
                high = middle
        return low

    def exact_end(self) -> int:
        """
        One more than the last written slot, however many holes lie before it.
        """
        if self.slot_count and self.word(self.slot_count - 1):
            return self.slot_count
        written = self._written(self.slot_count - self.next)
        return max(written, default=self.next - 1) + 1

    def has_passed(self, end: int) -> bool:
        """
        Whether every written slot below `end` was read.
        """
        return self.next >= end and not any(slot < end and self.word(slot) for slot in self.open)

    def page_size(self, slot: int) -> int:
        """
        Values in a page of the series lane, 0 where it is not written.
        """
        size, word = self._page_head(slot)
        is_there = word & 0xFF not in (0, layout.KIND_VOID) and size <= layout.SERIES_PAGE_VALUES
        return size if is_there else 0

    def torn_readings(self, given: int | None) -> int:
        """
        Readings in slots that were taken and never written, for a writer that is gone: one a slot,
        or as many as a page's head says.

        Args:
            given: Slots given out, as the writer's farewell says; None without one. Then a slot
                behind the last that was written shows only where a page's head was begun.
        """
        taken = sorted(self.open | set(range(self.next, given or 0)))
        if not self.is_series:
            return len(taken)
        total = 0
        for slot in taken:
            size = self._page_head(slot)[0]
            total += size if 0 < size <= layout.SERIES_PAGE_VALUES else 1
        if given is None and self.next < self.slot_count:
            total += min(self._page_head(self.next)[0], layout.SERIES_PAGE_VALUES)
        return total

    def _page_head(self, slot: int) -> tuple[int, int]:
        offset = layout.HEADER_BYTES + slot * layout.PAGE_BYTES
        head = os.pread(self._descriptor, layout.SERIES_HEAD.size, offset)
        if len(head) < layout.SERIES_HEAD.size:  # of a file that was cut short
            return 0, 0
        _, _, size, word = layout.SERIES_HEAD.unpack(head)
        return int(size), int(word)

    def close(self) -> None:
        """
        Give back the descriptor; of a finished segment nothing more is asked.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _ready_slots(self, limit: int, *, is_final: bool) -> list[int]:
        late = [slot for slot in sorted(self.open) if self.word(slot)][:limit]
        self.open.difference_update(late)
        wanted = limit - len(late)
        if wanted <= 0 or self.next >= self.slot_count:
            return late
        rest = self.slot_count - self.next
        is_long_look = is_final or self._fruitless >= LONG_LOOK_EVERY
        if self.is_series and not is_long_look and not self.word(self.next):
            self._fruitless += 1  # a page is a system call to look at; the next may be far off
            return late
        ready = list(islice(self._written(min(wanted + LOOK_AHEAD, rest)), wanted))
        if not ready and is_long_look:
            ready = list(islice(self._written(rest), wanted))
        if ready:
            self._fruitless = 0
            found = set(ready)
            self.open.update(slot for slot in range(self.next, ready[-1]) if slot not in found)
            self.next = ready[-1] + 1
        else:
            self._fruitless = 0 if self._fruitless >= LONG_LOOK_EVERY else self._fruitless + 1
        if (late or ready) and not IS_STRONGLY_ORDERED:
            pause_s(SECOND_LOOK_S)
        return late + ready

    def _written(self, span: int) -> Iterator[int]:
        """
        The slots with a record among the next `span`.
        """
        return compress(count(self.next), self.words(self.next, span))

    def word(self, slot: int) -> int:
        """
        The last word of a slot, 0 where it is not written.
        """
        offset = layout.HEADER_BYTES + slot * self._slot_bytes + layout.WORD_OFFSET
        return int.from_bytes(os.pread(self._descriptor, 8, offset), "little")

    def words(self, first: int, span: int) -> Iterable[int]:
        """
        The last words of `span` slots from `first` on, 0 for one that is not written.
        """
        if self.is_series:
            return map(self.word, range(first, first + span))
        size = span * layout.RECORD_BYTES
        data = os.pread(self._descriptor, size, layout.HEADER_BYTES + first * layout.RECORD_BYTES)
        data = data[: len(data) - len(data) % layout.RECORD_BYTES]
        return memoryview(data).cast("Q")[3::4]

    def _page(self, slot: int) -> SeriesPage | None:
        """
        A page that is written; None where it was given up, or cannot be one.
        """
        offset = layout.HEADER_BYTES + slot * layout.PAGE_BYTES
        data = os.pread(self._descriptor, layout.PAGE_BYTES, offset)
        timestamp_ns, first_step, size, word = layout.SERIES_HEAD.unpack_from(data)
        if word & 0xFF == layout.KIND_VOID:
            return None
        if not 1 <= size <= layout.SERIES_PAGE_VALUES:
            end = offset + layout.PAGE_BYTES
            self._on_damage(
                f"{self.path}: bytes {offset} to {end}: a page of {size} values; "
                f"want 1 to {layout.SERIES_PAGE_VALUES}"
            )
            return None
        size = min(size, len(data) // 8 - layout.SERIES_VALUES_OFFSET // 8)
        end = layout.SERIES_VALUES_OFFSET + 8 * size
        values = memoryview(data)[layout.SERIES_VALUES_OFFSET : end].cast("d")
        return SeriesPage(timestamp_ns, first_step, word, tuple(values))

    def _payload(self, first: int, span: int) -> Iterator[tuple[int, int, float, int]]:
        size = span * layout.RECORD_BYTES
        data = os.pread(self._descriptor, size, layout.HEADER_BYTES + first * layout.RECORD_BYTES)
        return layout.RECORD.iter_unpack(data)


class Unread(NamedTuple):
    """
    Readings and edges that were not read. `is_full`: no more will come.
    """

    record_count: int
    is_full: bool


def count_unread(path: Path, position: SegmentPosition, *, is_exact: bool) -> Unread:
    """
    Readings and edges of a segment behind a position.

    Args:
        path: The segment.
        position: How far it was read.
        is_exact: Look at every slot; otherwise a segment whose last slot is written is taken to be
            full, and another one is counted up to where its written slots end.
    Raises:
        OSError: the file cannot be opened.
        QueueFormatError: it is of a newer format.
    """
    segment = SegmentReader(path, position)
    try:
        end = segment.slot_count if is_exact else segment.written_end()
        if segment.is_series:
            slots = chain(segment.open, range(segment.next, end))
            return Unread(sum(segment.page_size(slot) for slot in slots), False)
        if not is_exact and end == segment.slot_count:
            return Unread(end - segment.next + len(segment.open), True)
        late = map(segment.word, segment.open)
        rest = segment.words(segment.next, max(0, end - segment.next))
        written = filter(None, chain(late, rest))  # most of a segment is not, and quickly passed
        total = sum(word & 0xFF not in (0, layout.KIND_VOID) for word in written)
        return Unread(total, False)
    finally:
        segment.close()


def exact_end(path: Path, position: SegmentPosition) -> int:
    """
    `SegmentReader.exact_end` of a segment that was read up to a position.

    Raises:
        OSError: the file cannot be opened.
        QueueFormatError: it is of a newer format.
    """
    segment = SegmentReader(path, position)
    try:
        return segment.exact_end()
    finally:
        segment.close()


def _runs(slots: list[int]) -> Iterator[tuple[int, int]]:
    """
    Neighbouring slots as (first, number), so that each run is one read.
    """
    start = 0
    for index in range(1, len(slots) + 1):
        if index == len(slots) or slots[index] != slots[index - 1] + 1:
            yield slots[start], index - start
            start = index
