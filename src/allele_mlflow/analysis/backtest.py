"""
Our own predictions, made after the fact as they would have been made half-way through each run, and
scored like anybody's.

Only what was known then counts: the first half of the run's steps, and runs of the same cell that
were over before it began. The time left is predicted when half of their mean time has gone by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from allele_mlflow.analysis.frames import ExperimentFrames
from allele_mlflow.analysis.learning_curve import FEWEST_READINGS
from allele_mlflow.analysis.prediction_scores import Settled
from allele_mlflow.analysis.predictions import (
    FEWEST_PAST,
    Prediction,
    predict_final,
    predict_time_left,
)
from allele_mlflow.analysis.told_advice import ToldPrediction

_MS_PER_S = 1000


class _Run(NamedTuple):
    """
    A run that finished, with the curve of one metric by step.
    """

    run_id: str
    group: tuple[Any, ...]
    began_ms: float
    seconds: float
    steps: np.ndarray
    values: np.ndarray

    @property
    def half(self) -> int:
        """
        How many readings its first half has.
        """
        return int(np.searchsorted(self.steps, self.steps[-1] / 2, side="right"))


def backtest(frames: ExperimentFrames, histories: pd.DataFrame, metric: str) -> list[Settled]:
    """
    What `predict_final` and `predict_time_left` would have said half-way, against what came.

    Args:
        frames: Of an experiment.
        histories: Columns of `tracking.frames.HISTORY`, with the metric's.
        metric: A key with a curve: of a run with fewer than ten steps nothing is predicted.
    """
    runs = list(_finished(frames, histories, metric))
    return [one for run in runs for one in _predictions(run, _before(run, runs), metric)]


def _finished(frames: ExperimentFrames, histories: pd.DataFrame, metric: str) -> Iterator[_Run]:
    curves = dict(list(histories[histories["key"] == metric].groupby("run_id")))
    for run in frames.runs.to_dict("records"):
        curve = curves.get(run["run_id"])
        if curve is None or run["is_failed"] is not False:
            continue
        last = curve[np.isfinite(curve["value"])].drop_duplicates("step", keep="last")
        last = last.sort_values("step")
        if len(last):
            yield _Run(
                run["run_id"],
                (run["kind"], run["suite"], run["cell_key"]),
                run["started_at"].timestamp() * _MS_PER_S,
                run["seconds"],
                last["step"].to_numpy(dtype=np.float64),
                last["value"].to_numpy(dtype=np.float64),
            )


def _before(run: _Run, runs: Sequence[_Run]) -> list[_Run]:
    return [
        one
        for one in runs
        if one.group == run.group and one.began_ms + one.seconds * _MS_PER_S <= run.began_ms
    ]


def _predictions(run: _Run, past: Sequence[_Run], metric: str) -> Iterator[Settled]:
    half = run.half
    end, last = float(run.values[-1]), float(run.values[max(half - 1, 0)])
    if FEWEST_READINGS <= half < len(run.steps):
        steps, values = run.steps[:half], run.values[:half]
        curve = predict_final(metric, steps, values, run.steps[-1])
        yield _settled(run, curve, end, last)
        same = [one for one in past if one.half == half and len(one.steps) == len(run.steps)]
        changes = [one.values[-1] - one.values[half - 1] for one in same]
        if len(changes) >= FEWEST_PAST:
            found = predict_final(metric, steps, values, run.steps[-1], past_changes=changes)
            yield _settled(run, found, end, last)
    seconds = [one.seconds for one in past if one.seconds > 0.0]
    # half of what runs took before, and not of what this one took: that was not known then
    elapsed_s = float(np.mean(seconds)) / 2 if seconds else 0.0
    if len(seconds) >= FEWEST_PAST and run.seconds > elapsed_s:
        left = predict_time_left(elapsed_s, past_seconds=seconds)
        yield _settled(run, left, run.seconds - elapsed_s, elapsed_s)


def _settled(run: _Run, found: Prediction, outcome: float, naive: float) -> Settled:
    told = ToldPrediction(
        prediction_id="",
        run_id=run.run_id,
        source=f"allele-mlflow, {found.method}",
        kind=found.kind.value,
        metric=found.metric,
        time_ms=round(run.began_ms + run.seconds * _MS_PER_S / 2),
        horizon_s=None,
        value=found.value,
        low_80=found.low_80,
        high_80=found.high_80,
        low_95=found.low_95,
        high_95=found.high_95,
    )
    return Settled(told, outcome, naive, "")
