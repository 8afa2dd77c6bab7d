"""
`allele-mlflow reproduce`: a cell once more, from MLflow alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from allele_mlflow import settings as settings_module
from allele_mlflow import suite_tags as tags
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.interruption import terminated_as_interrupted
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.environment.comparability import Comparability
from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix.reproduction import Reproduction, StoredCell, load_stored
from allele_mlflow.matrix.reproduction import reproduce as run_again
from allele_mlflow.matrix.worktree import top_of, worktree


@click.command()
@click.argument("run")
@click.option("--tracking-uri", metavar="URI", help="Instead of the setting.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The suite's folder: where its benchmark is. By default that of the run, else here.",
)
@click.option("--checkout", is_flag=True, help="Run the commit that the run was of, in a worktree.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=1e-9, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def reproduce(
    context: click.Context,
    run: str,
    tracking_uri: str | None,
    folder: Path | None,
    checkout: bool,
    tolerance: float,
    as_json: bool,
) -> None:
    """
    Run a suite's cell again, with its parameters and seed, and compare the objectives.

    RUN is its id in MLflow, or its uid. Differences of the environment are told first. Exit codes:
    0 the objectives are the same (within the relative TOLERANCE), 1 they differ or it failed, 2 it
    cannot be run here.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri} if tracking_uri else {})
    stored = load_stored(settings.tracking_uri, run)
    place = folder or _folder_of(stored)
    at_commit = _at_commit(stored, place) if checkout else contextlib.nullcontext(place)
    with terminated_as_interrupted(), at_commit as used:
        found = run_again(stored, used, tolerance=tolerance)
    if as_json:
        say(json_text(_document(stored, found)))
    else:
        _show(stored, found)
    context.exit(ExitCode.FINE if found.is_reproduced else ExitCode.FAILED)


def _folder_of(stored: StoredCell) -> Path:
    known = stored.tags.get(tags.FOLDER)
    return Path(known) if known and Path(known).is_dir() else Path.cwd()


@contextlib.contextmanager
def _at_commit(stored: StoredCell, folder: Path) -> Iterator[Path]:
    """
    The suite's folder as it was at the run's commit, in a worktree that is gone afterwards.
    """
    commit = stored.tags.get(tags.COMMIT)
    if not commit:
        raise _cannot(stored, "its commit is not known")
    top = top_of(folder)
    if top is None:
        raise _cannot(stored, f"{folder} is in no checkout of git's")
    with worktree(top, commit) as tree:
        yield tree / folder.resolve().relative_to(top)


def _cannot(stored: StoredCell, what: str) -> MatrixError:
    return MatrixError(f"run {stored.run_id}: {what}", kind=ErrorKind.BAD_SUITE)


def _document(stored: StoredCell, found: Reproduction) -> dict[str, Any]:
    failure = found.result.failure
    return {
        "run_id": stored.run_id,
        "cell": found.cell.name,
        "seed": int(stored.tags[tags.SEED]),
        "reproduced": found.is_reproduced,
        "same_code": found.is_same_code,
        "environment": None
        if found.comparability is None
        else {
            "verdict": found.comparability.verdict.value,
            "differences": list(map(str, _differences(found.comparability))),
        },
        "objectives": [one._asdict() for one in found.objectives],
        "failure": None
        if failure is None
        else {"category": failure.category.value, "message": failure.message},
    }


def _show(stored: StoredCell, found: Reproduction) -> None:
    say(shown(f"{found.cell.name}, seed {stored.tags[tags.SEED]}, run {stored.run_id}"))
    if not found.is_same_code:
        say("the benchmark's source is not what it was")
    if found.comparability is None:
        say("the environment of then is not known")
    else:
        say(f"environment: {found.comparability.verdict.value}")
        for text in _differences(found.comparability):
            say(shown(f"  {text}"))
    if found.result.failure is not None:
        failure = found.result.failure
        say(shown(f"it failed now, {failure.category}: {failure.error_type}: {failure.message}"))
    for one in found.objectives:
        now = "missing" if one.now is None else f"{one.now:.17g}"
        say(
            shown(
                f"{one.name}: {'same' if one.is_same else 'DIFFERENT'}: {one.then:.17g}, now {now}"
            )
        )


def _differences(comparability: Comparability) -> list[str]:
    return [
        f"{one.field}: {one.a or 'not known'} then, {one.b or 'not known'} now"
        for one in comparability.differences
    ]
