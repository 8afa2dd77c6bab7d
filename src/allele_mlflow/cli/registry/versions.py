"""
Versions of models: kept, listed, shown, compared.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.registry.opening import (
    HASH_SHOWN,
    STAGES,
    open_settings_registry,
    pin_evidence,
)
from allele_mlflow.cli.suite_tables import rendered


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_models(as_json: bool) -> ExitCode:
    """
    Show every model and who holds its stages.
    """
    opened, _ = open_settings_registry()
    found = [(model.name, opened.standing(model.name)) for model in opened.models()]
    if as_json:
        models = [
            {
                "name": name,
                "versions": len(standing.stages),
                "holders": {stage.value: one for stage, one in standing.holders.items()},
            }
            for name, standing in found
        ]
        say(json_text({"format": 1, "models": models}))
        return ExitCode.FINE
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "versions", *STAGES):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, standing in found:
        held = {stage.value: version for stage, version in standing.holders.items()}
        holders = [str(held.get(stage, "-")) for stage in STAGES]
        table.add_row(Text(shown(name)), str(len(standing.stages)), *holders)
    say(rendered(table).rstrip() if found else "no models")
    return ExitCode.FINE


@click.command()
@click.argument("where")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(where: str, as_json: bool) -> ExitCode:
    """
    Show a version: stage, content, evidence, traits. Every hash is checked.
    """
    opened, _ = open_settings_registry()
    name, number = opened.find(where)
    genome = opened.load(f"{name}/{number}")
    stage = opened.standing(name).stages.get(number)
    told = {
        "name": name,
        "version": number,
        "stage": stage.value if stage is not None else None,
        "content": genome.content,
        "tags": dict(opened.version(name, number).tags),
        "parents": list(genome.parents),
        "genome": genome.document,
    }
    if as_json:
        say(json_text(told))
        return ExitCode.FINE
    say(shown(f"{name}/{number}, {told['stage']}, content {genome.content[:HASH_SHOWN]}"))
    for trait, level in sorted(genome.traits.items()):
        say(shown(f"{trait} {level:.6g}"))
    for key, value in sorted(opened.version(name, number).tags.items()):
        say(shown(f"{key}: {value}"))
    return ExitCode.FINE


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--candidate", is_flag=True, help="As a candidate; else for development.")
@click.option("--evidence", metavar="SELECTION", help="The runs that measured it, as of `compare`.")
@click.option("--reason", default="", help="Why; kept in the journal.")
def register(name: str, file: Path, candidate: bool, evidence: str | None, reason: str) -> ExitCode:
    """
    Keep the genome in FILE (JSON) as a version of the model NAME; the same content is one version.
    """
    from allele_mlflow.registry.evidence import EVIDENCE_TAG
    from allele_mlflow.registry.journal import Stage

    opened, settings = open_settings_registry()
    try:
        genome = msgspec.json.decode(file.read_bytes())
    except msgspec.MsgspecError as exc:
        raise click.BadParameter(f"{file}: no JSON: {exc}", param_hint="FILE") from exc
    pinned = pin_evidence(settings, evidence) if evidence is not None else None
    stage = Stage.CANDIDATE if candidate else Stage.DEVELOPMENT
    found = opened.register(name, genome, stage=stage, reason=reason)
    if pinned is not None:
        opened.tag(name, found.version, EVIDENCE_TAG, pinned)
    known = "" if found.is_new else " (known already)"
    say(shown(f"{name}/{found.version}{known}, content {found.content[:HASH_SHOWN]}"))
    return ExitCode.FINE


@click.command()
@click.argument("one")
@click.argument("other")
def diff(one: str, other: str) -> ExitCode:
    """
    Show the traits in which two versions differ.
    """
    opened, _ = open_settings_registry()
    a, b = (opened.load("{}/{}".format(*opened.find(where))).traits for where in (one, other))
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("trait", one, other, "difference"):
        table.add_column(Text(shown(name)), justify="left" if name == "trait" else "right")
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            table.add_row(Text(shown(name)), *_trait_texts(a.get(name), b.get(name)))
    say(rendered(table).rstrip() if table.row_count else "no trait differs")
    return ExitCode.FINE


def _trait_texts(a: float | None, b: float | None) -> tuple[str, str, str]:
    texts = ["-" if one is None else f"{one:.6g}" for one in (a, b)]
    delta = "-" if a is None or b is None else f"{b - a:+.6g}"
    return texts[0], texts[1], delta


COMMANDS = (list_models, show, register, diff)
