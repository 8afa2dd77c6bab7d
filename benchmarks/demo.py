"""
What `make demo` shows: a small grid of evolutions, tracked live, and what became of every record.

    python benchmarks/demo.py    into ./demo
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from allele_mlflow import DeliveryReport, Ledger, RunLogger, start_logger

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.evolution import (
    EXPERIMENT,
    INTERRUPTED,
    Cell,
    CellResult,
    Generation,
    cell_params,
    run_cell,
    store_settings,
)

POPULATIONS = (50, 100)
MUTATION_RATES = (0.1, 0.3)
GENERATIONS = 60
SEED = 20_260
#: Long enough to see everything arrive on a busy machine; Ctrl-C hands over at once.
EXIT_TIMEOUT_S = 300.0
#: What a session's exit code says when records were refused, dropped or torn.
EXIT_LOST = 7


@dataclass(frozen=True)
class FinishedCell:
    """
    A cell's result and where its records went.
    """

    result: CellResult
    report: DeliveryReport


class CellProgress:
    """
    One cell while it runs: a moving bar on a terminal, one plain line at its end elsewhere.
    """

    def __init__(self, console: Console, progress: Progress, cell: Cell) -> None:
        self._console = console
        self._progress = progress
        self._cell = cell
        self._task: TaskID = progress.add_task(cell.name, total=cell.generations, note="")

    def note(self, generation: Generation) -> None:
        """
        A generation was evaluated.
        """
        text = f"best {generation.best:.4f}  mean {generation.mean:.4f}"
        self._progress.update(self._task, completed=generation.step + 1, note=text)

    def deliver(self) -> None:
        """
        The evolution is over; what is left is delivery.
        """
        self._progress.update(self._task, note="delivering")

    def finish(self, done: FinishedCell) -> None:
        """
        All is in MLflow, or handed over.
        """
        metrics = done.report.ledger.delivered.get("metric", 0)
        text = f"best {done.result.best:.4f}  {metrics:,} metrics in MLflow"
        self._progress.update(self._task, note=text)
        if not self._console.is_terminal:
            self._console.print(f"{self._cell.name}: {text}", highlight=False)


class Interrupts:
    """
    Remembers Ctrl-C: in the middle of a delivery the logger takes it for "do not wait any longer".
    """

    def __init__(self) -> None:
        self._is_seen = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_seen = True
        raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._former = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._former)

    def check(self) -> None:
        """
        Leave where Ctrl-C was pressed.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self._is_seen:
            raise KeyboardInterrupt


