"""
The best genome of a suite: which run has it, what that run claims, and the genome as it was kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.matrix.results import Outcome, TrialRow
from allele_mlflow.settings import Settings
from allele_mlflow.units import Direction

#: A run says so which of its genomes is its best: `log.genome(genome, name="best")`.
BEST_TAG = "allele.genome.best"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a search said of a genome.

    Attributes:
        metric: The objective.
        value: Its value.
        chosen_from: Of how many runs it is the best.
        run_id: The run that says so.
    """

    metric: str
    value: float
    chosen_from: int
    run_id: str


class BestGenome(NamedTuple):
    """
    The genome, as plain data, and what is claimed of it.
    """

    document: Any
    claim: Claim


def choose_best(rows: Iterable[TrialRow], metric: str, direction: Direction) -> TrialRow | None:
    """
    The finished trial with the best finite value; of equals the first in the suite's order.
    """
    good = [row for row in rows if row.failure is None and metric in row.metrics]
    good = [row for row in good if math.isfinite(row.metrics[metric])]
    choose = min if direction is Direction.LOWER else max
    return choose(good, key=lambda row: row.metrics[metric], default=None)


def find_best(outcome: Outcome, execution: str, settings: Settings) -> BestGenome:
    """
    The genome of the run that is best by the suite's first objective, of those that kept one.

    Args:
        outcome: Of the suite.
        execution: Uid of its own run.
        settings: Of the store.
    Raises:
        RegistryError: no run kept one, or it is not there as it was kept.
        TrackingError: the store does not answer.
    """
    metric, facts = next(iter(outcome.prepared.suite.objectives.items()))
    kept = _kept_genomes(execution, settings)
    rows = [row for row in outcome.rows if row.failure is None and row.run_uid in kept]
    best = choose_best(rows, metric, facts.direction)
    if best is None:
        raise _bad('no finished run says which genome is its best: log.genome(..., name="best")')
    run_id, identity = kept[best.run_uid]
    claim = Claim(metric=metric, value=best.metrics[metric], chosen_from=len(rows), run_id=run_id)
    return BestGenome(_read_genome(settings.tracking_uri, run_id, identity), claim)


class _Kept(NamedTuple):
    run_id: str
    identity: str


def _kept_genomes(execution: str, settings: Settings) -> dict[str, _Kept]:
    """
    The runs of an execution that name a genome, by their uid.
    """
    from allele_mlflow.tracking.reader import open_reader

    with contextlib.closing(open_reader(settings.tracking_uri)) as reader:
        told = reader.runs(
            with_tags={tags.EXECUTION: execution, tags.KIND: tags.RunKind.CELL},
            tag_keys=[tags.RUN_UID, BEST_TAG],
            param_keys=[],
            metric_keys=[],
        ).tags
    uids, genomes = (
        dict(told[told["key"] == key][["run_id", "value"]].itertuples(index=False, name=None))
        for key in (tags.RUN_UID, BEST_TAG)
    )
    return {uids[run_id]: _Kept(run_id, one) for run_id, one in genomes.items() if run_id in uids}


def _read_genome(tracking_uri: str, run_id: str, identity: str) -> Any:
    from allele_mlflow.tracking.reader import artifact_bytes

    path = f"genomes/{identity[:16]}.json"
    data = artifact_bytes(tracking_uri, run_id, path)
    if data is None:
        raise _bad(f"run {run_id} has no {path}, which its tag {BEST_TAG} names")
    got = hashlib.sha256(data).hexdigest()
    if got != identity:
        raise _bad(f"{path} of run {run_id} was changed: its hash is {got}, want {identity}")
    return msgspec.json.decode(data)


def _bad(what: str) -> RegistryError:
    return RegistryError(what, kind=ErrorKind.BAD_GENOME)
