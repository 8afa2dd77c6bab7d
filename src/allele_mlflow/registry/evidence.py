"""
The evidence of a version: the runs that measured it, and how they compare with the holder's.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from allele_mlflow.analysis.comparison import CompareOptions
from allele_mlflow.analysis.frames import read_alerts
from allele_mlflow.analysis.intervals import estimate_differences
from allele_mlflow.analysis.selection import Selection, run_table, select
from allele_mlflow.analysis.sides import IS_FAILED
from allele_mlflow.analysis.suite_comparison import compare_selections
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import AnalysisError
from allele_mlflow.records import canonical_json
from allele_mlflow.registry.fitness import Fitness, encode_fitness
from allele_mlflow.registry.gates import Check, Compared, Facts, Policy
from allele_mlflow.registry.lineage import COMMIT_TAG, RUN_TAG
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.units import Direction

#: Of a version: which runs measured it, as a selection that means the same for ever.
EVIDENCE_TAG = "allele.evidence"
_VERIFIED_TAG = "allele.genome.best.verified"
_NS_PER_DAY = 86_400 * 10**9


def pin_selection(selection: Selection) -> str:
    """
    The selection by the id of its suite's run, where it was by a name that later means another.
    """
    parents = selection.frames.runs["parent_run_id"].dropna().unique()
    name = parents[0] if len(parents) == 1 else selection.target.name
    wanted = selection.target.wanted
    return f"{name}[{wanted.text}]" if wanted is not None else str(name)


def evidence_tags(selection: Selection) -> dict[str, str]:
    """
    What the tags of a version say of the runs that measured it: the selection, pinned; their common
    run above and commit, where there is one; and the fitness by each objective.
    """
    runs = selection.frames.runs
    above = runs["parent_run_id"] if runs["parent_run_id"].notna().any() else runs["run_id"]
    tags = {EVIDENCE_TAG: pin_selection(selection)}
    for key, column in ((RUN_TAG, above), (COMMIT_TAG, runs["commit"])):
        values = column.dropna().unique()
        if len(values) == 1:
            tags[key] = str(values[0])
    for one in measure_fitness(selection):
        tags |= encode_fitness(one)
    return tags


def measure_fitness(selection: Selection) -> list[Fitness]:
    """
    The mean of each objective over the finished runs, with Student's interval; runs without a
    finite value count nowhere.
    """
    table = run_table(selection.frames)
    finished = table[~table[IS_FAILED]]
    found = []
    for name in objectives_of(selection):
        values = finished[name].to_numpy() if name in finished else np.empty(0)
        values = values[np.isfinite(values)]
        if len(values):
            # a sample is what its differences from nothing are
            mean = estimate_differences(np.zeros(len(values)), values, is_paired=True)[0]
            found.append(Fitness(name, mean.value, len(values), mean.low, mean.high))
    return found


def objectives_of(*selections: Selection) -> list[str]:
    """
    The objectives that the suites of selections name, with a direction, each once.
    """
    told = [pair for one in selections for pair in one.facts.metrics.items()]
    return list(
        dict.fromkeys(
            name
            for name, facts in told
            if facts.is_objective and facts.direction is not Direction.NONE
        )
    )


def gather_facts(
    reader: Reader,
    tracking_uri: str,
    policy: Policy,
    *,
    evidence: str | None,
    holder: int | None,
    holder_evidence: str | None,
    prefix: str,
) -> tuple[Facts, dict[str, Any]]:
    """
    What is known of a version from its runs, and the document that is kept of it.

    Args:
        reader: Of the store of runs.
        tracking_uri: The same.
        policy: Says what is asked.
        evidence: Selection of the version's runs; None where none was named.
        holder: Who holds the stage.
        holder_evidence: Selection of the holder's runs.
        prefix: Of experiments.
    Raises:
        AnalysisError: a selection means nothing.
        TrackingError: the store does not answer.
    """
    if evidence is None:
        return Facts(None, holder=holder, compared=None), {"evidence": None}
    own = select(reader, tracking_uri, evidence, prefix=prefix)
    runs = own.frames.runs
    finished = runs[~runs["is_failed"].astype(bool)]
    theirs = None
    if holder_evidence is not None:
        with contextlib.suppress(AnalysisError):  # gone by now: then there is nothing to compare
            theirs = select(reader, tracking_uri, holder_evidence, prefix=prefix)
    compared = None if theirs is None else _compare(theirs, own, policy)
    facts = Facts(
        runs=len(finished),
        age_days=_age_days(runs),
        unverified=_unverified(reader, finished) if policy.is_verified else 0,
        open_alerts=_open_alerts(tracking_uri, runs) if policy.max_alerts is not None else 0,
        holder=holder,
        compared=compared,
    )
    document = {
        "evidence": evidence,
        "runs": list(finished["run_id"]),
        "holder": holder,
        "holder_evidence": holder_evidence,
        "compared": [vars(one) for one in compared or ()],
    }
    return facts, document


def evidence_document(document: Mapping[str, Any], checks: list[Check]) -> tuple[bytes, str]:
    """
    The evidence as it is kept, and its SHA-256.
    """
    told = {"format": 1, **document, "checks": [vars(one) for one in checks]}
    data = canonical_json(told) + b"\n"
    return data, hashlib.sha256(data).hexdigest()


def _compare(holder: Selection, own: Selection, policy: Policy) -> list[Compared]:
    metrics = policy.metrics or objectives_of(own, holder)
    options = CompareOptions(equivalence_ratio=policy.equivalence_ratio)
    found = compare_selections(holder, own, metrics=metrics, options=options).found
    rows = found.rows if found is not None else ()
    return [Compared(row.cell, row.metric, row.verdict.value, row.reason) for row in rows]


def _age_days(runs: pd.DataFrame) -> float:
    oldest = runs["started_at"].min()
    return float((now_ns() - oldest.value) / _NS_PER_DAY) if not pd.isna(oldest) else 0.0


def _unverified(reader: Reader, runs: pd.DataFrame) -> int:
    ids = list(runs["experiment_id"].unique())
    told = reader.runs(ids, tag_keys=[_VERIFIED_TAG], param_keys=[], metric_keys=[]).tags
    verified = set(told[told["value"].str.lower() == "true"]["run_id"])
    return int((~runs["run_id"].isin(verified)).sum())


def _open_alerts(tracking_uri: str, runs: pd.DataFrame) -> int:
    alerts = read_alerts(tracking_uri, runs["run_id"])
    is_open = (alerts["severity"] == "critical") & (alerts["status"] != "resolved")
    return int(is_open.sum())
