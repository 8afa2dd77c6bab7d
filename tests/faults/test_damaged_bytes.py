"""
Damaged bytes in a spool: every prefix of a file, and mutations of all files by a seed.

`make test` mutates `USUAL` runs. `make test-deep` mutates `DEEP` of them: it is the Hypothesis
profile that says which, by its `max_examples`, as it does for the property tests. `CHUNKS` tests
share the runs, each with seeds of its own. One such batch again, by hand:
`python -m allele_mlflow.drill.damage SEED MUTATIONS`.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.sync_outcome import SyncOutcome
from allele_mlflow.drill.damage import BATCH, attack, attack_everywhere, sum_up
from allele_mlflow.drill.mutation import mutate
from allele_mlflow.drill.sample_run import (
    SampleRun,
    deliver,
    frames_of,
    make_sample_run,
    write_sparse,
)
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.cursor import SegmentPosition
from allele_mlflow.queue.segment_reader import SegmentReader
from allele_mlflow.queue.stream_reader import StreamReader
from allele_mlflow.records import Ledger, ParamLogged, RunEnded, StreamEnded
from allele_mlflow.testing import MemoryTracking
from allele_mlflow.watching.spools import spooled_runs
from tests.queue_tools import SMALL_SEGMENT, make_run, make_writer

USUAL = 300
DEEP = 10_000
CHUNKS = 10
#: Mutations of streams that are being written.
LIVE = 60
SEED = 20_260
SERIES_VALUES = 500
SIZES = {"m-00000000.seg": SMALL_SEGMENT, "s-00000000.seg": layout.HEADER_BYTES + layout.PAGE_BYTES}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    """
    The run that is copied and damaged.
    """
    return make_sample_run(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def mutations() -> int:
    """
    How many runs one of the tests damages.
    """
    deep = hypothesis.settings.get_profile("deep").max_examples
    is_deep = hypothesis.settings().max_examples >= deep
    return math.ceil((DEEP if is_deep else USUAL) / CHUNKS)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damaged_spools(tmp_path: Path, sample: SampleRun, mutations: int, chunk: int) -> None:
    """Whatever happens to the bytes of a spool, delivery ends in time and fails for no run, every
    intact record arrives, nothing is made up, and what is missing is told.
    """
    for start in range(0, mutations, BATCH):
        seed = SEED + 1000 * chunk + start // BATCH
        count = min(BATCH, mutations - start)
        trial = sum_up(attack(tmp_path / "spool", sample, seed=seed, count=count), seed=seed)
        assert not trial.problems, "\n".join(trial.problems[:5])
        assert (trial.lost, trial.duplicated) == (0, 0)
        assert trial.accepted == count * len(sample.items)


def test_damage_everywhere_at_once(tmp_path: Path, sample: SampleRun, mutations: int) -> None:
    """Damage in several files of a run is survived as well: it is delivered to its end, in time."""
    for start in range(0, mutations, BATCH):
        count = min(BATCH, mutations - start)
        problems = attack_everywhere(tmp_path / "spool", sample, seed=SEED + start, count=count)
        assert not problems, "\n".join(problems[:5])


def make_stream(tmp_path: Path) -> Path:
    """
    The folder of a stream with a metric segment of 64 records, a page of a series, and events; its
    writer was killed.
    """
    run = make_run(tmp_path)
    writer = make_writer(run, segment_bytes=SMALL_SEGMENT)
    for step in range(64):
        writer.metric("m", float(step), step)
    writer.series("s", [float(number) for number in range(SERIES_VALUES)])
    for number in range(10):
        writer.event(ParamLogged(timestamp_ns=1, key=f"p{number}", value="v" * number))
    folder = run / spool.STREAMS / writer.stream_id
    shutil.copytree(folder, tmp_path / "streams" / "s" / "copy")
    writer.close()
    return tmp_path / "streams" / "s" / "copy"


def read_stream(folder: Path) -> tuple[StreamReader, list[tuple[str, int, float]], list[str]]:
    """
    A stream read to its end: the readings as (key, step, value), the params' keys.
    """
    (folder / layout.CURSOR).unlink(missing_ok=True)
    reader = StreamReader(folder)
    readings: list[tuple[str, int, float]] = []
    params: list[str] = []
    for _ in range(20):
        chunk = reader.read(1000)
        if chunk.is_empty:
            break
        readings += [(r.key, r.step, r.value) for r in chunk.readings]
        params += [f.event.key for f in chunk.events if isinstance(f.event, ParamLogged)]
        rejected = {"unknown_key": len(chunk.rejected)} if chunk.rejected else {}
        reader.commit(Ledger(rejected=rejected))
    assert reader.is_finished, "it reads for ever"
    reader.close()
    return reader, readings, params


def prefixes(path: Path, *, stride: int = 1) -> Iterator[int]:
    """
    Cut a file to every length up to its own, or to each of a stride; the other files come back each
    time.
    """
    folder = path.parent
    whole = {found.name: found.read_bytes() for found in folder.iterdir()}
    for end in range(len(whole[path.name]), -1, -stride):
        for name, data in whole.items():
            if not (folder / name).exists():
                (folder / name).write_bytes(data)
        path.write_bytes(whole[path.name][:end])
        yield end


def values_before(name: str, end: int) -> int:
    """
    Readings of a segment that are whole where it is cut.
    """
    if name.startswith(layout.METRIC_LANE):
        return max(0, end - layout.HEADER_BYTES) // layout.RECORD_BYTES
    first = layout.HEADER_BYTES + layout.SERIES_VALUES_OFFSET
    return min(max(0, end - first) // 8, SERIES_VALUES)


@pytest.mark.parametrize("name", ["m-00000000.seg", "s-00000000.seg"])
def test_every_prefix_of_a_segment(tmp_path: Path, name: str) -> None:
    """A segment cut at any byte gives each reading before the cut, and the range of the rest."""
    path = make_stream(tmp_path) / name
    size = path.stat().st_size
    for end in prefixes(path):
        damage: list[str] = []
        segment = SegmentReader(path, SegmentPosition(0), on_damage=damage.append)
        if not segment.is_series:
            records = segment.records(1000, is_final=True)
            found = [(record.step, record.value) for record in records]
        else:
            pages = segment.pages(1000, is_final=True)
            found = [pair for page in pages for pair in enumerate(page.values, page.first_step)]
        assert found == [(step, float(step)) for step in range(values_before(name, end))]
        assert not segment._ready_slots(1000, is_final=True)
        segment.close()
        said = "not a segment" if end < layout.SEGMENT_HEADER.size else f"bytes {end} to {size}"
        assert [said in text for text in damage] == ([True] if end < size else [])


@pytest.mark.parametrize("name", ["m-00000000.seg", "s-00000000.seg"])
def test_prefix_of_a_segment_costs_no_other(tmp_path: Path, name: str) -> None:
    """A stream with a segment that is cut gives all of the other one, says once what is gone, and
    ends.
    """
    path = make_stream(tmp_path) / name
    for end in prefixes(path, stride=61):
        reader, readings, params = read_stream(path.parent)
        other = SERIES_VALUES if name.startswith(layout.METRIC_LANE) else 64
        assert len(readings) == values_before(name, end) + other
        assert len(params) == 10
        assert len(reader.damage) == (end < SIZES[name])


def test_every_prefix_of_an_event_log(tmp_path: Path) -> None:
    """A log cut at any byte gives each frame before the cut and the range of what is no frame;
    readings whose key is behind the cut are rejected and counted, never named otherwise.
    """
    log = make_stream(tmp_path) / layout.EVENT_LOG
    ends = frame_ends(log.read_bytes())
    for end in prefixes(log):
        reader, readings, params = read_stream(log.parent)
        whole = sum(frame_end <= end for frame_end in ends)
        assert params == [f"p{number}" for number in range(max(0, whole - 2))]
        assert len(readings) == (0, 64, 64 + SERIES_VALUES)[min(whole, 2)]
        assert reader.totals.rejected.get("unknown_key", 0) == 64 + SERIES_VALUES - len(readings)
        last = max((frame_end for frame_end in ends if frame_end <= end), default=0)
        said = [f"{log}: no frames in bytes {last} to {end}"] if last < end else []
        assert reader.damage == said


def frame_ends(log: bytes) -> list[int]:
    """
    Where each frame of a whole log ends; the first two are the keys'.
    """
    ends = [0]
    while ends[-1] < len(log):
        length = layout.FRAME_HEAD.unpack_from(log, ends[-1])[1]
        ends.append(ends[-1] + layout.FRAME_HEAD.size + length)
    assert b"key_id" in log[: ends[1]]
    assert b"key_id" in log[ends[1] : ends[2]]
    return ends[1:]


def test_damage_under_a_living_writer(tmp_path: Path, sample: SampleRun) -> None:
    """A spool that is damaged while it is written is read on, each record once, and a drain of it
    ends: nobody reads the same bytes for ever.
    """
    chance = random.Random(SEED)
    tracking = MemoryTracking()
    scope = spool.open_scope(tmp_path / "spool")
    with contextlib.ExitStack() as stack:
        streams = []
        for number in range(LIVE):
            files = sample.copy_to(scope, f"run-{number}", tracking)
            run = scope / spool.RUNS / f"run-{number}"
            pages = [run / name for name in files if name.endswith(layout.STREAM_PAGE)]
            chosen = [name for name in sample.mutable if name != spool.RUN_FILE]
            name = chance.choice([n for n in chosen if run / n not in pages])
            for log in (log for log in files if log.endswith(layout.EVENT_LOG)):
                files[log] = without_farewell(files[log])
                write_sparse(run / log, files[log])
            write_sparse(run / name, mutate(files[name], chance).data)
            streams += [page.parent for page in pages]
            for page in pages:
                held = os.open(page, os.O_RDWR)
                stack.callback(os.close, held)
                fcntl.flock(held, fcntl.LOCK_EX)
        assert deliver(scope, tracking, deadline_s=40) == ({}, set())
        for stream in streams:
            reader = StreamReader(stream)
            assert sum(not reader.read(1000).is_empty for _ in range(20)) <= 5
            assert reader.has_live_writer
            reader.close()


def without_farewell(log: bytes) -> bytes:
    """
    An event log without its writer's last word.
    """
    for span, event in frames_of(log):
        if isinstance(event, (RunEnded, StreamEnded)):
            return log[: span.start]
    return log


def test_sync_says_what_is_damaged(
    tmp_path: Path, sample: SampleRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a delivery with damage, `sync` names file and range and ends with code 7; without it,
    with code 0.
    """
    codes = {}
    for name in ("whole", "damaged"):
        scope = spool.open_scope(tmp_path / name)
        tracking = MemoryTracking()
        files = sample.copy_to(scope, name, tracking)
        folder = scope / spool.RUNS / name
        log = next(file for file in files if file.endswith(layout.EVENT_LOG))
        for page in files:
            if page.endswith(layout.STREAM_PAGE):
                write_sparse(folder / page, without_counts(files[page]))
        if name == "damaged":
            write_sparse(folder / log, files[log][:-40] + bytes(40))
        outcome = SyncOutcome()
        for run in spooled_runs(tmp_path / name, with_done=False):
            outcome.add(run, "memory")
        deliver(scope, tracking)
        codes[name] = outcome.report()
        said = capsys.readouterr().out
        assert ("not readable" in said and "no frames in bytes" in said) == (name == "damaged")
    assert codes == {"whole": ExitCode.FINE, "damaged": ExitCode.LOST}


def without_counts(page: bytes) -> bytes:
    """
    A stream page whose writer has refused nothing.
    """
    return page[: layout.COUNTERS_OFFSET] + bytes(len(page) - layout.COUNTERS_OFFSET)
