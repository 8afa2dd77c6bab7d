"""
The event lane's frames, whole and damaged.
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from allele_mlflow.queue import layout
from allele_mlflow.queue.events import (
    MAX_RANGES,
    EventReader,
    UnknownEvent,
    append_event,
    encode_frame,
)
from allele_mlflow.records import AnyEvent, Event, KeyDefined, ParamLogged, RunEnded, TagSet

SAMPLES: list[Event] = [
    KeyDefined(timestamp_ns=1, key_id=7, name="fitness/best"),
    ParamLogged(timestamp_ns=2, key="größe", value="x" * 300),
    TagSet(timestamp_ns=3, key="t", value=""),
    RunEnded(timestamp_ns=4, status="FINISHED", slots={"m-00000000.seg": 12}, overhead_ratio=0.1),
]


def read(path: Path, *, is_final: bool = True) -> list[Event]:
    """
    All events of a log.
    """
    return [f.event for f in EventReader(path).read(limit=1000, is_final=is_final)]


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    """What is appended is read, in order, whatever kind it is."""
    log = tmp_path / "events.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for event in SAMPLES:
        append_event(descriptor, event)
    os.close(descriptor)
    assert read(log) == SAMPLES


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    """A reader that starts behind a frame gives the next ones."""
    log = tmp_path / "events.log"
    log.write_bytes(b"".join(encode_frame(e) for e in SAMPLES))
    first = EventReader(log).read(limit=2)
    again = EventReader(log, first[-1].end_offset).read(limit=10)
    assert [f.event for f in again] == SAMPLES[2:]


@pytest.mark.parametrize("cut", range(0, len(encode_frame(SAMPLES[1])), 7))
def test_every_prefix_keeps_the_whole_frames(tmp_path: Path, cut: int) -> None:
    """A log cut at any byte gives every frame before the cut, and waits for a living writer."""
    log = tmp_path / "events.log"
    log.write_bytes(encode_frame(SAMPLES[0]) + encode_frame(SAMPLES[1])[:cut])
    assert read(log, is_final=False) == SAMPLES[:1]
    assert read(log, is_final=True) == SAMPLES[:1]


@given(
    position=st.integers(0, 10_000),
    junk=st.binary(min_size=1, max_size=40),
    overwrite=st.booleans(),
)
def test_damage_costs_only_the_frames_it_touches(
    tmp_path_factory: pytest.TempPathFactory, position: int, junk: bytes, overwrite: bool
) -> None:
    """Bytes written over, or thrown in between, lose the frame they hit; the reader finds the
    next.
    """
    frames = [encode_frame(TagSet(timestamp_ns=1000 + i, key="k", value="v")) for i in range(20)]
    data = bytearray(b"".join(frames))
    position %= len(data)
    hit = position // len(frames[0])
    data[position : position + (len(junk) if overwrite else 0)] = junk
    log = tmp_path_factory.mktemp("log") / "events.log"
    log.write_bytes(bytes(data))
    found = {e.timestamp_ns - 1000 for e in read(log) if isinstance(e, TagSet)}
    assert set(range(hit)) <= found
    last_hit = (position + len(junk)) // len(frames[0])
    assert set(range(last_hit + 2, 20)) <= found


def test_short_write_is_an_error(tmp_path: Path) -> None:
    """A frame that a full disk took in part is not called written, and the next one is read."""
    log = tmp_path / "events.log"
    log.write_bytes(encode_frame(SAMPLES[0])[:-3] + encode_frame(SAMPLES[2]))
    assert read(log, is_final=False) == [SAMPLES[2]]


def test_event_of_a_newer_version_is_passed_over(tmp_path: Path) -> None:
    """A frame that checks and that this version does not know is no damage."""

    class FromTheFuture(Event, frozen=True, tag="future"):
        wings: int

    log = tmp_path / "events.log"
    log.write_bytes(encode_frame(FromTheFuture(timestamp_ns=1, wings=2)) + encode_frame(SAMPLES[2]))
    reader = EventReader(log)
    found = [f.event for f in reader.read(limit=10)]
    assert found == [UnknownEvent(timestamp_ns=0), SAMPLES[2]]
    assert reader.skipped_bytes == 0


def test_absurd_length_is_not_believed(tmp_path: Path) -> None:
    """A length beyond all frames is damage, not a request for four gigabytes."""
    head = layout.FRAME_HEAD.pack(layout.FRAME_MAGIC, 0xFFFFFFF0, 1)
    log = tmp_path / "events.log"
    log.write_bytes(head + encode_frame(SAMPLES[2]))
    assert read(log, is_final=False) == [SAMPLES[2]]


def test_every_event_has_a_name_of_its_own() -> None:
    """The tags on disk are distinct: they are what an event is known by."""
    kinds = AnyEvent.__args__
    tags = [kind.__struct_config__.tag for kind in kinds]
    assert len(set(tags)) == len(tags)


def test_damage_is_told_with_its_bytes(tmp_path: Path) -> None:
    """What was no frame is named by its range, however many magics are in it; where there are
    very many, the last range takes in the rest.
    """
    frames = [encode_frame(event) for event in SAMPLES]
    log = tmp_path / "events.log"
    junk = layout.FRAME_MAGIC + b"no frame" + layout.FRAME_MAGIC + b"nor this"
    log.write_bytes(frames[0] + junk + frames[1] + bytes(30) + frames[2] + frames[3][:-1])
    reader = EventReader(log)
    assert len(reader.read(limit=10, is_final=True)) == 3
    first = len(frames[0])
    second = first + len(junk) + len(frames[1])
    third = second + 30 + len(frames[2])
    assert reader.skipped == [
        (first, first + len(junk)),
        (second, second + 30),
        (third, third + len(frames[3]) - 1),
    ]
    log.write_bytes((b"?" + frames[0]) * 100)
    many = EventReader(log)
    assert len(many.read(limit=200)) == 100
    assert (len(many.skipped), many.skipped_bytes) == (MAX_RANGES, 100)
    assert many.skipped[-1][1] == 99 * (1 + len(frames[0])) + 1


@pytest.mark.parametrize("cut", range(1, len(encode_frame(SAMPLES[1])), 11))
def test_frame_that_a_full_disk_cut_is_told_apart(tmp_path: Path, cut: int) -> None:
    """Its call raised, and was counted; frames that follow are read."""
    frames = [encode_frame(event) for event in SAMPLES]
    log = tmp_path / "events.log"
    log.write_bytes(frames[0] + frames[1][:cut] + frames[2])
    reader = EventReader(log)
    assert [f.event for f in reader.read(limit=10, is_final=True)] == [SAMPLES[0], SAMPLES[2]]
    assert (reader.skipped, reader.skipped_bytes) == ([], 0)
    assert reader.cut == [(len(frames[0]), len(frames[0]) + cut)]


@pytest.mark.parametrize("bit", [1, 1 << 10])
def test_whole_frame_with_a_damaged_length_is_damage(tmp_path: Path, bit: int) -> None:
    """A frame whose length became larger is no cut one: its call had returned."""
    frames = [bytearray(encode_frame(event)) for event in SAMPLES]
    length = int.from_bytes(frames[1][4:8], "little")
    frames[1][4:8] = (length | bit if not length & bit else length + 2 * bit).to_bytes(4, "little")
    log = tmp_path / "events.log"
    log.write_bytes(b"".join(frames))
    reader = EventReader(log)
    assert SAMPLES[2] in [f.event for f in reader.read(limit=10, is_final=True)]
    assert reader.skipped == [(len(frames[0]), len(frames[0]) + len(frames[1]))]


def test_zeros_are_no_frame(tmp_path: Path) -> None:
    """A head whose length and checksum are zeros is damage, though zero is the checksum of
    nothing.
    """
    log = tmp_path / "events.log"
    log.write_bytes(layout.FRAME_MAGIC + bytes(8) + encode_frame(SAMPLES[2]))
    reader = EventReader(log)
    assert [f.event for f in reader.read(limit=10)] == [SAMPLES[2]]
    assert reader.skipped == [(0, 12)]
