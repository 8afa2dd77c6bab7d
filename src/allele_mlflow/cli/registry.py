"""
`allele-mlflow registry`: genomes, who holds which stage, and how it came about.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.suite_tables import rendered
from allele_mlflow.errors import (
    AnalysisError,
    NotFoundError,
    PromotionRefusedError,
    RegistryError,
    TrackingError,
)
from allele_mlflow.settings import Settings

if TYPE_CHECKING:
    from allele_mlflow.registry.gates import Check
    from allele_mlflow.registry.journal import Entry
    from allele_mlflow.registry.registry import Registry

STAGES = ("development", "candidate", "staging", "production")
_HASH_SHOWN = 12


class _Commands(click.Group):
    """
    Errors of the registry become exit codes, for every command of the group.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PromotionRefusedError as exc:
            complain(shown(str(exc)))
            return ExitCode.FAILED
        except (NotFoundError, RegistryError, AnalysisError) as exc:
            raise click.UsageError(shown(str(exc))) from exc
        except TrackingError as exc:
            complain(shown(str(exc)))
            return ExitCode.UNREACHABLE


@click.group(cls=_Commands)
def registry() -> None:
    """
    Keep genomes as versions of models in MLflow's registry (setting MODEL_REGISTRY_URI), promote
    them on evidence, and tell who did what and why.

    A version is written as NAME/NUMBER or NAME@STAGE. Exit code 1: a promotion was refused, or
    `verify` found something; 2: there is no such model or version, or the registry is disabled; 6:
    the store was unreachable.
    """


@registry.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_models(as_json: bool) -> ExitCode:
    """
    Show every model and who holds its stages.
    """
    opened, _ = _open()
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


@registry.command()
@click.argument("where")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(where: str, as_json: bool) -> ExitCode:
    """
    Show a version: stage, content, evidence, traits. Every hash is checked.
    """
    opened, _ = _open()
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
    say(shown(f"{name}/{number}, {told['stage']}, content {genome.content[:_HASH_SHOWN]}"))
    for trait, level in sorted(genome.traits.items()):
        say(shown(f"{trait} {level:.6g}"))
    for key, value in sorted(opened.version(name, number).tags.items()):
        say(shown(f"{key}: {value}"))
    return ExitCode.FINE


@registry.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--candidate", is_flag=True, help="As a candidate; else for development.")
@click.option("--evidence", metavar="SELECTION", help="The runs that measured it, as of `compare`.")
@click.option("--reason", default="", help="Why; kept in the journal.")
def register(name: str, file: Path, candidate: bool, evidence: str | None, reason: str) -> ExitCode:
    """
    Keep the genome in FILE (JSON) as a version of the model NAME; the same content is one version.
    """
    from allele_mlflow.registry.evidence import EVIDENCE_TAG, pin_evidence
    from allele_mlflow.registry.journal import Stage

    opened, settings = _open()
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
    say(shown(f"{name}/{found.version}{known}, content {found.content[:_HASH_SHOWN]}"))
    return ExitCode.FINE


@registry.command()
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

    opened, settings = _open()
    name, number = opened.find(where)
    target = Stage(stage)
    policies = read_policies(gates) if gates is not None else None
    judged = judge(opened, settings, name, number, target, policies=policies, evidence=evidence)
    is_refused = not judged.is_passed
    entry = None
    if not (is_refused or dry_run):
        entry = opened.promote(
            name, number, target, reason=reason, holder=judged.holder, evidence=judged.evidence
        )
    if as_json:
        say(json_text(_promotion_document(judged.checks, entry, is_refused=is_refused)))
    else:
        for line in _promotion_lines(
            judged.checks, entry, f"{name}/{number}", stage, dry_run=dry_run
        ):
            say(shown(line))
    return ExitCode.FAILED if is_refused else ExitCode.FINE


@registry.command()
@click.argument("name")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--reason", required=True, help="Why; kept in the journal.")
def rollback(name: str, stage: str, reason: str) -> ExitCode:
    """
    Give a stage back to the version that held it before.
    """
    from allele_mlflow.registry.journal import Stage, describe

    opened, _ = _open()
    say(shown(describe(opened.rollback(name, Stage(stage), reason=reason))))
    return ExitCode.FINE


@registry.command()
@click.argument("where")
@click.option("--reason", required=True, help="Why; kept in the journal.")
def archive(where: str, reason: str) -> ExitCode:
    """
    Take a version out of use.
    """
    from allele_mlflow.registry.journal import describe

    opened, _ = _open()
    name, number = opened.find(where)
    say(shown(describe(opened.archive(name, number, reason=reason))))
    return ExitCode.FINE


@registry.command()
@click.argument("where")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--reason", default="", help="Why; kept in the journal.")
def approve(where: str, stage: str, reason: str) -> ExitCode:
    """
    Say that a version may go to a stage; its author cannot.
    """
    from allele_mlflow.registry.journal import Stage, describe

    opened, _ = _open()
    name, number = opened.find(where)
    say(shown(describe(opened.approve(name, number, Stage(stage), reason=reason))))
    return ExitCode.FINE


@registry.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def history(name: str, as_json: bool) -> ExitCode:
    """
    Tell who did what to a model, when and why.
    """
    from allele_mlflow.registry.journal import describe

    opened, _ = _open()
    chain = opened.history(name)
    if as_json:
        entries = [msgspec.to_builtins(one) for one in chain.entries]
        say(json_text({"format": 1, "name": name, "head": chain.head, "entries": entries}))
        return ExitCode.FINE
    for entry in chain.entries:
        say(shown(f"{entry.time}  {describe(entry)}"))
    say(f"head {chain.head}")
    return ExitCode.FINE


@registry.command()
@click.argument("name")
@click.argument("time")
def at(name: str, time: str) -> ExitCode:
    """
    Tell who held which stage at TIME (UTC, as 2026-11-28T12:00).
    """
    opened, _ = _open()
    standing = opened.standing(name, at=time)
    for stage in STAGES:
        held = {one.value: version for one, version in standing.holders.items()}
        say(f"{stage:12} {held.get(stage, '-')}")
    return ExitCode.FINE


@registry.command()
@click.argument("name")
@click.option("--head", help="A hash that was noted down: the journal must contain it.")
def verify(name: str, head: str | None) -> ExitCode:
    """
    Check journal and files of a model, and have MLflow's aliases say what the journal says.
    """
    opened, _ = _open()
    found = opened.verify(name, head=head)
    for line in found.repaired:
        say(shown(f"repaired: {line}"))
    for line in found.problems:
        say(shown(f"PROBLEM: {line}"))
    say(f"head {found.head}")
    return ExitCode.FAILED if found.problems else ExitCode.FINE


@registry.command()
@click.argument("one")
@click.argument("other")
def diff(one: str, other: str) -> ExitCode:
    """
    Show the traits in which two versions differ.
    """
    opened, _ = _open()
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


def _open() -> tuple[Registry, Settings]:
    from allele_mlflow.registry.registry import open_registry

    settings = settings_module.load()
    return open_registry(settings), settings


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
