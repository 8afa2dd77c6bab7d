"""
Anomalies within a run: each kind is found where it is, and healthy runs are silent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from allele_mlflow.analysis.anomalies import find_anomalies
from allele_mlflow.analysis.run_history import Anomaly, AnomalyKind
from allele_mlflow.analysis.shift_evidence import FloatArray
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction

BEST, DIVERSITY, RSS = "fitness/best", "diversity", "system/process_rss_megabytes"
OBJECTIVES = {BEST: Direction.HIGHER}
COUNT = 300


def frame(columns: Mapping[str, FloatArray], *, step_s: FloatArray | float = 1.0) -> pd.DataFrame:
    """
    Readings of one run: each key once a step.
    """
    parts = []
    for key, values in columns.items():
        count = len(values)
        times_s = np.cumsum(np.broadcast_to(step_s, count))
        parts.append(
            pd.DataFrame(
                {
                    "key": key,
                    "step": np.arange(count),
                    "timestamp_ms": 1_000_000 + np.rint(1_000 * times_s).astype(int),
                    "value": values,
                }
            )
        )
    return pd.concat(parts)


def healthy(seed: int) -> pd.DataFrame:
    """
    A search that converges as it should, with a steady program around it.
    """
    rng = np.random.default_rng(seed)
    steps = np.arange(COUNT)
    trials = 1 - np.exp(-steps / 60) - np.abs(0.05 * rng.standard_normal(COUNT))
    columns = {
        BEST: np.maximum.accumulate(trials),
        "fitness/mean": trials - 0.1 + 0.02 * rng.standard_normal(COUNT),
        "loss": np.exp(-steps / 80) * np.exp(0.25 * rng.standard_normal(COUNT)),
        DIVERSITY: 0.3 * np.exp(-steps / 100) + 0.02 * rng.random(COUNT),
        RSS: 200 + 80 * (1 - np.exp(-steps / 20)) + 2 * rng.standard_normal(COUNT),
    }
    return frame(columns, step_s=np.exp(0.25 * rng.standard_normal(COUNT)))


def found(readings: pd.DataFrame) -> list[Anomaly]:
    """
    What is found, the objective being told.
    """
    return find_anomalies(readings, objectives=OBJECTIVES)


def only(readings: pd.DataFrame) -> Anomaly:
    """
    The one thing that is found.
    """
    (anomaly,) = found(readings)
    return anomaly


def noise(seed: int = 1, count: int = COUNT) -> FloatArray:
    """
    Normal noise of 3 % around 1.
    """
    return 1 + 0.03 * np.random.default_rng(seed).standard_normal(count)


def test_healthy_runs_are_silent() -> None:
    """
    Of 60 runs that converge and scatter as runs do, none has an anomaly.
    """
    assert [one for seed in range(60) for one in found(healthy(seed))] == []


@pytest.mark.parametrize("kind", ["normal", "log-normal", "walk"])
def test_noise_is_silent(kind: str) -> None:
    """
    Nor has pure noise, skewed noise, or a metric that wanders, in 30 seeds each.
    """
    words = []
    for seed in range(30):
        rng = np.random.default_rng(1_000 + seed)
        values = rng.standard_normal(COUNT)
        if kind == "log-normal":
            values = np.exp(0.25 * values)
        elif kind == "walk":
            values = np.cumsum(values)
        columns = {"mine": values, BEST: rng.standard_normal(COUNT), RSS: 300 + np.abs(values)}
        words += [one.words for one in found(frame(columns)) if one.kind != AnomalyKind.STUCK]
    assert words == []


def test_readings_that_are_not_finite() -> None:
    """
    NaN and infinity: one finding for a key, from the first to the last, with their number.
    """
    values = noise()
    values[[40, 41, 90]] = [np.nan, np.inf, -np.inf]
    anomaly = only(frame({"loss": values}))
    assert (anomaly.kind, anomaly.key, anomaly.severity) == (
        AnomalyKind.NOT_FINITE,
        "loss",
        "error",
    )
    assert (anomaly.first_step, anomaly.last_step) == (40, 90)
    assert anomaly.evidence == {"readings": 3, "episodes": 2}
    assert anomaly.words == "loss is nan first, and 3 readings of 300 in all"


def test_divergence() -> None:
    """
    A loss that grows exponentially at the end diverges; one that falls as fast does not.
    """
    values = np.r_[noise(count=240), np.exp(np.arange(60) / 5)]
    anomaly = only(frame({"loss": values}))
    assert (anomaly.kind, anomaly.last_step) == (AnomalyKind.DIVERGENCE, 299)
    assert anomaly.evidence["times"] > 1_000
    assert found(frame({"loss": values[::-1]})) == []


def test_stuck_objective() -> None:
    """
    An objective that improved every few steps and then never again; the other way round it is a
    matter of its direction.
    """
    values = np.r_[np.arange(50.0), np.full(150, 49.0)]
    anomaly = only(frame({BEST: values}))
    assert (anomaly.kind, anomaly.first_step, anomaly.last_step) == (AnomalyKind.STUCK, 49, 199)
    assert anomaly.evidence == {"waited_readings": 150, "longest_wait_readings": 1}
    lower = find_anomalies(frame({BEST: -values}), objectives={BEST: Direction.LOWER})
    assert [one.kind for one in lower] == [AnomalyKind.STUCK]
    assert find_anomalies(frame({BEST: values})) == []


def test_objective_that_never_improved() -> None:
    """
    Is stuck from the first step on.
    """
    anomaly = only(frame({BEST: np.full(40, 0.5)}))
    assert (anomaly.first_step, anomaly.words) == (
        0,
        "fitness/best never improved; the longest wait before was 1",
    )


def test_diversity_collapse() -> None:
    """
    Diversity that falls to nothing and stays there, dated; what recovers is none.
    """
    values = np.r_[0.3 * noise(count=100), np.full(50, 1e-4)]
    anomaly = only(frame({DIVERSITY: values}))
    assert (anomaly.kind, anomaly.first_step) == (AnomalyKind.DIVERSITY_COLLAPSE, 100)
    recovered = np.r_[values, 0.3 * noise(count=100)]
    assert found(frame({DIVERSITY: recovered})) == []


def test_memory_that_grows() -> None:
    """
    A steady leak is found with its slope; growth that levels off is not, nor a small one.
    """
    steps = np.arange(COUNT)
    leak = 200 + steps + noise()
    anomaly = only(frame({RSS: leak}, step_s=10.0))
    assert anomaly.kind is AnomalyKind.MEMORY_SLOPE
    assert anomaly.evidence["megabytes_per_hour"] == pytest.approx(360, rel=0.01)
    assert found(frame({RSS: 200 + 300 * (1 - np.exp(-steps / 30.0)) + noise()})) == []
    assert found(frame({RSS: 200 + 0.05 * steps + noise()})) == []


def test_spikes() -> None:
    """
    Single readings far off are one finding with their number and the largest.
    """
    values = noise()
    values[[50, 200]] = [3.0, 5.0]
    anomaly = only(frame({"mine": values}))
    assert (anomaly.kind, anomaly.first_step, anomaly.last_step) == (AnomalyKind.SPIKES, 50, 200)
    assert anomaly.evidence == {"spikes": 2, "largest": 5.0}


def test_throughput_drop() -> None:
    """
    Steps that take twice as long from some point on are dated; one that speeds up is no anomaly.
    """
    rng = np.random.default_rng(3)
    step_s = np.exp(0.2 * rng.standard_normal(COUNT)) * np.where(np.arange(COUNT) < 200, 1, 2)
    anomaly = only(frame({"mine": noise()}, step_s=step_s))
    assert anomaly.kind is AnomalyKind.THROUGHPUT_DROP
    assert abs(anomaly.first_step - 200) <= 16
    assert anomaly.evidence["drop_ratio"] == pytest.approx(0.5, abs=0.05)
    assert found(frame({"mine": noise()}, step_s=step_s[::-1])) == []


def test_stall() -> None:
    """
    Two minutes of silence in a program that logs each second: where, and how long; samples of the
    sidecar are no sign of life.
    """
    step_s = np.ones(COUNT)
    step_s[150] = 120.0
    quiet = frame({"mine": noise()}, step_s=step_s)
    samples = frame({"system/process_threads": np.full(500, 4.0)})
    anomaly = only(pd.concat([quiet, samples]))
    assert (anomaly.kind, anomaly.key) == (AnomalyKind.STALL, "*")
    assert (anomaly.first_step, anomaly.last_step) == (149, 150)
    assert anomaly.evidence == {"silent_s": 120.0, "limit_s": 30.0}
    assert anomaly.ended_ms - anomaly.started_ms == 120_000


def test_slow_program_does_not_stall() -> None:
    """
    What is usual is learnt from the run: a minute between readings is no stall where it always is
    one.
    """
    assert found(frame({"mine": noise()}, step_s=60.0)) == []


def test_short_and_empty_runs_are_silent() -> None:
    """
    Too little to judge is nothing, not an error.
    """
    assert found(healthy(1).iloc[:0]) == []
    assert (
        found(frame({"mine": noise(count=3), RSS: noise(count=2), DIVERSITY: noise(count=1)})) == []
    )


def test_frame_without_a_column_is_refused() -> None:
    """
    The error names what is missing and what is wanted.
    """
    with pytest.raises(AnalysisError, match="without value: want key, step, timestamp_ms, value"):
        find_anomalies(healthy(1).drop(columns="value"))
