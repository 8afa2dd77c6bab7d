"""
What one call costs, beside the least that Python can do: `deque.append` in a method.

    python benchmarks/call_cost.py           about a minute (part of make bench)
    python benchmarks/call_cost.py --quick   seconds, to see that it runs

Writes benchmarks/results/call_cost.json; benchmarks/README.md says how to read it. No sidecar runs
beside the calls: their segments are unlinked between blocks, as a sidecar would.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow import RunLogger, start_logger
from allele_mlflow.queue.writer import StreamWriter
from benchmarks.call_subjects import Floor, open_streams
from benchmarks.call_timing import (
    BLOCK_CALLS,
    VALUE,
    CallCost,
    Subject,
    measure_calls,
    median_ms,
    time_empty_block,
)
from benchmarks.environment import describe_environment, is_busy
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, find_sidecar, scratch_folder, stop_sidecars

OUTPUT = Path(__file__).resolve().parent / "results" / "call_cost.json"
SERIES_VALUES = 1000
SERIES_CALLS = 100
MAPPING_CALLS = 100


@dataclass(frozen=True)
class Effort:
    """
    How often each thing is measured.
    """

    blocks: int = 1000
    singles: int = 200_000
    rounds: int = 100
    starts: int = 20
    imports: int = 10


QUICK = Effort(blocks=20, singles=10_000, rounds=5, starts=1, imports=2)


def measure_metrics(
    writer: StreamWriter, clear: Callable[[], None], rounds: int
) -> dict[str, float]:
    """
    `metrics` of ten keys, its mapping made anew in each call, against ten calls of `metric`.
    """
    together, apart = [], []
    for _ in range(rounds):
        together.append(_time_metrics(writer.metrics))
        apart.append(_time_ten_metrics(writer.metric))
        clear()
    loop_ns = statistics.median(time_empty_block() for _ in range(rounds)) / BLOCK_CALLS
    per_call_ns = statistics.median(together) / MAPPING_CALLS - loop_ns
    ten_calls_ns = statistics.median(apart) / MAPPING_CALLS - loop_ns
    return {
        "per_call_ns_10_keys": round(per_call_ns, 1),
        "ratio_to_ten_metric_calls": round(per_call_ns / ten_calls_ns, 4),
    }


def _time_metrics(metrics: Callable[..., None]) -> int:
    v = VALUE
    before_ns = time.perf_counter_ns()
    for step in range(MAPPING_CALLS):
        metrics(
            {"a": v, "b": v, "c": v, "d": v, "e": v, "f": v, "g": v, "h": v, "i": v, "j": v},
            step=step,
        )
    return time.perf_counter_ns() - before_ns


def _time_ten_metrics(metric: Callable[..., None]) -> int:
    value = VALUE
    before_ns = time.perf_counter_ns()
    for step in range(MAPPING_CALLS):
        metric("a", value, step=step)
        metric("b", value, step=step)
        metric("c", value, step=step)
        metric("d", value, step=step)
        metric("e", value, step=step)
        metric("f", value, step=step)
        metric("g", value, step=step)
        metric("h", value, step=step)
        metric("i", value, step=step)
        metric("j", value, step=step)
    return time.perf_counter_ns() - before_ns


def measure_series(writer: StreamWriter, clear: Callable[[], None], rounds: int) -> float:
    """
    Nanoseconds a record of `series` with arrays of 1,000, new segments included.
    """
    values = np.linspace(0.0, 1.0, SERIES_VALUES)
    found = []
    for _ in range(rounds):
        before_ns = time.perf_counter_ns()
        for number in range(SERIES_CALLS):
            writer.series("fitness/genome", values, first_step=number * SERIES_VALUES)
        found.append(time.perf_counter_ns() - before_ns)
        clear()
    return statistics.median(found) / (SERIES_CALLS * SERIES_VALUES)


def measure_starts(folder: Path, starts: int) -> float:
    """
    Milliseconds of `start_logger`, each in a spool that did not exist, its sidecar ended at once.
    """
    found = []
    for number in range(starts):
        own = folder / f"start-{number}"
        own.mkdir()
        before_ns = time.perf_counter_ns()
        log = start_logger(
            "start",
            tracking_uri=f"sqlite:///{own / 'mlflow.db'}",
            artifact_location=str(own / "mlflow_artifacts"),
            spool_dir=str(own / ".allele_mlflow" / "spool"),
            log_level="error",
            enabled=True,
        )
        found.append(time.perf_counter_ns() - before_ns)
        is_bare = getattr(log.metric, "__func__", None) is StreamWriter.metric
        _end(log)
        if not is_bare:
            raise RuntimeError("log.metric is not the writer's own method, which was timed")
    return statistics.median(found) / 1e6


def _end(log: RunLogger) -> None:
    scope = Path(log.handle()).parent.parent
    try:
        find_sidecar(scope)  # it is there: detach need not start another
    finally:
        log.detach()
        stop_sidecars(scope)


def measure_imports(times: int) -> tuple[float, float]:
    """
    Milliseconds that a fresh interpreter takes to start, and to start and import the package.
    """

    def start(program: str) -> None:
        subprocess.run([sys.executable, "-c", program], check=True)

    start("import allele_mlflow")  # its compiled files are on disk, and in memory
    bare_ms = median_ms(lambda: start("pass"), times)
    return bare_ms, median_ms(lambda: start("import allele_mlflow"), times)


def measure(effort: Effort) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder, open_streams(folder) as streams:
        environment = describe_environment(folder)
        subjects = {"floor": Subject(Floor().metric, lambda: None)}
        for name, stream in streams.items():
            subjects[name] = Subject(stream.writer.metric, stream.clear)
        costs = measure_calls(subjects, blocks=effort.blocks, singles=effort.singles)
        disk = streams["metric_disk"]
        metrics = measure_metrics(disk.writer, disk.clear, effort.rounds)
        series_ns = measure_series(disk.writer, disk.clear, effort.rounds)
        for stream in streams.values():
            stream.check()
        start_ms = measure_starts(folder, effort.starts)
    bare_ms, imported_ms = measure_imports(effort.imports)
    environment |= {
        "interpreter_start_ms": round(bare_ms, 2),
        "interpreter_start_and_import_ms": round(imported_ms, 2),
        "n": vars(effort) | {"calls_per_block": BLOCK_CALLS},
        "load_average_after": describe_environment(PARENT.parent)["load_average"],
    }
    return build_report(
        costs,
        metrics_dict=metrics,
        series_per_record_ns=round(series_ns, 2),
        start_logger_ms=round(start_ms, 2),
        import_ms=round(imported_ms - bare_ms, 2),
        environment=environment,
    )


def build_report(
    costs: dict[str, CallCost], *, environment: dict[str, Any], **others: Any
) -> dict[str, Any]:
    """
    The JSON. What could not be measured (no file system in memory) is None.
    """
    report: dict[str, Any] = {
        name: costs[name].as_json() if name in costs else None
        for name in ("floor", "metric_tmpfs", "metric_disk")
    }
    report |= others
    for place in ("tmpfs", "disk"):
        cost = costs.get(f"metric_{place}")
        ratio = round(cost.p50_ns / costs["floor"].p50_ns, 3) if cost is not None else None
        report[f"ratio_p50_{place}"] = ratio
    return report | {"environment": environment}


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    environment = report["environment"]
    table = Table(title=f"One call, in nanoseconds (Python {environment['python']})")
    table.add_column("", no_wrap=True)
    for name in ("p50", "p99", "p99.9", "max", "p50 / floor"):
        table.add_column(name, justify="right")
    file_system = environment["file_system"]
    titles = {"floor": "deque.append", "metric_tmpfs": "log.metric, spool in memory"}
    titles["metric_disk"] = f"log.metric, spool on {file_system}"
    for name, title in titles.items():
        if report[name] is not None:
            ratio = report.get(f"ratio_p50_{name.removeprefix('metric_')}", 1.0)
            numbers = (f"{value:,.0f}" for value in report[name].values())
            table.add_row(title, *numbers, f"{ratio:.2f}")
    console.print(table)
    metrics = report["metrics_dict"]
    ratio = metrics["ratio_to_ten_metric_calls"]
    lines = (
        ("log.metrics of 10 keys", f"{metrics['per_call_ns_10_keys']:,.0f} ns"),
        ("  against ten log.metric", f"{ratio * 100:.0f} %"),
        ("log.series, a record of 1,000", f"{report['series_per_record_ns']:.1f} ns"),
        ("start_logger, a new spool", f"{report['start_logger_ms']:.1f} ms"),
        ("import allele_mlflow", f"{report['import_ms']:.0f} ms"),
        ("  the interpreter alone", f"{environment['interpreter_start_ms']:.0f} ms"),
    )
    for name, value in lines:
        console.print(f"{name:<32}{value:>12}", highlight=False)
    if is_busy():
        console.print("the machine has other work to do: read the ratios, not the absolute times")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="What one call costs.",
        output=OUTPUT,
        measure=lambda is_quick, _: measure(QUICK if is_quick else Effort()),
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
