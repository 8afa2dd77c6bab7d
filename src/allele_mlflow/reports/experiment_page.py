"""
The report of an experiment: its executions, and how its objectives went over them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from allele_mlflow.reports.figures import gain_calibration, logging_overhead, metric_history
from allele_mlflow.reports.page import Draw, Page, Section
from allele_mlflow.reports.tables import Column, Table, bounded, plain_name, plain_text
from allele_mlflow.reports.wording import (
    MISSING,
    explain,
    write_duration,
    write_number,
    write_ratio,
    write_time,
)
from allele_mlflow.units import Direction

#: Histories that are drawn: those with findings first.
MOST_HISTORIES = 12
#: Of a shorter run the sidecar has no percentage: to start and end takes it longer than that.
SHORTEST_S = 1.0
_FOOTER = (
    "An execution counts each trial once: the attempt that finished, else the last. "
    f"{MISSING} stands where nothing was measured."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExperimentSummary:
    """
    All that a report says of an experiment.

    Attributes:
        name: Of it.
        executions: Newest first: columns name, run_uid, started_at, seconds, is_over, cells,
            finished, failed, commit, environment. Of an experiment without suites its runs, each a
            cell.
        series: Columns cell, metric and those of `figures.metric_history`; the objectives alone.
        findings: Columns cell, metric and those of `figures.metric_history`, the gravest first.
        units: Of the metrics, as far as they are known.
        overhead: See `figures.logging_overhead`; without `sidecar_percent` for runs under
            `SHORTEST_S`.
        advice: Recommendations, columns of `figures.gain_calibration` and `follow_ups`, `reason`.
        notes: What a reader must know before the numbers.
    """

    name: str
    executions: pd.DataFrame
    series: pd.DataFrame
    findings: pd.DataFrame
    units: Mapping[str, str] = field(default_factory=dict)
    overhead: pd.DataFrame = field(default_factory=pd.DataFrame)
    advice: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()


def experiment_page(summary: ExperimentSummary) -> Page:
    """
    The sections of an experiment's report.

    Raises:
        ValueError: a frame lacks a column, or a moment its time zone.
    """
    return Page(
        kind="Experiment",
        name=plain_name(summary.name),
        headline=tuple(_headline(summary)),
        notes=tuple(map(plain_text, summary.notes)),
        sections=tuple(_sections(summary)),
        footer=_FOOTER,
    )


def _headline(summary: ExperimentSummary) -> Iterator[tuple[str, str]]:
    executions = summary.executions
    yield "Executions", f"{len(executions):,}"
    if len(executions):
        yield "First", write_time(executions.started_at.min())
        yield "Newest", write_time(executions.started_at.max())
        finished, failed = int(executions.finished.sum()), int(executions.failed.sum())
        yield "Trials", f"{finished + failed:,}: {finished:,} finished, {failed:,} failed"
    counts = summary.findings.outcome.value_counts() if len(summary.findings) else {}
    words = [f"{counts[one]} {one}s" for one in ("regression", "improvement") if one in counts]
    yield "Findings", ", ".join(words) or f"{len(summary.findings)}"


def _sections(summary: ExperimentSummary) -> Iterator[Section]:
    yield Section("Executions", _executions_table(summary.executions), is_wide=True)
    yield Section(
        "Trend of the objectives",
        _findings_table(summary.findings),
        draws=tuple(_histories(summary)),
        notes=tuple(_notes(summary)),
        empty="No finding.",
    )
    yield Section("Histories", _histories_table(summary), is_wide=True, is_brief=False)
    advice, costs = summary.advice, summary.overhead
    yield Section(
        "Recommendations",
        _advice_table(advice),
        draws=(partial(gain_calibration, advice),) if len(advice) else (),
        is_optional=True,
    )
    yield Section(
        "What logging cost",
        _overhead_table(costs),
        draws=(partial(logging_overhead, costs),) if len(costs) else (),
        notes=tuple(_overhead_notes(costs)),
        is_optional=True,
    )


def _drawn(summary: ExperimentSummary) -> list[tuple[str, str]]:
    """
    The histories that are drawn, by cell and metric: those with findings, then as they come.
    """
    found = [] if not len(summary.findings) else _pairs(summary.findings)
    there = _pairs(summary.series) if len(summary.series) else []
    known = set(there)
    ordered = dict.fromkeys([*(one for one in found if one in known), *there])
    return list(ordered)


def _pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(frame.cell, frame.metric, strict=True)))


def _histories(summary: ExperimentSummary) -> Iterator[Draw]:
    for cell, metric in _drawn(summary)[:MOST_HISTORIES]:
        series = summary.series
        own = series[(series.cell == cell) & (series.metric == metric)]
        findings = summary.findings
        if len(findings):
            findings = findings[(findings.cell == cell) & (findings.metric == metric)]
        unit = summary.units.get(metric, "")
        yield partial(metric_history, own, findings, metric=metric, cell=cell, unit=unit)


def _notes(summary: ExperimentSummary) -> Iterator[str]:
    count = len(_drawn(summary))
    if count > MOST_HISTORIES:
        yield f"{MOST_HISTORIES} of {count:,} histories are drawn, those with findings first."


def _executions_table(executions: pd.DataFrame) -> Table:
    titles = ("Execution", "Started", "State", "Finished", "Success", "Duration", "Commit")
    columns = tuple(Column(one, is_number=one in ("Finished", "Success")) for one in titles)
    rows = [
        (
            plain_name(f"{row['name']} ({str(row['run_uid'])[:8]})"),
            write_time(row["started_at"]),
            _state(row),
            f"{row['finished']} of {row['finished'] + row['failed']}",
            write_ratio(int(row["finished"]), int(row["finished"] + row["failed"])),
            write_duration(row["seconds"]),
            _short(row["commit"]),
        )
        for row in executions.to_dict("records")
    ]
    return bounded(columns, rows, "executions")


def _state(row: Mapping[str, object]) -> str:
    if not row["is_over"]:
        return "goes on"
    if not row["finished"]:
        return "failed" if row["failed"] else "nothing ran"
    return "some failed" if row["failed"] else "whole"


def _short(value: object) -> str:
    return plain_name(value)[:10] if isinstance(value, str) and value else MISSING


def _findings_table(findings: pd.DataFrame) -> Table:
    columns = (Column("Cell"), Column("Metric"), Column("Kind"), Column("Outcome"), Column("What"))
    rows = [
        (
            plain_name(row["cell"] or "all runs"),
            plain_name(row["metric"]),
            plain_name(row["kind"]),
            plain_name(row["outcome"]),
            plain_text(row["words"]),
        )
        for row in findings.to_dict("records")
    ]
    return bounded(columns, rows, "findings")


def _histories_table(summary: ExperimentSummary) -> Table:
    """
    What the figures show in numbers: of each history the oldest and the newest value.
    """
    titles = ("Executions", "Oldest", "Newest", "Smallest", "Largest")
    columns = (
        Column("Cell"),
        Column("Metric"),
        *(Column(title, is_number=True) for title in titles),
    )
    if not len(summary.series):
        return bounded(columns, [], "histories")
    known = summary.series[summary.series.value.notna()].sort_values("started_ms", kind="stable")
    grouped = known.groupby(["cell", "metric"], sort=False).value
    found = grouped.agg(["size", "first", "last", "min", "max"])
    rows = [
        (
            plain_name(cell or "all runs"),
            plain_name(metric + explain(summary.units.get(metric, ""), Direction.NONE)),
            f"{row[0]:,}",
            *map(write_number, row[1:]),
        )
        for (cell, metric), row in zip(
            found.index, found.itertuples(index=False, name=None), strict=True
        )
    ]
    return bounded(columns, rows, "histories")


def _advice_table(advice: pd.DataFrame) -> Table:
    columns = (
        Column("Recommendation"),
        Column("Source"),
        *(Column(one, is_number=True) for one in ("Tried by", "Promised (%)", "Came (%)")),
        Column("Verdict"),
        Column("Why"),
    )
    rows = [
        (
            plain_name(row["title"]),
            plain_name(row["source"]),
            f"{row['follow_ups']:,} runs",
            write_number(100.0 * row["expected"]),
            write_number(100.0 * row["gain"]),
            plain_name(row["verdict"] or MISSING),
            plain_text(row["reason"]),
        )
        for row in advice.to_dict("records")
    ]
    return bounded(columns, rows, "recommendations")


def _overhead_notes(runs: pd.DataFrame) -> Iterator[str]:
    if len(runs) and runs.sidecar_percent.isna().any():
        yield (
            f"Runs under {SHORTEST_S:g} s have no percentage of the sidecar: to start and end "
            "takes it longer than they last."
        )


def _overhead_table(runs: pd.DataFrame) -> Table:
    columns = (
        Column("Cell"),
        Column("Runs", is_number=True),
        Column("Log calls (median percent)", is_number=True),
        Column("Sidecar (median percent of a core)", is_number=True),
    )
    grouped = runs.groupby("cell", sort=False) if len(runs) else ()
    medians: Sequence[tuple[str, int, float, float]] = [
        (str(cell), len(own), own.logger_percent.median(), own.sidecar_percent.median())
        for cell, own in grouped
    ]
    rows = [
        (plain_name(cell or "all runs"), f"{count:,}", write_number(one), write_number(other))
        for cell, count, one, other in medians
    ]
    return bounded(columns, rows, "cells")
