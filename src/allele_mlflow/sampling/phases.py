"""
Joins resource samples with the phases of a benchmark. Pure: no clock, no file, no process.

Samples come from the sidecar at once, phase edges from the queue some time later, so a sample may
be known before the phases around it. `PhaseTracker` therefore keeps the newest samples and looks
into them when a phase ends; samples that fall off the end of that ring are folded into the phases
open around them, so that a phase of any length costs the same memory.

Units: `*_ns` wall clock, `*_s` seconds, `rss_mb_max` 10^6 bytes, percentages of one core or GPU.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import msgspec

from allele_mlflow.records import PhaseSpan, Sample

_NS_PER_S = 1e9
_RSS = "system/process_rss_megabytes"
_GPU = re.compile(r"system/gpu_\d+_utilization_percentage")
#: Steps of metrics closer together than this are one entry: the join is no finer than 10 ms.
_STEP_GRAIN_NS = 10_000_000
_END_OF_TIME_NS = (1 << 63) - 1
#: Phases that ended last and are remembered, for who asks a little late.
_REMEMBERED = 256


class PhaseRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One closed phase with what its samples say; a line of the phases' file. Append fields only.

    `samples` lie inside the phase, `gpu_samples` of them know the GPU. None: no sample inside.
    """

    span: PhaseSpan
    samples: int = 0
    rss_mb_max: float | None = None
    gpu_samples: int = 0
    gpu_percent_mean: float | None = None

    @property
    def seconds(self) -> float:
        """
        How long the phase took; for an incomplete one, how long it was seen.
        """
        return (self.span.end_ns - self.span.begin_ns) / _NS_PER_S

    @property
    def cpu_percent(self) -> float | None:
        """
        CPU time of the process over the phase's time; exact however short. None where unknown.
        """
        if self.span.cpu_s is None or self.seconds <= 0.0:
            return None
        return 100.0 * self.span.cpu_s / self.seconds


class OpenPhase(msgspec.Struct, frozen=True, kw_only=True):
    """
    A phase whose end was not seen yet. Passed to `PhaseTracker.begin` again after a restart.
    """

    stream_id: str
    instance: int
    name: str
    step: int | None
    begin_ns: int
    cpu_s: float | None


class _Point(NamedTuple):
    timestamp_ns: int
    rss_mb: float | None
    gpu_percent: float | None


class _Aggregate:
    """
    What is known of one open phase's samples, in constant memory.
    """

    __slots__ = ("gpu_percent_sum", "gpu_samples", "order", "phase", "rss_mb_max", "samples")

    def __init__(self, phase: OpenPhase, order: int) -> None:
        self.phase = phase
        self.order = order
        self.samples = 0
        self.rss_mb_max: float | None = None
        self.gpu_samples = 0
        self.gpu_percent_sum = 0.0

    def add(self, point: _Point) -> None:
        self.samples += 1
        if point.rss_mb is not None:
            self.rss_mb_max = max(point.rss_mb, self.rss_mb_max or 0.0)
        if point.gpu_percent is not None:
            self.gpu_samples += 1
            self.gpu_percent_sum += point.gpu_percent

    def close(self, end_ns: int, cpu_s: float | None, *, complete: bool) -> PhaseRow:
        phase = self.phase
        used_s = None if cpu_s is None or phase.cpu_s is None else cpu_s - phase.cpu_s
        return PhaseRow(
            span=PhaseSpan(
                stream_id=phase.stream_id,
                instance=phase.instance,
                name=phase.name,
                begin_ns=phase.begin_ns,
                end_ns=end_ns,
                # CPU time never runs backwards; if it seems to, the edges are not of one process.
                # NaN and infinities are damage, and would spoil the mean of all phases of the name.
                cpu_s=used_s if used_s is not None and 0.0 <= used_s < math.inf else None,
                step=phase.step,
                complete=complete,
            ),
            samples=self.samples,
            rss_mb_max=self.rss_mb_max,
            gpu_samples=self.gpu_samples,
            gpu_percent_mean=self.gpu_percent_sum / self.gpu_samples if self.gpu_samples else None,
        )


class _Stepped(NamedTuple):
    # The order of fields is that of the search for the innermost phase.
    begin_ns: int
    order: int
    end_ns: int
    step: int


