"""
What joining samples with phases promises, against a model that keeps everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.records import Sample
from allele_mlflow.sampling.phases import OpenPhase, PhaseRow, PhaseTracker

MS = 1_000_000
SECOND = 1_000 * MS
RSS = "system/process_rss_megabytes"


def reading(
    timestamp_ns: int, rss_mb: float | None = None, gpu_percent: float | None = None
) -> Sample:
    """
    A sample of what the phases care for.
    """
    values = {} if rss_mb is None else {RSS: rss_mb}
    if gpu_percent is not None:
        values["system/gpu_0_utilization_percentage"] = gpu_percent
    return Sample(timestamp_ns, values)


def begin(
    tracker: PhaseTracker,
    instance: int,
    at_ns: int,
    *,
    stream: str = "s",
    step: int | None = None,
    cpu_s: float | None = 0.0,
) -> None:
    """
    A phase of the name `p` begins.
    """
    tracker.begin(stream, instance, name="p", step=step, timestamp_ns=at_ns, cpu_s=cpu_s)


def end(tracker: PhaseTracker, instance: int, at_ns: int, cpu_s: float | None = 1.0) -> PhaseRow:
    """
    It ends; its row.
    """
    row = tracker.end("s", instance, timestamp_ns=at_ns, cpu_s=cpu_s)
    assert row is not None
    return row


def test_phase_gets_what_lies_inside_it() -> None:
    """
    Maximum of memory, mean of the GPUs, number of samples: of those inside the phase, no others.
    """
    tracker = PhaseTracker()
    tracker.sample(reading(1 * SECOND, 900.0, 100.0))
    begin(tracker, 1, 2 * SECOND, step=4, cpu_s=10.0)
    tracker.sample(reading(3 * SECOND, 100.0, 20.0))
    tracker.sample(reading(4 * SECOND, 300.0, 40.0))
    tracker.sample(reading(5 * SECOND, 200.0))
    tracker.sample(reading(9 * SECOND, 900.0, 100.0))
    row = end(tracker, 1, 6 * SECOND, cpu_s=16.0)
    assert (row.samples, row.rss_mb_max, row.gpu_samples, row.gpu_percent_mean) == (3, 300.0, 2, 30)
    assert (row.seconds, row.span.cpu_s, row.cpu_percent) == (4.0, 6.0, 150.0)
    assert (row.span.name, row.span.step, row.span.complete) == ("p", 4, True)


def test_short_phase_has_exact_cpu_and_no_invented_memory() -> None:
    """
    A phase of a millisecond has its CPU share from the edges; without a sample inside, memory and
    GPU are absent, whatever the samples around it say.
    """
    tracker = PhaseTracker()
    tracker.sample(reading(0, 100.0, 50.0))
    begin(tracker, 1, 10 * MS, cpu_s=1.0)
    row = end(tracker, 1, 11 * MS, cpu_s=1.0008)
    tracker.sample(reading(20 * MS, 100.0, 50.0))
    assert row.cpu_percent == pytest.approx(80.0)
    assert (row.samples, row.rss_mb_max, row.gpu_percent_mean) == (0, None, None)


def test_gpus_of_a_sample_are_averaged() -> None:
    """
    Several devices count as their mean; other GPU metrics do not count.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 0)
    values = {
        "system/gpu_0_utilization_percentage": 10.0,
        "system/gpu_11_utilization_percentage": 30.0,
        "system/gpu_0_memory_usage_percentage": 99.0,
    }
    tracker.sample(Sample(1, values))
    assert end(tracker, 1, 2).gpu_percent_mean == 20.0


@pytest.mark.parametrize("at_end_s", [None, 4.0])
def test_unknown_cpu_time_is_none(at_end_s: float | None) -> None:
    """
    Without CPU time at both edges, or where it ran backwards, it is unknown, not 0.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 0, cpu_s=5.0)
    row = end(tracker, 1, SECOND, cpu_s=at_end_s)
    assert row.span.cpu_s is None
    assert row.cpu_percent is None


def test_open_phases_are_closed_as_incomplete() -> None:
    """
    What a killed process left open ends where it was last seen, marked, its CPU time unknown;
    another stream's phases stay open.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 0)
    begin(tracker, 1, 0, stream="other")
    tracker.sample(reading(SECOND, 50.0))
    (row,) = tracker.close_open(2 * SECOND, stream_id="s")
    assert (row.span.complete, row.span.cpu_s, row.samples) == (False, None, 1)
    assert [phase.stream_id for phase in tracker.open_phases] == ["other"]
    assert len(tracker.close_open(3 * SECOND)) == 1
    assert tracker.close_open(4 * SECOND) == []


