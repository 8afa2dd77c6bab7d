"""
The hot path and its slow sides, one process.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from allele_mlflow.errors import ErrorKind, RecordError
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.locks import is_writer_alive
from allele_mlflow.queue.writer import DEAD_LETTERS_PER_KEY, StreamWriter
from allele_mlflow.records import KeyDefined, RecordRejected, TagSet
from tests.queue_tools import Collected, make_reader, make_run, make_writer, read_all

BIG_SEGMENT = layout.HEADER_BYTES + 16 * layout.PAGE_BYTES


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """
    An empty run.
    """
    return make_run(tmp_path)


@pytest.fixture
def writer(run: Path) -> Iterator[StreamWriter]:
    """
    A writer into it.
    """
    made = make_writer(run, segment_bytes=BIG_SEGMENT)
    yield made
    made.close()


def arrived(run: Path) -> Collected:
    """
    Everything that a run's streams hold.
    """
    reader = make_reader(run)
    try:
        return read_all(reader)
    finally:
        reader.close()


@pytest.mark.parametrize(
    "value",
    [1, True + 1, np.float64(1.5), np.float32(1.5), np.int8(3), np.array(2.5), Decimal("1.5")],
)
def test_number_of_any_kind_is_kept(run: Path, writer: StreamWriter, value: Any) -> None:
    """Python, NumPy and other numbers arrive as the float that they are."""
    writer.metric("a", value, 1)
    assert [r.value for r in arrived(run).readings] == [float(value)]


@pytest.mark.parametrize("step", [5, np.int64(5), np.uint8(5), 5.0])
def test_integer_step_of_any_kind_is_kept(run: Path, writer: StreamWriter, step: Any) -> None:
    """A step may be any integer, also one in a float's clothes."""
    writer.metric("a", 1.0, step)
    assert [r.step for r in arrived(run).readings] == [5]


@pytest.mark.parametrize(
    "value", ["1.0", b"1", None, True, np.bool_(True), 1j, [1.0], np.zeros(2), object()]
)
def test_bad_value_is_set_aside(run: Path, writer: StreamWriter, value: Any) -> None:
    """What is no number is counted and kept as a dead letter; the next reading is untouched."""
    writer.metric("a", value, 1)
    writer.metric("a", 2.0, 2)
    found = arrived(run)
    assert [r.step for r in found.readings] == [2]
    assert writer.counters.as_dict() == {"rejected.bad_value": 1}
    letters = [e for e in found.events if isinstance(e, RecordRejected)]
    assert [(e.reason, e.key) for e in letters] == [("bad_value", "'a'")]


@pytest.mark.parametrize("step", [1.5, "1", float("nan"), 1 << 63, -(1 << 63) - 1, object()])
def test_bad_step_is_set_aside(run: Path, writer: StreamWriter, step: Any) -> None:
    """A step that is no 64-bit integer leaves no slot behind that anybody would wait for."""
    writer.metric("a", 1.0, 0)
    writer.metric("a", 1.0, step)
    writer.metrics({"a": 1.0}, step)
    writer.series("a", [1.0], step)
    writer.close()
    reader = make_reader(run)
    assert [r.step for r in read_all(reader).readings] == [0]
    ledger = reader.ledger(is_exact=True)
    assert (ledger.rejected, ledger.torn, ledger.pending) == ({"bad_step": 3}, 0, 0)


@pytest.mark.parametrize("key", ["", "a//b", "/a", "a%", "x" * 251, "a\n", 5, None, ["list"]])
def test_bad_key_is_set_aside(run: Path, writer: StreamWriter, key: Any) -> None:
    """A key that MLflow would refuse, and with it the batch, never gets into one."""
    writer.metric(key, 1.0, 1)
    writer.series(key, [1.0, 2.0])
    assert arrived(run).readings == []
    assert writer.counters.as_dict() == {"rejected.bad_key": 3}