class PhaseTracker:
    """
    Follows the phases of one run and tells which step a moment belongs to.

    Feed the events of one stream in order; across streams, and between events and samples, order
    does not matter as long as the ring of the newest `capacity` samples reaches back to the late
    one. A sample that leaves the ring counts for the phases that began before it and are open then.

    Thread safety: none; one owner.
    Cost: memory bounded by `capacity` and the number of open phases; an end looks at the samples
    inside it, at most `capacity`.
    """

    def __init__(self, *, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._points: deque[_Point] = deque()
        self._open: dict[tuple[str, int], _Aggregate] = {}
        self._order = count()
        self._closed: deque[_Stepped] = deque(maxlen=capacity)
        self._ended: deque[PhaseSpan] = deque(maxlen=_REMEMBERED)
        self._steps: deque[tuple[int, int]] = deque(maxlen=capacity)
        #: Ends whose begin was never seen.
        self.unmatched_ends = 0

    @property
    def open_phases(self) -> list[OpenPhase]:
        """
        The open phases, oldest first; what a successor needs to go on.
        """
        return [aggregate.phase for aggregate in self._open.values()]

    def recent_spans(self) -> list[PhaseSpan]:
        """
        The phases that ended last, and those that are open as if they ended at the end of time.
        """
        opened = [
            PhaseSpan(
                stream_id=phase.stream_id,
                instance=phase.instance,
                name=phase.name,
                begin_ns=phase.begin_ns,
                end_ns=_END_OF_TIME_NS,
                cpu_s=None,
                step=phase.step,
                complete=False,
            )
            for phase in self.open_phases
        ]
        return [*self._ended, *opened]

    def begin(
        self,
        stream_id: str,
        instance: int,
        *,
        name: str,
        step: int | None,
        timestamp_ns: int,
        cpu_s: float | None,
    ) -> None:
        """
        A phase began. The same instance again changes nothing.
        """
        phase = OpenPhase(
            stream_id=stream_id,
            instance=instance,
            name=name,
            step=step,
            begin_ns=timestamp_ns,
            cpu_s=cpu_s,
        )
        self._open.setdefault((stream_id, instance), _Aggregate(phase, next(self._order)))

    def end(
        self, stream_id: str, instance: int, *, timestamp_ns: int, cpu_s: float | None
    ) -> PhaseRow | None:
        """
        A phase ended: its row, or None where its begin was not seen (or its end was, before).
        """
        if (stream_id, instance) not in self._open:
            self.unmatched_ends += 1
            return None
        return self._close(stream_id, instance, timestamp_ns, cpu_s, complete=True)

    def close_open(self, timestamp_ns: int, *, stream_id: str | None = None) -> list[PhaseRow]:
        """
        Close what is still open (in one stream, or everywhere) as incomplete, its CPU time unknown.
        """
        keys = [key for key in self._open if stream_id in (None, key[0])]
        return [self._close(*key, timestamp_ns, None, complete=False) for key in keys]

    def sample(self, sample: Sample) -> None:
        """
        A resource sample was taken.
        """
        gpus = [value for name, value in sample.values.items() if _GPU.fullmatch(name)]
        gpu_percent = sum(gpus) / len(gpus) if gpus else None
        point = _Point(sample.timestamp_ns, sample.values.get(_RSS), gpu_percent)
        self._points.append(point)
        if len(self._points) > self._capacity:
            oldest = self._points.popleft()
            for aggregate in self._open.values():
                if aggregate.phase.begin_ns <= oldest.timestamp_ns:
                    aggregate.add(oldest)

    def note_metric_step(self, step: int, timestamp_ns: int) -> None:
        """
        A metric was logged with this step.
        """
        if self._steps:
            last_ns, last_step = self._steps[-1]
            if timestamp_ns < last_ns or step == last_step:
                return
            if timestamp_ns < last_ns + _STEP_GRAIN_NS:
                self._steps[-1] = last_ns, step
                return
        self._steps.append((timestamp_ns, step))

    def step_for_sample(self, timestamp_ns: int) -> int | None:
        """
        The step of the latest begun phase around this moment that has one, else that of the last
        metric before it, else None.

        Best asked when the events of that moment have been read; phases that closed since count.
        """
        around = [
            _Stepped(phase.begin_ns, aggregate.order, timestamp_ns, phase.step)
            for aggregate in self._open.values()
            if (phase := aggregate.phase).step is not None and phase.begin_ns <= timestamp_ns
        ]
        around += [
            closed for closed in self._closed if closed.begin_ns <= timestamp_ns <= closed.end_ns
        ]
        if around:
            return max(around).step
        for noted_ns, step in reversed(self._steps):
            if noted_ns <= timestamp_ns:
                return step
        return None

    def _close(
        self,
        stream_id: str,
        instance: int,
        timestamp_ns: int,
        cpu_s: float | None,
        *,
        complete: bool,
    ) -> PhaseRow:
        aggregate = self._open.pop((stream_id, instance))
        phase = aggregate.phase
        # A wall clock may be set back meanwhile; a phase still does not end before it began.
        end_ns = max(timestamp_ns, phase.begin_ns)
        for point in self._inside(phase.begin_ns, end_ns):
            aggregate.add(point)
        if phase.step is not None:
            self._closed.append(_Stepped(phase.begin_ns, aggregate.order, end_ns, phase.step))
        row = aggregate.close(end_ns, cpu_s, complete=complete)
        self._ended.append(row.span)
        return row

    def _inside(self, begin_ns: int, end_ns: int) -> Iterator[_Point]:
        # From the newest back: a short phase looks at few. Samples are taken by one clock in order.
        for point in reversed(self._points):
            if point.timestamp_ns < begin_ns:
                return
            if point.timestamp_ns <= end_ns:
                yield point
