"""
What a benchmark notices of a store that is away, and of `durability="power"`: paired short blocks,
in one process.

A round has five blocks in random order, the same generations from the same seed: without logging,
logging to a store that answers, the same written through to the disk, logging to an address that
refuses, and to one that accepts and never answers. Each of the four has a run of its own for the
whole measurement, so what the sidecars do falls on all blocks alike.

    python benchmarks/outage.py            some two minutes (make bench-outage)
    python benchmarks/outage.py --quick    a few rounds, to see that it runs

Writes benchmarks/results/outage.json.
"""

from __future__ import annotations

import contextlib
import math
import random
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow import RunLogger, start_logger
from benchmarks.arms import (
    BLOCK_GENERATIONS,
    METRICS_PER_GENERATION,
    MUTATION_RATE,
    POPULATION,
    Sink,
    await_sidecar,
    time_generations,
)
from benchmarks.environment import describe_environment, is_busy
from benchmarks.evolution import Cell, store_settings
from benchmarks.paired import Overhead, estimate_overhead
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "outage.json"
ROUNDS = 300
QUICK_ROUNDS = 3
WARM_UPS = 3
SEED = 120_000
EXIT_TIMEOUT_S = 1.0
START_DEADLINE_S = 60.0
#: What is divided by what.
RATIOS = {
    "refusing_to_answering": ("refusing", "answering"),
    "hanging_to_answering": ("hanging", "answering"),
    "power_to_answering": ("power", "answering"),
    "answering_to_none": ("answering", "none"),
    "refusing_to_none": ("refusing", "none"),
    "hanging_to_none": ("hanging", "none"),
}


@contextlib.contextmanager
def open_ports() -> Iterator[dict[str, str]]:
    """
    Addresses of stores that are away: one refuses, one accepts and never answers.
    """
    with socket.socket() as refusing, socket.socket() as hanging:
        for one in (refusing, hanging):
            one.bind(("127.0.0.1", 0))
        hanging.listen(64)  # the kernel accepts, and nobody reads
        yield {
            "refusing": f"http://127.0.0.1:{refusing.getsockname()[1]}",
            "hanging": f"http://127.0.0.1:{hanging.getsockname()[1]}",
        }


def open_logs(folder: Path, away: dict[str, str]) -> dict[str, RunLogger]:
    """
    A run for each store, taken up by its sidecar.
    """
    own = store_settings(folder) | {"idle_timeout_s": 600.0, "exit_timeout_s": EXIT_TIMEOUT_S}
    logs = {
        "answering": start_logger("outage", run_name="answering", **own),
        "power": start_logger("outage", run_name="power", durability="power", **own),
    }
    for name, uri in away.items():
        settings = own | {"tracking_uri": uri, "artifact_location": None}
        logs[name] = start_logger("outage", run_name=name, **settings)
    await_sidecar(logs["answering"])
    deadline_s = time.monotonic() + START_DEADLINE_S
    while any(logs[name].status() is None for name in away):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"no sidecar took up the runs in {START_DEADLINE_S:g} s")
        time.sleep(0.01)
    return logs


def run_rounds(logs: dict[str, RunLogger], rounds: int) -> dict[str, list[float]]:
    """
    Seconds of each block, by store; the warm-ups apart.
    """
    sinks: dict[str, Sink | None] = {"none": None}
    sinks |= {name: Sink(log.metric, phase=log.phase) for name, log in logs.items()}
    found: dict[str, list[float]] = {name: [] for name in sinks}
    for number in range(-WARM_UPS, rounds):
        names = list(sinks)
        random.Random(SEED + number).shuffle(names)
        cell = Cell(POPULATION, MUTATION_RATE, BLOCK_GENERATIONS, SEED + number)
        for name in names:
            elapsed_s = time_generations(cell, sinks[name]).elapsed_s
            if number >= 0:
                found[name].append(elapsed_s)
    return found


def close_logs(logs: dict[str, RunLogger]) -> dict[str, dict[str, Any]]:
    """
    What `close` took, and what it said.
    """
    closes: dict[str, dict[str, Any]] = {}
    for name, log in logs.items():
        began_s = time.perf_counter()
        report = log.close()
        closes[name] = {
            "close_s": round(time.perf_counter() - began_s, 3),
            "accepted": report.ledger.accepted,
            "pending": report.ledger.pending,
            "lost": report.ledger.lost,
        }
    return closes


def measure(rounds: int) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder, open_ports() as away:
        environment = describe_environment(folder)
        prepare_store(folder / "mlflow.db")
        logs = open_logs(folder, away)
        try:
            blocks = run_rounds(logs, rounds)
        except BaseException:
            for log in logs.values():
                log.detach()  # else the interpreter would wait for delivery at its end
            raise
        closes = close_logs(logs)
        environment["load_average_after"] = describe_environment(folder)["load_average"]
    raw = {
        name: [round(math.log(a / b), 6) for a, b in zip(blocks[over], blocks[under], strict=True)]
        for name, (over, under) in RATIOS.items()
    }
    return {
        "format": 1,
        "rounds": rounds,
        "exit_timeout_s": EXIT_TIMEOUT_S,
        "metrics_a_block": BLOCK_GENERATIONS * METRICS_PER_GENERATION,
        "block_ms": {k: round(sum(v) / len(v) * 1e3, 3) for k, v in blocks.items()},
        "ratios": {name: estimate_overhead(values).as_json() for name, values in raw.items()},
        "closes": closes,
        "environment": environment,
        "raw": {"unit": "log(seconds of the one / seconds of the other)", "ratios": raw},
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    table = Table(title="A store that is away")
    for heading in ("time of a block", "longer by, %", "95 % interval"):
        table.add_column(heading)
    for name, fields in report["ratios"].items():
        found = Overhead(**fields)
        table.add_row(name.replace("_", " "), f"{found.overhead_percent:+.2f}", found.interval)
    console.print(table)
    for name, closed in report["closes"].items():
        console.print(
            f"close, {name}: {closed['close_s']:.2f} s (exit_timeout_s {EXIT_TIMEOUT_S:g}), "
            f"{closed['pending']:,} of {closed['accepted']:,} records wait, {closed['lost']} lost",
            highlight=False,
        )
    if is_busy():
        console.print("the machine has other work to do: intervals are wider than they could be")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="What a benchmark notices of a store that is away.",
        output=OUTPUT,
        measure=lambda is_quick, _: measure(QUICK_ROUNDS if is_quick else ROUNDS),
        show=print_report,
        judge=lambda report: 7 if any(one["lost"] for one in report["closes"].values()) else 0,
    )


if __name__ == "__main__":
    sys.exit(main())