def test_strict_writer_raises_and_counts(run: Path) -> None:
    """With strict=True a mistake raises, naming key, value and rule."""
    writer = make_writer(run, strict=True)
    with pytest.raises(RecordError, match=r"metric\('a', 'x'\): want a number, got str") as caught:
        writer.metric("a", "x", 1)  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.BAD_VALUE
    with pytest.raises(RecordError, match="bad%"):
        writer.metric("bad%", 1.0, 1)
    with pytest.raises(RecordError, match="integer step"):
        writer.metrics({"a": 1.0}, step=1.5)  # type: ignore[arg-type]
    writer.metric("a", 1.0, 1)
    writer.close()
    assert len(arrived(run).readings) == 1


def test_mistake_is_told_once_a_key(run: Path) -> None:
    """The thousandth mistake of a key is counted; a hundred are kept; the first is told."""
    told: list[str] = []
    writer = make_writer(run, on_mistake=lambda key, text: told.append(key))
    for step in range(300):
        writer.metric("a", None, step)  # type: ignore[arg-type]
    writer.metric("b", None, 1)  # type: ignore[arg-type]
    writer.close()
    assert told == ["'a'", "'b'"]
    letters = [e for e in arrived(run).events if isinstance(e, RecordRejected)]
    assert len(letters) == DEAD_LETTERS_PER_KEY + 1
    assert writer.counters.as_dict() == {"rejected.bad_value": 301}


def test_reading_without_step_is_numbered(run: Path, writer: StreamWriter) -> None:
    """Each key's readings without a step are numbered 0, 1, 2, ... by themselves."""
    for _ in range(3):
        writer.metric("a", 1.0)
        writer.metrics({"b": 1.0, "a": 2})
    steps = [(r.key, r.step) for r in arrived(run).readings]
    assert sorted(steps) == [("a", n) for n in range(6)] + [("b", n) for n in range(3)]


def test_nan_and_infinities_are_numbers(run: Path, writer: StreamWriter) -> None:
    """NaN and infinities are kept; what MLflow makes of them is its own."""
    values = [float("nan"), float("inf"), float("-inf"), -0.0]
    for step, value in enumerate(values):
        writer.metric("a", value, step)
    assert [repr(r.value) for r in arrived(run).readings] == [repr(v) for v in values]


def test_one_bad_of_many_spoils_no_other(run: Path, writer: StreamWriter) -> None:
    """metrics() keeps the good ones of a mapping."""
    writer.metrics({"a": 1.0, "b%": 2.0, "c": "x", "d": 3}, 7)  # type: ignore[dict-item]
    assert [(r.key, r.value) for r in arrived(run).readings] == [("a", 1.0), ("d", 3.0)]
    writer.metrics(5, 1)  # type: ignore[arg-type]
    assert writer.counters.as_dict() == {"rejected.bad_value": 2, "rejected.bad_key": 1}


@pytest.mark.parametrize(
    "values",
    [
        np.arange(3.0),
        np.arange(3),
        np.arange(3, dtype="f4"),
        np.arange(6.0)[::2] / 2,
        np.arange(3.0)[::-1][::-1],
        [0, 1, 2],
        (Fraction(0), 1.0, np.float32(2)),
        range(3),
        array("d", [0, 1, 2]),
        array("i", [0, 1, 2]),
        (n for n in range(3)),
    ],
)
def test_array_of_any_kind_is_kept(run: Path, writer: StreamWriter, values: Any) -> None:
    """series() takes arrays and sequences of numbers, contiguous or not."""
    writer.series("a", values, first_step=10)
    assert [(r.step, r.value) for r in arrived(run).readings] == [(10, 0.0), (11, 1.0), (12, 2.0)]


