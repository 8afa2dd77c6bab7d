"""
`allele-mlflow watch`: a live run in the terminal, from the spool alone.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import OutputError, complain, json_text, say, shown
from allele_mlflow.cli.sparklines import glyphs_for
from allele_mlflow.cli.watch_frame import Frame, Line
from allele_mlflow.cli.watched_run import find_run
from allele_mlflow.clock import pause_s
from allele_mlflow.watching.run_document import document
from allele_mlflow.watching.run_look import KnownRun, RunLook, known_runs, look_at
from allele_mlflow.watching.spools import describe_empty, find_all_spools, find_spools

if TYPE_CHECKING:
    from rich.console import Console, Group

LEAST_INTERVAL_S = 0.1
#: Looks that a run must not be found at before it is called gone: it may be on its way.
LOOKS_BEFORE_GONE = 2


@click.command()
@click.argument("run", required=False)
@click.option(
    "--spool",
    "spool_dir",
    type=click.Path(path_type=Path),
    help="Look for the run in this spool only.",
)
@click.option(
    "--interval",
    "interval_s",
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--keys", "globs", multiple=True, metavar="GLOB", help="Show these keys; repeatable.")
@click.option("--once", is_flag=True, help="One plain snapshot, as where stdout is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead.")
@click.option(
    "--exit-on-end/--stay",
    default=True,
    show_default=True,
    help="End when the run has ended and is delivered, or go on until Ctrl-C.",
)
def watch(
    run: str | None,
    spool_dir: Path | None,
    interval_s: float,
    globs: tuple[str, ...],
    once: bool,
    as_json: bool,
    exit_on_end: bool,
) -> ExitCode:
    """
    Show a live run: values with curves, rates, phases, resources, delivery and lag.

    RUN is a run_uid or the beginning of one, a run's name, or MLflow's id of it. Without it: the
    newest run that is not over, in the spools that `status` looks into. Nothing is asked of the
    store, nothing is changed. Exit code 0 when the run has ended, however it did; 1: the run went
    away meanwhile; 2: there is no such run; 130: Ctrl-C.
    """
    if math.isnan(interval_s) or interval_s < LEAST_INTERVAL_S:
        raise click.BadParameter(
            f"--interval={interval_s:g}: want seconds, {LEAST_INTERVAL_S:g} or more"
        )
    setting = settings_module.load().spool_dir
    folders = find_all_spools(setting) if spool_dir is None else find_spools(spool_dir, setting)
    found = find_run(_known_in(folders), run)
    if found is None or (run is None and found.is_over):
        _say_nothing(folders, found, as_json=as_json)
        return ExitCode.FINE
    if as_json or once or not _is_terminal():
        return _snapshot(found.folder, globs, as_json=as_json)
    return _follow(found.folder, globs, interval_s=interval_s, exit_on_end=exit_on_end)


def _known_in(folders: list[Path]) -> list[KnownRun]:
    known: list[KnownRun] = []
    for folder in folders:
        try:
            known += known_runs(folder)
        except OSError as exc:
            complain(f"cannot look into {shown(str(folder))}: {exc.strerror or exc}")
    return known


def _say_nothing(folders: list[Path], last: KnownRun | None, *, as_json: bool) -> None:
    if as_json:
        say(json_text(document(None)))
        return
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    say(shown(describe_empty("no run to watch", folders[0]) + more))
    if last is not None:
        name = f" {last.spec.run_name}" if last.spec.run_name else ""
        text = f"the last one{name} is over; to look at it: allele-mlflow watch"
        say(shown(f"{text} {last.spec.run_uid}"))


def _is_terminal() -> bool:
    # a dumb one cannot be drawn over
    return sys.stdout is not None and sys.stdout.isatty() and not _console().is_dumb_terminal


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _frame(globs: tuple[str, ...]) -> Frame:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    width = max(1, _console().width)
    return Frame(width=width, globs=globs, glyphs=glyphs_for(encoding))


# --- once ---------------------------------------------------------------------------------------


def _snapshot(folder: Path, globs: tuple[str, ...], *, as_json: bool) -> ExitCode:
    look = look_at(folder)
    if look is None:
        return _say_gone(folder)
    if as_json:
        say(json_text(document(look, globs)))
    else:
        _say_frame(look, globs)
    return ExitCode.FINE


def _say_frame(look: RunLook, globs: tuple[str, ...]) -> None:
    say("\n".join(text for text, _ in _frame(globs).lines(look)))


def _say_gone(folder: Path) -> ExitCode:
    complain(f"run {shown(folder.name)} is gone from {shown(str(folder.parents[2]))}")
    return ExitCode.FAILED


# --- live ---------------------------------------------------------------------------------------


def _follow(
    folder: Path, globs: tuple[str, ...], *, interval_s: float, exit_on_end: bool
) -> ExitCode:
    last: RunLook | None = None
    misses = 0
    try:
        with _screen(globs) as draw:
            while misses < LOOKS_BEFORE_GONE:
                look = look_at(folder)
                misses = 0 if look is not None else misses + 1
                if look is not None:
                    last = look
                    draw(look)
                    if look.is_over and exit_on_end:
                        break
                pause_s(interval_s)
    finally:
        if last is not None:
            _say_frame(last, globs)  # the screen of before is back: this stays on it
    return _say_gone(folder) if misses else ExitCode.FINE


@contextlib.contextmanager
def _screen(globs: tuple[str, ...]) -> Iterator[Callable[[RunLook], None]]:
    """
    Draws looks over each other, on a screen of their own that is gone at the end of the block.
    """
    from rich.live import Live

    console = _console()
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False)

    def draw(look: RunLook) -> None:
        frame = replace(_frame(globs), height=console.height)
        live.update(_drawn(frame.lines(look)), refresh=True)

    try:
        with _ending_in_order(), live:
            yield draw
    except OSError as exc:  # the terminal is gone
        raise OutputError(exc) from exc


def _drawn(lines: list[Line]) -> Group:
    from rich.console import Group
    from rich.text import Text

    texts = [Text(text, style=style, no_wrap=True, overflow="crop") for text, style in lines]
    return Group(*texts)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """
    Have SIGTERM and a hang-up unwind the stack too, so that the terminal gets its cursor back.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
