"""
What the sidecar costs beside delivery: the wait at close, its idling, its memory under a backlog.

    python benchmarks/sidecar_cost.py            about two minutes (make bench-sidecar)
    python benchmarks/sidecar_cost.py --quick    tiny, to see that it runs

Writes benchmarks/results/sidecar_cost.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow import RunLogger, start_logger
from benchmarks.environment import describe_environment, is_busy
from benchmarks.evolution import store_settings
from benchmarks.program import run_benchmark
from benchmarks.scratch import (
    PARENT,
    cpu_seconds,
    find_sidecar,
    prepare_store,
    scopes_below,
    scratch_folder,
    stop_sidecars,
)

OUTPUT = Path(__file__).resolve().parent / "results" / "sidecar_cost.json"
KEYS = [f"key/{number}" for number in range(20)]
EXIT_TIMEOUT_S = 300.0
#: MLflow's own `log_batch` with the sidecar's batches, in a process of its own: it prints seconds.
STOCK = """
import sys, time
from mlflow import MlflowClient
from mlflow.entities import Metric

uri, metrics, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = MlflowClient(tracking_uri=uri)
run_id = client.create_run("0").info.run_id
client.log_batch(run_id, metrics=[Metric("warm", 1.0, 1, 0)])
for line in sys.stdin:
    now = time.time_ns() // 1_000_000
    begin = time.perf_counter()
    for start in range(0, metrics, size):
        batch = [Metric(f"key/{i % 20}", 0.5, now, i) for i in range(start, start + size)]
        client.log_batch(run_id, metrics=batch)
    print(time.perf_counter() - begin, flush=True)
