"""
What the journal of a model tells, and whether it holds.
"""

from __future__ import annotations

import click
import msgspec

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, json_text, say, shown
from allele_mlflow.cli.registry.opening import STAGES, open_settings_registry


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def history(name: str, as_json: bool) -> ExitCode:
    """
    Tell who did what to a model, when and why.
    """
    from allele_mlflow.registry.journal import describe

    opened, _ = open_settings_registry()
    chain = opened.history(name)
    if as_json:
        entries = [msgspec.to_builtins(one) for one in chain.entries]
        say(json_text({"format": 1, "name": name, "head": chain.head, "entries": entries}))
        return ExitCode.FINE
    for entry in chain.entries:
        say(shown(f"{entry.time}  {describe(entry)}"))
    say(f"head {chain.head}")
    return ExitCode.FINE


@click.command()
@click.argument("name")
@click.argument("time")
def at(name: str, time: str) -> ExitCode:
    """
    Tell who held which stage at TIME (ISO 8601, as 2026-11-28T12:00; UTC unless it has an offset).

    The journal counts up to the first entry whose writer's clock said a later time.
    """
    opened, _ = open_settings_registry()
    standing = opened.standing(name, at=time)
    for stage in STAGES:
        held = {one.value: version for one, version in standing.holders.items()}
        say(f"{stage:12} {held.get(stage, '-')}")
    return ExitCode.FINE


@click.command()
@click.argument("name")
@click.option("--head", help="A hash that was noted down: the journal must contain it.")
def verify(name: str, head: str | None) -> ExitCode:
    """
    Check journal and files of a model, and have MLflow's aliases say what the journal says.

    Without --head it cannot tell that the last entries were taken away.
    """
    opened, _ = open_settings_registry()
    with Progress() as progress:
        found = opened.verify(
            name,
            head=head,
            progress=lambda done, of: progress.show(f"{done:,} of {of:,} versions checked"),
        )
    for line in found.notes:
        say(shown(f"note: {line}"))
    for line in found.repaired:
        say(shown(f"repaired: {line}"))
    for line in found.problems:
        say(shown(f"PROBLEM: {line}"))
    say(f"head {found.head}")
    return ExitCode.FAILED if found.problems else ExitCode.FINE


COMMANDS = (history, at, verify)
