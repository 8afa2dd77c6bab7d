"""
Where in a run an alert belongs: the phase around its time. Pure.

An alert of a reading knows its time to the millisecond, and phases may be shorter: of several that
touch that millisecond, one of the alert's own process is nearer, then one of its step, then the one
that began last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from allele_mlflow.queue.stream_reader import PhaseEdge
from allele_mlflow.records import PhaseSpan

_GRAIN_NS = 1_000_000


class Moment(NamedTuple):
    """
    When something happened, in which process ("" for all), at which step.
    """

    timestamp_ns: int
    stream_id: str
    step: int | None


def innermost(moment: Moment, spans: Iterable[PhaseSpan]) -> PhaseSpan | None:
    """
    The innermost phase around a moment, None where there is none.
    """
    around = [
        span
        for span in spans
        if span.begin_ns < moment.timestamp_ns + _GRAIN_NS and moment.timestamp_ns <= span.end_ns
    ]
    return max(around, key=lambda span: _nearness(moment, span), default=None)


def surest(
    moment: Moment, last_begun: PhaseSpan | None, spans: Iterable[PhaseSpan]
) -> PhaseSpan | None:
    """
    The innermost phase of the process's own around a moment, where it is known which of them had
    begun and not ended.

    That decides between those that touch the moment's millisecond. It is no news of a series, which
    comes out of its turn; so what holds all of the millisecond goes before what is outside of it.

    Args:
        moment: With the process.
        last_begun: What was open as the order of its records tells; None for nothing.
        spans: Phases of all processes.
    """
    begin, end = moment.timestamp_ns, moment.timestamp_ns + _GRAIN_NS
    holding = [
        span
        for span in spans
        if span.stream_id == moment.stream_id and span.begin_ns < begin and span.end_ns >= end
    ]
    surely = max(holding, key=lambda span: (span.begin_ns, span.instance), default=None)
    if last_begun is None or last_begun.begin_ns >= end:
        return surely
    if surely is not None and surely.begin_ns > last_begun.begin_ns:
        return surely
    return last_begun


class OrderedPhases:
    """
    Which phases of each process are open, by the order of its records. Pure; not thread-safe.

    Args:
        spans: Where a sidecar before this one left off; open ones are not complete.
    """

    def __init__(self, spans: Iterable[PhaseSpan]) -> None:
        self._open: dict[str, dict[int, PhaseSpan]] = {}
        for span in spans:
            opened = self._open.setdefault(span.stream_id, {})
            if not span.complete:
                opened[span.instance] = span

    def note(self, edge: PhaseEdge) -> None:
        """
        A phase began or ended.
        """
        opened = self._open.setdefault(edge.stream_id, {})
        if not edge.is_begin:
            opened.pop(edge.instance, None)
            return
        opened[edge.instance] = PhaseSpan(
            stream_id=edge.stream_id,
            instance=edge.instance,
            name=edge.name,
            begin_ns=edge.timestamp_ns,
            end_ns=edge.timestamp_ns,
            cpu_s=None,
            step=edge.step,
            complete=False,
        )

    def has_any(self, stream_id: str) -> bool:
        """
        Whether a process was ever in a phase.
        """
        return stream_id in self._open

    def innermost(self, stream_id: str) -> PhaseSpan | None:
        """
        The phase that a process began last and has not ended; None where there is none.
        """
        opened = self._open.get(stream_id)
        return next(reversed(opened.values())) if opened else None


def place_moments(moments: Sequence[Moment], spans: Iterable[PhaseSpan]) -> dict[Moment, PhaseSpan]:
    """
    The innermost phase of each moment that has one.

    Cost: of each phase a search among the moments; phases may be millions, and are not kept.
    """
    ordered = sorted(set(moments), key=lambda moment: moment.timestamp_ns)
    times = [moment.timestamp_ns for moment in ordered]
    found: dict[Moment, PhaseSpan] = {}
    if not ordered:
        return found
    for span in spans:
        first = bisect_right(times, span.begin_ns - _GRAIN_NS)
        for moment in ordered[first : bisect_right(times, span.end_ns)]:
            known = found.get(moment)
            if known is None or _nearness(moment, span) > _nearness(moment, known):
                found[moment] = span
    return found


def _nearness(moment: Moment, span: PhaseSpan) -> tuple[bool, bool, int, int]:
    is_own = bool(moment.stream_id) and moment.stream_id == span.stream_id
    is_of_step = moment.step is not None and moment.step == span.step
    return is_own, is_of_step, span.begin_ns, span.instance
