"""
What changed over the executions of an experiment.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.analysis.changes import SENSITIVE, STRICT
from allele_mlflow.analysis.finding_states import finding_id
from allele_mlflow.analysis.selection import KnownMetric
from allele_mlflow.analysis.trend_findings import TrendFinding
from allele_mlflow.analysis.trend_scan import TrendScan, scan_experiment
from allele_mlflow.dashboard.pages.experiment import experiment_instances, experiment_name
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.reports.figures import metric_history
from allele_mlflow.summaries.experiment import findings_frame
from allele_mlflow.units import Direction

#: Histories that are scanned, that are listed, and that could not be judged.
MOST_SCANNED = 600
MOST_HISTORIES = 200
MOST_SKIPPED = 50
_UNKNOWN = KnownMetric(Direction.NONE, "", is_objective=False)


class FindingRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A finding, and what is known of it.
    """

    id: str
    started_ms: int
    outcome: str
    kind: str
    cell: str
    metric: str
    words: str
    execution: str
    level_before: float
    level_after: float
    delta_ratio: float | None
    p: float | None
    state: str
    reason: str
    confirmation: str | None
    commit_before: str | None
    commit: str | None


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    One metric of one cell over the executions.
    """

    cell: str
    metric: str
    executions: int
    newest: float | None


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """
    A history that could not be judged, and why.
    """

    cell: str
    metric: str
    reason: str


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """
    The scan of an experiment; `metric` and `cell` say which history the figure draws. `not_shown`:
    how many findings are outliers or resolved, and so not among `findings`; `left_out`: metrics
    that were not looked at; `problem`: what was asked for and is not there.
    """

    experiment_id: str
    experiment: str
    judged: int
    executions: int
    findings: Paged[FindingRow]
    not_shown: int
    histories: list[HistoryRow]
    skipped: list[Skipped]
    left_out: list[str]
    metric: str
    cell: str
    problem: str | None


COLUMNS = (
    Column("started_ms", "Since", Kind.TIME),
    Column("outcome", "Outcome", Kind.STATUS),
    Column("kind", "Kind"),
    Column("words", "What"),
    Column("p", "p", Kind.NUMBER),
    Column("state", "State", Kind.STATUS),
    Column("reason", "Reason"),
    Column("confirmation", "Run again"),
    Column("commit", "Commit", Kind.CODE),
    Column("id", "Id", Kind.CODE),
)
HISTORY_COLUMNS = (
    Column("cell", "Cell", Kind.NAME),
    Column("metric", "Metric", Kind.NAME, option="metric", also=("cell",)),
    Column("executions", "Executions", Kind.COUNT),
    Column("newest", "Newest", Kind.NUMBER),
)
SKIPPED_COLUMNS = (
    Column("cell", "Cell", Kind.NAME),
    Column("metric", "Metric", Kind.NAME),
    Column("reason", "Why"),
)


def query(ask: Ask) -> Trend:
    """
    The findings of a scan, the gravest first.

    Raises:
        RefusalError: 404: there is no such experiment.
        TrackingError: the store does not answer.
    """
    name, scan = _scanned(ask)
    found = scan.findings(show_all=ask.view.options["show"] == "all")
    rows = [_row(scan, one) for one in found]
    metric, cell = _chosen(ask, scan, found)
    return Trend(
        experiment_id=scan.experiment_id,
        experiment=name,
        judged=scan.report.judged_count,
        executions=int(scan.series["execution_id"].nunique()),
        findings=page_of(sorted_rows(rows, ask.view, getattr), ask.view),
        not_shown=len(scan.report.findings) - len(found),
        histories=_histories(scan),
        skipped=[
            Skipped(cell=one.cell, metric=one.metric, reason=one.reason)
            for one in scan.report.skipped[:MOST_SKIPPED]
        ],
        left_out=list(scan.left_out[:MOST_SKIPPED]),
        metric=metric,
        cell=cell,
        problem=_problem(ask, scan),
    )


def _problem(ask: Ask, scan: TrendScan) -> str | None:
    """
    Which name of the view fits no history.
    """
    metric, cell = ask.view.options["metric"], ask.view.options["cell"]
    if metric and not len(scan.series):
        return f"the newest executions that are over have no metric like {metric!r}"
    if cell and cell not in set(scan.series["cell"]):
        return f"no cell is called {cell!r}"
    return None


def _scanned(ask: Ask) -> tuple[str, TrendScan]:
    experiment_id, options = ask.params["experiment_id"], ask.view.options
    metric, preset = options["metric"], options["preset"]

    def scan() -> tuple[str, TrendScan]:
        with ask.source.reader() as reader:
            name = experiment_name(reader, experiment_id)
            return name, scan_experiment(
                reader,
                ask.source.tracking_uri,
                experiment_id,
                preset=SENSITIVE if preset == "sensitive" else STRICT,
                metrics=[metric] if metric else [],
                most_histories=MOST_SCANNED,
            )

    return ask.source.recent.get(("trend", experiment_id, preset, metric), scan)


def _chosen(ask: Ask, scan: TrendScan, found: list[TrendFinding]) -> tuple[str, str]:
    """
    The history of the view, else that of the gravest finding, else the first one.
    """
    options, series = ask.view.options, scan.series
    if options["metric"] or options["cell"]:
        fits = series
        for name in ("metric", "cell"):
            if options[name]:
                fits = fits[fits[name] == options[name]]
        if len(fits):
            return str(fits["metric"].iloc[0]), str(fits["cell"].iloc[0])
        return options["metric"], options["cell"]
    if found:
        return found[0].key.metric, found[0].key.cell
    if len(series):
        return str(series["metric"].iloc[0]), str(series["cell"].iloc[0])
    return "", ""


def _row(scan: TrendScan, one: TrendFinding) -> FindingRow:
    before, after = scan.commits(one)
    said = scan.states.get(finding_id(one.key))
    return FindingRow(
        id=finding_id(one.key),
        started_ms=one.started_ms,
        outcome=one.outcome.value,
        kind=one.kind.value,
        cell=one.key.cell,
        metric=one.key.metric,
        words=one.words,
        execution=one.execution_id,
        level_before=one.level_before,
        level_after=one.level_after,
        delta_ratio=one.delta_ratio,
        p=one.p,
        state=scan.state_of(one).value,
        reason=said.reason if said is not None else "",
        confirmation=scan.confirmations.get(finding_id(one.key)),
        commit_before=before,
        commit=after[:10] if after else None,
    )


def _histories(scan: TrendScan) -> list[HistoryRow]:
    grouped = scan.series.groupby(["cell", "metric"], sort=False)["value"].agg(["size", "last"])
    return [
        HistoryRow(
            cell=str(row.Index[0]),
            metric=str(row.Index[1]),
            executions=int(row.size),
            newest=None if pd.isna(row.last) else float(row.last),
        )
        for row in grouped.head(MOST_HISTORIES).itertuples()
    ]


def _history_figure(ask: Ask, is_dark: bool) -> Any:
    _, scan = _scanned(ask)
    found = scan.findings(show_all=ask.view.options["show"] == "all")
    metric, cell = _chosen(ask, scan, found)
    own = scan.series[(scan.series["metric"] == metric) & (scan.series["cell"] == cell)]
    if len(own) < 2:
        return None
    findings = findings_frame(scan.report)
    findings = findings[(findings["metric"] == metric) & (findings["cell"] == cell)]
    known = scan.facts.metrics.get(metric, _UNKNOWN)
    return metric_history(own, findings, metric=metric, cell=cell, unit=known.unit, is_dark=is_dark)


PAGE = Page(
    name="trend",
    path="/experiments/{experiment_id}/trend",
    tab="Trend",
    summary="What changed over the executions of an experiment: changes, drifts, outliers.",
    query=query,
    content=Trend,
    template="trend.html",
    columns={"findings": COLUMNS, "histories": HISTORY_COLUMNS, "skipped": SKIPPED_COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS),
        has_pages=True,
        options=(
            Option("metric", "Metric"),
            Option("cell", "Cell"),
            Option("preset", "Preset", ("strict", "sensitive"), "strict"),
            Option("show", "Show", ("open", "all"), "open"),
        ),
    ),
    figures={"history": _history_figure},
    instances=experiment_instances,
)
