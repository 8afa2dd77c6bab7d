"""
What logging costs a real program: paired short blocks, rivals, and the whole effect.

    python benchmarks/overhead.py            everything, in about eight minutes (make bench)
    python benchmarks/overhead.py --whole    only the whole effect, many pairs (make bench-whole)
    python benchmarks/overhead.py --quick    a few pairs of everything, to see that it runs
    python benchmarks/overhead.py --alerts   the same with rules of alerts for every run of ours

Writes benchmarks/results/overhead.json, with --alerts overhead_alerts.json; benchmarks/README.md
says how to read it. Every arm has a process of its own, started one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.errors import SettingsError
from allele_mlflow.rules_file import read_rules
from benchmarks.environment import describe_environment, is_busy
from benchmarks.overhead_report import (
    AT_RATE,
    WHOLE,
    add_whole,
    arms_table,
    build_report,
    whole_table,
)
from benchmarks.scratch import PARENT, prepare_store, scratch_folder

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "results" / "overhead.json"
ALERTS = HERE / "alerts.toml"
ALERTS_OUTPUT = HERE / "results" / "overhead_alerts.json"
ALERTS_VARIABLE = "ALLELE_MLFLOW_ALERTS"
#: Arms in the order of their measurement, and which of the pair numbers each gets.
PAIR_KINDS = {
    "null": "ours",
    "allele_mlflow": "ours",
    "allele_mlflow_quiet": "ours",
    "deque_floor": "floor",
    "mlflow_sync": "rivals",
    "mlflow_async": "rivals",
    "mlflow_async_buffered": "rivals",
}
WHOLE_PAIRS = 130
#: What `make bench` leaves for this program; the whole effect gets what the arms have not used.
BENCH_S = 470.0
WHOLE_LEAST_S = 90.0
WHOLE_LONGEST_S = 38 * 60.0
STOP_DEADLINE_S = 30.0
EXIT_USAGE = 2
EXIT_LOST = 7


@dataclass(frozen=True)
class Plan:
    """
    How many pairs of which arm, how long a phase of the whole effect, and the time for it.
    """

    arm_pairs: dict[str, int]
    whole_pairs: int
    #: Metrics a second that the whole effect is measured at; None for as many as there are.
    rate_per_s: float | None
    phase_s: float
    longest_s: float


class ArmFailedError(Exception):
    """
    An arm's process ended without a result.
    """


class Session:
    """
    Runs measuring processes one after the other in one scratch folder, and shows how far they are.

    Args:
        folder: The scratch.
        console: Told what was measured.
        progress: Shows it.
        alerts: Rules for every run that the processes log; None for none.
    """

    def __init__(
        self, folder: Path, console: Console, progress: Progress, alerts: Path | None
    ) -> None:
        self._folder = folder
        self._environment = {k: v for k, v in os.environ.items() if k != ALERTS_VARIABLE}
        if alerts is not None:
            self._environment[ALERTS_VARIABLE] = str(alerts)
        self._console = console
        self._progress = progress
        self._store = folder / "empty.db"
        prepare_store(self._store)

    def run(self, title: str, script: str, pairs: int, *arguments: str) -> dict[str, Any]:
        """
        What one process measured.

        Raises:
            ArmFailedError: it measured nothing.
        """
        result = self._folder / f"{title}.json"
        log = self._folder / f"{title}.log"
        command = [sys.executable, str(HERE / script), *arguments]
        command += ["--folder", str(self._folder), "--store", str(self._store)]
        command += ["--pairs", str(pairs), "--result", str(result)]
        task = self._progress.add_task(title, total=pairs)
        with log.open("wb") as errors, _started(command, errors, self._environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                word, _, rest = line.partition(" ")
                if word == "progress":
                    self._progress.update(task, completed=int(rest.split()[0]))
        if process.returncode == 130:
            raise KeyboardInterrupt
        if process.returncode or not result.exists():
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ArmFailedError(f"{title} ended with exit code {process.returncode}\n{tail}")
        if not self._console.is_terminal:
            self._console.print(f"measured {title}", highlight=False)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


@contextlib.contextmanager
def _started(
    command: list[str], errors: Any, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
    )
    try:
        yield process
        process.wait()
    except BaseException:
        # a terminal's Ctrl-C has reached it too; it ends its own sidecar
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def measure_all(session: Session, plan: Plan, environment: dict[str, Any]) -> dict[str, Any]:
    """
    Every arm, then the whole effect; raw numbers by name.
    """
    begin_s = time.monotonic()
    arms = {
        name: session.run(name, "arms.py", pairs, name) for name, pairs in plan.arm_pairs.items()
    }
    used_s = time.monotonic() - begin_s
    effects = measure_whole(session, plan, max(WHOLE_LEAST_S, plan.longest_s - used_s))
    lost = sum(raw["lost"] for raw in (*arms.values(), *effects.values()))
    report = add_whole(build_report(arms, environment), effects, environment)
    return report | {"lost": lost}


def measure_whole(session: Session, plan: Plan, longest_s: float) -> dict[str, Any]:
    """
    The whole effect in as many pairs as the time allows; raw numbers by name.
    """
    limits = ["--phase-s", f"{plan.phase_s:g}", "--longest-s", f"{longest_s:g}"]
    if plan.rate_per_s is None:
        return session.run("whole_effect", "whole_effect.py", plan.whole_pairs, *limits)
    limits += ["--rate-per-s", f"{plan.rate_per_s:g}"]
    found = session.run("whole_effect at a rate", "whole_effect.py", plan.whole_pairs, *limits)
    return {f"{name}{AT_RATE}": effect for name, effect in found.items()}


def update_whole(
    session: Session, plan: Plan, environment: dict[str, Any], output: Path
) -> dict[str, Any]:
    """
    The report in `output` with its whole effect measured anew.
    """
    effects = measure_whole(session, plan, plan.longest_s)
    report = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {"arms": {}}
    lost = sum(raw["lost"] for raw in effects.values())
    return add_whole(report, effects, environment) | {"lost": lost}


def print_report(console: Console, report: dict[str, Any], *, planned_pairs: int) -> None:
    """
    Both tables, and what to think of them.
    """
    if report["arms"]:
        console.print(arms_table(report))
    console.print(whole_table(report))
    if report["alert_rules"]:
        console.print(f"every run of ours had {len(report['alert_rules'])} rules of alerts")
    pairs = min(report[name]["pairs"] for name in WHOLE if name in report)
    if pairs < planned_pairs:
        console.print(f"time allowed {pairs} of {planned_pairs} pairs of the whole effect")
    if pairs < WHOLE_PAIRS // 2:
        console.print("few pairs give the whole effect a wide interval: make bench-whole decides")
    if is_busy():
        console.print("the machine has other work to do: intervals are wider than they could be")
    if report["lost"]:
        console.print(f"{report['lost']:,} records were lost")


def parse_plan(arguments: list[str] | None) -> tuple[argparse.Namespace, Plan]:
    """
    What the command line asks for.
    """
    parser = argparse.ArgumentParser(description="What logging costs a real program.")
    parser.add_argument("--whole", action="store_true", help="only the whole effect, many pairs")
    parser.add_argument("--quick", action="store_true", help="a few pairs of everything")
    parser.add_argument("--arms", nargs="+", choices=PAIR_KINDS, help="only these short blocks")
    parser.add_argument("--pairs", type=int, help="pairs of our own arms (300)")
    parser.add_argument("--rival-pairs", type=int, help="pairs of each way of MLflow's own (15)")
    parser.add_argument("--whole-pairs", type=int, help="pairs of the whole effect (15; 130)")
    rate = "measure the whole effect at about so many metrics a second, by more work for each"
    parser.add_argument("--rate-per-s", type=float, help=rate)
    parser.add_argument("--phase-s", type=float, help="length of a phase of it, in seconds (3)")
    alerts = f"rules of alerts for every run of ours, by default those of {ALERTS.name}"
    parser.add_argument("--alerts", type=Path, nargs="?", const=ALERTS, metavar="FILE", help=alerts)
    parser.add_argument("--output", type=Path, help="the JSON to write")
    options = parser.parse_args(arguments)
    if options.output is None:
        options.output = OUTPUT if options.alerts is None else ALERTS_OUTPUT
    ours, rivals, whole, phase_s = (3, 1, 1, 0.3) if options.quick else (300, 15, 15, 3.0)
    if options.whole and not options.quick:
        whole = WHOLE_PAIRS
    ours = options.pairs or ours
    by_kind = {
        "ours": ours,
        "floor": max(2, ours // 3),
        "rivals": options.rival_pairs or rivals,
    }
    return options, Plan(
        arm_pairs={name: by_kind[PAIR_KINDS[name]] for name in options.arms or PAIR_KINDS},
        whole_pairs=options.whole_pairs or whole,
        rate_per_s=options.rate_per_s,
        phase_s=options.phase_s or phase_s,
        longest_s=WHOLE_LONGEST_S if options.whole else BENCH_S,
    )


def measure(options: argparse.Namespace, plan: Plan, console: Console) -> dict[str, Any]:
    """
    All that was asked for; the report.
    """
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # seldom, for whoever draws takes time from whoever is measured
    progress = Progress(
        *columns, console=console, disable=not console.is_terminal, refresh_per_second=1
    )
    rules = [] if options.alerts is None else read_rules(options.alerts).alerts
    with scratch_folder(PARENT) as folder, progress:
        environment = describe_environment(folder)
        session = Session(folder, console, progress, options.alerts)
        if options.whole:
            report = update_whole(session, plan, environment, options.output)
        else:
            report = measure_all(session, plan, environment)
        where = report["environment"]["whole_effect"]
        where["load_average_after"] = describe_environment(folder)["load_average"]
    return report | {"alert_rules": [rule.name for rule in rules]}


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    options, plan = parse_plan(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    try:
        report = measure(options, plan, console)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    except SettingsError as exc:
        console.print(str(exc), markup=False)
        return EXIT_USAGE
    except ArmFailedError as exc:
        console.print(str(exc), markup=False)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_report(console, report, planned_pairs=plan.whole_pairs)
    console.print(f"written to {options.output}", soft_wrap=True)
    return EXIT_LOST if report["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
