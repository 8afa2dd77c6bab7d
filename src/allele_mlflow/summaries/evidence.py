"""
What an execution shows beside its numbers: whether it is better than the one before it, and how
soon its searches reached their targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.comparison import CompareOptions
from allele_mlflow.analysis.frames import ExperimentFrames
from allele_mlflow.analysis.search_curves import curves_of
from allele_mlflow.analysis.selection import FoundRuns, Selection, SuiteFacts, Target, select_found
from allele_mlflow.analysis.suite_comparison import OF_EVERY_RUN, compare_selections
from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.errors import AnalysisError
from allele_mlflow.reports.summary import Objective, PastComparison, Searches
from allele_mlflow.units import Direction

#: Cells of an execution that are compared, at most: each takes tens of milliseconds.
MOST_CELLS = 300


def compare_with_before(
    tracking_uri: str,
    found: FoundRuns,
    *,
    facts: SuiteFacts | None = None,
    environment: Environment | None = None,
) -> tuple[PastComparison | None, str]:
    """
    An execution against the last one before it that is over; None where there is none, or nothing
    that can be compared, with the reason where there is one.

    Args:
        tracking_uri: As MLflow takes it.
        found: The execution, as `find_runs` finds it.
        facts: Of the suite, where the caller knows them: its own run may not have them yet.
        environment: Likewise of this execution; of the one before too where both have one digest.
    Raises:
        TrackingError: the store does not answer.
    """
    before = execution_before(found)
    if before is None:
        return None, ""
    if found.runs["cell_key"].nunique() > MOST_CELLS:
        return None, (
            f"Not compared with the execution before, for it has more than {MOST_CELLS} cells: "
            "allele-mlflow compare does it."
        )
    try:
        is_same = _digests(before) == _digests(found)
        past, now = (
            select_found(tracking_uri, one, facts=facts, environment=known)
            for one, known in ((before, environment if is_same else None), (found, environment))
        )
        return _compared(past, now), ""
    except AnalysisError as exc:
        return None, f"Not compared with the execution before: {exc}."


def _digests(found: FoundRuns) -> set[str]:
    return set(found.runs["environment"].dropna())


def execution_before(found: FoundRuns) -> FoundRuns | None:
    """
    The last execution of the same suite that began before this one and is over.
    """
    execution, runs = found.execution, found.frames.runs
    assert execution is not None
    if execution["kind"] != tags.RunKind.SUITE:
        return None
    is_like = (runs["kind"] == tags.RunKind.SUITE) & (runs["suite"] == execution["suite"])
    earlier = runs[
        is_like & runs["is_failed"].notna() & (runs["started_at"] < execution["started_at"])
    ]
    if not len(earlier):
        return None
    return find_execution(found.frames, str(earlier.loc[earlier["started_at"].idxmax(), "run_uid"]))


def find_execution(frames: ExperimentFrames, run_uid: str) -> FoundRuns | None:
    """
    An execution of a suite among the runs of its experiment; None where it is not there.
    """
    runs = frames.runs
    own = runs[(runs["kind"] == tags.RunKind.SUITE) & (runs["run_uid"] == run_uid)]
    if not len(own):
        return None
    cells = runs[(runs["execution"] == run_uid) & (runs["kind"] == tags.RunKind.CELL)]
    return FoundRuns(Target(run_uid, run_uid, 0, None), frames, cells, own.iloc[0].to_dict())


def _compared(before: Selection, now: Selection) -> PastComparison:
    options = CompareOptions()
    names = [name for name, one in now.facts.metrics.items() if one.is_objective]
    compared = compare_selections(before, now, metrics=[*names, *OF_EVERY_RUN[:1]], options=options)
    notes = list(compared.notes)
    if compared.not_compared:
        names_left = ", ".join(compared.not_compared)
        notes.append(f"not compared, for the environments differ too much: {names_left}")
    found = compared.found
    if found is not None and found.only_baseline:
        were = _cells(len(found.only_baseline), "was", "were")
        notes.append(f"{were} in the execution before alone")
    if found is not None and found.only_candidate:
        notes.append(f"{_cells(len(found.only_candidate), 'is', 'are')} in this execution alone")
    return PastComparison(
        baseline=before.label,
        rows=found.frame() if found is not None else pd.DataFrame(),
        units=compared.units,
        margin_ratio=options.equivalence_ratio,
        notes=tuple(notes),
    )


def search_curves(history: pd.DataFrame, objectives: Sequence[Objective]) -> Iterator[Searches]:
    """
    The running times of searches, for each objective that was logged step by step.
    """
    for objective in objectives:
        if objective.direction is Direction.NONE or not len(history):
            continue
        readings = history[history["key"] == objective.name]
        is_search = readings.groupby("run_id")["step"].nunique().gt(1).any()
        if is_search and readings["value"].abs().lt(math.inf).any():
            curves = curves_of(readings, objective.name, objective.direction)
            yield Searches(
                objective=objective.name,
                cells=tuple(curves.runs),
                runtimes=curves.runtimes(),
                running_times=curves.running_times(),
            )


def _cells(count: int, one: str, several: str) -> str:
    return f"1 cell {one}" if count == 1 else f"{count} cells {several}"
