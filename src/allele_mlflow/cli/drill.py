"""
`allele-mlflow drill`: attack the guarantees on the user's own machine and store.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, say, shown
from allele_mlflow.drill.catalogue import Runner, choose
from allele_mlflow.drill.trial import Drill, Tally, Verdict
from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.queue import spool
from allele_mlflow.settings import mask_secrets

#: Seconds that an outage of a minute takes in the short set.
SHORT_MINUTE_S = 3.0
FULL_MINUTE_S = 60.0
#: Many drills wait for most of their time.
WAITING_LANES = 1
#: Of the table where it is not on a terminal.
WIDTH = 120


@click.command()
@click.argument("names", nargs=-1, metavar="[DRILL]...")
@click.option("--full", "is_full", is_flag=True, help="The full set: half an hour and more.")
@click.option("--list", "lists", is_flag=True, help="Only list the drills and their promises.")
@click.option("--repetitions", type=click.IntRange(1), help="Of each drill, instead of its own.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides when things happen.")
@click.option("--lanes", type=click.IntRange(1), help="Drills at once; cores plus one by default.")
@click.option("--tracking-uri", help="Your own store; without it, SQLite files beside the spool.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Scratch folder, on the disk to be tried; beside the spool by default.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def drill(
    names: tuple[str, ...],
    is_full: bool,
    lists: bool,
    repetitions: int | None,
    seed: int,
    lanes: int | None,
    tracking_uri: str | None,
    folder: Path | None,
    as_json: bool,
) -> ExitCode:
    """
    Kill, fill, cut off and damage, and count what arrives: a table of drills and verdicts.

    DRILL is the beginning of a drill's name; all of them by default, each a few times. A drill
    works in a scratch folder and ends only what it started. With --tracking-uri its runs go into
    experiments of your store that begin with `allele_drill_`, and stay there to be looked at. Exit
    code 7: something was lost; 1: something else that is promised was not kept; 5: no drill could
    be run here.
    """
    chosen = choose(names)
    unknown = [name for name in names if not choose([name])]
    if unknown:
        raise click.BadParameter(
            f"no drill begins with {unknown[0]!r}: want one of `allele-mlflow drill --list`"
        )
    if lists:
        _say_list(chosen)
        return ExitCode.FINE
    settings = settings_module.load({"tracking_uri": tracking_uri} if tracking_uri else None)
    if tracking_uri and settings.is_offline:
        raise SettingsError(
            "tracking_uri='offline': want a store to deliver to, or none for SQLite files",
            kind=ErrorKind.BAD_SETTING,
        )
    counts = [repetitions or (one.full if is_full else one.short) for one in chosen]
    chosen = [one for one, count in zip(chosen, counts, strict=True) if count]
    parent = (folder or Path(settings.spool_dir).parent).absolute()
    scratch = parent / f"drill-{spool.new_uid()}"
    scratch.mkdir(parents=True, mode=0o700)
    if settings_module.variable("MLFLOW_LOGGING_LEVEL") is None:
        settings_module.publish_variable("MLFLOW_LOGGING_LEVEL", "WARNING")
    progress = _Progress(len(chosen), sum(counts))
    runner = Runner(
        scratch,
        tracking_uri=settings.tracking_uri if tracking_uri else None,
        seed=seed,
        minute_s=FULL_MINUTE_S if is_full else SHORT_MINUTE_S,
        watch=progress.note,
    )
    try:
        with progress:
            tallies = runner.run(
                chosen,
                [count for count in counts if count],
                lanes=lanes or min(len(chosen), (os.cpu_count() or 1) + WAITING_LANES),
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if as_json:
        say(_json(tallies, seed))
    else:
        _show_table(tallies)
        if tracking_uri:
            say(f"their runs stand in {mask_secrets(settings.tracking_uri)}")
    return _exit_code(tallies)


def _exit_code(tallies: Sequence[Tally]) -> ExitCode:
    verdicts = {tally.verdict for tally in tallies}
    if Verdict.LOST in verdicts:
        return ExitCode.LOST
    if Verdict.BROKEN in verdicts:
        return ExitCode.FAILED
    return ExitCode.FINE if Verdict.HELD in verdicts else ExitCode.NOTHING_MEASURED


def _say_list(drills: Sequence[Drill]) -> None:
    width = max(len(one.name) for one in drills)
    for one in drills:
        say(f"{one.name:<{width}}  {one.guarantee}  {one.promise}")


def _json(tallies: Sequence[Tally], seed: int) -> str:
    rows = [
        msgspec.to_builtins(tally) | {"verdict": tally.verdict, "statuses": dict(tally.statuses)}
        for tally in tallies
    ]
    return msgspec.json.format(msgspec.json.encode({"seed": seed, "drills": rows})).decode()


def _show_table(tallies: Sequence[Tally]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("drill", overflow="fold")
    for column in ("times", "accepted", "delivered", "lost", "twice"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("run status", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    total = Tally("all")
    for tally in tallies:
        table.add_row(*_cells(tally), Text(tally.verdict))
        for name in ("repetitions", "accepted", "delivered", "lost", "duplicated"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.statuses.update(tally.statuses)
    table.add_section()
    table.add_row(*_cells(total), "")
    # a file or a log has no width; on a terminal rich folds
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as capture:
        console.print(table)
    say(capture.get(), nl=False)
    for tally in tallies:
        for text in tally.problems:
            say(f"{tally.drill}: {shown(text)}")
        if tally.not_run is not None:
            say(f"{tally.drill}: not run: {shown(tally.not_run)}")


def _cells(tally: Tally) -> list[str]:
    numbers = (tally.repetitions, tally.accepted, tally.delivered, tally.lost, tally.duplicated)
    return [tally.drill, *(f"{number:,}" for number in numbers), tally.status_text()]


class _Progress:
    """
    A bar on a terminal's stderr; elsewhere a line for each drill that is over. Thread safety: any.
    """

    def __init__(self, drills: int, repetitions: int) -> None:
        self._lock = threading.Lock()
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._done: dict[str, int] = {}
        self._repetitions = repetitions
        self._drills = drills
        self._bar: object = None

    def __enter__(self) -> None:
        if self._is_terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.progress import TimeElapsedColumn as Elapsed

            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                Elapsed(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = bar.add_task("drills", total=self._repetitions)
            bar.start()
            self._bar = bar

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]  # rich's, imported only on a terminal

    def note(self, one: Drill, tally: Tally) -> None:
        """
        A drill began, went on, or is over.
        """
        with self._lock:
            self._done[one.name] = tally.repetitions
            if self._bar is not None:
                self._bar.update(  # type: ignore[attr-defined]  # as above
                    self._task, description=one.name, completed=sum(self._done.values())
                )
            elif tally.is_over:
                complain(
                    f"{one.name}: {tally.verdict}, {tally.repetitions} times in "
                    f"{tally.elapsed_s:.0f} s"
                )
