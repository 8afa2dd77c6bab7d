"""
The queue against a model: a list in memory.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.run_reader import RunReader, StreamChunk
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import ParamLogged, StreamEnded
from tests.queue_tools import (
    SMALL_SERIES_SEGMENT,
    Collected,
    make_reader,
    make_run,
    make_writer,
    outcome_of,
    read_all,
)

KEYS = st.sampled_from(["a", "b/c", "loss", "übung"])
STEPS = st.integers(layout.STEP_MIN, layout.STEP_MAX)
VALUES = st.floats(allow_nan=True, allow_infinity=True)


def same(value: float) -> Any:
    """
    A value that compares equal to itself, also where it is NaN.
    """
    return "nan" if math.isnan(value) else value


class QueueMachine(RuleBasedStateMachine):
    """
    Whatever is logged, read, half read, committed and read again: each record is there exactly
    once.

    Several writers of one run, a reader that may be thrown away at any time, and a list that
    remembers.
    """

    writers = Bundle("writers")
    is_mapped = True

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.run = make_run(self.folder)
        self.reader: RunReader = make_reader(self.run)
        self.collected = Collected()
        self.unread: list[StreamChunk] = []
        self.expected: Counter[Any] = Counter()
        self.phases = 0
        self.params = 0
        self.rejected = 0
        self.open: list[StreamWriter] = []

    @rule(target=writers)
    def open_stream(self) -> StreamWriter:
        with mock.patch.object(spool, "can_map", return_value=self.is_mapped):
            writer = make_writer(self.run, segment_bytes=SMALL_SERIES_SEGMENT)
        assert writer.is_mapped == self.is_mapped
        self.open.append(writer)
        return writer

    @rule(writer=writers, key=KEYS, value=VALUES, step=STEPS)
    def log_metric(self, writer: StreamWriter, key: str, value: float, step: int) -> None:
        writer.metric(key, value, step)
        if writer in self.open:
            self.expected[key, same(value), step] += 1

    @rule(writer=writers, values=st.dictionaries(KEYS, VALUES), step=STEPS)
    def log_metrics(self, writer: StreamWriter, values: dict[str, float], step: int) -> None:
        writer.metrics(values, step)
        if writer in self.open:
            self.expected.update((key, same(value), step) for key, value in values.items())

    @rule(writer=writers, key=KEYS, size=st.sampled_from([0, 1, 7, 508, 509, 2000]))
    def log_series(self, writer: StreamWriter, key: str, size: int) -> None:
        values = [float(i) for i in range(size)]
        writer.series(key, values, first_step=5)
        if writer in self.open:
            self.expected.update((key, value, 5 + i) for i, value in enumerate(values))

    @rule(writer=writers, number=st.integers(60, 400))
    def log_many(self, writer: StreamWriter, number: int) -> None:
        for step in range(number):
            writer.metric("many", 1.0, step)
        if writer in self.open:
            self.expected.update(("many", 1.0, step) for step in range(number))

    @rule(writer=writers, name=st.text(max_size=20), step=st.none() | STEPS)
    def log_phase(self, writer: StreamWriter, name: str, step: int | None) -> None:
        writer.phase_edge(name, step, writer.phase_edge(name, step))
        if writer in self.open:
            self.phases += 2

    @rule(writer=writers)
    def log_param(self, writer: StreamWriter) -> None:
        writer.event(ParamLogged(timestamp_ns=1, key="p", value="v"))
        if writer in self.open:
            self.params += 1

    @rule(writer=writers, step=st.sampled_from([1.5, "x", 1 << 64]))
    def log_badly(self, writer: StreamWriter, step: Any) -> None:
        writer.metric("a", 1.0, step)
        self.rejected += writer in self.open or 1

    @rule(writer=writers)
    def close_stream(self, writer: StreamWriter) -> None:
        if writer in self.open:
            writer.close(lambda slots: StreamEnded(timestamp_ns=1, slots=slots))
            self.open.remove(writer)

    @rule(limit=st.integers(1, 200))
    def read(self, limit: int) -> None:
        self.unread += self.reader.read(limit)

    @rule()
    @precondition(lambda self: self.unread)
    def commit(self) -> None:
        for stream, chunk in self.unread:
            self.collected.add(chunk)
            stream.commit(outcome_of(chunk))
        self.unread = []

    @rule()
    def lose_the_reader(self) -> None:
        self.reader.close()
        self.reader = make_reader(self.run)
        self.unread = []

    @invariant()
    def nothing_is_made_up(self) -> None:
        if hasattr(self, "collected"):
            found = Counter((r.key, same(r.value), r.step) for r in self.collected.readings)
            assert found <= self.expected

    def teardown(self) -> None:
        for writer in self.open:
            writer.close()
        self.reader.close()
        reader = make_reader(self.run)
        read_all(reader, self.collected)
        found = Counter((r.key, same(r.value), r.step) for r in self.collected.readings)
        assert found == self.expected
        assert len(self.collected.edges) == self.phases
        assert sum(isinstance(e, ParamLogged) for e in self.collected.events) == self.params
        ledger = reader.ledger(is_exact=True)
        assert ledger.pending == ledger.torn == 0
        assert ledger.delivered.get("metric", 0) == self.expected.total()
        assert ledger.rejected.get("bad_step", 0) == self.rejected
        reader.close()
        shutil.rmtree(self.folder)


QueueMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


class WrittenQueueMachine(QueueMachine):
    """
    The same where segments cannot be mapped, and the bytes go through `os.pwrite`.
    """

    is_mapped = False


WrittenQueueMachine.TestCase.settings = QueueMachine.TestCase.settings

TestQueueModel = QueueMachine.TestCase
TestWrittenQueueModel = WrittenQueueMachine.TestCase
