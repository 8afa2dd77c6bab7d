"""
`allele-mlflow pin`: have the artifacts of a run stay.
"""

from __future__ import annotations

import contextlib

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import say, shown


@click.command()
@click.argument("run", required=False)
@click.option("--reason", help="Why it stays; kept with the run.")
@click.option("--remove", is_flag=True, help="Let it go again.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def pin(run: str | None, reason: str | None, remove: bool, tracking_uri: str | None) -> ExitCode:
    """
    Keep the artifacts of RUN (its id in MLflow, or its uid) from `allele-mlflow gc`, and those of
    all runs below it: of a suite's own run, all its cells. Without RUN, show what is pinned.

    A pin is the tag `allele.pin` of the run. Exit code 2: there is no such run; 6: the store was
    unreachable.
    """
    from allele_mlflow.registry.retention_plan import PIN_TAG, read_runs
    from allele_mlflow.tracking.reader import open_reader
    from allele_mlflow.tracking.run_artifacts import RunArtifacts

    if run is not None and bool(reason) == remove:
        raise click.UsageError("want --reason TEXT, or --remove")
    uri = settings_module.load({"tracking_uri": tracking_uri}).tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        runs = read_runs(reader)
    if run is None:
        for one in runs.by_id.values():
            if one.kept is not None:
                say(shown(f"{one.run_id}  {one.experiment}  {one.name}  {one.kept}"))
        return ExitCode.FINE
    found = runs.called(run)
    if len(found) != 1:
        raise click.UsageError(shown(f"{run!r}: {len(found) or 'no'} runs have that id or uid"))
    store = RunArtifacts(uri)
    if reason:
        store.tag(found[0], PIN_TAG, reason)
    else:
        store.remove_tag(found[0], PIN_TAG)
    say(shown(f"run {found[0]} {'stays: ' + reason if reason else 'may go'}"))
    return ExitCode.FINE
