"""
A suite while it runs: one live display on a terminal, a plain line an attempt elsewhere.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from allele_mlflow.cli.output import shown
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.matrix.cells import Trial
from allele_mlflow.matrix.live_objectives import LiveObjectives
from allele_mlflow.matrix.messages import CellResult
from allele_mlflow.matrix.options import Beginning
from allele_mlflow.matrix.suite import Suite

#: Running cells that are shown one by one.
MOST_RUNNING = 12
REFRESH_PER_S = 4


@dataclass
class _Running:
    trial: Trial
    attempt: int
    since_s: float


@dataclass
class _Counts:
    total: int = 0
    finished: int = 0
    failed: int = 0
    retried: int = 0
    #: Lengths of trials, for the time that is left.
    ended_s: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.finished + self.failed


class PlainView:
    """
    Lines on stderr: what is run, each attempt as it ends. For logs and CI.
    """

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._counts = _Counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def begin(self, beginning: Beginning) -> None:
        """
        See `SuiteView`.
        """
        self._counts.total = beginning.total_count
        self.say(opening_line(beginning))

    def submitted(self, trial: Trial, attempt: int) -> None:
        """
        See `SuiteView`.
        """

    def finished(self, trial: Trial, result: CellResult, *, is_retried: bool, total: int) -> None:
        """
        See `SuiteView`.
        """
        note_result(self._counts, result, is_retried=is_retried, total=total)
        counts = self._counts
        text = result_line(self._suite, trial, result, is_retried=is_retried)
        self.say(f"[{counts.done}/{counts.total}] {text}")

    def tick(self) -> None:
        """
        See `SuiteView`.
        """

    def say(self, text: str) -> None:
        """
        See `SuiteView`.
        """
        print_line(shown(text))


class LiveView:
    """
    A bar with the time left, the running cells with their latest objective, failures as they come.
    """

    def __init__(self, suite: Suite, console: Console) -> None:
        self._suite = suite
        self._console = console
        self._counts = _Counts()
        self._running: dict[tuple[str, int], _Running] = {}
        self._objectives = LiveObjectives(None)
        self._width = 1
        self._begun_s = now_monotonic_s()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(shown(suite.name), total=None, note="")
        self._live = Live(
            console=console, refresh_per_second=REFRESH_PER_S, auto_refresh=False, transient=True
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def begin(self, beginning: Beginning) -> None:
        """
        See `SuiteView`.
        """
        self._counts.total = beginning.total_count
        self._width = max(1, min(beginning.width, beginning.total_count))
        self._objectives = LiveObjectives(beginning.spool_runs)
        self.say(opening_line(beginning))
        self._show()

    def submitted(self, trial: Trial, attempt: int) -> None:
        """
        See `SuiteView`.
        """
        self._running[trial.identity] = _Running(trial, attempt, now_monotonic_s())
        self._show()

    def finished(self, trial: Trial, result: CellResult, *, is_retried: bool, total: int) -> None:
        """
        See `SuiteView`.
        """
        self._running.pop(trial.identity, None)
        note_result(self._counts, result, is_retried=is_retried, total=total)
        if result.failure is not None:
            self.say(result_line(self._suite, trial, result, is_retried=is_retried))
        self._show()

    def tick(self) -> None:
        """
        See `SuiteView`.
        """
        self._show()

    def say(self, text: str) -> None:
        """
        See `SuiteView`.
        """
        self._console.print(Text(shown(text)))

    def _show(self) -> None:
        counts = self._counts
        note = f"{counts.failed} failed" if counts.failed else ""
        left_s = time_left_s(counts, self._width)
        if left_s is not None:
            note += f"{', ' if note else ''}about {duration_text(left_s)} left"
        self._bar.update(self._task, completed=counts.done, total=counts.total, note=note)
        parts = [self._bar.get_renderable(), self._running_table()]
        delivery = self._objectives.delivery_line()
        if delivery:
            parts.append(Text(delivery, style="dim"))
        self._live.update(Group(*parts), refresh=True)

    def _running_table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for _ in range(2):
            table.add_column(justify="right", no_wrap=True)
        running = list(self._running.values())
        for one in running[:MOST_RUNNING]:
            values = self._objectives.latest(
                one.trial, one.attempt, list(self._suite.objectives) or None
            )
            told = "  ".join(f"{shown(name)} {value:.6g}" for name, value in values.items())
            age = duration_text(now_monotonic_s() - one.since_s)
            table.add_row(Text(f"  {trial_name(one.trial, one.attempt)}"), age, Text(told))
        if len(running) > MOST_RUNNING:
            table.add_row(f"  and {len(running) - MOST_RUNNING} more", "", "")
        return table


def print_line(text: str) -> None:
    """
    A line on stderr, where progress goes; stdout is for results.
    """
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens: the suite goes on


def opening_line(beginning: Beginning) -> str:
    """
    What is about to be run, in a line.
    """
    cells = _plural(beginning.cell_count, "cell")
    text = f"{beginning.suite}: {cells}, {_plural(beginning.total_count, 'run')}"
    if beginning.is_adaptive:
        text += " or more"
    if beginning.reused_count:
        text += f", {beginning.reused_count} of them finished before"
    return f"{text}; {beginning.executor}"


def trial_name(trial: Trial, attempt: int) -> str:
    """
    A trial as a person calls it: cells and repeats count from 1 there.
    """
    text = f"{shown(trial.cell.name)} #{trial.repeat + 1}"
    return text + (f" (attempt {attempt + 1})" if attempt else "")


def result_line(suite: Suite, trial: Trial, result: CellResult, *, is_retried: bool) -> str:
    """
    What became of an attempt, in a line.
    """
    name = trial_name(trial, result.attempt)
    if result.failure is None:
        told = [
            f"{metric} {result.metrics[metric]:.6g}"
            for metric in suite.objectives or result.metrics
            if metric in result.metrics
        ]
        seconds = "" if result.seconds is None else f" in {duration_text(result.seconds)}"
        return f"{name}: {', '.join(told) or 'finished'}{seconds}"
    failure = result.failure
    again = "; trying again" if is_retried else ""
    return f"{name}: FAILED, {failure.category.replace('_', ' ')}: {failure.line[:300]}{again}"


def note_result(counts: _Counts, result: CellResult, *, is_retried: bool, total: int) -> None:
    """
    Count an attempt.
    """
    counts.total = max(counts.total, total)
    if is_retried:
        counts.retried += 1
    elif result.failure is None:
        counts.finished += 1
    else:
        counts.failed += 1
    counts.ended_s.append((result.ended_ns - result.started_ns) / 1e9)


def time_left_s(counts: _Counts, width: int) -> float | None:
    """
    Seconds until the end, as things go; None before anything has ended.
    """
    if not counts.ended_s:
        return None
    mean_s = sum(counts.ended_s) / len(counts.ended_s)
    return mean_s * max(0, counts.total - counts.done) / width


def duration_text(seconds: float) -> str:
    """
    Seconds as a person reads them: 0.04 s, 12 s, 3 min 20 s, 2 h 5 min.
    """
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def open_view(suite: Suite, *, is_quiet: bool) -> PlainView | LiveView:
    """
    The display for where stderr goes.
    """
    console = Console(stderr=True)
    if console.is_terminal and not is_quiet:
        return LiveView(suite, console)
    return PlainView(suite)
