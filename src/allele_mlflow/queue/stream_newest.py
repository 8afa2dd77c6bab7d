"""
What a stream holds last, read past everything that waits; moves nobody's reading.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout
from allele_mlflow.queue.cursor import SegmentPosition
from allele_mlflow.queue.segment_reader import RawRecord, SegmentReader, SeriesPage

#: Slots at the end of a stream in which its present step is looked for.
NEWEST_SLOTS = 256
#: Pages of a segment that are looked at for its newest values.
NEWEST_PAGES = 8


def newest_records(
    paths: Iterable[Path], limit: int, positions: Mapping[str, SegmentPosition] | None = None
) -> list[RawRecord]:
    """
    The last `limit` records of each of these metric segments, in order; of those behind a position,
    where there is one for the segment's name.
    """
    records: list[RawRecord] = []
    for path in paths:
        with contextlib.suppress(OSError, QueueFormatError):
            segment = SegmentReader(path, (positions or {}).get(path.name, SegmentPosition(0)))
            try:
                records += segment.newest(limit)
            finally:
                segment.close()
    return records


def newest_pages(
    paths: Iterable[Path], positions: Mapping[str, SegmentPosition]
) -> list[SeriesPage]:
    """
    The last pages of each of these series segments behind its position, in order.
    """
    pages: list[SeriesPage] = []
    for path in paths:
        with contextlib.suppress(OSError, QueueFormatError):
            segment = SegmentReader(path, positions.get(path.name, SegmentPosition(0)))
            try:
                pages += segment.newest_pages(NEWEST_PAGES)
            finally:
                segment.close()
    return pages


def newest_step(path: Path) -> tuple[int, int] | None:
    """
    Timestamp and step of where the benchmark is now, by its newest metric segment.

    The step of the innermost phase that is open among the last records and has one, else that of
    the last reading; None where neither is near the end.
    """
    ended: set[int] = set()
    last_reading: tuple[int, int] | None = None
    for record in reversed(newest_records([path], NEWEST_SLOTS)):
        word = layout.unpack_word(record.word)
        if word.kind == layout.KIND_PHASE_END:
            ended.add(word.instance)
        elif word.kind == layout.KIND_PHASE_BEGIN:
            if word.instance not in ended and record.step != layout.NO_STEP:
                return record.timestamp_ns, record.step
        elif word.kind == layout.KIND_METRIC and last_reading is None:
            last_reading = record.timestamp_ns, record.step
    return last_reading


def newest_ns(paths: Iterable[Path]) -> int:
    """
    When the last record or page of these segments was logged; 0 where there is none.
    """
    found = 0
    for path in paths:
        with contextlib.suppress(OSError, QueueFormatError):
            segment = SegmentReader(path, SegmentPosition(0))
            try:
                found = max(found, segment.newest_ns())
            finally:
                segment.close()
    return found
