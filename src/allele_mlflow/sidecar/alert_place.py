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
