"""
`allele-mlflow report`: one page to decide from, of an execution, a run or an experiment.
"""

from __future__ import annotations

import contextlib
import re
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, say, shown
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # pandas, SciPy and plotly are read where they are needed
    from allele_mlflow.reports.page import Page

_LONGEST_NAME = 80


@click.command()
@click.argument("name", metavar="SUITE|RUN|EXPERIMENT")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The HTML file; by default report-NAME.html in the working folder.",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="A summary in Markdown there, - for stdout; then HTML only with --output.",
)
@click.option("--experiment", is_flag=True, help="Of a suite: all executions and their trend.")
@click.option("--open/--no-open", "is_opened", default=False, help="Open it in a browser.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def report(
    name: str,
    output: Path | None,
    markdown: Path | None,
    experiment: bool,
    is_opened: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Write a report from MLflow alone, on any machine: one HTML file that opens from a disk and loads
    nothing from elsewhere.

    SUITE is the name of a suite (its newest execution; SUITE~1 is the one before), RUN the id, uid
    or name of a run, EXPERIMENT a name of an experiment, with or without the prefix. A report of a
    suite has its cells by metric, differences to the execution before, curves, failures; one of a
    run its phases, resources, alerts, errors and delivery; one of an experiment its executions and
    the trend of their objectives.

    Exit code 2: there is no such suite, run or experiment, or the file cannot be written; 6: the
    store was unreachable.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    with Progress() as progress:
        progress.show("reading")
        page = _page(settings, name, is_whole=experiment)
        progress.show("drawing")
        written = _write(page, name, output, markdown)
    for line in written:
        say(shown(f"report: {line}"))
    if is_opened and written:
        webbrowser.open(written[0].resolve().as_uri())
    return ExitCode.FINE


def _page(settings: Settings, name: str, *, is_whole: bool) -> Page:
    from allele_mlflow.analysis.selection import find_runs
    from allele_mlflow.reports.experiment_page import experiment_page
    from allele_mlflow.reports.run_page import run_page
    from allele_mlflow.reports.suite_page import suite_page
    from allele_mlflow.summaries.execution import summarise_execution
    from allele_mlflow.summaries.experiment import summarise_experiment
    from allele_mlflow.summaries.run import summarise_run
    from allele_mlflow.tracking.reader import open_reader

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        found = find_runs(reader, name, prefix=settings.experiment_prefix)
        if found.target.wanted is not None:
            raise click.UsageError(f"{shown(name)}: a report is of all runs: want no [EXPRESSION]")
        if not len(found.frames.runs):
            raise click.UsageError(f"{shown(name)}: the experiment has no runs")
        if is_whole:
            return experiment_page(summarise_experiment(reader, uri, found.frames))
        if found.execution is not None:
            return suite_page(summarise_execution(reader, uri, found))
        names = (found.target.name, f"{settings.experiment_prefix}{found.target.name}")
        if set(found.frames.runs["experiment"]) & set(names):
            return experiment_page(summarise_experiment(reader, uri, found.frames))
        run_id = str(found.runs["run_id"].iloc[0])  # newest first, where several have the name
        return run_page(summarise_run(reader, uri, found.frames, run_id))


def _write(page: Page, name: str, output: Path | None, markdown: Path | None) -> list[Path]:
    """
    Write what was asked for; the HTML files that were written.
    """
    from allele_mlflow.reports.html import write_report
    from allele_mlflow.reports.markdown import write_markdown

    if markdown is not None:
        text = write_markdown(page)
        if str(markdown) == "-":
            say(text.rstrip("\n"))
        else:
            _save(markdown, text)
        if output is None:
            return []
    path = output or Path(f"report-{_file_name(name)}.html")
    _save(path, write_report(page))
    return [path]


def _save(path: Path, text: str) -> None:
    """
    Write a file, and its folder where there is none.

    Raises:
        UsageError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.UsageError(shown(f"{path}: cannot be written: {exc}")) from exc


def _file_name(name: str) -> str:
    """
    A name as a part of a file's: what is not a letter or a digit is a dash.
    """
    return re.sub(r"[^\w.]+", "-", name).strip("-.")[:_LONGEST_NAME] or "run"
