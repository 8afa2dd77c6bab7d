"""
`allele-mlflow import`: results that Allele's own matrix scripts have written, into MLflow.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, complain, json_text, say, shown
from allele_mlflow.errors import RecordError, TrackingError
from allele_mlflow.matrix.result_import import ImportReport, import_results

#: Entries that could not be imported and are listed.
LISTED = 20


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", help="Of the suite; that of the file's folder by default.")
@click.option("--experiment", help="Behind the prefix of experiments; the suite's name by default.")
@click.option("--tracking-uri", help="Import here, and not into the store of the settings.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def import_command(
    file: Path,
    name: str | None,
    experiment: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> ExitCode:
    """
    Import FILE, a results.json or checkpoint.json of a finished matrix, into MLflow.

    Each entry becomes a run below one run for the import. Importing a file again makes nothing
    twice: it brings what is new, and goes on where an import was stopped. Exit code 2: the file or
    a setting is wrong; 5: it holds no entry; 6: the store was unreachable; 7: some entries could
    not be imported.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    try:
        with Progress() as progress:
            report = import_results(
                file,
                settings=settings,
                experiment=experiment,
                name=name,
                owns_process=True,
                on_entry=lambda so_far: progress.show(shown(so_far.line())),
            )
    except RecordError as exc:
        raise click.BadParameter(str(exc), param_hint="FILE") from exc
    except TrackingError as exc:
        complain(f"the store cannot be used: {shown(str(exc))}; import again to go on")
        return ExitCode.UNREACHABLE
    say(json_text(asdict(report)) if as_json else _text(report))
    if report.run_id is None and report.is_complete:
        return ExitCode.NOTHING_MEASURED
    return ExitCode.FINE if report.is_complete else ExitCode.LOST


def _text(report: ImportReport) -> str:
    lines = [shown(report.line())]
    for key, reason in report.malformed[:LISTED]:
        lines.append(f"  {shown(key)}: {shown(reason)}")
    if report.malformed_count > LISTED:
        lines.append(f"  and {report.malformed_count - LISTED:,} more; --json lists 100")
    if report.problem is not None:
        lines.append(f"  the file was not read to its end: {shown(report.problem)}")
    if report.run_url is not None:
        lines.append(shown(report.run_url))
    return "\n".join(lines)
