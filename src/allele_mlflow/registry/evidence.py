"""
The evidence of a version: the runs that measured it, and how they compare with the holder's.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pandas as pd

from allele_mlflow import suite_tags
from allele_mlflow.analysis.comparison import CompareOptions
from allele_mlflow.analysis.frames import read_alerts
from allele_mlflow.analysis.intervals import estimate_differences
from allele_mlflow.analysis.selection import Selection, run_table, select
from allele_mlflow.analysis.sides import IS_FAILED
from allele_mlflow.analysis.suite_comparison import compare_selections
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import AnalysisError
from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
from allele_mlflow.registry.fitness import Fitness, encode_fitness
from allele_mlflow.registry.gates import Compared, Facts, Policy
from allele_mlflow.registry.lineage import COMMIT_TAG, RUN_TAG
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.tracking.reader import open_reader
from allele_mlflow.units import Direction

#: Of a run that has measured its best genome again itself.
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


def select_evidence(settings: Settings, text: str) -> Selection:
    """
    The runs that a selection means.

    Raises:
        AnalysisError: it means none.
        TrackingError: the store does not answer.
    """
    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        return select(reader, uri, text, prefix=settings.experiment_prefix)


def count_evidence(settings: Settings, text: str | None) -> int:
    """
    How many runs of an evidence finished; 0 where there is none, or none any more.

    Raises:
        TrackingError: the store does not answer.
    """
    if text is None:
        return 0
    try:
        runs = select_evidence(settings, text).frames.runs
    except AnalysisError:
        return 0
    return int((~runs["is_failed"].astype(bool)).sum())


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
    content: str,
    evidence: str,
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
        content: The version's identity.
        evidence: Selection of the version's runs.
        holder: Who holds the stage.
        holder_evidence: Selection of the holder's runs.
        prefix: Of experiments.
    Raises:
        AnalysisError: a selection means nothing.
        TrackingError: the store does not answer.
    """
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
        unverified=_unverified(reader, finished, content) if policy.is_verified else 0,
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


def _compare(holder: Selection, own: Selection, policy: Policy) -> list[Compared]:
    metrics = policy.metrics or objectives_of(own, holder)
    options = CompareOptions(equivalence_ratio=policy.equivalence_ratio)
    found = compare_selections(holder, own, metrics=metrics, options=options).found
    rows = found.rows if found is not None else ()
    return [Compared(row.cell, row.metric, row.verdict.value, row.reason) for row in rows]


def _age_days(runs: pd.DataFrame) -> float:
    oldest = runs["started_at"].min()
    return float((now_ns() - oldest.value) / _NS_PER_DAY) if not pd.isna(oldest) else 0.0


def _unverified(reader: Reader, runs: pd.DataFrame, content: str) -> int:
    """
    How many runs do not say that the fitness was earned again: those of a verification by its own
    run, if that was of this very genome; others by a tag.
    """
    told = reader.runs(
        list(runs["experiment_id"].unique()),
        tag_keys=[_VERIFIED_TAG, suite_tags.VERIFIED, suite_tags.CONTENT],
        param_keys=[],
        metric_keys=[],
    ).tags
    values = dict(zip(zip(told["run_id"], told["key"], strict=True), told["value"], strict=True))

    def is_verified(run_id: str, kind: str | None, parent: str | None) -> bool:
        if kind == suite_tags.RunKind.VERIFICATION_CELL:
            is_of_it = values.get((parent, suite_tags.CONTENT)) == content
            return is_of_it and values.get((parent, suite_tags.VERIFIED)) == "true"
        return str(values.get((run_id, _VERIFIED_TAG), "")).lower() == "true"

    asked = runs[["run_id", "kind", "parent_run_id"]].itertuples(index=False, name=None)
    return sum(not is_verified(*one) for one in asked)


def _open_alerts(tracking_uri: str, runs: pd.DataFrame) -> int:
    alerts = read_alerts(tracking_uri, runs["run_id"])
    is_open = (alerts["severity"] == "critical") & (alerts["status"] != "resolved")
    return int(is_open.sum())
