"""
How good searches are at any time: the objective of each run of a selection against evaluations, and
what COCO's measures say of each cell.

Evaluations, never seconds: a search is as good on a slow machine. A step is one evaluation unless a
parameter says how many it is, as a population's size does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from allele_mlflow.analysis.anytime import (
    SearchRun,
    area_under,
    best_so_far,
    expected_running_time,
    hitting_time,
    runtime_distribution,
)
from allele_mlflow.analysis.frames import ExperimentFrames, params_by_run, shaped, whole_histories
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.units import Direction

#: One row a run: mean of the best so far between the worst start and the best end of all, 0 to 1.
RUN_AREAS = {
    "run_id": "object",
    "cell": "object",
    "seed": "Int64",
    "evaluations": "float64",
    "best": "float64",
    "area": "float64",
}
#: One row a cell and target: expected running time and how many runs reached it.
RUNNING_TIMES = {
    "cell": "object",
    "target": "float64",
    "runs": "int64",
    "reached": "int64",
    "expected_evaluations": "float64",
    "median_evaluations": "float64",
}
#: One row a cell and number of evaluations: part of all runs and targets that are reached by then.
RUNTIMES = {"cell": "object", "evaluations": "float64", "reached_ratio": "float64"}
TARGETS = 10
#: In which a target is written; as many as tell any two apart.
_FEWEST_DIGITS, _MOST_DIGITS = 5, 17


@dataclass(frozen=True)
class SearchCurves:
    """
    The searches of a selection.

    Attributes:
        metric, direction: The objective.
        runs: By cell, the curve of each run.
        seeds: By run id.
        targets: Of the running times, easiest first, each once; fewer than ten where the values
            lie too near for that.
    """

    metric: str
    direction: Direction
    runs: Mapping[str, Mapping[str, SearchRun]]
    seeds: Mapping[str, Any]
    targets: tuple[float, ...]

    def areas(self) -> pd.DataFrame:
        """
        Columns of `RUN_AREAS`; every run over the smallest budget of all.
        """
        curves = [one for cell in self.runs.values() for one in cell.values()]
        worst, best = _ends(curves, self.direction)
        budget = min(one.budget for one in curves)
        rows = [
            {
                "run_id": run_id,
                "cell": cell,
                "seed": self.seeds.get(run_id),
                "evaluations": one.budget,
                "best": float(best_so_far(one, self.direction)[-1]),
                "area": area_under(one, self.direction, worst=worst, best=best, budget=budget)
                if worst != best
                else 1.0,
            }
            for cell, runs in self.runs.items()
            for run_id, one in runs.items()
        ]
        return shaped(pd.DataFrame(rows), RUN_AREAS)

    def running_times(self) -> pd.DataFrame:
        """
        Columns of `RUNNING_TIMES`.
        """
        rows = []
        for cell, runs in self.runs.items():
            curves = list(runs.values())
            for target in self.targets:
                times = [hitting_time(one, target, self.direction) for one in curves]
                hit = [time for time in times if time is not None]
                rows.append(
                    {
                        "cell": cell,
                        "target": target,
                        "runs": len(curves),
                        "reached": len(hit),
                        "expected_evaluations": expected_running_time(
                            curves, target, self.direction
                        ),
                        "median_evaluations": float(np.median(hit)) if hit else np.nan,
                    }
                )
        return shaped(pd.DataFrame(rows), RUNNING_TIMES)

    def runtimes(self) -> pd.DataFrame:
        """
        Columns of `RUNTIMES`: the ECDF of each cell over all targets.
        """
        parts = [
            runtime_distribution(list(runs.values()), self.targets, self.direction).assign(
                cell=cell
            )
            for cell, runs in self.runs.items()
        ]
        return shaped(pd.concat(parts, ignore_index=True), RUNTIMES)


def read_curves(
    reader: Reader,
    frames: ExperimentFrames,
    metric: str,
    direction: Direction,
    *,
    per_step: str | None = None,
    targets: Sequence[float] = (),
) -> SearchCurves:
    """
    The curves of runs.

    Args:
        reader: Of the store.
        frames: The runs.
        metric: The objective, logged at the steps of the search.
        direction: Which way is better.
        per_step: Evaluations of a step: a number, or the name of a param.
        targets: Values to be reached; by default ten between the worst start and the best end.
    Raises:
        AnalysisError: no run has the metric, the direction is none, or a run lacks the param.
        TrackingError: the store does not answer.
    """
    if direction is Direction.NONE:
        raise AnalysisError(
            f"metric {metric!r}: want to know whether more or less of it is better",
            kind=ErrorKind.BAD_DATA,
        )
    ids = list(frames.metrics[frames.metrics["key"] == metric]["run_id"])
    readings = whole_histories(reader, ids, [metric])
    if not len(readings):
        keys = [key for key in frames.metrics["key"].unique() if not key.startswith("system/")]
        raise AnalysisError(
            f"no run has the metric {metric!r}; there are {', '.join(sorted(keys)[:20]) or 'none'}",
            kind=ErrorKind.BAD_DATA,
        )
    cells = frames.runs.set_index("run_id")["cell"]
    readings["cell"] = readings["run_id"].map(cells).fillna("")
    told = params_by_run(frames.params)
    each = {
        run_id: _evaluations(per_step, told.get(run_id, {}), run_id)
        for run_id in readings["run_id"].unique()
    }
    seeds = dict(frames.runs.set_index("run_id")["seed"])
    return curves_of(readings, metric, direction, evaluations=each, seeds=seeds, targets=targets)


def curves_of(
    readings: pd.DataFrame,
    metric: str,
    direction: Direction,
    *,
    evaluations: Mapping[str, float] | None = None,
    seeds: Mapping[str, Any] | None = None,
    targets: Sequence[float] = (),
) -> SearchCurves:
    """
    The curves in readings of one objective.

    Args:
        readings: Columns run_id, cell, step, timestamp_ms, value; at least one finite value.
        metric: The objective.
        direction: Which way is better.
        evaluations: Of a step, by run; 1 by default.
        seeds: By run.
        targets: As of `read_curves`.
    Raises:
        AnalysisError: no value is finite.
    """
    runs: dict[str, dict[str, SearchRun]] = {}
    for (cell, run_id), group in readings.groupby(["cell", "run_id"], sort=False):
        runs.setdefault(cell, {})[run_id] = _curve(group, (evaluations or {}).get(run_id, 1.0))
    curves = [one for cell in runs.values() for one in cell.values()]
    chosen = tuple(dict.fromkeys(targets)) or _usual_targets(curves, direction)
    return SearchCurves(metric, direction, runs, seeds or {}, chosen)


def _curve(readings: pd.DataFrame, evaluations: float) -> SearchRun:
    last = readings.sort_values(["step", "timestamp_ms"]).drop_duplicates("step", keep="last")
    first = int(last["step"].iloc[0])
    steps = last["step"].to_numpy(dtype=np.float64) - min(first, 0) + 1.0
    values = last["value"].to_numpy(dtype=np.float64)
    return SearchRun(steps * evaluations, np.where(np.isfinite(values), values, np.nan))


def _evaluations(per_step: str | None, params: Mapping[str, Any], run_id: str) -> float:
    if per_step is None:
        return 1.0
    found = params.get(per_step)
    if found is None:
        try:
            found = float(per_step)
        except ValueError as exc:
            raise AnalysisError(
                f"run {run_id} has no param {per_step!r}; want a number or one of "
                f"{', '.join(sorted(params)) or 'none'}",
                kind=ErrorKind.BAD_DATA,
            ) from exc
    if not isinstance(found, (int, float)) or not found > 0:
        raise AnalysisError(
            f"{per_step}={found!r}: want evaluations of a step above zero", kind=ErrorKind.BAD_DATA
        )
    return float(found)


def _ends(curves: Sequence[SearchRun], direction: Direction) -> tuple[float, float]:
    """
    The worst first value and the best last one.
    """
    firsts = [one.values[np.isfinite(one.values)][:1] for one in curves]
    starts = np.concatenate(firsts)
    ends = np.array([best_so_far(one, direction)[-1] for one in curves])
    if not len(starts):
        raise AnalysisError("no run has a finite value", kind=ErrorKind.BAD_DATA)
    if direction is Direction.HIGHER:
        return float(starts.min()), float(np.nanmax(ends))
    return float(starts.max()), float(np.nanmin(ends))


def _usual_targets(curves: Sequence[SearchRun], direction: Direction) -> tuple[float, ...]:
    worst, best = _ends(curves, direction)
    parts = [part / TARGETS for part in range(1, TARGETS)]
    between = [worst * (1.0 - part) + best * part for part in parts]
    low, high = sorted((worst, best))
    # by rounding, a target may pass the best value, which no run would reach, or be another's
    return tuple(dict.fromkeys([*(min(max(one, low), high) for one in between), best]))


def target_texts(targets: Sequence[float]) -> list[str]:
    """
    Each target in so many digits that no two read alike.
    """
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
        texts = [f"{one:.{digits}g}" for one in targets]
        if len(set(texts)) == len(set(targets)):
            break
    return texts