@pytest.mark.parametrize(
    ("values", "number"),
    [
        (np.zeros((2, 2)), 1),
        (np.array(["a"]), 1),
        (np.array([True]), 1),
        ("123", 1),
        (5, 1),
        ([1, None], 2),
        ([[1.0]], 1),
        ((n for n in "ab"), 1),
    ],
)
def test_bad_array_is_set_aside(run: Path, writer: StreamWriter, values: Any, number: int) -> None:
    """What is no array of numbers, shape (n,), is counted: each value of a list, else one."""
    writer.series("a", values)
    assert arrived(run).readings == []
    assert writer.counters.as_dict() == {"rejected.bad_value": number}


def test_array_is_copied_before_the_call_returns(run: Path, writer: StreamWriter) -> None:
    """Who changes an array after the call changes nothing that was logged."""
    values = np.arange(1000.0)
    writer.series("a", values)
    values[:] = -1
    assert [r.value for r in arrived(run).readings] == list(np.arange(1000.0))


def test_key_defined_by_eight_threads_has_one_name(run: Path) -> None:
    """Threads that meet at a new key may define it twice, and never mix up two keys."""
    writer = make_writer(run)
    barrier = threading.Barrier(8)

    def log(thread: int) -> None:
        barrier.wait()
        for step in range(200):
            writer.metric(f"key/{step}", float(step), thread)

    threads = [threading.Thread(target=log, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    found = arrived(run).readings
    assert len(found) == 1600
    assert all(r.key == f"key/{int(r.value)}" for r in found)


def test_closed_writer_drops_and_counts(run: Path) -> None:
    """After close every call is counted as dropped, and none raises."""
    writer = make_writer(run)
    writer.close()
    writer.metric("a", 1.0, 1)
    writer.metrics({"a": 1.0, "b": 2.0}, 1)
    writer.series("a", [1.0, 2.0, 3.0])
    writer.phase_edge("p", 1, writer.phase_edge("p", 1))
    assert not writer.event(TagSet(timestamp_ns=1, key="k", value="v"))
    assert writer.counters.as_dict() == {"dropped.closed": 8}
    assert not writer.close()


def test_writer_without_spool_counts() -> None:
    """Where no spool can be written the run goes on, and everything is counted."""
    writer = StreamWriter(None, check_key=lambda key: None)
    for step in range(10):
        writer.metric("a", 1.0, step)
    writer.series("a", [1.0] * 5)
    assert writer.counters.as_dict() == {"dropped.no_spool": 15}


def test_spool_that_vanishes_is_counted(run: Path) -> None:
    """A spool folder deleted under the writer costs records from then on, and no exception."""
    import shutil

    writer = make_writer(run)
    writer.metric("a", 1.0, 0)
    shutil.rmtree(run)
    for step in range(200):
        writer.metric("a", 1.0, step)
    assert writer.counters.as_dict() == {"dropped.no_spool": 200 + 1 - 64}


def test_full_disk_drops_and_goes_on_when_there_is_room(run: Path) -> None:
    """No room for a segment: drops, counted; once there is room again, records are kept again."""
    writer = make_writer(run)
    with mock.patch.object(spool, "allocate", side_effect=OSError(28, "no space")):
        for step in range(100):
            writer.metric("a", 1.0, step)
    assert writer.counters.as_dict() == {"dropped.disk_full": 100 - 64}
    writer._retry_at_s = 0.0
    writer.metric("a", 1.0, 1000)
    writer.close()
    steps = [r.step for r in arrived(run).readings]
    assert steps == [*range(64), 1000]


def test_disk_that_is_full_from_the_start_is_named(run: Path) -> None:
    """Where not even a stream can be made, the ledger says that it was the disk."""
    with mock.patch.object(spool, "allocate", side_effect=OSError(28, "no space")):
        writer = make_writer(run)
        writer.metric("a", 1.0, 0)
    assert writer.counters.as_dict() == {"dropped.disk_full": 1}


def test_nothing_can_be_mapped(run: Path) -> None:
    """Without address space for a map, not even of the stream's page, records are written."""
    with mock.patch("allele_mlflow.queue.stream_files.mmap.mmap", side_effect=OSError(12, "x")):
        writer = make_writer(run)
        for step in range(100):
            writer.metric("a", 1.0, step)
        writer.metric("a", "x", 1)  # type: ignore[arg-type]
    writer.close()
    reader = make_reader(run)
    assert [r.step for r in read_all(reader).readings] == list(range(100))
    assert reader.ledger(is_exact=True).rejected == {"bad_value": 1}


def test_key_that_cannot_be_defined_is_not_used(run: Path, writer: StreamWriter) -> None:
    """Where the event log takes no frame, a new key's readings are dropped, counted, not
    misnamed.
    """
    with mock.patch("allele_mlflow.queue.stream_files.append_event", side_effect=OSError(28, "x")):
        writer.metric("a", 1.0, 1)
        assert not writer.event(TagSet(timestamp_ns=1, key="k", value="v"))
    writer.metric("a", 2.0, 2)
    found = arrived(run)
    assert [r.step for r in found.readings] == [2]
    assert writer.counters.as_dict() == {"dropped.key_unwritten": 1, "dropped.disk_full": 1}


def test_forked_child_writes_a_stream_of_its_own(run: Path, writer: StreamWriter) -> None:
    """After os.fork both sides log under their own keys and numbers; neither touches the
    other's.
    """
    writer.metric("before", 1.0, 0)
    pid = os.fork()
    if pid == 0:
        for step in range(100):
            writer.metric("child", 1.0, step)
        os._exit(0)
    for step in range(100):
        writer.metric("parent", 1.0, step)
    assert os.waitpid(pid, 0)[1] == 0
    writer.close()
    found = arrived(run).readings
    assert sorted(r.key for r in found) == ["before"] + ["child"] * 100 + ["parent"] * 100
    assert len(list((run / spool.STREAMS).iterdir())) == 2


def test_child_that_lives_on_does_not_keep_the_parents_stream(run: Path) -> None:
    """A forked child's copy of the lock is closed: the parent's end is seen though the child
    lives.
    """
    writer = make_writer(run)
    stream = run / spool.STREAMS / writer.stream_id
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    writer.close()
    assert not is_writer_alive(stream)
    os.close(writing)
    os.waitpid(pid, 0)
    os.close(reading)


def test_key_is_defined_once(run: Path, writer: StreamWriter) -> None:
    """A key's name is written once, however often it is used."""
    for step in range(100):
        writer.metric("a", 1.0, step)
    stream = next((run / spool.STREAMS).iterdir())
    from allele_mlflow.queue.events import EventReader

    events = [f.event for f in EventReader(stream / layout.EVENT_LOG).read(limit=100)]
    assert [e.name for e in events if isinstance(e, KeyDefined)] == ["a"]


def test_metrics_of_a_dict_takes_the_short_way(run: Path, writer: StreamWriter) -> None:
    """Ten known keys with floats and a step never reach the slow path."""
    values = {f"k{n}": float(n) for n in range(10)}
    writer.metrics(values, 0)
    with mock.patch.object(StreamWriter, "_log_slowly") as slowly:
        writer.metrics(values, 1)
        writer.metric("k1", 1.0, 2)
    slowly.assert_not_called()
    assert len(arrived(run).readings) == 21


def test_spare_segment_is_used(run: Path) -> None:
    """The segment that the sidecar made ready becomes the next one, and is not made again."""
    writer = make_writer(run)
    reader = make_reader(run)
    writer.metric("a", 1.0, 0)
    read_all(reader)
    stream = next(iter(reader.streams.values()))
    stream.prepare_spare()
    spare = stream.folder / layout.SPARE
    inode = spare.stat().st_ino
    for step in range(1, 100):
        writer.metric("a", 1.0, step)
    assert not spare.exists()
    assert (stream.folder / layout.segment_name("m", 1)).stat().st_ino == inode
    writer.close()
    read_all(reader)
    assert reader.ledger().delivered == {"metric": 100}
    reader.close()
