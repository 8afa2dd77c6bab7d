"""
Reading one stream: which lane comes when, how far a mark reaches, what is damage and what is not.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.events import encode_frame
from allele_mlflow.queue.stream_reader import StreamReader
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import TagSet
from tests.queue_tools import SMALL_SERIES_SEGMENT, make_run, make_writer, outcome_of


def reader_of(run: Path, writer: StreamWriter) -> StreamReader:
    """
    A reader of the writer's stream.
    """
    return StreamReader(run / spool.STREAMS / writer.stream_id)


def test_lanes_take_turns(tmp_path: Path) -> None:
    """A backlog of single readings does not keep a series waiting, nor the other way round."""
    run = make_run(tmp_path)
    writer = make_writer(run, segment_bytes=SMALL_SERIES_SEGMENT)
    for step in range(3000):
        writer.metric("m", 1.0, step)
    writer.series("s", [2.0] * 3000)
    reader = reader_of(run, writer)
    for _ in range(4):
        chunk = reader.read(50)
        reader.commit(outcome_of(chunk))
    seen = reader.totals.delivered["metric"]
    writer.close()
    late = [reading.key for _ in range(4) for reading in reader.read(50).readings]
    assert 0 < late.count("m") < len(late)
    assert seen < 3000
    reader.close()


def test_mark_is_passed_when_all_before_it_was_read(tmp_path: Path) -> None:
    """Newer records, of whatever lane, do not pass for older ones; slots not yet written are no
    part of a mark.
    """
    run = make_run(tmp_path)
    writer = make_writer(run, segment_bytes=SMALL_SERIES_SEGMENT)
    writer.series("s", [2.0] * 3000)
    for step in range(500):
        writer.metric("m", 1.0, step)
    next(writer._lane[1])  # a call that has taken its slot and not returned
    writer.metric("m", 1.0, 500)
    writer.event(TagSet(timestamp_ns=1, key="t", value="v"))
    reader = reader_of(run, writer)
    mark = reader.mark()
    for step in range(5000):
        writer.metric("later", 1.0, step)
    before = 0
    while not reader.has_passed(mark):
        chunk = reader.read(100)
        assert not chunk.is_empty, "no end in sight"
        before += sum(reading.key != "later" for reading in chunk.readings)
        reader.commit(outcome_of(chunk))
    assert before == 3501
    assert reader.totals.delivered["tag"] == 1
    reader.close()
    writer.close()


def test_shortage_of_descriptors_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that cannot be opened for want of a descriptor is read when there is one again."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for step in range(200):
        writer.metric("m", 1.0, step)
    reader = reader_of(run, writer)
    writer.close()
    real_open = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".seg"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real_open(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    for _ in range(3):
        chunk = reader.read(100)
        if not chunk.is_empty:
            reader.commit(outcome_of(chunk))
        assert not chunk.readings
    assert (reader.is_finished, reader.damage) == (False, [])
    monkeypatch.setattr(os, "open", real_open)
    found = 0
    while not (chunk := reader.read(100)).is_empty:
        found += len(chunk.readings)
        reader.commit(outcome_of(chunk))
    assert found == 200
    assert reader.is_finished
    reader.close()


@pytest.mark.parametrize("is_counted", [False, True])
def test_cut_frame_is_damage_unless_the_writer_counted_it(tmp_path: Path, is_counted: bool) -> None:
    """A frame that a full disk cut is among the dropped; where nothing was dropped it is damage."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    writer.event(TagSet(timestamp_ns=1, key="a", value="b"))
    stream = run / spool.STREAMS / writer.stream_id
    with (stream / layout.EVENT_LOG).open("ab") as log:
        log.write(encode_frame(TagSet(timestamp_ns=2, key="cut", value="x" * 50))[:30])
    writer.event(TagSet(timestamp_ns=3, key="c", value="d"))
    if is_counted:
        writer.counters.count("dropped.disk_full")
    writer.close()
    reader = StreamReader(stream)
    events = reader.read(100).events
    assert [frame.event.key for frame in events if isinstance(frame.event, TagSet)] == ["a", "c"]
    assert bool(reader.damage) is not is_counted
    reader.close()
