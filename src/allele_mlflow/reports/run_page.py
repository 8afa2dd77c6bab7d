"""
The report of one run: its time, metrics, alerts, errors and delivery. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import pandas as pd

from allele_mlflow.reports.figures import (
    convergence,
    genome_lineage,
    genome_traits,
    run_timeline,
)
from allele_mlflow.reports.page import Draw, Page, Section
from allele_mlflow.reports.summary import FailureGroup
from allele_mlflow.reports.tables import (
    Column,
    Table,
    bounded,
    groups_table,
    pairs_table,
    plain_name,
    plain_text,
)
from allele_mlflow.reports.wording import MISSING, write_duration, write_number, write_time
from allele_mlflow.units import describe

_FOOTER = (
    "Percent of CPU are of one core, memory in MB (10^6 bytes). Of a metric the reading of the "
    f"highest step is shown. {MISSING} stands where nothing was measured."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSummary:
    """
    All that a report says of one run.

    Attributes:
        name: For people.
        started_at: With its time zone.
        ended_at: With its time zone; None while it goes on.
        facts: Of the headline: run id, experiment, status, host.
        params, tags: As MLflow has them.
        metrics: Columns key, step, value: of each key the reading that MLflow shows.
        history: Readings of some keys with several steps: columns cell, cell_key, repeat, key,
            step, value.
        phases, samples, alerts: See `figures.run_timeline`.
        genomes, traits: See `figures.genome_lineage` and `figures.genome_traits`.
        errors: Largest group first.
        delivery: The ledger, in words: kind or reason, and how many records.
        notes: What a reader must know before the numbers.
    """

    name: str
    started_at: datetime
    ended_at: datetime | None
    facts: Mapping[str, object]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: pd.DataFrame
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    phases: pd.DataFrame = field(default_factory=pd.DataFrame)
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
    alerts: pd.DataFrame = field(default_factory=pd.DataFrame)
    genomes: pd.DataFrame = field(default_factory=pd.DataFrame)
    traits: pd.DataFrame = field(default_factory=pd.DataFrame)
    errors: tuple[FailureGroup, ...] = ()
    delivery: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run_page(summary: RunSummary) -> Page:
    """
    The sections of a run's report.

    Raises:
        ValueError: a frame lacks a column, or a moment its time zone.
    """
    return Page(
        kind="Run",
        name=plain_name(summary.name),
        headline=tuple(_headline(summary)),
        notes=tuple(map(plain_text, summary.notes)),
        sections=tuple(_sections(summary)),
        footer=_FOOTER,
    )


def _headline(summary: RunSummary) -> Iterator[tuple[str, str]]:
    start = write_time(summary.started_at)
    yield "Started", start
    if summary.ended_at is not None:
        yield "Ended", write_time(summary.ended_at)
        took_s = (summary.ended_at - summary.started_at).total_seconds()
        yield "Duration", write_duration(took_s)
    else:
        yield "Ended", "not ended"
    for name, value in summary.facts.items():
        yield plain_name(name), plain_text(value)


def _sections(summary: RunSummary) -> Iterator[Section]:
    has_time = any(map(len, (summary.phases, summary.samples, summary.alerts)))
    began_ms = summary.started_at.timestamp() * 1000
    draw = partial(run_timeline, summary.phases, summary.samples, summary.alerts, began_ms=began_ms)
    yield Section(
        "Phases and resources",
        _phases_table(summary.phases),
        draws=(draw,) if has_time else (),
        empty="No phases.",
    )
    yield Section("Alerts", _alerts_table(summary.alerts))
    yield Section(
        "Metrics",
        _metrics_table(summary.metrics),
        draws=tuple(_curves(summary.history)),
    )
    yield Section(
        "Genomes",
        _genomes_table(summary.genomes),
        draws=tuple(_genome_draws(summary)),
        is_optional=True,
    )
    yield Section("Errors", groups_table(summary.errors))
    yield Section("Delivery", pairs_table(summary.delivery), empty="Not known.", is_half=True)
    yield Section("Parameters", pairs_table(summary.params), is_half=True)
    yield Section("Tags", pairs_table(summary.tags), is_brief=False)


def _curves(history: pd.DataFrame) -> Iterator[Draw]:
    for key in dict.fromkeys(history["key"]) if len(history) else ():
        known = describe(key)
        yield partial(convergence, history, objective=key, unit=known.unit if known else "")


def _genome_draws(summary: RunSummary) -> Iterator[Draw]:
    """
    Of one generation there is neither a course nor a lineage to draw.
    """
    if len(summary.genomes) and summary.genomes.generation.nunique() > 1:
        yield partial(genome_lineage, summary.genomes)
        if len(summary.traits):
            yield partial(genome_traits, summary.traits)


def _phases_table(phases: pd.DataFrame) -> Table:
    columns = (
        Column("Phase"),
        *(
            Column(title, is_number=True)
            for title in ("Times", "Seconds", "CPU (percent)", "Largest memory (MB)")
        ),
    )
    if not len(phases):
        return bounded(columns, [], "phases")
    numbers = {
        name: pd.to_numeric(phases[name], errors="coerce")
        if name in phases
        else pd.Series(float("nan"), index=phases.index)
        for name in ("seconds", "cpu_percent", "rss_mb_max")
    }
    frame = phases[["name"]].assign(**numbers)
    frame = frame.assign(cpu_s=frame.cpu_percent * frame.seconds)
    grouped = frame.groupby("name", sort=False)
    found = grouped.agg(
        times=("seconds", "size"), seconds=("seconds", "sum"), rss=("rss_mb_max", "max")
    )
    counted = (
        frame[frame.cpu_s.notna()].groupby("name").agg(s=("seconds", "sum"), c=("cpu_s", "sum"))
    )
    cpu = (counted.c / counted.s).reindex(found.index)
    rows = [
        (
            plain_name(name),
            f"{row.times:,}",
            write_number(row.seconds),
            write_number(cpu[name]),
            write_number(row.rss),
        )
        for name, row in zip(found.index, found.itertuples(), strict=True)
    ]
    return bounded(columns, rows, "names of phases")


def _genomes_table(genomes: pd.DataFrame) -> Table:
    columns = (
        Column("Genome"),
        Column("Generation", is_number=True),
        Column("Fitness", is_number=True),
        Column("Parents"),
    )
    if not len(genomes):
        return bounded(columns, [], "genomes")
    ordered = genomes.sort_values("fitness", ascending=False, kind="stable")
    rows = [
        (
            plain_name(row.genome_id),
            write_number(row.generation),
            write_number(row.fitness),
            plain_text(", ".join(row.parents)) or MISSING,
        )
        for row in ordered.itertuples()
    ]
    return bounded(columns, rows, "genomes")


def _alerts_table(alerts: pd.DataFrame) -> Table:
    columns = tuple(map(Column, ("Alert", "Severity", "Raised", "Phase", "Status", "Message")))
    rows = [
        (
            plain_name(row["name"]),
            plain_name(row["severity"]),
            MISSING if pd.isna(row["time"]) else write_time(row["time"]),
            _or_missing(row.get("phase")),
            _or_missing(row.get("status")),
            _or_missing(row["message"]),
        )
        for row in alerts.to_dict("records")
    ]
    return bounded(columns, rows, "alerts")


def _or_missing(value: object) -> str:
    return plain_text(value) if isinstance(value, str) and value else MISSING


def _metrics_table(metrics: pd.DataFrame) -> Table:
    columns = (
        Column("Metric"),
        Column("Value", is_number=True),
        Column("Unit"),
        Column("Step", is_number=True),
    )
    if not len(metrics):
        return bounded(columns, [], "metrics")
    ordered = metrics.sort_values("key", key=_own_first, kind="stable")
    rows = [
        (plain_name(row.key), write_number(row.value), _unit(row.key), f"{row.step:,}")
        for row in ordered.itertuples()
    ]
    return bounded(columns, rows, "metrics")


def _own_first(keys: pd.Series) -> pd.Series:
    """
    The benchmark's own metrics before what the sidecar adds.
    """
    return keys.map(lambda key: (key.startswith(("system/", "phase/", "trial/")), key))


def _unit(key: str) -> str:
    known = describe(key)
    return known.unit if known else MISSING
