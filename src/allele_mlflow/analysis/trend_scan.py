"""
A scan of an experiment's histories, with what people said of its findings and what `confirm` found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.changes import STRICT, Preset
from allele_mlflow.analysis.finding_states import (
    TAG_PREFIX,
    FindingState,
    State,
    decode_states,
    finding_id,
)
from allele_mlflow.analysis.frames import ExperimentFrames, read_experiments
from allele_mlflow.analysis.histories import SUCCESS_METRIC, execution_series
from allele_mlflow.analysis.selection import SuiteFacts, read_facts
from allele_mlflow.analysis.suite_comparison import OF_EVERY_RUN
from allele_mlflow.analysis.trend import TrendReport, scan_trends
from allele_mlflow.analysis.trend_findings import FindingKind, Outcome, TrendFinding
from allele_mlflow.tracking.experiment_tags import read_experiment_tags
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.units import Direction

#: Runs that say which metrics there are.
_NEWEST = 40
_COLUMNS = (
    *("kind", "run_uid", "execution", "cell", "cell_key", "repeat", "attempt"),
    *("environment", "commit"),
)


@dataclass(frozen=True)
class TrendScan:
    """
    A scan and what is known of its findings.

    Attributes:
        experiment_id: Whose.
        series: What was scanned, columns of `histories.SERIES`.
        report: What was found.
        states: What people said, by ids of findings.
        confirmations: What `confirm` found of findings, by their ids.
        facts: Of the suite.
        left_out: Metrics that were not looked at, for there are too many histories.
    """

    experiment_id: str
    series: pd.DataFrame
    report: TrendReport
    states: dict[str, FindingState]
    confirmations: dict[str, str]
    facts: SuiteFacts
    left_out: tuple[str, ...] = ()

    def state_of(self, finding: TrendFinding) -> State:
        """
        What was said of a finding last.
        """
        said = self.states.get(finding_id(finding.key))
        return said.state if said is not None else State.NEW

    def commits(self, finding: TrendFinding) -> tuple[str | None, str | None]:
        """
        Of the execution before the finding, and of its own.
        """
        of_series = self.series[
            (self.series["cell"] == finding.key.cell)
            & (self.series["metric"] == finding.key.metric)
        ]
        commits = list(of_series["commit"])
        before = commits[finding.index - 1] if finding.index else None
        return before, commits[finding.index]

    def findings(self, *, show_all: bool = False) -> list[TrendFinding]:
        """
        The findings, the gravest first, then the newest; without `show_all` no outliers, and none
        that is resolved.
        """
        order = list(Outcome)
        found = [
            one
            for one in self.report.findings
            if show_all
            or (one.kind is not FindingKind.OUTLIER and self.state_of(one) is not State.RESOLVED)
        ]
        return sorted(found, key=lambda one: (order.index(one.outcome), -one.started_ms))


def scan_experiment(
    reader: Reader,
    tracking_uri: str,
    experiment_id: str,
    *,
    metrics: Sequence[str] = (),
    preset: Preset = STRICT,
    directions: Mapping[str, Direction] | None = None,
    most_histories: int | None = None,
) -> TrendScan:
    """
    The scan of an experiment.

    Args:
        reader: Of the store.
        tracking_uri: The same store's address, for artifacts and tags.
        experiment_id: As of `Reader.experiments`.
        metrics: Names or globs; by default those that the suite names, the length of trials and
            phases, and how many trials finish; for runs of no suite all but resources.
        preset: How sure findings must be.
        directions: Which way is better; go before the suite's.
        most_histories: Scan so many at most, of the wanted metrics that the newest runs have; None
            reads every metric of every run, to find those that only older ones have.
    Raises:
        TrackingError: the store does not answer.
    """
    facts = _facts_of(reader, tracking_uri, experiment_id)
    told = {name: one.direction for name, one in facts.metrics.items()}
    told |= {SUCCESS_METRIC: Direction.HIGHER} | dict(directions or {})
    wanted = list(metrics)
    if not wanted and facts.metrics:
        wanted = [*facts.metrics, *OF_EVERY_RUN, SUCCESS_METRIC]
    if most_histories is None:
        frames = read_experiments(reader, [experiment_id], param_keys=[], columns=_COLUMNS)
        left_out: tuple[str, ...] = ()
    else:
        frames, left_out = _bounded(reader, experiment_id, wanted, most_histories)
    series = execution_series(frames, metrics=wanted)
    states = decode_states(read_experiment_tags(tracking_uri, experiment_id, prefix=TAG_PREFIX))
    report = scan_trends(
        series,
        preset=preset,
        directions={name: one for name, one in told.items() if one is not Direction.NONE},
        known=[one.key for one in states.values()],
    )
    return TrendScan(
        experiment_id,
        series,
        report,
        states,
        _confirmations(reader, experiment_id),
        facts,
        left_out,
    )


def _facts_of(reader: Reader, tracking_uri: str, experiment_id: str) -> SuiteFacts:
    """
    What the suite of the newest execution says of itself.
    """
    suites = reader.runs(
        [experiment_id],
        with_tags={tags.KIND: tags.RunKind.SUITE},
        tag_keys=[],
        param_keys=[],
        metric_keys=[],
    ).runs["run_id"]
    return read_facts(tracking_uri, str(suites.iloc[0])) if len(suites) else SuiteFacts()


def _bounded(
    reader: Reader, experiment_id: str, wanted: Sequence[str], most_histories: int
) -> tuple[ExperimentFrames, tuple[str, ...]]:
    """
    The runs with as many metrics as make so many histories, and the metrics that they do not have.
    """
    frames = read_experiments(
        reader, [experiment_id], param_keys=[], metric_keys=[], columns=_COLUMNS
    )
    keys = _newest_keys(reader, frames, wanted)
    cells = max(1, frames.runs["cell"].nunique())
    count = max(1, most_histories // cells)
    told = reader.runs([experiment_id], tag_keys=[], param_keys=[], metric_keys=keys[:count])
    return frames._replace(metrics=told.metrics), tuple(keys[count:])


def _newest_keys(reader: Reader, frames: ExperimentFrames, wanted: Sequence[str]) -> list[str]:
    """
    The metrics of the newest runs that are wanted, those of the benchmark first.
    """
    newest = list(frames.runs["run_id"][:_NEWEST])
    keys = reader.runs(run_ids=newest, tag_keys=[], param_keys=[]).metrics["key"].unique()
    found = [
        key
        for key in map(str, keys)
        if any(fnmatchcase(key, one) for one in wanted or ["*"]) and not key.startswith("system/")
    ]
    return sorted(found, key=lambda key: (key.startswith(("phase/", "trial/")), key))


def _confirmations(reader: Reader, experiment_id: str) -> dict[str, str]:
    """
    The newest verdict of `confirm` on each finding, from the tags of its runs, newest first.
    """
    confirmed = reader.runs(
        [experiment_id],
        with_tags={tags.FINDING: None, tags.CONFIRMATION: None},
        tag_keys=[tags.FINDING, tags.CONFIRMATION],
        param_keys=[],
        metric_keys=[],
    )
    told: dict[str, dict[str, str]] = {}
    for run_id, key, value in confirmed.tags.itertuples(index=False, name=None):
        told.setdefault(run_id, {})[key] = value
    found: dict[str, str] = {}
    for run_id in confirmed.runs["run_id"]:
        finding, verdict = (
            told.get(run_id, {}).get(key) for key in (tags.FINDING, tags.CONFIRMATION)
        )
        if finding is not None and verdict is not None:
            found.setdefault(finding, verdict)
    return found
