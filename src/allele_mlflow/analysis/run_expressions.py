"""
Runs of which an expression over params and tags is true, in whose names all but letters and digits
is written as _.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from allele_mlflow.analysis.frames import ExperimentFrames, param_value, params_by_run
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.expressions import Expression
from allele_mlflow.tracking.frames import MOST_RUN_IDS, Reader


def runs_that_hold(
    reader: Reader, frames: ExperimentFrames, wanted: Expression, *, text: str
) -> pd.DataFrame:
    """
    Of these runs those of which the expression is true; a run without one of its names is none.

    Args:
        reader: Of the store: tags are asked for where params alone do not have all names.
        frames: Runs with all their params.
        wanted: The expression.
        text: What the user wrote, for errors.
    Raises:
        AnalysisError: no run has a param or tag of one of its names.
        MatrixError: it cannot be computed of a run.
        TrackingError: the store does not answer.
    """
    told = {run_id: _plain(params) for run_id, params in params_by_run(frames.params).items()}
    known = {name for params in told.values() for name in params}
    if not wanted.names <= known:
        for run_id, key, value in _tags_of(reader, frames.runs):
            told.setdefault(run_id, {}).setdefault(identifier(key), param_value(value))
        known = {name for params in told.values() for name in params}
    unknown = sorted(wanted.names - known)
    if unknown:
        theirs = sorted(name for name in known if not name.startswith(("allele_", "mlflow_")))
        raise AnalysisError(
            f"{text!r}: no run has a param or tag {unknown[0]!r}; there are "
            f"{', '.join(theirs) or 'none'}",
            kind=ErrorKind.BAD_DATA,
            selection=text,
        )
    ids = [
        run_id
        for run_id, params in told.items()
        if wanted.names <= params.keys() and wanted.holds(params)
    ]
    return frames.runs[frames.runs["run_id"].isin(ids)]


def identifier(name: str) -> str:
    """
    A name as expressions write it.
    """
    return re.sub(r"\W", "_", name)


def _tags_of(reader: Reader, runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    ids = list(runs["run_id"])
    few = ids if len(ids) <= MOST_RUN_IDS else None
    experiments = list(runs["experiment_id"].unique())
    told = reader.runs(experiments, run_ids=few, param_keys=[], metric_keys=[]).tags
    own = told[told["run_id"].isin(ids)]
    return list(own[["run_id", "key", "value"]].itertuples(index=False, name=None))


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    return {identifier(name): value for name, value in params.items()}
