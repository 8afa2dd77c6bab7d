"""
`allele-mlflow doctor`: whether an installation works here, and what to do where it does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from allele_mlflow.cli.checks.configuration import check_settings
from allele_mlflow.cli.checks.findings import Finding, Level, run_check, worst_exit_code
from allele_mlflow.cli.checks.machine import judge_clocks, machine_checks, read_clocks
from allele_mlflow.cli.checks.mlflow_store import check_store, check_versions
from allele_mlflow.cli.checks.spool_folder import spool_checks
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import say, shown
from allele_mlflow.settings import environment

_WIDTH = max(len(level) for level in Level)


@click.command()
@click.option("--tracking-uri", help="Check this store, and not that of the settings.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the store may take for a step.",
)
def doctor(tracking_uri: str | None, as_json: bool, timeout_s: float) -> ExitCode:
    """
    Check settings, mlflow, store, spool and machine; a line a finding, with a remedy.

    Writes a run into the experiment `<prefix>doctor` and deletes it; makes no database that is not
    there. Exit code 0: nothing is in the way; 2: a setting is wrong, or the spool cannot be used;
    6: mlflow or the store cannot be used.
    """
    findings = []
    for finding in find_all(tracking_uri=tracking_uri, timeout_s=timeout_s):
        findings.append(finding)
        if not as_json:
            _show(finding)
    code = worst_exit_code(findings)
    if as_json:
        document = {"exit_code": int(code), "findings": msgspec.to_builtins(findings)}
        say(json.dumps(document, indent=2))  # with escapes, so that any encoding takes it
    else:
        say(_summary(findings))
    return code


def find_all(*, tracking_uri: str | None, timeout_s: float) -> Iterator[Finding]:
    """
    The findings of all checks, as they come.
    """
    before = read_clocks()
    environ = environment()
    yield from run_check("versions", check_versions)
    found = check_settings(environ, Path.cwd(), tracking_uri=tracking_uri)
    yield from found.findings
    settings = found.settings
    if settings is not None:
        yield from run_check(
            "store", lambda: check_store(settings, timeout_s=timeout_s), is_vital=True
        )
        for check in spool_checks(settings):
            yield from run_check("spool", check)
    for name, check in machine_checks(settings, environ):
        yield from run_check(name, check)
    yield from run_check("clock", lambda: judge_clocks(before, read_clocks()))


def _show(finding: Finding) -> None:
    say(f"{finding.level:<{_WIDTH}} {finding.check}: {shown(finding.text)}")
    if finding.remedy:
        say(f"{'':<{_WIDTH}} -> {shown(finding.remedy)}")


def _summary(findings: list[Finding]) -> str:
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    return ", ".join(f"{count} {level}" for level, count in counts.items() if count)
