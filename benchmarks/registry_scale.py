"""
The commands of the registry on ten thousand versions, and on a thousand models.

Each is timed as a shell sees it: from the start of its process to its end, the interpreter and all
imports in it.

    python benchmarks/registry_scale.py            three minutes (make bench-registry)
    python benchmarks/registry_scale.py --quick    tiny, to see that it runs

Writes benchmarks/results/registry_scale.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environment import describe_environment, is_busy
from benchmarks.make_registry import DATABASE, RegistryShape, fill_registry, make_genome
from benchmarks.make_store import StoreShape, fill_store
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "registry_scale.json"
START = "from allele_mlflow.cli.main import main; main()"
NAME = "model-0000"
SUITE = "evolution"
SEED = 7


class Taken(NamedTuple):
    """
    What one command took: by the clock, and of the processors.
    """

    wall_s: float
    cpu_s: float


class Plan(NamedTuple):
    """
    How large the two registries are, and how often each command is timed.

    Attributes:
        versions: Of the one model.
        models: Of the other registry, ten versions each.
        turns: Of each command, in random order.
        evidence_runs: Runs of the suite that is named as evidence.
    """

    versions: int
    models: int
    turns: int
    evidence_runs: int


FULL = Plan(10_000, 1000, 7, 60)
QUICK = Plan(30, 5, 1, 20)


def measure(plan: Plan) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder:
        report: dict[str, Any] = {"format": 1, "environment": describe_environment(folder)}
        report["floor"] = _floor(plan.turns)
        large, many = folder / "large", folder / "many"
        for one in (large, many):
            one.mkdir()
            prepare_store(one / DATABASE)
        filled = fill_registry(large, RegistryShape(1, plan.versions))
        fill_registry(many, RegistryShape(plan.models, 10, has_files=False))
        prepare_store(large / "mlflow.db")
        fill_store(large / "mlflow.db", StoreShape(SUITE, plan.evidence_runs, metrics=5))
        (large / "gates.toml").write_text("[candidate]\nmin_runs = 0\n")
        report |= {"versions": plan.versions, "entries": filled.entries, "models": plan.models}
        report["commands"] = _time_commands(large, plan)
        timed = [_run(many, "list") for _ in range(plan.turns)]
        report["commands"]["list of many models"] = _summary(timed)
        report["commands"]["verify"] = _summary([_run(large, "verify", NAME)])
    return report


def _floor(turns: int) -> dict[str, Any]:
    """
    What no command can be faster than: the interpreter, and the imports of two libraries.
    """
    return {
        name: _summary([_timed([sys.executable, "-c", name], Path.cwd()) for _ in range(turns)])
        for name in ("pass", "import sqlalchemy", "import pandas", "import mlflow")
    }


def _time_commands(folder: Path, plan: Plan) -> dict[str, Any]:
    """
    Each command in turn, in an order of its own each time.
    """
    last, half = plan.versions, plan.versions // 2
    chance = random.Random(SEED)
    taken = iter(range(1, last + 1))

    def promote(stage: str, *more: str) -> Taken:
        where = f"{NAME}/{next(taken)}"
        return _run(folder, "promote", where, stage, "--reason", "measured", *more)

    def register() -> Taken:
        (folder / "genome.json").write_text(json.dumps(make_genome(-chance.random())))
        return _run(folder, "register", NAME, "genome.json")

    commands: dict[str, Callable[[], Taken]] = {
        "list": lambda: _run(folder, "list"),
        "show": lambda: _run(folder, "show", f"{NAME}/{half}"),
        "show of a holder": lambda: _run(folder, "show", f"{NAME}@production"),
        "history": lambda: _run(folder, "history", NAME),
        "at": lambda: _run(folder, "at", NAME, "2023-11-18"),
        "promote": lambda: promote("candidate", "--gates", "gates.toml"),
        "promote on evidence": lambda: promote("staging", "--evidence", SUITE),
        "rollback": lambda: _run(folder, "rollback", NAME, "production", "--reason", "measured"),
        "register": register,
    }
    timed: dict[str, list[Taken]] = {name: [] for name in commands}
    for _ in range(plan.turns):
        for name in chance.sample(list(commands), len(commands)):
            timed[name].append(commands[name]())
    return {name: _summary(values) for name, values in timed.items()}


def _run(folder: Path, *arguments: str) -> Taken:
    return _timed([sys.executable, "-c", START, "registry", *arguments], folder)


def _timed(command: list[str], folder: Path) -> Taken:
    before_s, begin_s = _children_s(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    taken = Taken(time.perf_counter() - begin_s, _children_s() - before_s)
    if done.returncode != 0:
        raise RuntimeError(f"{command[3:]}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return taken


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _summary(values: Sequence[Taken]) -> dict[str, Any]:
    return {
        "median_s": round(statistics.median(one.wall_s for one in values), 3),
        "worst_s": round(max(one.wall_s for one in values), 3),
        "median_cpu_s": round(statistics.median(one.cpu_s for one in values), 3),
        "turns": len(values),
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    table = Table(title=f"{report['versions']:,} versions, {report['entries']:,} entries")
    for name in ("command", "median (s)", "worst (s)", "CPU (s)", "turns"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for name, row in (report["commands"] | report["floor"]).items():
        seconds = (f"{row[key]:.2f}" for key in ("median_s", "worst_s", "median_cpu_s"))
        table.add_row(name, *seconds, str(row["turns"]))
    console.print(table)
    if is_busy():
        console.print("the machine has other work to do: these are longer than they need be")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        None if arguments is None else list(arguments),
        description="The commands of the registry on many versions.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(QUICK if is_quick else FULL),
        show=print_report,
        failures=(subprocess.SubprocessError, RuntimeError),
    )


if __name__ == "__main__":
    sys.exit(main())
