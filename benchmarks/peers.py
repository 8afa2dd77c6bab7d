"""
Other trackers beside this one: what a call costs, in-process CPU, the exit, a program's overhead.

Each is installed into an environment of its own (`.venv-peers/`, kept for the next time) with this
project's sources beside it, and measured in a process of its own, one after the other: 50,000 calls
or five seconds of them, and the evolution in paired blocks. All write to this machine alone, as
their users do offline.

    python benchmarks/peers.py            two minutes beside the installs (make bench-peers)
    python benchmarks/peers.py --quick    ours and mlflow, tiny, to see that it runs

Writes benchmarks/results/peers.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environment import describe_environment, is_busy
from benchmarks.paired import Overhead, estimate_overhead
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "peers.json"
ENVIRONMENTS = ROOT / ".venv-peers"
#: What is installed for each; without one, it is measured in this environment.
REQUIREMENTS = {
    "allele-mlflow": None,
    "mlflow": None,
    "wandb": "wandb",
    "trackio": "trackio",
    "neptune-scale": "neptune-scale",
    "aim": "aim",
    "tensorboardX": "tensorboardX",
    "swanlab": "swanlab",
}
#: What the program that is measured needs, ours included.
OURS = ("allele>=1.0.1,<1.0.2", "msgspec>=0.19", "psutil>=5.9", "numpy>=1.26")
QUICK = ("allele-mlflow", "mlflow")

INSTALL_S, MEASURE_S = 600, 240
SHOWN_CHARACTERS = 300


class Effort(NamedTuple):
    """
    Pairs of blocks, and how long to call a tracker.
    """

    pairs: int
    calls_s: float


FULL_EFFORT, QUICK_EFFORT = Effort(60, 5.0), Effort(5, 0.3)


class PeerError(Exception):
    """
    A peer that cannot be installed, or ended with an error; the text is its own.
    """


def prepare(name: str) -> Path:
    """
    The interpreter of a peer's environment, which is made where it is not there.

    Raises:
        PeerError: it cannot be installed.
    """
    requirement = REQUIREMENTS[name]
    if requirement is None:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join((requirement, *OURS))
    if not stamp.exists() or stamp.read_text() != wanted:
        run([sys.executable, "-m", "venv", "--clear", str(folder)], INSTALL_S)
        run([str(python), "-m", "pip", "install", "--quiet", requirement, *OURS], INSTALL_S)
        stamp.write_text(wanted)
    return python


def run(command: list[str], longest_s: float) -> None:
    """
    Run a command to its end.

    Raises:
        PeerError: it failed; the last words of its output.
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=longest_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"not ended in {longest_s:g} s") from None
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise PeerError(
            (lines[-1] if lines else f"exit code {done.returncode}")[-SHOWN_CHARACTERS:]
        )


def measure_peer(name: str, python: Path, folder: Path, effort: Effort) -> dict[str, Any]:
    """
    What one peer's process hands back, summed up.

    Raises:
        PeerError: it failed.
    """
    result = folder / f"{name}.json"
    arm = str(ROOT / "benchmarks" / "peer_arm.py")
    options = ("--folder", str(folder), "--store", str(folder / "empty.db"))
    more = ("--pairs", str(effort.pairs), "--calls-s", str(effort.calls_s), "--result", str(result))
    run([str(python), arm, name, *options, *more], MEASURE_S)
    found = json.loads(result.read_text(encoding="utf-8"))
    overhead = found["overhead"]
    blocks = found["block_ns"]
    return {
        "version": version_of(name, python),
        "calls": found["calls"],
        "call_p50_us": round(statistics.median(blocks) / 1e3, 3),
        "call_p99_us": round(blocks[int(0.99 * (len(blocks) - 1))] / 1e3, 3),
        "cpu_us_per_metric": round(found["cpu_us_per_metric"], 3),
        "exit_s": round(found["exit_s"], 3),
        "overhead": estimate_overhead(overhead["log_ratios"]).as_json(),
        "overhead_metrics_per_s": round(overhead["metrics_per_s"]),
        "raw": {"log_ratios": overhead["log_ratios"]},
    }


def version_of(name: str, python: Path) -> str:
    """
    The version of the distribution in an environment.
    """
    code = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def measure(names: tuple[str, ...], effort: Effort, console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    found: dict[str, dict[str, Any]] = {}
    pythons: dict[str, Path] = {}
    for name in names:
        with console.status(f"{name}: installing"):
            try:
                pythons[name] = prepare(name)
            except PeerError as exc:
                found[name] = {"error": f"not installed: {exc}"}
    with scratch_folder(PARENT) as folder:
        environment = describe_environment(folder)
        prepare_store(folder / "empty.db")
        for name, python in pythons.items():
            with console.status(f"{name}: measuring"):
                try:
                    found[name] = measure_peer(name, python, folder, effort)
                except PeerError as exc:
                    found[name] = {"error": str(exc)}
        environment["load_average_after"] = describe_environment(folder)["load_average"]
    return {
        "format": 1,
        "pairs": effort.pairs,
        "peers": {name: found[name] for name in names},
        "cheapest": compare(found),
        "environment": environment,
    }


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """
    This project beside the cheapest of the others.
    """
    ours = found["allele-mlflow"]
    others = {n: one for n, one in found.items() if "error" not in one and one is not ours}
    if "error" in ours or not others:
        return {}
    ratios = {}
    for field in ("call_p50_us", "cpu_us_per_metric"):
        name = min(others, key=lambda one: float(others[one][field]))
        ratio = others[name][field] / ours[field]
        ratios[field] = {"peer": name, "times_ours": round(ratio, 1)}
    return ratios


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    table = Table(title="Trackers, offline, one metric a call")
    for heading in ("tracker", "version", "call p50", "p99", "CPU a metric", "exit", "overhead"):
        table.add_column(heading, justify="left" if heading == "tracker" else "right")
    for name, one in report["peers"].items():
        if "error" in one:
            table.add_row(name, "", one["error"])
            continue
        overhead = Overhead(**one["overhead"])
        table.add_row(
            name,
            one["version"],
            *(f"{one[field]:,.1f} us" for field in ("call_p50_us", "call_p99_us")),
            f"{one['cpu_us_per_metric']:,.1f} us",
            f"{one['exit_s']:.2f} s",
            f"{overhead.overhead_percent:+.1f} % {overhead.interval}",
        )
    console.print(table)
    for field, one in report["cheapest"].items():
        console.print(
            f"{field}: the cheapest other, {one['peer']}, takes {one['times_ours']} x ours"
        )
    if is_busy():
        console.print("the machine has other work to do: ratios may be off")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="Other trackers beside this one.",
        output=OUTPUT,
        measure=lambda is_quick, console: (
            measure(QUICK, QUICK_EFFORT, console)
            if is_quick
            else measure(tuple(REQUIREMENTS), FULL_EFFORT, console)
        ),
        show=print_report,
        judge=lambda report: 1 if "error" in report["peers"]["allele-mlflow"] else 0,
    )


if __name__ == "__main__":
    sys.exit(main())
