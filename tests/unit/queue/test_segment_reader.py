"""
Reading segments whose bytes are not what they were: what is whole is read, the rest is told of.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.cursor import SegmentPosition
from allele_mlflow.queue.segment_reader import SegmentReader, count_unread
from allele_mlflow.queue.stream_reader import StreamReader
from allele_mlflow.records import Ledger
from tests.queue_tools import SMALL_SEGMENT, make_run, make_writer

SERIES = "s-00000000.seg"
METRICS = "m-00000000.seg"


def make_stream(tmp_path: Path) -> Path:
    """
    The folder of a closed stream with 20 readings and a series of 30.
    """
    run = make_run(tmp_path)
    writer = make_writer(run, segment_bytes=SMALL_SEGMENT)
    for step in range(20):
        writer.metric("m", float(step), step)
    writer.series("s", [float(number) for number in range(30)], first_step=100)
    folder = run / spool.STREAMS / writer.stream_id
    writer.close()
    return folder


def alter(path: Path, offset: int, data: bytes) -> None:
    """
    Write over bytes of a file.
    """
    whole = path.read_bytes()
    path.write_bytes(whole[:offset] + data + whole[offset + len(data) :])


def steps_of(folder: Path, key: str) -> tuple[list[int], list[str]]:
    """
    The steps of a key as a reader of the whole stream gives them, and what it could not read.
    """
    reader = StreamReader(folder)
    steps: list[int] = []
    while not (chunk := reader.read(100)).is_empty:
        steps += [reading.step for reading in chunk.readings if reading.key == key]
        reader.commit(Ledger())
    reader.close()
    assert reader.is_finished
    return steps, reader.damage


@pytest.mark.parametrize("header", [bytes(36), b"\xff" * 36, layout.SEGMENT_MAGIC])
def test_damaged_header_costs_no_record(tmp_path: Path, header: bytes) -> None:
    """A file's name and size say what its header says: the records are read, the damage is told,
    and the file is kept.
    """
    folder = make_stream(tmp_path)
    for name in (METRICS, SERIES):
        alter(folder / name, 0, bytes(36) + b"?")
        alter(folder / name, 0, header)
    metrics, damage = steps_of(folder, "m")
    assert metrics == list(range(20))
    assert {name: sum(name in text for text in damage) for name in (METRICS, SERIES)} == {
        METRICS: 1,
        SERIES: 1,
    }
    assert (folder / METRICS).exists()


def test_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    """A header that checks and names a newer format is no damage: its records are left alone."""
    folder = make_stream(tmp_path)
    data = layout.encode_segment_header(SMALL_SEGMENT, 1)
    newer = data[:8] + (2).to_bytes(4, "little") + data[12:-4]
    alter(folder / METRICS, 0, newer + zlib.crc32(newer).to_bytes(4, "little"))
    with pytest.raises(QueueFormatError):
        SegmentReader(folder / METRICS, SegmentPosition(0))


def test_page_of_too_many_values_is_told(tmp_path: Path) -> None:
    """A page's head that promises more values than a page has makes up none."""
    folder = make_stream(tmp_path)
    alter(folder / SERIES, layout.HEADER_BYTES + 16, (1 << 40).to_bytes(8, "little"))
    assert count_unread(folder / SERIES, SegmentPosition(0), is_exact=True).record_count == 0
    steps, damage = steps_of(folder, "s")
    assert steps == []
    assert "bytes 4096 to 8192: a page of 1099511627776 values" in damage[0]


def test_steps_past_64_bits_are_rejected(tmp_path: Path) -> None:
    """A page whose steps no store could hold is rejected, each value counted."""
    folder = make_stream(tmp_path)
    alter(folder / SERIES, layout.HEADER_BYTES + 8, (layout.STEP_MAX - 5).to_bytes(8, "little"))
    reader = StreamReader(folder)
    chunks = [reader.read(100), reader.read(100)]
    rejected = [letter for chunk in chunks for letter in chunk.rejected]
    assert [letter.reason for letter in rejected] == ["bad_step"] * 30
    reader.close()


def test_absurd_counters_are_no_counts(tmp_path: Path) -> None:
    """A count of refused records that nobody can have refused is damage: it is told, and stays out
    of a ledger whose sums would fit nowhere.
    """
    folder = make_stream(tmp_path)
    alter(folder / layout.STREAM_PAGE, layout.COUNTERS_OFFSET, b"\xff" * 16)
    reader = StreamReader(folder)
    assert reader.ledger().lost == 0
    assert "a count of 18446744073709551615" in reader.damage[0]
    reader.close()
