"""
`allele-mlflow reevaluate`: a registered genome measured again on fresh seeds, as its evidence.
"""

from __future__ import annotations

import functools

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.interruption import terminated_as_interrupted
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.suite_display import open_view
from allele_mlflow.errors import ErrorKind, MatrixError, RegistryError
from allele_mlflow.matrix.find_suite import find_suite
from allele_mlflow.matrix.options import RunOptions
from allele_mlflow.matrix.prepared import prepare_suite
from allele_mlflow.matrix.registration import Registration
from allele_mlflow.matrix.registration import reevaluate as measure_again


@click.command()
@click.argument("suite")
@click.argument("where")
@click.option("--repeats", type=click.IntRange(2), help="Fresh seeds; by default as in the suite.")
@click.option("--executor", metavar="NAME", help="Instead of the suite's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="Plain lines even on a terminal.")
@click.option("--tracking-uri", metavar="URI", help="Instead of the setting.")
@tells_errors
def reevaluate(
    suite: str,
    where: str,
    repeats: int | None,
    executor: str | None,
    as_json: bool,
    quiet: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Measure the registered genome WHERE (NAME/NUMBER or NAME@STAGE) again, as the table [genome] of
    SUITE says. The runs become its evidence, which `registry promote` looks at.

    Every genome gets the same seeds, which no run of the suite has met; more repeats are more of
    the same, so two genomes with as many can be compared in pairs.

    Exit codes: 0 measured, and what its search claimed of it is likely; 1 the claim is better than
    that; 2 the suite, the version or the command line is wrong; 5 it could not be measured, and its
    evidence stays; 6 a store could not be reached; 130 interrupted.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    if not settings.enabled or settings.is_offline:
        raise MatrixError(
            "reevaluate keeps its runs in MLflow: want a store that can be reached, and "
            "ALLELE_MLFLOW_ENABLED=true",
            kind=ErrorKind.BAD_SUITE,
        )
    found = find_suite(suite)
    prepared = prepare_suite(found.suite, found.folder, text=found.text)
    try:
        with terminated_as_interrupted():
            measured = measure_again(
                prepared,
                where,
                settings,
                repeats=repeats,
                options=RunOptions(executor=executor),
                open_view=functools.partial(open_view, is_quiet=quiet or as_json),
            )
    except RegistryError as exc:
        raise click.UsageError(shown(str(exc))) from exc
    say(json_text({"format": 1, **measured.document()}) if as_json else shown(measured.said))
    return _exit_code(measured)


def _exit_code(measured: Registration) -> ExitCode:
    found = measured.verification
    if measured.is_interrupted:
        return ExitCode.INTERRUPTED
    if found is None or found.earned is None:
        return ExitCode.NOTHING_MEASURED
    if found.run_id is None:
        return ExitCode.UNREACHABLE
    return ExitCode.FINE if found.earned.is_verified else ExitCode.FAILED