def test_repeated_edges_change_nothing() -> None:
    """
    A begin that is read again does not restart the phase; an end without a begin is only counted.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 0, step=1)
    begin(tracker, 1, 5 * SECOND, step=2)
    row = end(tracker, 1, 6 * SECOND)
    assert (row.seconds, row.span.step) == (6.0, 1)
    assert tracker.end("s", 1, timestamp_ns=7 * SECOND, cpu_s=None) is None
    assert tracker.unmatched_ends == 1


def test_clock_set_back_gives_an_empty_phase() -> None:
    """
    A phase never ends before it began, and its CPU share is then unknown.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 5 * SECOND)
    row = end(tracker, 1, 4 * SECOND)
    assert row.seconds == 0.0
    assert row.cpu_percent is None


def test_successor_goes_on_with_open_phases() -> None:
    """
    A new tracker that is given its predecessor's open phases knows their ends.
    """
    first, second = PhaseTracker(), PhaseTracker()
    begin(first, 1, SECOND, step=9, cpu_s=2.0)
    kept = msgspec.msgpack.encode(first.open_phases)
    for phase in msgspec.msgpack.decode(kept, type=list[OpenPhase]):
        second.begin(
            phase.stream_id,
            phase.instance,
            name=phase.name,
            step=phase.step,
            timestamp_ns=phase.begin_ns,
            cpu_s=phase.cpu_s,
        )
    assert end(second, 1, 2 * SECOND, cpu_s=2.5).cpu_percent == 50.0


def test_row_survives_a_line_of_json() -> None:
    """
    A row is the same after a trip through the phases' file.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 0)
    tracker.sample(reading(5, 1.5))
    row = end(tracker, 1, 10)
    assert msgspec.json.decode(msgspec.json.encode(row), type=PhaseRow) == row


def test_step_is_that_of_the_innermost_phase_that_has_one() -> None:
    """
    The latest begun open phase with a step gives it; one without is looked through; one that began
    at the same moment but later in the program is further in.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 10, step=1)
    begin(tracker, 2, 20, step=2)
    begin(tracker, 3, 30)
    assert tracker.step_for_sample(40) == 2
    assert tracker.step_for_sample(15) == 1
    begin(tracker, 4, 20, step=4)
    assert tracker.step_for_sample(40) == 4


