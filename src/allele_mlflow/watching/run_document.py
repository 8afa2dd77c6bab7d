"""
One look at a run as a document, for programs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from allele_mlflow.queue.live import LivePhase, LiveView
from allele_mlflow.uris import path_text
from allele_mlflow.watching.run_look import RunLook


def document(look: RunLook | None, globs: Iterable[str] = ()) -> dict[str, Any]:
    """
    What `--json` writes; `run` is None where there is no run to watch.

    JSON knows no NaN and no infinities: these values are the texts "NaN", "Infinity" and
    "-Infinity".
    """
    if look is None:
        return {"run": None}
    view, state, ledger = look.view, look.state, look.ledger
    return {
        "run": {
            "run_uid": look.spec.run_uid,
            "run_id": state.run_id if state else None,
            "run_name": look.spec.run_name,
            "experiment": look.spec.experiment,
            "status": look.status,
            "over": look.is_over,
            "benchmark_alive": look.is_benchmark_alive,
            "elapsed_s": look.elapsed_s,
            "store": look.spec.tracking_uri_masked,
            "url": state.run_url if state else None,
            "spool": path_text(look.folder.parents[2]),
            "at_ns": look.at_ns,
        },
        "sidecar": look.sidecar.describe() if look.sidecar is not None else None,
        "served": look.is_served,
        "accepted": ledger.accepted,
        "ledger": msgspec.to_builtins(ledger),
        "records_per_s": look.records_per_s,
        "delivered_per_s": state.delivered_per_s if state else None,
        "lag_s": look.lag_s,
        "last_error": state.last_error if state else None,
        "alerts": state.alert_counts if state else {},
        "last_alert": state.last_alert if state else None,
        "ahead": view.is_ahead if view else False,
        "keys": [_key(look, view, name) for name in _names(view, globs)] if view else [],
        "keys_left_out": view.left_out if view else 0,
        "phases": {
            "open": [_phase(one, look.phases_at_ns) for one in view.open_phases] if view else [],
            "open_count": view.open_count if view else 0,
            "closed": [_phase(one, look.at_ns) for one in view.closed_phases] if view else [],
        },
    }


def chosen_keys(view: LiveView, globs: Iterable[str]) -> list[str]:
    """
    The keys that fit a glob, in the order in which they came; without globs all but resources.
    """
    wanted = list(globs)
    if wanted:
        return [name for name in view.keys if any(fnmatchcase(name, glob) for glob in wanted)]
    return [name for name, key in view.keys.items() if not key.is_resource]


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """
    The least and the greatest, infinities among them; NaN where there is nothing else.
    """
    numbers = [value for value in values if not math.isnan(value)]
    return (min(numbers), max(numbers)) if numbers else (math.nan, math.nan)


def _names(view: LiveView, globs: Iterable[str]) -> list[str]:
    wanted = tuple(globs)
    return chosen_keys(view, wanted) if wanted else list(view.keys)


def _key(look: RunLook, view: LiveView, name: str) -> dict[str, Any]:
    window = view.window(name)
    low, high = bounds([point.value for point in window])
    return {
        "key": name,
        "resource": view.keys[name].is_resource,
        "value": _number(window[-1].value),
        "step": window[-1].step,
        "timestamp_ms": window[-1].timestamp_ms,
        "min": _number(low),
        "max": _number(high),
        "count": view.keys[name].count,
        "per_s": look.rate_per_s(name),
        "window": [[point.step, point.timestamp_ms, _number(point.value)] for point in window],
    }


def _phase(phase: LivePhase, at_ns: int) -> dict[str, Any]:
    return {
        "name": phase.name,
        "step": phase.step,
        "begin_ns": phase.begin_ns,
        "end_ns": phase.end_ns,
        "seconds": phase.age_s(at_ns),
        "complete": phase.complete,
    }


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
