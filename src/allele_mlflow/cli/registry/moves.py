"""
Where versions stand: promoted by a gate, rolled back, archived, approved.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.registry.opening import STAGES, open_settings_registry

if TYPE_CHECKING:
    from allele_mlflow.registry.gates import Check
    from allele_mlflow.registry.journal import Entry


@click.command()
@click.argument("where")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--reason", required=True, help="Why; kept in the journal.")
@click.option("--evidence", metavar="SELECTION", help="The runs that measured it.")
@click.option(
    "--gates",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What a stage asks for (TOML); by default what is usual.",
)
@click.option("--dry-run", is_flag=True, help="Say what the gate says; move nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def promote(
    where: str,
    stage: str,
    reason: str,
    evidence: str | None,
    gates: Path | None,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """
    Have the version WHERE hold STAGE, if the stage's gate lets it through.

    The gate looks at the runs of its evidence, compares them with the holder's, and says of every
    rule whether it passed. What it saw is kept with the journal. Exit code 1: a rule failed, or
    another one took the stage meanwhile.
    """
    from allele_mlflow.registry.gates import read_policies
    from allele_mlflow.registry.journal import Stage
    from allele_mlflow.registry.promotion import judge

    opened, settings = open_settings_registry()
    name, number = opened.find(where)
    target = Stage(stage)
    policies = read_policies(gates) if gates is not None else None
    judged = judge(opened, settings, name, number, target, policies=policies, evidence=evidence)
    checks, is_refused = judged.checks, not judged.is_passed
    entry = None
    if not (is_refused or dry_run):
        entry = opened.promote(
            name, number, target, reason=reason, holder=judged.holder, evidence=judged.evidence
        )
    if as_json:
        say(json_text(_promotion_document(checks, entry, is_refused=is_refused)))
    else:
        for line in _promotion_lines(checks, entry, f"{name}/{number}", stage, dry_run=dry_run):
            say(shown(line))
    return ExitCode.FAILED if is_refused else ExitCode.FINE


@click.command()
@click.argument("name")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--reason", required=True, help="Why; kept in the journal.")
def rollback(name: str, stage: str, reason: str) -> ExitCode:
    """
    Give a stage back to the version that held it before.
    """
    from allele_mlflow.registry.journal import Stage, describe

    opened, _ = open_settings_registry()
    say(shown(describe(opened.rollback(name, Stage(stage), reason=reason))))
    return ExitCode.FINE


@click.command()
@click.argument("where")
@click.option("--reason", required=True, help="Why; kept in the journal.")
def archive(where: str, reason: str) -> ExitCode:
    """
    Take a version out of use.
    """
    from allele_mlflow.registry.journal import describe

    opened, _ = open_settings_registry()
    name, number = opened.find(where)
    say(shown(describe(opened.archive(name, number, reason=reason))))
    return ExitCode.FINE


@click.command()
@click.argument("where")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--reason", default="", help="Why; kept in the journal.")
def approve(where: str, stage: str, reason: str) -> ExitCode:
    """
    Say that a version may go to a stage; its author cannot.
    """
    from allele_mlflow.registry.journal import Stage, describe

    opened, _ = open_settings_registry()
    name, number = opened.find(where)
    say(shown(describe(opened.approve(name, number, Stage(stage), reason=reason))))
    return ExitCode.FINE


def _promotion_lines(
    checks: list[Check], entry: Entry | None, where: str, stage: str, *, dry_run: bool
) -> Iterator[str]:
    for one in checks:
        yield f"{'passed' if one.is_passed else 'FAILED'}  {one.rule}: {one.said}"
    if entry is not None:
        after = f", after version {entry.holder}" if entry.holder is not None else ""
        yield f"{where} holds {stage} now{after}"
    elif dry_run and all(one.is_passed for one in checks):
        yield f"{where} may hold {stage}"
    else:
        yield f"{where} may not hold {stage}: a rule failed"


def _promotion_document(
    checks: list[Check], entry: Entry | None, *, is_refused: bool
) -> dict[str, Any]:
    return {
        "format": 1,
        "is_refused": is_refused,
        "checks": [vars(one) for one in checks],
        "entry": msgspec.to_builtins(entry) if entry is not None else None,
    }


COMMANDS = (promote, rollback, archive, approve)
