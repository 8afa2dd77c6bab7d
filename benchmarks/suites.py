"""
What a suite costs beside its cells: a thousand that do nothing, and the start of a resume.

    python benchmarks/suites.py            five minutes (make bench-suites)
    python benchmarks/suites.py --quick    tiny, to see that it runs

Writes benchmarks/results/suites.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.matrix.prepared import prepare_suite
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.suite_file import suite_text
from benchmarks.environment import describe_environment, is_busy
from benchmarks.make_store import RUNS_PER_CELL, StoreShape, fill_store
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "suites.json"
WIDTH = 2
BENCHMARK = "def nothing(number):\n    pass\n"


class Plan(NamedTuple):
    """
    How many cells are run, and how many finished runs a resume finds.
    """

    cells: int
    finished: int


FULL = Plan(1000, 10_000)
QUICK = Plan(6, 20)


def measure(plan: Plan) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder:
        report: dict[str, Any] = {"format": 1, "environment": describe_environment(folder)}
        (folder / "nothing.py").write_text(BENCHMARK)
        prepare_store(folder / "mlflow.db")
        before_s = _bare_process_s(plan.cells)
        report["cells"] = _run_cells(folder, plan.cells)
        after_s = _bare_process_s(plan.cells)
        bare_ms = (before_s + after_s) / 2 * 1000
        report["cells"] |= {
            "bare_process_ms": round(bare_ms, 2),
            "beyond_process_ms": round(report["cells"]["cell_ms"] - bare_ms, 2),
        }
        report["resume"] = _resume(folder / "resumed", plan.finished)
    return report


def _bare_process_s(count: int) -> float:
    """
    Seconds a process, started as many at once as cells are.
    """

    def start(_: int) -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    begin_s = time.perf_counter()
    with ThreadPoolExecutor(WIDTH) as pool:
        list(pool.map(start, range(count)))
    return (time.perf_counter() - begin_s) / count


def _suite(name: str, cells: int, repeats: int = 1) -> Suite:
    return Suite(
        name=name,
        benchmark="nothing:nothing",
        matrix={"number": list(range(cells))},
        repeats=repeats,
        executor=f"process:{WIDTH}",
    )


def _run_cells(folder: Path, cells: int) -> dict[str, Any]:
    (folder / "cells.toml").write_text(suite_text(_suite("cells", cells)))
    begin_s = time.perf_counter()
    found = _command(folder, "run", "cells.toml", "--json")
    taken_s = time.perf_counter() - begin_s
    if found["finished"] != cells or not found["is_complete"]:
        raise RuntimeError(f"{found['finished']} of {cells} cells finished")
    return {
        "cells": cells,
        "at_once": WIDTH,
        "seconds": round(taken_s, 2),
        "cell_ms": round(taken_s / cells * 1000, 2),
    }


def _resume(folder: Path, finished: int) -> dict[str, Any]:
    """
    From the command to the first cell, where that many runs are finished and one cell is new.
    """
    folder.mkdir()
    (folder / "nothing.py").write_text(BENCHMARK)
    cells = finished // RUNS_PER_CELL
    suite = _suite("resumed", cells + 1, RUNS_PER_CELL)
    (folder / "resumed.toml").write_text(suite_text(suite))
    keys = tuple(cell.key for cell in prepare_suite(suite, folder).cells)
    store = folder / "mlflow.db"
    prepare_store(store)
    fill_store(store, StoreShape("resumed", finished, cell_keys=keys))
    begin_s = time.time()
    found = _command(folder, "run", "resumed.toml", "--resume", "--json")
    new = [row for row in found["results"] if row["order"] is not None]
    if len(new) != RUNS_PER_CELL or found["finished"] != finished + RUNS_PER_CELL:
        raise RuntimeError(f"{len(new)} runs were new, {found['finished']} finished in all")
    first_s = _first_start_s(store)
    return {"finished_runs": finished, "start_s": round(first_s - begin_s, 2)}


def _first_start_s(store: Path) -> float:
    """
    When the first cell of the resumed part began, by its own run.
    """
    query = (
        "SELECT min(start_time) FROM runs JOIN tags USING (run_uuid)"
        " WHERE key = 'mlflow.source.name' AND value = 'nothing:nothing'"
    )
    with closing(sqlite3.connect(store)) as connection:
        (first_ms,) = connection.execute(query).fetchone()
    return float(first_ms) / 1000


def _command(folder: Path, *arguments: str) -> dict[str, Any]:
    start = "from allele_mlflow.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=folder,
        env={**os.environ, "ALLELE_MLFLOW_EXIT_TIMEOUT_S": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    for name in ("cells", "resume"):
        table = Table(title=name)
        for column in report[name]:
            table.add_column(column.replace("_", " "), justify="right")
        table.add_row(*(f"{value:,}" for value in report[name].values()))
        console.print(table)
    if is_busy():
        console.print("the machine has other work to do: these are longer than they need be")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        None if arguments is None else list(arguments),
        description="What running a suite costs beside its cells.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(QUICK if is_quick else FULL),
        show=print_report,
        failures=(subprocess.SubprocessError, RuntimeError),
    )


if __name__ == "__main__":
    sys.exit(main())