"""


@dataclass(frozen=True)
class Effort:
    """
    How much of everything.
    """

    closes: int = 7
    close_metrics: int = 10_000
    detaches: int = 20
    idle_s: float = 15.0
    backlogs: tuple[int, int] = (100_000, 1_000_000)
    backlog_s: float = 20.0


QUICK = Effort(2, 200, 2, 0.3, (2_000, 4_000), 0.5)


def settings_below(folder: Path) -> dict[str, Any]:
    """
    Everything in one folder, and no word about the cost of loops that do nothing but log.
    """
    return store_settings(folder) | {
        "exit_timeout_s": EXIT_TIMEOUT_S,
        "idle_timeout_s": 600.0,
        "overhead_budget_percent": 100.0,
    }


def log_metrics(log: RunLogger, number: int) -> None:
    """
    So many readings of twenty keys.
    """
    for step in range(number):
        log.metric(KEYS[step % len(KEYS)], 0.5, step)


@contextlib.contextmanager
def stock_log_batch(folder: Path, metrics: int, batch_size: int) -> Iterator[Any]:
    """
    A call that logs `metrics` readings with MLflow's own client and gives the seconds it took.
    """
    command = [sys.executable, "-c", STOCK, f"sqlite:///{folder / 'mlflow.db'}"]
    process = subprocess.Popen(
        [*command, str(metrics), str(batch_size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def seconds() -> float:
        stdin.write("\n")
        stdin.flush()
        return float(stdout.readline())

    with process:
        try:
            yield seconds
        finally:
            stdin.close()


def measure_ends(folder: Path, effort: Effort) -> dict[str, Any]:
    """
    `close` with undelivered readings beside stock `log_batch` of as many, and `detach`.
    """
    settings = settings_below(folder)
    with start_logger("warm_up", **settings) as log:
        batch_size = log.settings.batch_size
    closes, stocks, detaches, differences = [], [], [], []
    with stock_log_batch(folder, effort.close_metrics, batch_size) as stock:
        stock()
        for number in range(effort.closes):
            seconds: dict[str, float] = {}
            order = ["ours", "stock"]
            random.Random(number).shuffle(order)
            for name in order:
                seconds[name] = stock() if name == "stock" else _close_s(settings, effort)
            closes.append(seconds["ours"])
            stocks.append(seconds["stock"])
            differences.append(seconds["ours"] - seconds["stock"])
    for _ in range(effort.detaches):
        log = start_logger("detach", **settings)
        log_metrics(log, effort.close_metrics)
        begin_s = time.perf_counter()
        log.detach()
        detaches.append(time.perf_counter() - begin_s)
    return {
        "close_s": statistics.median(closes),
        "stock_log_batch_s": statistics.median(stocks),
        "close_minus_stock_s": statistics.median(differences),
        "close_metrics": effort.close_metrics,
        "detach_ms": statistics.median(detaches) * 1e3,
    }


def _close_s(settings: dict[str, Any], effort: Effort) -> float:
    log = start_logger("close", delivery="quiet", **settings)
    _wait_for_sidecar(log)
    log_metrics(log, effort.close_metrics)
    begin_s = time.perf_counter()
    report = log.close()
    if not report.is_complete or report.ledger.lost:
        raise RuntimeError(f"not delivered: {report.line()}")
    return time.perf_counter() - begin_s


def _wait_for_sidecar(log: RunLogger) -> None:
    while log.status() is None:  # it has taken up the run
        time.sleep(0.01)


def measure_idle(folder: Path, effort: Effort) -> dict[str, float]:
    """
    Percent of one core that a sidecar uses without a run, and with one that logs nothing.
    """
    settings = settings_below(folder)
    with start_logger("warm_up", **settings) as log:
        scope = Path(log.handle()).parent.parent
    sidecar = find_sidecar(scope)
    if sidecar is None:
        raise RuntimeError(f"no sidecar in {scope}")
    without = _cpu_percent(sidecar, effort.idle_s)
    with start_logger("silent", **settings) as log:
        if log.run_id is None:
            raise RuntimeError("the run was not created")
        return {
            "idle_cpu_percent": without,
            "silent_run_cpu_percent": _cpu_percent(sidecar, effort.idle_s),
        }


def _cpu_percent(process: psutil.Process, seconds: float) -> float:
    time.sleep(min(1.0, seconds))  # what came before is over
    before = cpu_seconds(process), time.monotonic()
    time.sleep(seconds)
    return 100.0 * (cpu_seconds(process) - before[0]) / (time.monotonic() - before[1])


def measure_memory(folder: Path, pending: int, effort: Effort) -> float:
    """
    Peak resident memory, in MiB, of a fresh sidecar that delivers a backlog for a while.
    """
    log = start_logger("backlog", delivery="quiet", **settings_below(folder))
    scope = Path(log.handle()).parent.parent
    log_metrics(log, pending)
    _wait_for_sidecar(log)
    log.detach()
    sidecar = find_sidecar(scope)
    if sidecar is None:
        raise RuntimeError(f"no sidecar in {scope}")
    peak = 0
    deadline_s = time.monotonic() + effort.backlog_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, sidecar.memory_info().rss)
        time.sleep(0.05)
    stop_sidecars(scope)
    return peak / (1 << 20)


def measure(effort: Effort) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder:
        environment = describe_environment(folder)
        prepare_store(folder / "mlflow.db")
        report = measure_idle(folder, effort) | measure_ends(folder, effort)
        for scope in scopes_below(folder):
            stop_sidecars(scope)
        for pending in effort.backlogs:
            own = folder / f"backlog-{pending}"
            own.mkdir()
            prepare_store(own / "mlflow.db")
            report[f"peak_rss_mib_{pending}"] = measure_memory(own, pending, effort)
    rounded = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in report.items()
    }
    return rounded | {"environment": environment | {"n": vars(effort)}}


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    table = Table(title="The sidecar beside delivery", show_header=False)
    effort = Effort(**report["environment"]["n"])
    small, large = (report[f"peak_rss_mib_{pending}"] for pending in effort.backlogs)
    rows = (
        (f"close with {effort.close_metrics:,} undelivered readings", f"{report['close_s']:.2f} s"),
        ("  MLflow's own log_batch of as many", f"{report['stock_log_batch_s']:.2f} s"),
        ("  the one less the other, median of pairs", f"{report['close_minus_stock_s']:+.2f} s"),
        ("detach with as many", f"{report['detach_ms']:.1f} ms"),
        ("sidecar without a run", f"{report['idle_cpu_percent']:.2f} % of a core"),
        ("  with a run that logs nothing", f"{report['silent_run_cpu_percent']:.2f} % of a core"),
        (f"its memory, {effort.backlogs[0]:,} readings pending", f"{small:.0f} MiB"),
        (f"  {effort.backlogs[1]:,} readings pending", f"{large:.0f} MiB"),
    )
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    if is_busy():
        console.print("the machine has other work to do: read these with care")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="What the sidecar costs beside delivery.",
        output=OUTPUT,
        measure=lambda is_quick, _: measure(QUICK if is_quick else Effort()),
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
