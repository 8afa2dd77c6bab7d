"""
`allele-mlflow run`: a suite, from its file to its results in MLflow.
"""

from __future__ import annotations

import functools
from typing import Any

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow import suite_tags as tags
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.interruption import terminated_as_interrupted
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.suite_display import duration_text, open_view
from allele_mlflow.cli.suite_tables import failures_table, rendered, results_table
from allele_mlflow.errors import TrackingError
from allele_mlflow.matrix.cells import select_cells
from allele_mlflow.matrix.find_suite import find_suite
from allele_mlflow.matrix.forecast import Forecast, forecast
from allele_mlflow.matrix.options import RunOptions
from allele_mlflow.matrix.prepared import Prepared, find_last, prepare_suite
from allele_mlflow.matrix.registration import register_outcome
from allele_mlflow.matrix.results import Outcome
from allele_mlflow.matrix.runner import SuiteRunner
from allele_mlflow.matrix.suite_results import Published, SuiteResults
from allele_mlflow.numerals import whole_number
from allele_mlflow.settings import Settings


@click.command()
@click.argument("suite")
@click.option("--dry-run", is_flag=True, help="Show the cells and the predicted time; run nothing.")
@click.option(
    "--resume", is_flag=True, help="Run what the last execution lacks: missing or failed."
)
@click.option("--retry-failed", is_flag=True, help="Run only what failed in the last execution.")
@click.option("--fail-fast", is_flag=True, help="Submit nothing after the first failure.")
@click.option("--only", metavar="EXPRESSION", help="Only cells of which this is true.")
@click.option("--follow", metavar="ID", help="The recommendation that this run tries.")
@click.option("--executor", metavar="NAME", help="inline, process:N, dask:..., module:factory.")
@click.option(
    "--exclusive", is_flag=True, help="One cell at a time, no other such suite beside it."
)
@click.option("--track/--no-track", default=None, help="Whether runs go to MLflow.")
@click.option("--tracking-uri", metavar="URI", help="Instead of the setting.")
@click.option("--strict", is_flag=True, help="Exit 6 unless everything is in MLflow at the end.")
@click.option("--quiet", is_flag=True, help="Plain lines even on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document of the results on stdout.")
@click.pass_context
def run(
    context: click.Context,
    suite: str,
    dry_run: bool,
    resume: bool,
    retry_failed: bool,
    fail_fast: bool,
    only: str | None,
    follow: str | None,
    executor: str | None,
    exclusive: bool,
    track: bool | None,
    tracking_uri: str | None,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """
    Run a matrix suite: every cell of it, as often as it says, each run tracked in MLflow.

    SUITE is a TOML file, or module:name of a Suite or of a function marked @benchmark. Exit
    codes: 0 all finished, 2 the suite is wrong, 3 some cells failed, 5 nothing was measured, 6
    MLflow could not be reached, 7 records were lost, 130 interrupted (go on with --resume).
    """
    overrides: dict[str, Any] = {"tracking_uri": tracking_uri} if tracking_uri else {}
    settings = settings_module.load(overrides)
    found = find_suite(suite)
    prepared = prepare_suite(found.suite, found.folder, text=found.text)
    if follow is not None:
        if not follow.strip():
            raise click.UsageError("--follow: want the id of a recommendation, got nothing")
        told = {**prepared.suite.tags, tags.RECOMMENDATION: follow}
        prepared.suite = msgspec.structs.replace(prepared.suite, tags=told)
    options = RunOptions(
        executor=executor,
        only=only,
        is_resumed=resume,
        retries_failed=retry_failed,
        fails_fast=fail_fast,
        is_exclusive=exclusive,
        is_tracked=track,
    )
    if dry_run:
        _show_plan(prepared, options, settings, as_json=as_json)
        return
    view_of = functools.partial(open_view, is_quiet=quiet or as_json)
    with terminated_as_interrupted():
        with view_of(prepared.suite) as view:
            results = SuiteResults(prepared, settings, tick=view.tick)
            runner = SuiteRunner(prepared, options, settings, view=view, finish=results.publish)
            outcome = runner.run()
        published = results.published()
        registration = register_outcome(
            outcome,
            published.run_uid,
            settings,
            is_complete=published.is_complete,
            options=options,
            open_view=view_of,
        )
    if registration is not None:
        published.notes += registration.lines
    if as_json:
        registered = registration.document() if registration is not None else None
        say(json_text(results.document(outcome, published) | {"registered": registered}))
    else:
        _show(outcome, published)
    is_interrupted = registration is not None and registration.is_interrupted
    context.exit(
        ExitCode.INTERRUPTED if is_interrupted else _exit_code(outcome, published, is_strict=strict)
    )


def _exit_code(outcome: Outcome, published: Published, *, is_strict: bool) -> ExitCode:
    if outcome.is_interrupted:
        return ExitCode.INTERRUPTED
    if not outcome.finished_count:
        return ExitCode.NOTHING_MEASURED
    if published.lost_count:
        return ExitCode.LOST
    if is_strict and not published.is_complete:
        return ExitCode.UNREACHABLE
    return ExitCode.CELLS_FAILED if outcome.failed_count or outcome.left_count else ExitCode.FINE


def _show(outcome: Outcome, published: Published) -> None:
    if outcome.rows:
        say(rendered(results_table(outcome)), nl=False)
    if outcome.failures:
        say(rendered(failures_table(outcome.failures)), nl=False)
    text = f"{outcome.finished_count:,} finished, {outcome.failed_count:,} failed"
    if outcome.left_count:
        text += f", {outcome.left_count:,} not run"
    say(f"{text} in {duration_text(outcome.seconds)}")
    for line in published.lines():
        say(shown(line))
    if outcome.is_interrupted:
        say("interrupted; go on with --resume")


def _show_plan(
    prepared: Prepared, options: RunOptions, settings: Settings, *, as_json: bool
) -> None:
    """
    What would be run, and how long that took before.
    """
    suite = prepared.suite
    cells = prepared.cells if options.only is None else select_cells(prepared.cells, options.only)
    last = None
    try:
        last = find_last(prepared, settings)
    except TrackingError as exc:
        complain(f"what was measured before cannot be read: {exc}")
    executor = options.executor or suite.executor
    is_exclusive = suite.exclusive or options.is_exclusive
    width = 1 if is_exclusive else _width(executor)
    found = forecast(suite, cells, last, options, width=width)
    if as_json:
        say(json_text(_plan_document(suite.name, executor, found)))
        return
    for cell, runs, seconds in found.cells:
        text = f"{cell.name}: {runs} run{'s' if runs != 1 else ''}"
        say(shown(text) + ("" if seconds is None else f", {duration_text(seconds)} each before"))
    more = " or more" if suite.adaptive is not None else ""
    say(f"{len(cells):,} cells, {found.run_count:,} runs{more}, {executor}")
    if found.seconds is None:
        say("how long they take is not known: none has finished before")
        return
    guess = f" ({found.guessed_count} cells are guessed)" if found.guessed_count else ""
    say(f"about {duration_text(found.seconds)}, as before{guess}")


def _plan_document(suite: str, executor: str, found: Forecast) -> dict[str, Any]:
    return {
        "suite": suite,
        "executor": executor,
        "cells": [
            {
                "cell": cell.name,
                "cell_key": cell.key,
                "params": dict(cell.params),
                "runs": runs,
                "seconds": seconds,
            }
            for cell, runs, seconds in found.cells
        ],
        "runs": found.run_count,
        "predicted_s": found.seconds,
    }


def _width(executor: str) -> int:
    kind, _, number = executor.partition(":")
    return (whole_number(number) or 1) if kind == "process" else 1
