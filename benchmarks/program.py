"""
The command line that benchmarks have in common: `--quick`, `--output`, Ctrl-C, the JSON, the table.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.scratch import interrupt_once


def run_benchmark(
    arguments: list[str] | None,
    *,
    description: str,
    output: Path,
    measure: Callable[[bool, Console], dict[str, Any]],
    show: Callable[[Console, dict[str, Any]], None],
    judge: Callable[[dict[str, Any]], int] = lambda report: 0,
    failures: tuple[type[Exception], ...] = (),
) -> int:
    """
    Measure, write the JSON, show it; the exit code.

    Args:
        arguments: Of the command line; the process's own by default.
        description: What is measured, in a line.
        output: Where the JSON goes unless it is said otherwise.
        measure: Gives the report; told whether it is only to see that it runs.
        show: Prints the report for a person.
        judge: The exit code of a report.
        failures: What `measure` may raise where nothing can be measured: told, exit code 1.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--output", type=Path, default=output, help="the JSON to write")
    options = parser.parse_args(arguments)
    console = Console()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupt_once)
    try:
        report = measure(options.quick, console)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    except failures as exc:
        console.print(f"{type(exc).__name__}: {exc}; nothing was written", markup=False)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(console, report)
    console.print(f"written to {options.output}", soft_wrap=True)
    return judge(report)
