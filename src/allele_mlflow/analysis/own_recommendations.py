"""
Our own recommendations: what `next_cells` proposes of a finished matrix, as documents that the
ledger holds to account like anybody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from allele_mlflow.analysis.factor_model import MatrixRuns
from allele_mlflow.analysis.factors import Effect, estimate_effects, matrix_runs
from allele_mlflow.analysis.next_cells import NextCell, NextCells, propose_cells
from allele_mlflow.analysis.selection import Selection
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction, describe

SOURCE = "allele-mlflow"


@dataclass(frozen=True)
class MatrixAdvice:
    """
    What a matrix says of its parameters.

    Attributes:
        selection: Its runs.
        runs: The same, over its axes.
        effects: Of the axes and their pairs, on each objective.
        proposals: For each objective, what to try.
    """

    selection: Selection
    runs: MatrixRuns
    effects: tuple[Effect, ...]
    proposals: tuple[NextCells, ...]

    def documents(self) -> list[dict[str, Any]]:
        """
        Its recommendations, with the fields of an `OptimizationRecommendation` and ours.
        """
        execution = str(self.selection.frames.runs["execution"].iloc[0] or self.selection.label)
        return [
            recommendation_document(cell, one, execution)
            for one in self.proposals
            for cell in one.cells
        ]


def advise(
    selection: Selection,
    *,
    metrics: Sequence[str] = (),
    directions: Mapping[str, Direction] | None = None,
    by: Sequence[str] = (),
    alpha: float = 0.05,
    confidence: float = 0.95,
) -> MatrixAdvice:
    """
    Effects and next cells of a finished matrix.

    Args:
        selection: Its runs.
        metrics: What is to become better; by default the suite's objectives.
        directions: Which way is better; go before the suite's.
        by: Parameters that are the axes, for runs of no suite.
        alpha: Chance of one false effect or more.
        confidence: Of the intervals.
    Raises:
        AnalysisError: no metric is known, or the runs are no matrix.
    """
    told = selection.facts.metrics
    names = list(metrics) or [name for name, one in told.items() if one.is_objective]
    if not names:
        raise AnalysisError("no objective is known: name one (--metric)", kind=ErrorKind.BAD_DATA)
    objectives = {}
    for name in names:
        known = describe(name)
        direction = told[name].direction if name in told else Direction.NONE
        if direction is Direction.NONE and known is not None:
            direction = known.direction
        objectives[name] = (directions or {}).get(name, direction)
    runs = matrix_runs(selection, by=by)
    effects = estimate_effects(runs, objectives, alpha=alpha, confidence=confidence)
    proposals = [
        propose_cells(runs, effects, name, direction, confidence=confidence)
        for name, direction in objectives.items()
    ]
    return MatrixAdvice(selection, runs, tuple(effects), tuple(proposals))


def recommendation_document(cell: NextCell, of: NextCells, execution: str) -> dict[str, Any]:
    """
    One recommendation. Its id follows from what it says and of which execution: made twice, it is
    the same.
    """
    named = {"execution": execution, "metric": of.metric, "params": dict(cell.params)}
    digest = hashlib.sha256(msgspec.json.encode(named, order="sorted")).hexdigest()
    single = cell.changed[0] if len(cell.changed) == 1 else None
    scale = 100.0 / abs(cell.best_value) if cell.best_value else None
    gain = cell.gain
    ends = [None if end is None or scale is None else scale * end for end in (gain.low, gain.high)]
    title = "try " + " ".join(f"{name}={cell.params[name]}" for name in cell.changed)
    return {
        "id": digest[:32],
        "source": SOURCE,
        "category": "configuration_tuning",
        "title": title,
        "description": f"{of.metric} of {cell.value.value:.5g} is to be expected there, "
        f"{cell.best_value:.5g} in the best cell that was run",
        "metric": of.metric,
        "direction": of.direction.value,
        "kind": cell.kind.value,
        "parameter": single,
        "current_value": None if single is None else str(cell.best[single]),
        "recommended_value": None if single is None else str(cell.params[single]),
        "params": dict(cell.params),
        "current_params": dict(cell.best),
        "expected_improvement": None if scale is None else scale * gain.value,
        "expected_interval": None if scale is None else ends,
        "predicted": cell.value._asdict(),
        "gain": gain._asdict(),
        "support": cell.support._asdict(),
    }
