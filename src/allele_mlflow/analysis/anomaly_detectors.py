"""
Detectors of anomalies in one history of a run: each gives a finding or None.

They would rather miss than cry wolf: limits are such that noise and a search that converges as it
should stay silent, for every run has dozens of metrics.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from allele_mlflow.analysis.changes import MIN_POINTS, Preset, find_shifts
from allele_mlflow.analysis.drift import measure_drift
from allele_mlflow.analysis.outliers import NEIGHBOURS, find_outliers, noise_sigma
from allele_mlflow.analysis.run_history import Anomaly, AnomalyKind, History
from allele_mlflow.analysis.shift_evidence import FloatArray
from allele_mlflow.units import Direction

#: An objective is stuck after this many readings without an improvement, and this many times the
#: longest wait before: waits grow by themselves as a search converges.
STUCK_READINGS, STUCK_TIMES_LONGEST = 30, 10
#: Diversity has collapsed at this part of what it was at first, for so many readings to the end.
COLLAPSED_RATIO, COLLAPSED_READINGS = 0.01, 5
#: A metric diverges when it ends at this many times the largest it was in the first three quarters,
#: still rising.
DIVERGED_TIMES, DIVERGENCE_READINGS = 100.0, 20
#: Memory: growth that counts, and the start that does not.
LEAK_RATIO, LEAK_MEGABYTES, LEAK_P, WARM_UP_RATIO = 0.2, 50.0, 0.001, 0.25
LEAK_READINGS, LEAK_POINTS = 40, 200
SPIKE_SIGMA, SPIKE_RATIO, SPIKE_READINGS, SPIKE_BLOCK = 12.0, 0.2, 30, 25
#: Throughput: blocks of readings that are compared, and how sure and large a drop must be.
THROUGHPUT_BLOCKS, THROUGHPUT_READINGS = 40, 120
_DROP = Preset(name="throughput", alpha=0.0005, min_delta_sigma=3.0, min_delta_ratio=0.0)
DROP_RATIO = 0.3


def find_divergence(history: History) -> Anomaly | None:
    """
    A value that runs away.
    """
    sizes = np.abs(history.finite().values)
    if len(sizes) < DIVERGENCE_READINGS:
        return None
    begin = 3 * len(sizes) // 4
    before = float(sizes[:begin].max())
    is_rising = np.diff(sizes[-DIVERGENCE_READINGS // 2 :]) >= 0
    if before <= 0 or sizes[-1] < DIVERGED_TIMES * before or is_rising.mean() < 0.8:
        return None
    times = float(sizes[-1]) / before
    return history.finite().anomaly(
        AnomalyKind.DIVERGENCE,
        begin,
        -1,
        severity="error",
        words=f"{history.key} diverges: {times:.3g} times what it was at most",
        evidence={"largest_before": before, "last": float(sizes[-1]), "times": times},
    )


def find_stuck(history: History, direction: Direction) -> Anomaly | None:
    """
    An objective that stopped improving, much longer than it ever took before.
    """
    finite = history.finite()
    count = len(finite)
    if count <= STUCK_READINGS or direction is Direction.NONE:
        return None
    signed = finite.values if direction is Direction.HIGHER else -finite.values
    best = np.maximum.accumulate(signed)
    improved = np.flatnonzero(np.diff(best) > 0) + 1
    newest = int(improved[-1]) if len(improved) else 0
    waits = np.diff(np.r_[0, improved])
    longest = int(waits.max()) if len(waits) else 1
    waited = count - 1 - newest
    if waited < STUCK_READINGS or waited < STUCK_TIMES_LONGEST * longest:
        return None
    since = "never improved" if not len(improved) else f"has not improved for {waited} readings"
    return finite.anomaly(
        AnomalyKind.STUCK,
        newest,
        -1,
        severity="warning",
        words=f"{history.key} {since}; the longest wait before was {longest}",
        evidence={"waited_readings": waited, "longest_wait_readings": longest},
    )


def find_diversity_collapse(history: History) -> Anomaly | None:
    """
    A population that has become one individual.
    """
    finite = history.finite()
    if len(finite) < 2 * COLLAPSED_READINGS:
        return None
    start = float(np.median(finite.values[:3]))
    is_low = finite.values <= COLLAPSED_RATIO * start
    if start <= 0 or not is_low[-COLLAPSED_READINGS:].all():
        return None
    first = int(np.flatnonzero(~is_low)[-1]) + 1
    return finite.anomaly(
        AnomalyKind.DIVERSITY_COLLAPSE,
        first,
        -1,
        severity="warning",
        words=f"{history.key} fell from {start:.3g} to {finite.values[-1]:.3g} and stays there",
        evidence={"start": start, "last": float(finite.values[-1])},
    )


def find_memory_slope(history: History) -> Anomaly | None:
    """
    Memory that grows to the end, in both halves of what follows the warm-up.
    """
    finite = history.finite()
    rest = finite.pick(slice(int(WARM_UP_RATIO * len(finite)), None))
    if len(rest) < LEAK_READINGS:
        return None
    rest = rest.pick(slice(None, None, -(-len(rest) // LEAK_POINTS)))
    hours = (rest.timestamp_ms - rest.timestamp_ms[0]) / 3_600_000
    drift = measure_drift(rest.values, positions=hours)
    growth = drift.slope_per_step * float(hours[-1])
    middle = len(rest) // 2
    halves = [
        measure_drift(rest.values[part], positions=hours[part]).slope_low
        for part in (slice(None, middle), slice(middle, None))
    ]
    least = max(LEAK_MEGABYTES, LEAK_RATIO * float(np.median(rest.values)))
    if drift.p > LEAK_P or growth < least or min(halves) <= 0:
        return None
    return rest.anomaly(
        AnomalyKind.MEMORY_SLOPE,
        0,
        -1,
        severity="warning",
        words=f"{history.key} grows by {drift.slope_per_step:.3g} MB/h, {growth:.3g} MB so far",
        evidence={
            "megabytes_per_hour": drift.slope_per_step,
            "megabytes_per_hour_low": drift.slope_low,
            "megabytes_per_hour_high": drift.slope_high,
            "growth_megabytes": growth,
            "p": drift.p,
        },
    )


def find_spikes(history: History) -> Anomaly | None:
    """
    Single readings far from those on both sides; all of a history in one finding.
    """
    finite = history.finite()
    if len(finite) < SPIKE_READINGS:
        return None
    # noise may shrink or grow with the values: that of the place counts, and that of all
    blocks = np.array_split(finite.values, max(1, len(finite) // SPIKE_BLOCK))
    nearby = np.repeat([noise_sigma(one) for one in blocks], [len(one) for one in blocks])
    is_spike = find_outliers(finite.values, spreads=nearby, limit_sigma=SPIKE_SIGMA)
    is_spike[:NEIGHBOURS] = False  # a search begins steeply
    is_spike[-1] = False  # nothing is known yet of what comes after it
    apart = np.abs(finite.values - np.median(finite.values))
    is_spike &= apart > SPIKE_RATIO * np.median(np.abs(finite.values))
    places = np.flatnonzero(is_spike)
    if not len(places) or len(places) > len(finite) // 20:
        return None  # what comes up in every twentieth reading belongs to the metric
    largest = float(finite.values[places[np.argmax(apart[places])]])
    return finite.anomaly(
        AnomalyKind.SPIKES,
        int(places[0]),
        int(places[-1]),
        severity="info",
        words=f"{history.key} has a spike to {largest:.6g}"
        if len(places) == 1
        else f"{history.key} has {len(places)} spikes, the largest to {largest:.6g}",
        evidence={"spikes": len(places), "largest": largest},
    )


def find_throughput_drop(history: History) -> Anomaly | None:
    """
    Steps that take longer from some point to the end.

    The time of a step is compared over blocks of readings, on logarithms; the longest pause of a
    block is left to stalls.
    """
    step_s = _seconds_per_step(history)
    if len(step_s) < THROUGHPUT_READINGS:
        return None
    edges = np.linspace(0, len(step_s), THROUGHPUT_BLOCKS + 1).astype(int)
    blocks = [step_s[a:b] for a, b in pairwise(edges)]
    medians = np.array([float(np.median(block)) for block in blocks])
    if (medians <= 0).any() or len(medians) < MIN_POINTS:
        return None
    shifts = find_shifts(np.log(medians), preset=_DROP)
    if not shifts or shifts[-1].delta <= 0:
        return None
    times = float(np.exp(shifts[-1].delta))
    if 1 - 1 / times < DROP_RATIO:
        return None
    return history.anomaly(
        AnomalyKind.THROUGHPUT_DROP,
        int(edges[shifts[-1].index]),
        -1,
        severity="warning",
        words=f"steps of {history.key} take {times:.3g} times as long as before",
        evidence={
            "seconds_per_step_before": float(np.exp(shifts[-1].level_before)),
            "seconds_per_step_after": float(np.exp(shifts[-1].level_after)),
            "drop_ratio": 1 - 1 / times,
            "p": shifts[-1].p,
        },
    )


def _seconds_per_step(history: History) -> FloatArray:
    """
    Between neighbours; empty where the steps do not rise.
    """
    steps = np.diff(history.steps)
    if not len(steps) or (steps <= 0).any():
        return np.array([])
    found: FloatArray = np.diff(history.timestamp_ms) / 1_000 / steps
    return found
