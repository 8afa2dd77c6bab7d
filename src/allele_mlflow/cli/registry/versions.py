"""
Versions of models: kept, listed, shown, and where each comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.registry.opening import (
    HASH_SHOWN,
    STAGES,
    find_uses,
    open_settings_registry,
    set_tags,
    tags_of_evidence,
)
from allele_mlflow.cli.rendering import rendered

if TYPE_CHECKING:  # pandas is read where it is needed
    from allele_mlflow.registry.contents import Kept
    from allele_mlflow.registry.lineage import Lineage
    from allele_mlflow.registry.registry import Listed, Registry
    from allele_mlflow.registry.uses import Use

#: In text; --json has all.
MOST_USES = 10


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_models(as_json: bool) -> ExitCode:
    """
    Show every model, what it keeps, and who holds its stages.
    """
    opened, _ = open_settings_registry()
    found = opened.overview()
    if as_json:
        say(json_text({"format": 1, "models": [_listed_document(one) for one in found]}))
        return ExitCode.FINE
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "kind", "versions", *STAGES):
        table.add_column(name, justify="left" if name in ("model", "kind") else "right")
    for one in found:
        if one.standing is not None:
            held = {stage.value: version for stage, version in one.standing.holders.items()}
            holders = [str(held.get(stage, "-")) for stage in STAGES]
            names = (Text(shown(one.name)), Text(shown(one.kind)))
            table.add_row(*names, str(len(one.standing.stages)), *holders)
    say(rendered(table).rstrip() if found else "no models")
    for one in found:
        if one.problem is not None:
            complain(shown(f"{one.name}: {one.problem}"))
    return ExitCode.FAILED if any(one.problem for one in found) else ExitCode.FINE


def _listed_document(one: Listed) -> dict[str, Any]:
    holders = one.standing.holders.items() if one.standing is not None else ()
    told = {
        "name": one.name,
        "kind": one.kind,
        "versions": len(one.standing.stages) if one.standing is not None else None,
        "holders": {stage.value: version for stage, version in holders},
    }
    return told | ({"problem": one.problem} if one.problem is not None else {})


@click.command()
@click.argument("where")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(where: str, as_json: bool) -> ExitCode:
    """
    Show a version: stage, content, fitness, evidence, and the runs that used it. Every hash is
    checked.
    """
    opened, settings = open_settings_registry()
    name, number = opened.find(where)
    kept = opened.load_version(f"{name}/{number}")
    uses = find_uses(opened, settings, name, number)
    if as_json:
        say(json_text(_version_document(opened, kept, name, number, uses)))
        return ExitCode.FINE
    for line in _version_lines(opened, kept, name, number):
        say(shown(line))
    for line in _use_lines(uses):
        say(line)
    return ExitCode.FINE


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--candidate", is_flag=True, help="As a candidate; else for development.")
@click.option("--evidence", metavar="SELECTION", help="The runs that measured it, as of `compare`.")
@click.option("--component", metavar="KIND", help="A component: optimizer, operator, prompt, ...")
@click.option(
    "--files",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True),
    help="Of a component: what belongs to it beside FILE.",
)
@click.option("--new-schema", is_flag=True, help="Of a genome: its traits may have other names.")
@click.option("--reason", default="", help="Why; kept in the journal.")
def register(
    name: str,
    file: Path,
    candidate: bool,
    evidence: str | None,
    component: str | None,
    files: Path | None,
    new_schema: bool,
    reason: str,
) -> ExitCode:
    """
    Keep the genome (or, with --component, the component) in FILE (JSON) as a version of the model
    NAME; the same content is one version.
    """
    from allele_mlflow.registry.journal import Stage

    if component is None and files is not None:
        raise click.UsageError("--files is of a component: want --component KIND beside it")
    opened, settings = open_settings_registry()
    try:
        given = msgspec.json.decode(file.read_bytes())
    except msgspec.MsgspecError as exc:
        raise click.BadParameter(f"{file}: no JSON: {exc}", param_hint="FILE") from exc
    stage = Stage.CANDIDATE if candidate else Stage.DEVELOPMENT
    tags = tags_of_evidence(settings, evidence)
    if component is not None:
        found = opened.register_component(
            name, given, kind=component, files=files, stage=stage, reason=reason, tags=tags
        )
    else:
        found = opened.register(
            name, given, stage=stage, reason=reason, tags=tags, is_new_schema=new_schema
        )
    if not found.is_new:
        set_tags(opened, name, found.version, tags)
    known = "" if found.is_new else " (known already)"
    say(shown(f"{name}/{found.version}{known}, content {found.content[:HASH_SHOWN]}"))
    return ExitCode.FINE


@click.command()
@click.argument("where")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def lineage(where: str, as_json: bool) -> ExitCode:
    """
    Tell where a version comes from and what became of it: parents, children, the run and commit,
    the runs that used it, the journal's entries.
    """
    from allele_mlflow.registry.lineage import read_lineage

    opened, settings = open_settings_registry()
    found = read_lineage(opened, where)
    uses = find_uses(opened, settings, found.name, found.version)
    if as_json:
        told = {"format": 1, **vars(found), "used_by": _use_documents(uses)}
        say(json_text(msgspec.to_builtins(told)))
        return ExitCode.FINE
    for line in _lineage_lines(found):
        say(shown(line))
    for line in (*_use_lines(uses), *_entry_lines(found)):
        say(line)
    return ExitCode.FINE


def _version_lines(opened: Registry, kept: Kept, name: str, number: int) -> Iterator[str]:
    from allele_mlflow.registry.contents import kind_of
    from allele_mlflow.registry.differences import number_of, parts_of
    from allele_mlflow.registry.fitness import FITNESS_PREFIX, decode_fitness

    stage = opened.standing(name).stages.get(number)
    tags = opened.version(name, number).tags
    yield f"{name}/{number}, {kind_of(kept)}, {stage}, content {kept.content[:HASH_SHOWN]}"
    for where, text in sorted(parts_of(kept).items()):
        level = number_of(text)
        yield f"{where} {text if level is None else f'{level:.6g}'}"
    yield from map(str, decode_fitness(tags))
    for key, value in sorted(tags.items()):
        if not key.startswith(FITNESS_PREFIX):
            yield f"{key}: {value}"


def _version_document(
    opened: Registry, kept: Kept, name: str, number: int, uses: Sequence[Use] | None
) -> dict[str, Any]:
    from allele_mlflow.registry.contents import kind_of
    from allele_mlflow.registry.fitness import decode_fitness
    from allele_mlflow.registry.genomes import Genome
    from allele_mlflow.registry.version_files import sha256

    stage = opened.standing(name).stages.get(number)
    tags = dict(opened.version(name, number).tags)
    told: dict[str, Any] = {
        "name": name,
        "version": number,
        "kind": kind_of(kept),
        "stage": stage.value if stage is not None else None,
        "content": kept.content,
        "fitness": [one._asdict() for one in decode_fitness(tags)],
        "tags": tags,
        "used_by": _use_documents(uses),
    }
    if isinstance(kept, Genome):
        return {**told, "parents": list(kept.parents), "genome": kept.document}
    files = {
        path: {"bytes": len(data), "sha256": sha256(data)} for path, data in kept.files.items()
    }
    return {**told, "component": kept.document, "files": files}


def _use_documents(uses: Sequence[Use] | None) -> list[dict[str, str]] | None:
    return None if uses is None else [one._asdict() for one in uses]


def _use_lines(uses: Sequence[Use] | None) -> Iterator[str]:
    if not uses:
        return
    yield f"used by {len(uses)} runs"
    for one in uses[:MOST_USES]:
        yield f"  {one.time}  " + shown(f"{one.run_id} {one.run_name} as {one.reference}")
    if len(uses) > MOST_USES:
        yield f"  and {len(uses) - MOST_USES} more: --json has all"


def _lineage_lines(found: Lineage) -> Iterator[str]:
    yield f"{found.name}/{found.version}, content {found.content[:HASH_SHOWN]}"
    for parent, versions in found.parents.items():
        where = ", ".join(f"{found.name}/{one}" for one in versions)
        yield f"parent {parent} ({where or 'not registered'})"
    for child in found.children:
        yield f"child {found.name}/{child}"
    for word, text in (("run", found.run), ("commit", found.commit)):
        if text is not None:
            yield f"{word} {text}"


def _entry_lines(found: Lineage) -> Iterator[str]:
    from allele_mlflow.registry.journal import describe

    for entry in found.entries:
        yield f"{entry.time}  " + shown(describe(entry))


COMMANDS = (list_models, show, register, lineage)
