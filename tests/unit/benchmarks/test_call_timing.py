"""
How calls are timed, without believing any clock.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import call_timing
from benchmarks.call_timing import BLOCK_CALLS, CallCost, Subject, measure_calls


class Counting:
    """
    Counts its calls and how often it was cleared.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.clears = 0

    def metric(self, key: str, value: float, step: int | None = None) -> None:
        self.calls += 1

    def clear(self) -> None:
        self.clears += 1


def test_every_subject_gets_the_same_calls() -> None:
    """
    All subjects are called equally often and cleared after every go, so none fills a disk.
    """
    found = {name: Counting() for name in ("floor", "ours")}
    subjects = {name: Subject(one.metric, one.clear) for name, one in found.items()}
    costs = measure_calls(subjects, blocks=3, singles=500)
    assert set(costs) == {"floor", "ours"}
    assert found["floor"].calls == found["ours"].calls == 5 * BLOCK_CALLS + 500
    assert found["floor"].clears == found["ours"].clears == 5 + 1


def ticking(start_ns: int, tick_ns: int) -> Callable[[], int]:
    """
    A timer that goes on by so much at each look.
    """
    now_ns = start_ns

    def read() -> int:
        nonlocal now_ns
        now_ns += tick_ns
        return now_ns

    return read


def test_timer_and_loop_are_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With a timer that only counts its own readings, every call costs nothing.
    """
    monkeypatch.setattr(call_timing, "perf_counter_ns", ticking(0, 100))
    one = Counting()
    costs = measure_calls({"one": Subject(one.metric, one.clear)}, blocks=3, singles=100)
    assert costs["one"] == CallCost(0.0, 0.0, 0.0, 0.0)


def test_tail_is_ordered() -> None:
    """
    The quantiles of single calls never cross.
    """
    one = Counting()
    cost = measure_calls({"one": Subject(one.metric, one.clear)}, blocks=3, singles=2000)["one"]
    assert 0.0 <= cost.p99_ns <= cost.p999_ns <= cost.max_ns
    assert set(cost.as_json()) == {"p50_ns", "p99_ns", "p999_ns", "max_ns"}