def run_demo(folder: Path) -> int:
    """
    Run the grid into `folder`, keeping what is there; the exit code.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    cells = [
        Cell(population, rate, GENERATIONS, SEED)
        for population in POPULATIONS
        for rate in MUTATION_RATES
    ]
    console.print(f"Evolving Allele's genomes: {len(cells)} cells of {GENERATIONS} generations,")
    console.print("each a run of one MLflow experiment. The first start makes the database.")
    before_s = time.monotonic()
    with Interrupts() as interrupts, _open_progress(console) as progress:
        finished, grid = _run_grid(folder, cells, console, progress, interrupts)
        interrupts.check()
    _print_results(console, finished)
    return _print_delivery(console, folder, finished, grid, time.monotonic() - before_s)


def _run_grid(
    folder: Path,
    cells: list[Cell],
    console: Console,
    progress: Progress,
    interrupts: Interrupts,
) -> tuple[list[FinishedCell], DeliveryReport]:
    finished = []
    params = {"populations": POPULATIONS, "mutation_rates": MUTATION_RATES, "seed": SEED}
    settings = store_settings(folder) | {"exit_timeout_s": EXIT_TIMEOUT_S}
    with start_logger(EXPERIMENT, run_name="grid", params=params, **settings) as grid:
        for number, cell in enumerate(cells):
            view = CellProgress(console, progress, cell)
            done = _run_one(grid, cell, view)
            interrupts.check()
            view.finish(done)
            finished.append(done)
            summary = {"grid/best": done.result.best, "grid/mean": done.result.mean}
            grid.metrics(summary, step=number)
        grid.table(_result_columns(finished), "results.csv")
    return finished, grid.close()


def _run_one(grid: RunLogger, cell: Cell, view: CellProgress) -> FinishedCell:
    with grid.child(cell.name, params=cell_params(cell)) as log:
        result = run_cell(log, cell, on_progress=view.note)
        view.deliver()
    return FinishedCell(result, log.close())


@contextlib.contextmanager
def _open_progress(console: Console) -> Iterator[Progress]:
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<15}"),
        BarColumn(bar_width=8),
        TextColumn("{task.completed:>3.0f}/{task.total:.0f}  {task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        yield progress


def _result_columns(finished: list[FinishedCell]) -> dict[str, list[object]]:
    return {
        "cell": [done.result.cell.name for done in finished],
        "best": [done.result.best for done in finished],
        "mean": [done.result.mean for done in finished],
        "genome": [done.result.genome_id for done in finished],
        "verified": [done.result.is_verified for done in finished],
        "elapsed_s": [done.result.elapsed_s for done in finished],
    }


def _print_results(console: Console, finished: list[FinishedCell]) -> None:
    title = "Evolution of a conversational persona (fitness 0 to 1)"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("cell", no_wrap=True)
    for name in ("best", "mean", "generations", "seconds", "delivered", "logger %"):
        table.add_column(name, justify="right")
    top = max(done.result.best for done in finished)
    for done in finished:
        result, report = done.result, done.report
        table.add_row(
            result.cell.name,
            f"{result.best:.4f}" + (" *" if result.best == top else ""),
            f"{result.mean:.4f}",
            str(result.cell.generations),
            f"{result.elapsed_s:.1f}",
            f"{report.ledger.delivered.get('metric', 0):,}",
            "-" if report.overhead_ratio is None else f"{report.overhead_ratio * 100:.2f}",
        )
    console.print(table)
    wrong = [done.result.cell.name for done in finished if not done.result.is_verified]
    if wrong:
        console.print(f"evaluated again, the best genome differs: {', '.join(wrong)}")
    else:
        console.print("* the best; each best genome was evaluated again and has its fitness")


def _print_delivery(
    console: Console,
    folder: Path,
    finished: list[FinishedCell],
    grid: DeliveryReport,
    elapsed_s: float,
) -> int:
    ledger = Ledger()
    reports = [*(done.report for done in finished), grid]
    for report in reports:
        ledger.add(report.ledger)
    _print_ledger(console, ledger)
    _print_cost(console, [done.report for done in finished])
    console.print(f"Data:     sqlite:///{folder / 'mlflow.db'}", soft_wrap=True)
    console.print(f"Time:     {elapsed_s:.0f} s in all")
    if any(not report.is_complete for report in reports):
        spool = shlex.quote(str(folder / ".allele_mlflow" / "spool"))
        console.print("Some records still wait; the sidecar goes on alone, or deliver them with")
        console.print(f"          allele-mlflow sync {spool}", soft_wrap=True)
    if ledger.lost:
        reasons = ledger.rejected | ledger.dropped
        console.print(f"{ledger.lost:,} records were lost: {reasons}, {ledger.torn} torn")
    console.print("Next:     make ui   (MLflow's own pages on this data)")
    return EXIT_LOST if ledger.lost else 0


def _print_ledger(console: Console, ledger: Ledger) -> None:
    kinds = ", ".join(f"{count:,} {kind}s" for kind, count in sorted(ledger.delivered.items()))
    console.print()
    console.print(f"Delivery: {ledger.accepted:,} records accepted")
    console.print(
        f"          = {sum(ledger.delivered.values()):,} delivered"
        f" + {sum(ledger.rejected.values()):,} rejected + {sum(ledger.dropped.values()):,} dropped"
        f" + {ledger.torn:,} torn + {ledger.pending:,} pending"
    )
    console.print(f"          ({kinds})")


def _print_cost(console: Console, reports: list[DeliveryReport]) -> None:
    """
    The runs' own estimate: calls times the cost of a call, as part of the time that they ran.
    """
    timed = [report for report in reports if report.overhead_ratio is not None]
    if not timed:
        return
    run_s = sum(report.elapsed_s for report in timed)
    spent_s = sum((report.overhead_ratio or 0.0) * report.elapsed_s for report in timed)
    console.print(
        f"Logger:   {spent_s / run_s * 100:.2f} % of {run_s:.1f} s in the benchmark's process;"
        " measure it: make bench"
    )


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description="A small grid of Allele's evolution, in MLflow.")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="by default ./demo")
    options = parser.parse_args(arguments)
    try:
        return run_demo(options.folder)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
