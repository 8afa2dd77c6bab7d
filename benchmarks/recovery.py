"""
How soon `sync` sends the first of a large backlog, and how much memory it takes.

    python benchmarks/recovery.py            about three minutes (make bench-recovery)
    python benchmarks/recovery.py --quick    tiny, to see that it runs

Writes benchmarks/results/recovery.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.drill.backlog import make_backlog, recover
from allele_mlflow.drill.place import opened_place
from benchmarks.environment import describe_environment
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "recovery.json"
BACKLOGS = (10_000, 1_000_000)
QUICK_BACKLOGS = (200, 2_000)
#: A million take minutes to deliver; the peak shows in the first part.
WATCHED_S = 60.0


def measure(backlogs: tuple[int, int]) -> dict[str, Any]:
    """
    Both backlogs, each in a spool and a store of its own; the report.
    """
    report: dict[str, Any] = {}
    with scratch_folder(PARENT) as folder:
        environment = describe_environment(folder)
        for pending in backlogs:
            own = folder / f"backlog-{pending}"
            own.mkdir()
            prepare_store(own / "mlflow.db")
            uri = f"sqlite:///{own / 'mlflow.db'}"
            with opened_place(own / "place", uri, chance=random.Random(0)) as place:
                found = recover(place, make_backlog(place, pending), stop_after_s=WATCHED_S)
            report[f"first_send_s_{pending}"] = round(found.first_send_s, 3)
            report[f"peak_rss_mib_{pending}"] = round(found.peak_bytes / (1 << 20), 1)
    return report | {"environment": environment}


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    for name, value in report.items():
        if name != "environment":
            console.print(f"{name:24} {value}", highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="How a large backlog is taken up.",
        output=OUTPUT,
        measure=lambda is_quick, _: measure(QUICK_BACKLOGS if is_quick else BACKLOGS),
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
