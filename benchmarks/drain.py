"""
From `log.metric` to a row: how late readings are at a steady rate, and what a backlog costs.

Steady: a program logs so many readings a second; meanwhile the newest row of its run is asked for,
and its age is the lag. Backlogs: so many readings are logged offline, then delivered by
`allele-mlflow sync` in a fresh process.

    python benchmarks/drain.py            ten minutes (make bench-drain)
    python benchmarks/drain.py --quick    tiny, to see that it runs

Writes benchmarks/results/drain.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.drill.backlog import make_backlog, recover
from allele_mlflow.drill.place import Place, opened_place
from benchmarks.environment import describe_environment, is_busy
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "drain.json"
POLL_S = 0.05


class Plan(NamedTuple):
    """
    What is measured.
    """

    rates_per_s: tuple[int, ...]
    steady_s: float
    #: Left out of the lags: the sidecar starts and imports mlflow.
    warm_up_s: float
    backlogs: tuple[int, ...]


FULL = Plan((1_000, 10_000, 50_000), 60.0, 10.0, (1_000, 10_000, 100_000, 1_000_000, 10_000_000))
QUICK = Plan((200,), 2.0, 1.0, (200, 2_000))

#: Logs at a rate, in slices of a hundredth of a second; says when it began, and what a call cost.
PRODUCER = """
import sys, time
from allele_mlflow import start_logger
rate, seconds = int(sys.argv[1]), float(sys.argv[2])
log = start_logger("drain", overhead_budget_percent=100)
metric, calls_s = log.metric, 0.0
begin = time.time()
print(log.run_uid, begin, flush=True)
step = 0
while True:
    due = int((time.time() - begin) * rate)
    before = time.thread_time()
    while step < due:
        metric(f"key/{step % 20}", 0.5, step)
        step += 1
    calls_s += time.thread_time() - before
    if step >= rate * seconds:
        break
    time.sleep(0.01)
print(step, calls_s, time.time() - begin, flush=True)
log.close()
"""
NEWEST = """
SELECT max(step) FROM latest_metrics WHERE key LIKE 'key/%'
AND run_uuid = (SELECT run_uuid FROM tags WHERE key = 'allele.run_uid' AND value = ?)
"""


def measure_steady(place: Place, store: Path, rate: int, plan: Plan) -> dict[str, Any]:
    """
    The lag at one rate.
    """
    with place.start_python(
        "-c", PRODUCER, str(rate), str(plan.steady_s), environ=SETTINGS
    ) as process:
        assert process.stdout is not None
        run_uid, text = process.stdout.readline().split()
        lags = watch(store, run_uid, rate, float(text), plan)
        logged, calls_s, took_s = process.stdout.readline().split()
        process.wait()
    state = place.await_done(run_uid)
    kept = state.ledger.delivered.get("metric", 0)
    if kept != int(logged):
        raise RuntimeError(f"{kept} of {logged} readings were delivered: {state.ledger}")
    ordered = sorted(lags)
    return {
        "rate_per_s": rate,
        "logged_per_s": round(int(logged) / float(took_s)),
        "lag_s": {
            "p50": round(statistics.median(ordered), 3),
            "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
            "max": round(ordered[-1], 3),
        },
        "producer_percent_in_calls": round(float(calls_s) / float(took_s) * 100, 2),
        "sidecar_cpu_us_per_metric": round(state.sidecar_cpu_s / kept * 1e6, 2),
    }


def watch(store: Path, run_uid: str, rate: int, begin_s: float, plan: Plan) -> list[float]:
    """
    Ages of the newest row, until the program is about to end.
    """
    lags = []
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10.0)) as connection:
        while (now_s := time.time()) < begin_s + plan.steady_s:
            (step,) = connection.execute(NEWEST, (run_uid,)).fetchone()
            if now_s - begin_s >= plan.warm_up_s and step is not None:
                lags.append(max(0.0, now_s - (begin_s + step / rate)))
            time.sleep(POLL_S)
    return lags or [float("nan")]


def measure_backlog(place: Place, records: int) -> dict[str, Any]:
    """
    What delivering so many pending readings takes.
    """
    found = recover(place, make_backlog(place, records), stop_after_s=None)
    if found.lost or found.problems:
        raise RuntimeError(f"{found.lost} readings are missing, {found.problems}")
    left = sum(path.stat().st_size for path in place.spool_dir.rglob("*.seg"))
    return {
        "records": records,
        "seconds": round(found.total_s, 2),
        "us_per_record": round(found.total_s / records * 1e6, 1),
        "cpu_us_per_record": round(found.cpu_s / records * 1e6, 1),
        "peak_rss_mib": round(found.peak_bytes / (1 << 20), 1),
        "spool_bytes_left": left,
    }


#: Flush as by default, and let the sidecar use what it needs.
SETTINGS = {"flush_interval_s": 1.0, "sidecar_cpu_percent": 100, "spool_quota_bytes": 1 << 32}


def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    report: dict[str, Any] = {"format": 1, "settings": SETTINGS, "steady": [], "backlogs": []}
    with scratch_folder(PARENT) as folder:
        report["environment"] = describe_environment(folder)
        tasks = [("steady", rate) for rate in plan.rates_per_s]
        tasks += [("backlogs", records) for records in plan.backlogs]
        for kind, number in tasks:
            own = folder / f"{kind}-{number}"
            own.mkdir()
            store = own / "mlflow.db"
            prepare_store(store)
            with (
                console.status(f"{kind}: {number:,}"),
                opened_place(own / "place", f"sqlite:///{store}", chance=random.Random(0)) as place,
            ):
                if kind == "steady":
                    report[kind].append(measure_steady(place, store, number, plan))
                else:
                    report[kind].append(measure_backlog(place, number))
            store.unlink()
        report["environment"]["load_average_after"] = describe_environment(folder)["load_average"]
    return report


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    for title, rows in (
        (f"at a steady rate (flush interval {SETTINGS['flush_interval_s']} s)", report["steady"]),
        ("a backlog, delivered by sync", report["backlogs"]),
    ):
        table = Table(title=title)
        for name in rows[0]:
            table.add_column(name.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(*map(_shown, row.values()))
        console.print(table)
    if is_busy():
        console.print("the machine has other work to do: lags may be longer than they need be")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return f"{value:,}"


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="From log.metric to a row.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(QUICK if is_quick else FULL, console),
        show=print_report,
        failures=(subprocess.SubprocessError, sqlite3.Error),
    )


if __name__ == "__main__":
    sys.exit(main())
