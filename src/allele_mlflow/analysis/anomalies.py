"""
What is wrong within one run, looked for when it is over or in between.

What alerts look for while a run goes on (alerts/) is asked of alerts' own evaluation, with rules of
ours: readings that are not finite, and stalls. The rest is in anomaly_detectors.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from allele_mlflow.alerts.evaluation import Evaluator
from allele_mlflow.alerts.findings import Raised, Resolved
from allele_mlflow.alerts.rules import AlertRule
from allele_mlflow.analysis.anomaly_detectors import (
    find_divergence,
    find_diversity_collapse,
    find_memory_slope,
    find_spikes,
    find_stuck,
    find_throughput_drop,
)
from allele_mlflow.analysis.run_history import Anomaly, AnomalyKind, History, histories_of
from allele_mlflow.records import Reading
from allele_mlflow.units import Direction

RESOURCES, PHASES = "system/", "phase/"
MEMORY_KEYS = ("system/process_rss_megabytes", "system/process_pss_megabytes")
#: A silence is a stall from this long on, and this many times the pause that one in a hundred
#: exceeds.
STALL_S, STALL_TIMES = 30.0, 20.0
_FEWEST_PAUSES = 20

_NOT_FINITE = AlertRule(name="not finite", metric="*", condition="nan", cooldown_s=0)


def find_anomalies(
    readings: pd.DataFrame,
    *,
    objectives: Mapping[str, Direction] | None = None,
    diversities: Sequence[str] | None = None,
) -> list[Anomaly]:
    """
    All anomalies of one run, in the order in which they begin.

    Args:
        readings: All readings of the run: columns key, step, timestamp_ms, value.
        objectives: Keys that a search improves, and which way.
        diversities: Keys that measure diversity; None: those whose last part begins with
            "diversity".
    Raises:
        AnalysisError: a column is missing.

    Cost: O(n) in the readings of each key; of memory, O(n^2) in 200 of them.
    """
    histories = histories_of(readings)
    found: list[Anomaly | None] = [*_stalls(histories)]
    for history in histories:
        found += _find_in(history, objectives or {}, diversities)
    return sorted(
        (one for one in found if one is not None),
        key=lambda one: (one.started_ms, one.key, one.kind),
    )


def _find_in(
    history: History, objectives: Mapping[str, Direction], diversities: Sequence[str] | None
) -> list[Anomaly | None]:
    key = history.key
    found: list[Anomaly | None] = [*_not_finite(history)]
    if key in MEMORY_KEYS:
        found.append(find_memory_slope(history))
    if key.startswith((RESOURCES, PHASES)):
        return found  # of the machine and of ends of phases, jumps are no news
    found += [find_divergence(history), find_spikes(history), find_throughput_drop(history)]
    if key in objectives:
        found.append(find_stuck(history, objectives[key]))
    is_diversity = key.rpartition("/")[2].startswith("diversity")
    if key in diversities if diversities is not None else is_diversity:
        found.append(find_diversity_collapse(history))
    return found


def _not_finite(history: History) -> list[Anomaly]:
    """
    Episodes of readings that are not finite.
    """
    places = np.flatnonzero(~np.isfinite(history.values))
    if not len(places):
        return []
    found = Evaluator([_NOT_FINITE], started_ns=0).take("", _readings(history))
    raised = [one.alert for one in found if isinstance(one, Raised)]
    first, last = int(places[0]), int(places[-1])
    count = len(places)
    return [
        history.anomaly(
            AnomalyKind.NOT_FINITE,
            first,
            last,
            severity="error",
            words=f"{raised[0].message} first, and {count} readings of {len(history)} in all",
            evidence={"readings": count, "episodes": len(raised)},
        )
    ]


def _stalls(histories: list[History]) -> list[Anomaly]:
    """
    Silences of the whole program: nothing logged but what the sidecar samples by itself.
    """
    own = [one for one in histories if not one.key.startswith(RESOURCES)]
    times = np.unique(np.concatenate([one.timestamp_ms for one in own])) if own else np.array([])
    pauses_s = np.diff(times) / 1_000
    if len(pauses_s) < _FEWEST_PAUSES:
        return []
    usual_s = float(np.quantile(pauses_s, 0.99, method="lower"))
    limit_s = max(STALL_S, STALL_TIMES * usual_s)
    rule = AlertRule(name="stall", metric="*", stalled_s=limit_s, cooldown_s=0)
    evaluator = Evaluator([rule], started_ns=int(times[0]) * 1_000_000)
    readings = [Reading("*", 0.0, int(one), 0) for one in times]
    found = evaluator.take_signs("", readings)
    ends = [one.timestamp_ns // 1_000_000 for one in found if isinstance(one, Resolved)]
    return [_stall(own, times, end_ms, limit_s) for end_ms in ends]


def _stall(own: list[History], times: np.ndarray, end_ms: int, limit_s: float) -> Anomaly:
    place = int(np.searchsorted(times, end_ms))
    start_ms = int(times[place - 1])
    silent_s = (end_ms - start_ms) / 1_000
    before = [int(one.steps[one.timestamp_ms <= start_ms].max(initial=0)) for one in own]
    after = [int(one.steps[one.timestamp_ms <= end_ms].max(initial=0)) for one in own]
    return Anomaly(
        kind=AnomalyKind.STALL,
        key="*",
        first_step=max(before),
        last_step=max(after),
        started_ms=start_ms,
        ended_ms=end_ms,
        severity="warning",
        evidence={"silent_s": silent_s, "limit_s": limit_s},
        words=f"nothing was logged for {silent_s:.4g} s; up to {limit_s:.3g} s would be usual",
    )


def _readings(history: History) -> list[Reading]:
    rows = zip(history.values, history.timestamp_ms, history.steps, strict=True)
    return [Reading(history.key, float(value), int(at), int(step)) for value, at, step in rows]
