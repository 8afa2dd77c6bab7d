"""
A clean-up of 5,000 runs of which 300 are reached: whether exactly the others go, and how long it
takes.

    python benchmarks/retention.py            some minutes
    python benchmarks/retention.py --quick    tiny, to see that it runs

Writes benchmarks/results/retention.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.registry import open_registry
from allele_mlflow.registry.retention import Rules
from allele_mlflow.registry.retention_deletion import RetentionDeletion
from allele_mlflow.registry.retention_plan import plan_retention
from allele_mlflow.registry.retention_roots import open_registries
from allele_mlflow.settings import Settings, load
from benchmarks.environment import describe_environment, is_busy
from benchmarks.make_store import StoreShape, fill_store
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "retention.json"
SEED = 7
#: Half of them are pinned, half named by a version.
ROOTS = 10
FILE_BYTES = 10_000
GOING, STAYS = "model/weights.bin", "allele/environment.json"


class Plan(NamedTuple):
    """
    How many runs of cells there are, and how many of them are reached.
    """

    runs: int
    reached: int


FULL = Plan(5_000, 300)
QUICK = Plan(60, 20)


def measure(plan: Plan) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder:
        settings, reached = _fill(folder, plan)
        registries = open_registries(settings)
        rules = Rules(older_than_days=30)
        begin_s = time.perf_counter()
        found = plan_retention(settings, rules, registries=registries)
        planned_s = time.perf_counter()
        deletion = RetentionDeletion(settings, registries)
        deletion.delete(found)
        deleted_s = time.perf_counter()
        left = {path.parts[-4] for path in (folder / "artifacts").rglob("weights.bin")}
        whole = {path.parts[-4] for path in (folder / "artifacts").rglob("environment.json")}
        if left != reached or len(whole) != plan.runs:
            raise RuntimeError(f"{len(left ^ reached)} runs are not as they should be")
        return {
            "format": 1,
            "environment": describe_environment(folder),
            "runs": plan.runs,
            "reached": len(reached),
            "deleted": deletion.done.runs,
            "wrong": len(left ^ reached),
            "plan_s": round(planned_s - begin_s, 2),
            "delete_s": round(deleted_s - planned_s, 2),
            "delete_ms_per_run": round((deleted_s - planned_s) / deletion.done.runs * 1000, 1),
        }


def _fill(folder: Path, plan: Plan) -> tuple[Settings, set[str]]:
    """
    A store, a registry, and the ids of the runs that are to stay.
    """
    store, registry = folder / "mlflow.db", folder / "registry.db"
    prepare_store(store)
    prepare_store(registry)
    filled = fill_store(store, StoreShape("cleaned", plan.runs, metrics=1))
    settings = load(
        {
            "tracking_uri": filled.uri,
            "model_registry_uri": f"sqlite:///{registry}",
            "artifact_location": str(folder / "kept"),
        }
    )
    chance = random.Random(SEED)
    with closing(sqlite3.connect(store)) as database, database:
        rows = database.execute(
            "SELECT run_uuid FROM runs WHERE run_uuid != ?", [filled.parent_run_id]
        )
        ids = [run_id for (run_id,) in rows]
        chance.shuffle(ids)
        tags = list(_references(chance, ids[: plan.reached], ids[plan.reached :]))
        database.executemany("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", tags)
        places = [(str(folder / "artifacts" / one / "artifacts"), one) for one in ids]
        database.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", places)
    for place, _ in places:
        for path, data in ((GOING, b"w" * FILE_BYTES), (STAYS, b"{}")):
            (Path(place) / path).parent.mkdir(parents=True)
            (Path(place) / path).write_bytes(data)
    opened = open_registry(settings, by="benchmark")
    for number, run_id in enumerate(ids[ROOTS // 2 : ROOTS]):
        genome = {"traits": {"level": float(number)}}
        opened.register("cleaned", genome, tags={"allele.run": run_id})
    return settings, set(ids[: plan.reached])


def _references(
    chance: random.Random, reached: Sequence[str], others: Sequence[str]
) -> list[tuple[str, str, str]]:
    """
    Tags by which each reached run but the roots is named by an earlier one, and others name any.
    """
    found = [(one, "allele.pin", "kept") for one in reached[: ROOTS // 2]]
    found += [
        (chance.choice(reached[:place]), f"names.{place}", reached[place])
        for place in range(ROOTS, len(reached))
    ]
    everyone = [*reached, *others]
    found += [(one, "names", chance.choice(everyone)) for one in others]
    return found


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    table = Table()
    told = {name: value for name, value in report.items() if isinstance(value, (int, float))}
    for name in told:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(*(f"{value:,}" for value in told.values()))
    console.print(table)
    if is_busy():
        console.print("the machine has other work to do: these are longer than they need be")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        None if arguments is None else list(arguments),
        description="How long a clean-up of old artifacts takes, and whether it is exact.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(QUICK if is_quick else FULL),
        show=print_report,
        failures=(RuntimeError,),
    )


if __name__ == "__main__":
    sys.exit(main())
