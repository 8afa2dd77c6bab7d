"""
`allele-mlflow gc`: delete old artifacts that nothing reaches.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.interruption import terminated_as_interrupted
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.settings import Settings
from allele_mlflow.units import Direction

if TYPE_CHECKING:  # pandas and mlflow are read where they are needed
    from allele_mlflow.registry.retention import Rules
    from allele_mlflow.registry.retention_deletion import Deletions, RetentionDeletion
    from allele_mlflow.registry.retention_plan import RetentionPlan

_SIZE = re.compile(r"(?P<number>\d[\d_]*(?:\.\d+)?)\s*(?P<unit>[kMGT]?i?)B?", re.IGNORECASE)
_MOST_NAMED = 10


def read_size(context: click.Context, option: click.Parameter, text: str) -> int:
    """
    Bytes as people write them: 500, 20MB (of 10^6), 20MiB (of 2^20).

    Raises:
        click.BadParameter: none are meant.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r}: want bytes, as 500, 20MB or 2GiB")
    unit = found["unit"].lower()
    power = "kmgt".index(unit[0]) + 1 if unit[:1] in tuple("kmgt") else 0
    return int(float(found["number"]) * (1024 if unit.endswith("i") else 1000) ** power)


@click.command()
@click.argument("experiments", nargs=-1)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Runs that ended longer ago; by default the setting ARTIFACT_RETENTION_DAYS.",
)
@click.option(
    "--larger-than",
    default="0",
    callback=read_size,
    metavar="SIZE",
    help="Of these, runs that would give up more: 500, 20MB, 2GiB.",
)
@click.option(
    "--keep-last",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Keep the newest executions of each suite.",
)
@click.option(
    "--keep-best",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Keep the best runs of each cell, by the objectives of the suite.",
)
@click.option("--higher", multiple=True, metavar="METRIC", help="Best by this one: more is better.")
@click.option("--lower", multiple=True, metavar="METRIC", help="Best by this one: less is better.")
@click.option("--foreign", is_flag=True, help="Runs that others made too, of EXPERIMENTS.")
@click.option("--no-registry", is_flag=True, help="There is no registry beside the store.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and why the rest stays.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, with every run.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def gc(
    experiments: Sequence[str],
    older_than: float | None,
    larger_than: int,
    keep_last: int,
    keep_best: int,
    higher: Sequence[str],
    lower: Sequence[str],
    foreign: bool,
    no_registry: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Delete the artifacts of old runs of EXPERIMENTS (prefix or not; by default all with the prefix).

    Params, metrics and tags stay, and of the artifacts our own documents. Nothing is deleted that a
    registered version, its evidence, a journal or a pin (`allele-mlflow pin`) reaches, nor a
    suite's own run with its report. Nothing is ever deleted but by this command.

    Exit code 1: it cannot be told what is reached, and nothing was deleted; or some runs failed; 2:
    no such experiment, a disabled registry, or no terminal to ask on and no --yes; 6: the store or
    the registry was unreachable.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    rules = _rules(settings, older_than, larger_than, keep_last, keep_best, higher, lower, foreign)
    if foreign and not experiments:
        raise click.UsageError("--foreign is of EXPERIMENTS: want their names")
    if settings.is_offline:
        raise click.UsageError("tracking_uri='offline': want a store, e.g. --tracking-uri URI")
    if not (dry_run or yes) and (as_json or not _is_terminal()):
        raise click.UsageError("nobody can be asked here: want --dry-run or --yes")
    _arrange()
    try:
        return _gc(settings, rules, experiments, not no_registry, dry_run, yes, as_json)
    except RegistryError as exc:
        if exc.kind is not ErrorKind.UNCLEAR:
            raise click.UsageError(shown(str(exc))) from exc
        complain(shown(f"{exc}; nothing that it may reach was deleted"))
        return ExitCode.FAILED


def _rules(
    settings: Settings,
    older_than: float | None,
    larger_than: int,
    keep_last: int,
    keep_best: int,
    higher: Sequence[str],
    lower: Sequence[str],
    foreign: bool,
) -> Rules:
    from allele_mlflow.registry.retention import Rules

    metrics = dict.fromkeys(higher, Direction.HIGHER) | dict.fromkeys(lower, Direction.LOWER)
    if metrics and not keep_best:
        raise click.UsageError("--higher and --lower say what is best: want --keep-best N")
    days = settings.artifact_retention_days if older_than is None else older_than
    return Rules(
        older_than_days=days,
        larger_than_bytes=larger_than,
        keep_last=keep_last,
        keep_best=keep_best,
        metrics=metrics,
        is_foreign=foreign,
    )


def _gc(
    settings: Settings,
    rules: Rules,
    experiments: Sequence[str],
    has_registry: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> ExitCode:
    from allele_mlflow.registry.retention_deletion import RetentionDeletion
    from allele_mlflow.registry.retention_plan import plan_retention
    from allele_mlflow.registry.retention_roots import open_registries

    registries = open_registries(settings, has_registry=has_registry)
    with _Bar() as bar:
        plan = plan_retention(
            settings,
            rules,
            experiments=experiments,
            registries=registries,
            on_progress=bar.show,
        )
    if not as_json:
        for line in _plan_lines(plan, settings.experiment_prefix):
            say(line)
    if dry_run or not plan.deleted:
        if as_json:
            say(json_text(_document(plan, rules, None)))
        return ExitCode.FINE
    if not yes and not click.confirm(f"delete {_amount(plan)}?", err=True):
        say("nothing was deleted")
        return ExitCode.FINE
    deletion = RetentionDeletion(settings, registries)
    code = _delete(deletion, plan, as_json=as_json)
    if as_json:
        say(json_text(_document(plan, rules, deletion.done)))
    return code


def _delete(deletion: RetentionDeletion, plan: RetentionPlan, *, as_json: bool) -> ExitCode:
    code = ExitCode.FINE
    try:
        with terminated_as_interrupted(), _Bar() as bar:
            deletion.delete(plan, on_progress=bar.show)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    finally:
        done = deletion.done
        if not as_json:
            say(f"deleted {_counted(done.files, done.size_bytes, done.runs)}")
        for one in done.spared[:_MOST_NAMED]:
            complain(shown(f"run {one.run_id} stays: {one.why}"))
        for one in done.failed[:_MOST_NAMED]:
            complain(shown(f"run {one.run_id}: {one.why}"))
        if done.failed:
            complain(f"{len(done.failed)} runs failed: the next gc goes on with them")
    return ExitCode.FAILED if done.failed and code is ExitCode.FINE else code


def _plan_lines(plan: RetentionPlan, prefix: str) -> Iterator[str]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from allele_mlflow.cli.suite_tables import rendered
    from allele_mlflow.registry.retention_plan import count_verdicts

    if not plan.decisions:
        yield "no runs"
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("experiment", "runs", "delete", "files", "size", "the rest stays"):
        table.add_column(name, justify="left" if name[0] in "et" else "right", overflow="fold")
    groups: dict[str, list[Any]] = {}
    for one in plan.decisions:
        groups.setdefault(one.run.experiment, []).append(one)
    for experiment, own in sorted(groups.items()):
        going = [one for one in own if one.is_deleted]
        stays = count_verdicts(one for one in own if not one.is_deleted)
        table.add_row(
            Text(shown(experiment.removeprefix(prefix))),
            f"{len(own):,}",
            f"{len(going):,}",
            f"{sum(one.files or 0 for one in going):,}",
            _size_text(sum(one.size_bytes or 0 for one in going)),
            ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in stays.items()),
        )
    yield rendered(table).rstrip()
    unclear = [one for one in plan.decisions if one.verdict.value == "unclear"]
    for one in unclear[:_MOST_NAMED]:
        yield shown(f"run {one.run.run_id} stays: {one.why}")
    yield f"to delete: {_amount(plan)}" if plan.deleted else "nothing to delete"


def _document(plan: RetentionPlan, rules: Rules, done: Deletions | None) -> dict[str, Any]:
    from allele_mlflow.clock import utc_iso

    runs = [
        {
            "run_id": one.run.run_id,
            "experiment": one.run.experiment,
            "suite": one.run.suite,
            "name": one.run.name,
            "ended_at": None if one.run.ended_ms is None else utc_iso(one.run.ended_ms * 1_000_000),
            "verdict": one.verdict.value,
            "why": one.why,
            "files": one.files,
            "bytes": one.size_bytes,
        }
        for one in plan.decisions
    ]
    return {
        "format": 1,
        "older_than_days": rules.older_than_days,
        "files": plan.file_count,
        "bytes": plan.size_bytes,
        "runs": runs,
        "done": None
        if done is None
        else {
            "runs": done.runs,
            "files": done.files,
            "bytes": done.size_bytes,
            "spared": [one._asdict() for one in done.spared],
            "failed": [one._asdict() for one in done.failed],
        },
    }


def _amount(plan: RetentionPlan) -> str:
    return _counted(plan.file_count, plan.size_bytes, len(plan.deleted))


def _counted(files: int, size_bytes: int, runs: int) -> str:
    return f"{files:,} files, {_size_text(size_bytes)}, of {runs:,} runs"


def _size_text(size_bytes: int) -> str:
    from rich.filesize import decimal

    return decimal(size_bytes)


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _arrange() -> None:
    """
    Have MLflow say at once that a server is away, before it is imported.
    """
    from allele_mlflow.tracking.client import prepare_environment

    for name, value in prepare_environment(settings_module.environment()).items():
        settings_module.publish_variable(name, value)


class _Bar:
    """
    How far it is, on a terminal's stderr.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Left

        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Left(),
            console=Console(stderr=True),
            transient=True,
            disable=not is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, doing: str, done: int, total: int) -> None:
        """
        See `OnProgress`.
        """
        self._bar.update(self._task, description=doing, completed=done, total=total or None)
