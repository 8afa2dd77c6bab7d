"""
Spool files whose bytes were cut off or changed: the reader gives what is whole, tells of what is
not, and comes to an end.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.events import EventReader, encode_frame
from allele_mlflow.records import KeyDefined, ParamLogged
from tests.queue_tools import (
    SMALL_SERIES_SEGMENT,
    Collected,
    make_reader,
    make_run,
    make_writer,
    read_all,
)

RECORDS = 64
SERIES_VALUES = 3 * layout.SERIES_PAGE_VALUES


def read_prefix(run: Path, file: Path, size: int, whole: bytes) -> Collected:
    """
    What a fresh reader gives where only so many bytes of a file are there.
    """
    file.write_bytes(whole[:size])
    reader = make_reader(run)
    try:
        return read_all(reader, limit=100)
    finally:
        reader.close()
        (file.parent / layout.CURSOR).unlink(missing_ok=True)


def test_every_prefix_of_a_metric_segment(tmp_path: Path) -> None:
    """Of a metric segment cut off at any byte, exactly the whole records are delivered."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for step in range(RECORDS):
        writer.metric("m", float(step), step)
    file = run / spool.STREAMS / writer.stream_id / layout.segment_name(layout.METRIC_LANE, 0)
    whole = file.read_bytes()
    sizes = [*range(0, layout.HEADER_BYTES, 61), *range(layout.HEADER_BYTES, len(whole) + 1)]
    for size in sizes:
        got = read_prefix(run, file, size, whole)
        count = max(0, size - layout.HEADER_BYTES) // layout.RECORD_BYTES
        assert [(r.key, r.step, r.value) for r in got.readings] == [
            ("m", step, float(step)) for step in range(count)
        ], size


def test_every_prefix_of_a_series_segment(tmp_path: Path) -> None:
    """Of a series segment cut off anywhere, exactly the whole pages are delivered."""
    run = make_run(tmp_path)
    writer = make_writer(run, segment_bytes=SMALL_SERIES_SEGMENT)
    writer.series("s", [float(step) for step in range(SERIES_VALUES)])
    file = run / spool.STREAMS / writer.stream_id / layout.segment_name(layout.SERIES_LANE, 0)
    whole = file.read_bytes()
    edges = [edge + by for edge in range(0, len(whole), layout.PAGE_BYTES) for by in (-1, 1)]
    for size in sorted({*range(0, len(whole) + 1, 32), *(max(0, edge) for edge in edges)}):
        got = read_prefix(run, file, size, whole)
        pages = max(0, size - layout.HEADER_BYTES) // layout.PAGE_BYTES
        assert [reading.step for reading in got.readings] == list(
            range(pages * layout.SERIES_PAGE_VALUES)
        ), size


def test_every_prefix_of_an_event_log(tmp_path: Path) -> None:
    """Of an event log cut off at any byte, exactly the whole events are delivered."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for number in range(10):
        writer.event(ParamLogged(timestamp_ns=1, key=f"p/{number}", value="v"))
    file = run / spool.STREAMS / writer.stream_id / layout.EVENT_LOG
    whole = file.read_bytes()
    ends = [frame.end_offset for frame in EventReader(file).read(limit=100)]
    for size in range(len(whole) + 1):
        got = read_prefix(run, file, size, whole)
        keys = [event.key for event in got.events if isinstance(event, ParamLogged)]
        assert keys == [f"p/{n}" for n in range(sum(end <= size for end in ends))], size


def test_short_segment_is_told_of(tmp_path: Path) -> None:
    """A segment that was cut off stands in the stream's damage, once."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    writer.metric("m", 1.0, 1)
    file = run / spool.STREAMS / writer.stream_id / layout.segment_name(layout.METRIC_LANE, 0)
    whole = file.read_bytes()
    file.write_bytes(whole[: -layout.RECORD_BYTES])
    reader = make_reader(run)
    assert len(read_all(reader).readings) == 1
    cut = len(whole) - layout.RECORD_BYTES
    assert reader.damage() == [f"{file}: {cut} of {len(whole)} bytes"]
    reader.close()


@pytest.mark.parametrize("byte", range(layout.FRAME_HEAD.size))
def test_damaged_event_is_told_of(tmp_path: Path, byte: int) -> None:
    """A damaged event is skipped, and its bytes stand in the stream's damage."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for number in range(3):
        writer.event(ParamLogged(timestamp_ns=1, key=f"p/{number}", value="v"))
    log = run / spool.STREAMS / writer.stream_id / layout.EVENT_LOG
    data, size = bytearray(log.read_bytes()), len(log.read_bytes()) // 3
    data[size + byte] ^= 0x20
    log.write_bytes(data)
    reader = make_reader(run)
    got = read_all(reader)
    keys = [event.key for event in got.events if isinstance(event, ParamLogged)]
    assert keys == ["p/0", "p/2"]
    assert reader.damage() == [f"{log}: bytes {size} to {2 * size} are no event"]
    reader.close()


def test_damaged_key_gives_its_readings_no_other_name(tmp_path: Path) -> None:
    """Readings whose key's definition is damaged are rejected, and stand under no other name."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for step in range(4):
        writer.metric("a", 1.0, step)
        writer.metric("b", 2.0, step)
    log = run / spool.STREAMS / writer.stream_id / layout.EVENT_LOG
    frame = EventReader(log).read(limit=1)[0]
    assert isinstance(frame.event, KeyDefined)
    data = bytearray(log.read_bytes())
    data[len(encode_frame(frame.event)) - 1] ^= 1
    log.write_bytes(data)
    reader = make_reader(run)
    chunks = [chunk for _, chunk in reader.read(100)]
    names = {reading.key for chunk in chunks for reading in chunk.readings}
    assert names == {"b"}
    assert [one.reason for chunk in chunks for one in chunk.rejected] == ["unknown_key"] * 4
    reader.close()
