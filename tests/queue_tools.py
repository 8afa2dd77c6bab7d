"""
Shared by the queue's tests: a run folder, a key check, a reader that collects everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.queue.stream_reader import Chunk, PhaseEdge
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import RECORD_KINDS, Event, Ledger, Reading, RunSpec
from allele_mlflow.tracking.limits import check_key

#: 64 slots: a roll every 64 records.
SMALL_SEGMENT = layout.HEADER_BYTES + 64 * layout.RECORD_BYTES
#: Room for three pages of a series.
SMALL_SERIES_SEGMENT = layout.HEADER_BYTES + 3 * layout.PAGE_BYTES


def make_run(folder: Path, name: str = "run") -> Path:
    """
    An empty run's folder in a fresh or present spool.
    """
    run = spool.open_scope(folder) / "runs" / name
    run.mkdir(mode=0o700, exist_ok=True)
    return run


def make_writer(
    run: Path,
    *,
    segment_bytes: int = SMALL_SEGMENT,
    strict: bool = False,
    quota_bytes: int = 0,
    on_mistake: Callable[[str, str], None] | None = None,
) -> StreamWriter:
    """
    A writer with small segments.
    """
    return StreamWriter(
        run,
        check_key=check_key,
        segment_bytes=segment_bytes,
        strict=strict,
        quota_bytes=quota_bytes,
        on_mistake=on_mistake,
    )


def make_spec(owner_stream: str = "") -> RunSpec:
    """
    The least that a reader wants to know of a run.
    """
    return RunSpec(
        run_uid="run",
        experiment="e",
        created_ns=1,
        profile="p",
        owner_stream=owner_stream,
        owner_pid=1,
    )


def make_reader(run: Path) -> RunReader:
    """
    A reader that starts at the cursors.
    """
    return RunReader(run, make_spec())


class Collected:
    """
    Everything a reader gave, and what was committed of it.
    """

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.edges: list[PhaseEdge] = []
        self.events: list[Event] = []

    def add(self, chunk: Chunk) -> None:
        """
        Take in what a read gave.
        """
        self.readings += chunk.readings
        self.edges += chunk.edges
        self.events += [frame.event for frame in chunk.events]


def outcome_of(chunk: Chunk) -> Ledger:
    """
    The ledger of a chunk that was delivered whole.
    """
    events = [type(frame.event) for frame in chunk.events]
    kinds = Counter(RECORD_KINDS[event] for event in events if event in RECORD_KINDS)
    kinds["metric"] += len(chunk.readings)
    kinds["phase"] += len(chunk.edges)
    rejected = Counter(letter.reason for letter in chunk.rejected)
    return Ledger(delivered={k: n for k, n in kinds.items() if n}, rejected=dict(rejected))


def read_some(reader: RunReader, into: Collected, *, limit: int = 1000) -> None:
    """
    One read and its commit.
    """
    for stream, chunk in reader.read(limit):
        into.add(chunk)
        stream.commit(outcome_of(chunk))


def read_to_end(reader: RunReader, into: Collected) -> None:
    """
    Read until every writer is known to be gone, which a reader looks for now and then.
    """
    deadline_s = now_monotonic_s() + 20.0
    while not reader.is_finished:
        assert now_monotonic_s() < deadline_s
        read_all(reader, into)
        pause_s(0.01)


def read_all(reader: RunReader, into: Collected | None = None, *, limit: int = 50) -> Collected:
    """
    Read and commit until there is no more.
    """
    into = into or Collected()
    while chunks := reader.read(limit):
        for stream, chunk in chunks:
            into.add(chunk)
            stream.commit(outcome_of(chunk))
    return into
