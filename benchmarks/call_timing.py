"""
How single calls are timed: blocks for the median, single calls for the tail, interleaved.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

KEY = "fitness/best"
VALUE = 0.5
BLOCK_CALLS = 1000
STEPS = range(BLOCK_CALLS)
#: Single calls timed in one go, before the next subject has its turn.
SINGLE_CALLS = 10_000
SEED = 7

MetricCall = Callable[..., None]


@dataclass(frozen=True)
class Subject:
    """
    Something with the signature of `log.metric`, and what clears up behind it between blocks.
    """

    metric: MetricCall
    clear: Callable[[], object]


@dataclass(frozen=True)
class CallCost:
    """
    What one call costs. `p50_ns` is of blocks of 1,000 without the empty loop; the others are of
    single calls without the timer's own cost.
    """

    p50_ns: float
    p99_ns: float
    p999_ns: float
    max_ns: float

    def as_json(self) -> dict[str, float]:
        """
        The fields, rounded to a tenth of a nanosecond.
        """
        return {name: round(value, 1) for name, value in asdict(self).items()}


def time_block(metric: MetricCall) -> int:
    """
    Nanoseconds of 1,000 calls, and of the loop around them.
    """
    key, value = KEY, VALUE
    before_ns = perf_counter_ns()
    for step in STEPS:
        metric(key, value, step=step)
    return perf_counter_ns() - before_ns


def time_empty_block() -> int:
    """
    Nanoseconds of the loop alone.
    """
    before_ns = perf_counter_ns()
    for _step in STEPS:
        pass
    return perf_counter_ns() - before_ns


def time_single_calls(metric: MetricCall, calls: int) -> list[int]:
    """
    Nanoseconds of each of many calls, with the timer's own cost.
    """
    key, value = KEY, VALUE
    found = [0] * calls
    for step in range(calls):
        before_ns = perf_counter_ns()
        metric(key, value, step=step)
        found[step] = perf_counter_ns() - before_ns
    return found


def timer_cost_ns() -> float:
    """
    What reading the timer twice adds to a single call's time.
    """
    found = [-(perf_counter_ns() - perf_counter_ns()) for _ in range(SINGLE_CALLS)]
    return statistics.median(found)


def measure_calls(
    subjects: Mapping[str, Subject], *, blocks: int, singles: int
) -> dict[str, CallCost]:
    """
    The cost of each subject's call, all of them in turns, in random order.

    Args:
        subjects: By name.
        blocks: Blocks of 1,000 calls for each.
        singles: Single calls for each, in goes of 10,000.
    """
    medians = _time_blocks(subjects, blocks)
    tails = _time_singles(subjects, singles)
    return {name: CallCost(medians[name], *_quantiles(tails[name])) for name in subjects}


def _time_blocks(subjects: Mapping[str, Subject], blocks: int) -> dict[str, float]:
    times: dict[str, list[int]] = {name: [] for name in subjects}
    empty: list[int] = []
    order = list(subjects)
    dice = random.Random(SEED)
    for number in range(-max(2, blocks // 20), blocks):
        dice.shuffle(order)
        empty_ns = time_empty_block()
        for name in order:
            elapsed_ns = time_block(subjects[name].metric)
            subjects[name].clear()
            if number >= 0:  # the first ones warm up
                times[name].append(elapsed_ns)
        empty.append(empty_ns)
    loop_ns = statistics.median(empty)
    return {
        name: (statistics.median(found) - loop_ns) / BLOCK_CALLS for name, found in times.items()
    }


def _time_singles(subjects: Mapping[str, Subject], singles: int) -> dict[str, list[float]]:
    timer_ns = timer_cost_ns()
    found: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    dice = random.Random(SEED)
    for start in range(0, singles, SINGLE_CALLS):
        dice.shuffle(order)
        for name in order:
            times = time_single_calls(subjects[name].metric, min(SINGLE_CALLS, singles - start))
            found[name] += [max(0.0, elapsed_ns - timer_ns) for elapsed_ns in times]
            subjects[name].clear()
    return found


def _quantiles(times_ns: Sequence[float]) -> tuple[float, float, float]:
    p99, p999, top = np.quantile(np.asarray(times_ns), [0.99, 0.999, 1.0])
    return float(p99), float(p999), float(top)


def median_ms(work: Callable[[], Any], times: int) -> float:
    """
    Median of several calls, in milliseconds.
    """
    found = []
    for _ in range(times):
        before_ns = time.perf_counter_ns()
        work()
        found.append(time.perf_counter_ns() - before_ns)
    return statistics.median(found) / 1e6
