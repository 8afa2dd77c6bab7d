"""
An experiment, gathered from MLflow: its executions, and what changed over them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import ExperimentFrames, counted_runs
from allele_mlflow.analysis.histories import SUCCESS_METRIC, execution_series
from allele_mlflow.analysis.selection import SuiteFacts, read_facts
from allele_mlflow.analysis.trend import TrendReport, scan_trends
from allele_mlflow.analysis.trend_findings import Outcome
from allele_mlflow.reports.experiment_page import SHORTEST_S, ExperimentSummary
from allele_mlflow.summaries.advice import MOST_RUNS, advice_of
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.units import Direction

#: Metrics of an experiment without suites that are looked at.
MOST_METRICS = 12
_COST_TAGS = ("allele.logger_overhead_percent", "allele.sidecar_cpu_s")


def summarise_experiment(
    reader: Reader, tracking_uri: str, frames: ExperimentFrames
) -> ExperimentSummary:
    """
    All that a report says of an experiment.

    Args:
        reader: Of the store.
        tracking_uri: The same store's address, for its artifacts.
        frames: Of the experiment, with at least one run.
    Raises:
        TrackingError: the store does not answer.
    """
    runs = frames.runs
    suites = runs[runs["kind"] == tags.RunKind.SUITE]
    facts = read_facts(tracking_uri, str(suites["run_id"].iloc[0])) if len(suites) else SuiteFacts()
    series = execution_series(frames, metrics=_wanted(frames, facts))
    report = scan_trends(series, directions=_directions(facts))
    advice, left_out = pd.DataFrame(), []
    if len(runs) <= MOST_RUNS:
        advice = advice_of(reader, tracking_uri, str(runs["experiment_id"].iloc[0]))
    else:
        left_out.append(
            f"Recommendations were not looked for in {len(runs):,} runs: "
            "allele-mlflow recommendations --ledger does it."
        )
    return ExperimentSummary(
        name=str(runs["experiment"].iloc[0]),
        executions=executions_of(frames),
        series=series,
        findings=findings_frame(report),
        units={name: one.unit for name, one in facts.metrics.items() if one.unit},
        overhead=overhead_of(reader, frames),
        advice=advice,
        notes=(*_notes(report), *left_out),
    )


def _wanted(frames: ExperimentFrames, facts: SuiteFacts) -> list[str]:
    """
    The objectives and how many trials finish; of runs of no suite their first metrics.
    """
    objectives = [name for name, one in facts.metrics.items() if one.is_objective]
    if objectives:
        return [*objectives, SUCCESS_METRIC]
    keys = sorted(key for key in frames.metrics["key"].unique() if not _is_ours(key))
    return keys[:MOST_METRICS]


def _is_ours(key: str) -> bool:
    return key.startswith(("system/", "phase/", "allele/"))


def _directions(facts: SuiteFacts) -> dict[str, Direction]:
    told = {name: one.direction for name, one in facts.metrics.items()}
    told[SUCCESS_METRIC] = Direction.HIGHER
    return {name: one for name, one in told.items() if one is not Direction.NONE}


def _notes(report: TrendReport) -> list[str]:
    """
    A note for each reason why histories were not judged.
    """
    notes = []
    for reason, count in Counter(one.reason for one in report.skipped).items():
        first = next(one for one in report.skipped if one.reason == reason)
        whose = f"{first.metric} of {first.cell or 'all runs'}"
        were = (
            "1 history was not judged:"
            if count == 1
            else f"{count:,} histories were not judged, e.g."
        )
        notes.append(f"{were} {whose}: {reason}")
    return notes


def executions_of(frames: ExperimentFrames) -> pd.DataFrame:
    """
    The executions of an experiment as `ExperimentSummary.executions`.
    """
    runs = frames.runs
    suites = runs[runs["kind"] == tags.RunKind.SUITE]
    if not len(suites):
        return _alone(runs[runs["kind"].isna()])
    counted = counted_runs(runs[runs["kind"] == tags.RunKind.CELL])
    failed = counted["is_failed"].astype(bool)
    grouped = counted.assign(failed=failed, finished=~failed).groupby("execution")
    counts = grouped.agg(
        failed=("failed", "sum"), finished=("finished", "sum"), cells=("cell_key", "nunique")
    ).reindex(suites["run_uid"])
    return _columns(suites, suites["suite"].fillna(suites["name"])).assign(
        **{name: counts[name].fillna(0).astype("int64").to_numpy() for name in counts}
    )


def _alone(runs: pd.DataFrame) -> pd.DataFrame:
    """
    Runs of no suite, each an execution of one trial.
    """
    is_over = runs["is_failed"].notna()
    failed = runs["is_failed"].fillna(False).astype(bool)
    return _columns(runs, runs["name"]).assign(
        cells=1,
        failed=failed.astype("int64").to_numpy(),
        finished=(is_over & ~failed).astype("int64").to_numpy(),
    )


def _columns(runs: pd.DataFrame, names: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": list(names),
            "run_uid": [
                uid or run_id for uid, run_id in zip(runs["run_uid"], runs["run_id"], strict=True)
            ],
            "started_at": list(runs["started_at"]),
            "seconds": list(runs["seconds"]),
            "is_over": list(runs["is_failed"].notna()),
            "commit": list(runs["commit"]),
            "environment": list(runs["environment"]),
        }
    )


def findings_frame(report: TrendReport) -> pd.DataFrame:
    """
    The findings of a scan, in the columns of `ExperimentSummary.findings`, the gravest first.
    """
    order = list(Outcome)
    found = sorted(report.findings, key=lambda one: (order.index(one.outcome), -one.started_ms))
    rows = [
        {
            "cell": one.key.cell,
            "metric": one.key.metric,
            "kind": one.kind.value,
            "outcome": one.outcome.value,
            "execution": one.execution_id,
            "level_before": one.level_before,
            "level_after": one.level_after,
            "words": one.words,
        }
        for one in found
    ]
    columns = ("cell", "metric", "kind", "outcome", "execution", "level_before", "level_after")
    return pd.DataFrame(rows, columns=[*columns, "words"])


def overhead_of(reader: Reader, frames: ExperimentFrames) -> pd.DataFrame:
    """
    What logging cost each run, as `figures.logging_overhead` takes it; only runs that say so.

    Raises:
        TrackingError: the store does not answer.
    """
    runs = frames.runs[frames.runs["kind"] != tags.RunKind.SUITE]
    ids = list(frames.runs["experiment_id"].unique())
    told = reader.runs(ids, tag_keys=_COST_TAGS, param_keys=[], metric_keys=[]).tags
    if not len(told):
        return pd.DataFrame()
    wide = told.pivot_table(index="run_id", columns="key", values="value", aggfunc="last")
    wide = wide.reindex(index=runs["run_id"], columns=list(_COST_TAGS))
    costs: Mapping[str, Any] = {
        name: pd.to_numeric(wide[name], errors="coerce").to_numpy() for name in _COST_TAGS
    }
    seconds = runs["seconds"].where(runs["seconds"] >= SHORTEST_S).to_numpy()
    found = pd.DataFrame(
        {
            "cell": runs["cell"].fillna("").to_numpy(),
            "logger_percent": costs[_COST_TAGS[0]],
            "sidecar_percent": 100.0 * costs[_COST_TAGS[1]] / seconds,
        }
    )
    return found[found["logger_percent"].notna() | found["sidecar_percent"].notna()]