def test_step_of_a_phase_that_closed_meanwhile() -> None:
    """
    A moment inside a phase belongs to it also when the phase's end was read before it is asked for.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 10, step=1)
    end(tracker, 1, 20)
    tracker.note_metric_step(8, 5)
    assert tracker.step_for_sample(15) == 1
    assert tracker.step_for_sample(25) == 8


def test_step_falls_back_to_the_last_metric() -> None:
    """
    Outside of phases a moment has the step of the last metric before it; before all, none.
    """
    tracker = PhaseTracker()
    assert tracker.step_for_sample(5) is None
    tracker.note_metric_step(1, 1 * SECOND)
    tracker.note_metric_step(2, 2 * SECOND)
    tracker.note_metric_step(7, 1 * SECOND)
    assert [tracker.step_for_sample(at * SECOND) for at in (0, 1, 2, 3)] == [None, 1, 2, 2]
    begin(tracker, 1, 4 * SECOND)
    assert tracker.step_for_sample(5 * SECOND) == 2


@pytest.mark.parametrize("cpu_s", [float("nan"), float("inf")])
def test_cpu_time_that_is_none_spoils_no_mean(cpu_s: float) -> None:
    """An edge whose CPU time is no number leaves its phase without one, and the mean of
    its name alone.
    """
    tracker = PhaseTracker()
    begin(tracker, 1, 0)
    row = tracker.end("s", 1, timestamp_ns=SECOND, cpu_s=cpu_s)
    assert row is not None
    assert row.span.cpu_s is None


def test_fast_steps_keep_the_newest() -> None:
    """
    Thousands of steps a second stay one entry for 10 ms, and that entry knows the newest.
    """
    tracker = PhaseTracker(capacity=10)
    for step in range(1000):
        tracker.note_metric_step(step, step * MS // 20)
    assert tracker.step_for_sample(SECOND) == 999
    assert tracker.step_for_sample(15 * MS) in range(200, 400)


class Event(NamedTuple):
    """
    One event of a story; `value` is a step, a choice among the open phases, or memory.
    """

    kind: Literal["begin", "end", "sample", "metric"]
    value: int | None
    gpu_percent: int | None = None


@dataclass
class Phase:
    """
    A phase of the model; `end_ns` None while open.
    """

    begin_ns: int
    step: int | None
    end_ns: int | None = None

    def is_around(self, at_ns: int) -> bool:
        """
        Whether the moment lies in it.
        """
        return self.begin_ns <= at_ns and (self.end_ns is None or at_ns <= self.end_ns)


class Model:
    """
    Keeps every phase, sample and metric, and looks through all of them.
    """

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.samples: list[tuple[int, float | None, float | None]] = []
        self.metrics: list[tuple[int, int | None]] = []

    def check(self, row: PhaseRow) -> None:
        """
        The row says what the samples inside the phase say.
        """
        phase = self.phases[row.span.instance]
        inside = [one for one in self.samples if phase.is_around(one[0])]
        rss_mb = [one[1] for one in inside if one[1] is not None]
        gpu_percent = [one[2] for one in inside if one[2] is not None]
        assert row.samples == len(inside)
        assert row.rss_mb_max == max(rss_mb, default=None)
        assert row.gpu_samples == len(gpu_percent)
        if gpu_percent:
            assert row.gpu_percent_mean == pytest.approx(sum(gpu_percent) / len(gpu_percent))
        else:
            assert row.gpu_percent_mean is None

    def step_at(self, at_ns: int) -> int | None:
        """
        The step that a moment belongs to.
        """
        for phase in reversed(self.phases):
            if phase.step is not None and phase.is_around(at_ns):
                return phase.step
        before = [step for noted_ns, step in self.metrics if noted_ns <= at_ns]
        return before[-1] if before else None


OPTIONAL = st.none() | st.integers(0, 9)
EVENTS = st.lists(
    st.one_of(
        st.builds(Event, st.just("begin"), OPTIONAL),
        st.builds(Event, st.just("end"), st.integers(0, 9)),
        st.builds(Event, st.just("sample"), OPTIONAL, OPTIONAL),
        st.builds(Event, st.just("metric"), st.integers(0, 9)),
    ),
    max_size=60,
)


class Story:
    """
    The same events for tracker and model.
    """

    def __init__(self, capacity: int) -> None:
        self.tracker = PhaseTracker(capacity=capacity)
        self.model = Model()

    def sample(self, at_ns: int, event: Event) -> None:
        """
        A sample is taken.
        """
        rss_mb = None if event.value is None else float(event.value)
        gpu_percent = None if event.gpu_percent is None else float(event.gpu_percent)
        self.model.samples.append((at_ns, rss_mb, gpu_percent))
        self.tracker.sample(reading(at_ns, rss_mb, gpu_percent))

    def edge(self, at_ns: int, event: Event) -> None:
        """
        Anything else is read; a phase that ends is compared at once.
        """
        if event.kind == "begin":
            begin(self.tracker, len(self.model.phases), at_ns, step=event.value)
            self.model.phases.append(Phase(at_ns, event.value))
        elif event.kind == "metric":
            assert event.value is not None
            self.model.metrics.append((at_ns, event.value))
            self.tracker.note_metric_step(event.value, at_ns)
        else:
            still_open = [n for n, phase in enumerate(self.model.phases) if phase.end_ns is None]
            if still_open:
                instance = still_open[(event.value or 0) % len(still_open)]
                self.model.phases[instance].end_ns = at_ns
                self.model.check(end(self.tracker, instance, at_ns))

    def finish(self, at_ns: int) -> None:
        """
        What is still open is closed and compared too.
        """
        for row in self.tracker.close_open(at_ns):
            self.model.check(row)
            assert not row.span.complete


@given(events=EVENTS, capacity=st.integers(1, 5))
def test_small_ring_says_what_full_memory_says(events: list[Event], capacity: int) -> None:
    """
    In order of time, a ring of a few samples gives the same rows and steps as keeping everything.
    """
    story = Story(capacity)
    for number, event in enumerate(events):
        at_ns = number * 20 * MS
        if event.kind == "sample":
            story.sample(at_ns, event)
            assert story.tracker.step_for_sample(at_ns) == story.model.step_at(at_ns)
        else:
            story.edge(at_ns, event)
    story.finish(len(events) * 20 * MS)


@given(events=EVENTS)
def test_late_edges_say_what_timely_ones_say(events: list[Event]) -> None:
    """
    Edges that are read long after the samples around them give the same rows and steps.
    """
    story = Story(capacity=64)
    timed = [(number * 20 * MS, event) for number, event in enumerate(events)]
    for at_ns, event in timed:
        if event.kind == "sample":
            story.sample(at_ns, event)
    for at_ns, event in timed:
        if event.kind != "sample":
            story.edge(at_ns, event)
    for at_ns, _, _ in story.model.samples:
        assert story.tracker.step_for_sample(at_ns) == story.model.step_at(at_ns)
    story.finish(len(events) * 20 * MS)
