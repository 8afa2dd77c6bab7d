"""
`allele-mlflow design`: what a suite can show, before any CPU is spent on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.rendering import rendered
from allele_mlflow.cli.suite_display import duration_text
from allele_mlflow.errors import AnalysisError, TrackingError
from allele_mlflow.matrix.find_suite import find_suite
from allele_mlflow.matrix.prepared import prepare_suite
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.trial import SECONDS_METRIC
from allele_mlflow.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from allele_mlflow.analysis.suite_design import DesignRow, SuiteDesign


@click.command()
@click.argument("suite")
@click.option("--repeats", type=click.IntRange(1), help="Instead of the suite's.")
@click.option("--metric", "metrics", multiple=True, help="What is compared; the objectives.")
@click.option("--difference", default=0.05, show_default=True, help="To be found: part of a mean.")
@click.option("--alpha", default=0.05, show_default=True, help="Chance of a false verdict, of all.")
@click.option("--power", default=0.8, show_default=True, help="Chance to find what is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--tracking-uri", help="Where past runs are; by default the setting.")
def design(
    suite: str,
    repeats: int | None,
    metrics: Sequence[str],
    difference: float,
    alpha: float,
    power: float,
    as_json: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Say whether SUITE can show a difference between two of its executions, and which.

    With as many repeats as it has, and with others: the smallest p-value that any data can give,
    whether that is enough after Holm's correction over cells x metrics, and the smallest true
    difference that is found with the wanted power; in percent where a past execution in MLflow
    tells the scatter. Exit code 1: with its repeats the suite can never show anything; 2: the suite
    is wrong.
    """
    from allele_mlflow.analysis.suite_design import PastMetric, design_suite, past_metrics

    settings = settings_module.load({"tracking_uri": tracking_uri})
    found = find_suite(suite)
    prepared = prepare_suite(found.suite, found.folder, text=found.text)
    names = list(metrics) or _metrics_of(prepared.suite)
    table = _past(prepared.suite, settings)
    past = [PastMetric(name) for name in names] if table is None else past_metrics(table, names)
    seconds = None
    if table is not None and SECONDS_METRIC in table:
        seconds = float(table[SECONDS_METRIC].mean())
    try:
        answer = design_suite(
            len(prepared.cells),
            repeats or prepared.suite.repeats,
            past,
            trial_seconds=None if seconds is None or seconds != seconds else seconds,
            wanted_ratio=difference,
            alpha=alpha,
            power=power,
        )
    except AnalysisError as exc:
        raise click.UsageError(str(exc)) from exc
    if as_json:
        say(json_text(_document(prepared.suite, answer)))
    else:
        say(rendered(_table(answer)).rstrip())
        for line in _lines(prepared.suite, answer):
            say(shown(line))
    return ExitCode.FINE if answer.own_row.is_reachable else ExitCode.FAILED


def _metrics_of(suite: Suite) -> list[str]:
    return list(suite.objectives) or list(suite.metrics) or [SECONDS_METRIC]


def _past(suite: Suite, settings: Settings) -> pd.DataFrame | None:
    """
    The runs of the last execution; None where there is none that can be read.
    """
    from allele_mlflow.analysis.selection import select, side_table
    from allele_mlflow.tracking.reader import open_reader

    if settings.is_offline:
        return None
    uri = settings.tracking_uri
    try:
        with contextlib.closing(open_reader(uri)) as reader:
            name = f"{settings.experiment_prefix}{suite.name}"
            return side_table(select(reader, uri, name, prefix=settings.experiment_prefix))
    except AnalysisError:
        return None
    except TrackingError as exc:
        complain(f"what was measured before cannot be read: {exc}")
        return None


def _table(answer: SuiteDesign) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("repeats", "smallest p", "can be significant", "difference found"):
        table.add_column(name, justify="right")
    told = [one.name for one in answer.metrics if one.deviation is not None]
    for name in told[:3]:
        table.add_column(Text(shown(name)), justify="right")
    table.add_column("execution", justify="right")
    for row in answer.rows:
        is_own = row.repeats == answer.repeats
        table.add_row(*_cells(row, told[:3], is_own=is_own), style="bold" if is_own else "")
    return table


def _cells(row: DesignRow, metrics: Sequence[str], *, is_own: bool) -> Iterator[str]:
    yield f"{'> ' if is_own else ''}{row.repeats}"
    yield f"{row.smallest_p:.2g}"
    yield "yes" if row.is_reachable else "never"
    yield "-" if row.effect is None else f"{row.effect:.2f} sd"
    for name in metrics:
        ratio = row.ratios.get(name)
        yield "-" if ratio is None else f"{100 * ratio:.3g} %"
    yield "-" if row.seconds is None else duration_text(row.seconds)


def _lines(suite: Suite, answer: SuiteDesign) -> Iterator[str]:
    own = answer.own_row
    yield (
        f"{answer.cells} cells x {len(answer.metrics)} metrics = {answer.hypotheses} hypotheses: "
        f"the smallest p must be below {answer.own_alpha:.2g} (Holm, alpha {answer.alpha:g})"
    )
    if [one.name for one in answer.metrics] == list(suite.objectives):
        yield "compare looks at lengths too unless --metric names the objectives: more hypotheses"
    if not own.is_reachable:
        need = answer.repeats_to_reach
        yield (
            f"with {answer.repeats} repeats nothing can ever be significant; "
            + (f"{need} repeats can" if need else "no number of repeats can: compare fewer at once")
        )
    for name, repeats in answer.repeats_for.items():
        known = next(one for one in answer.metrics if one.name == name)
        if known.deviation is None:
            yield f"{name}: its scatter is not known; run the suite once with 2 repeats or more"
        elif known.deviation == 0.0:
            yield f"{name}: no scatter was seen: every difference is one"
        else:
            found = f"{repeats} repeats" if repeats else "more than 10,000 repeats"
            wanted = f"{100 * answer.wanted_ratio:g} %"
            yield f"{name}: {found} find a difference of {wanted} with probability {answer.power:g}"
    if suite.adaptive is None and not own.is_reachable:
        yield "[adaptive] in the suite repeats cells until the objective is known well enough"


def _document(suite: Suite, answer: SuiteDesign) -> dict[str, Any]:
    return {
        "format": 1,
        "suite": suite.name,
        "cells": answer.cells,
        "repeats": answer.repeats,
        "hypotheses": answer.hypotheses,
        "alpha": answer.alpha,
        "power": answer.power,
        "own_alpha": answer.own_alpha,
        "is_reachable": answer.own_row.is_reachable,
        "repeats_to_reach": answer.repeats_to_reach,
        "wanted_ratio": answer.wanted_ratio,
        "repeats_for": dict(answer.repeats_for),
        "metrics": [
            {"name": one.name, "mean": one.mean, "deviation": one.deviation}
            for one in answer.metrics
        ],
        "rows": [
            {
                "repeats": row.repeats,
                "is_paired": row.is_paired,
                "smallest_p": row.smallest_p,
                "is_reachable": row.is_reachable,
                "effect_sd": row.effect,
                "ratios": dict(row.ratios),
                "seconds": row.seconds,
            }
            for row in answer.rows
        ],
    }
