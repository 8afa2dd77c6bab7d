"""
What is written through to the disk for a power failure, and what must not be.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.write_through import WriteThrough
from allele_mlflow.records import RunSpec
from tests.queue_tools import make_reader, make_run, make_spec, make_writer, read_all


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    The names of the files that were written through, in order.
    """
    names: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return names


def test_segment_that_is_written_to_is_left_alone(tmp_path: Path, synced: list[str]) -> None:
    """Full segments go to the disk, behind the keys that name their readings; the last one not."""
    run = make_run(tmp_path)
    spool.write_struct(run / spool.RUN_FILE, make_spec())
    writer = make_writer(run)
    for step in range(150):  # 64 a segment
        writer.metric("m", float(step), step)
    writer.series("s", [1.0] * 2000)
    through = WriteThrough(run)
    through.write(finished=[])
    segments = {layout.segment_name("m", 0), layout.segment_name("m", 1)}
    assert segments <= set(synced)
    assert layout.segment_name("m", 2) not in synced
    assert synced.index(layout.EVENT_LOG) < min(synced.index(name) for name in segments)
    assert spool.RUN_FILE in synced
    reader = make_reader(run)
    reader.discover()
    exposed = reader.unread_outside(through.segments)
    pages = reader.unread_outside({}) - 150
    assert 150 - 128 <= exposed <= 150 - 128 + pages
    synced.clear()
    through.write(finished=[])
    assert synced == [], "nothing new, nothing written"
    writer.close()
    through.write(finished=[writer.stream_id or os.listdir(run / spool.STREAMS)[0]])
    assert layout.segment_name("m", 2) in synced
    assert reader.unread_outside(through.segments) == 0
    assert len(read_all(reader).readings) == 2150
    reader.close()


def test_disk_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written through counts as exposed, until it could."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for step in range(150):
        writer.metric("m", float(step), step)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    through = WriteThrough(run)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        through.write(finished=[])
    reader = make_reader(run)
    reader.discover()
    assert reader.unread_outside(through.segments) == 150
    through.write(finished=[])
    assert reader.unread_outside(through.segments) == 150 - 128
    reader.close()


def test_description_carries_the_wish() -> None:
    """A run is as durable as a kill needs, unless it says more; old descriptions do not say."""
    assert make_spec().durability == "process"
    assert RunSpec.__struct_fields__[-7:] == (
        *("durability", "sampling"),
        *("executable", "usable_cpu_count", "thread_limits"),
        *("alert_rules", "alerts_file"),
    ), "fields are appended"
