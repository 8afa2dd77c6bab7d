"""
How far the statistics of comparison can be trusted: false rejections, coverage, power, time.

    python benchmarks/evidence.py               ten minutes (make bench-statistics)
    python benchmarks/evidence.py --seed 7      on other data
    python benchmarks/evidence.py --quick       tiny, to see that it runs
    python benchmarks/evidence.py --write-page  only the page's tables, from the JSON there is

Writes benchmarks/results/statistics.json; benchmarks/README.md says how to read it. Not called
statistics.py: a program's own folder comes first in its imports, and others here need the standard
library's module of that name.

Exit code 1: false rejections beyond 5 % that chance does not explain (Bonferroni over all rows),
coverage below 93 % from ten runs on, or more than 10 s for 200 runs of 50 metrics.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy import stats

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environment import describe_environment, is_busy
from benchmarks.evidence_trials import (
    ALPHA,
    FULL,
    QUICK,
    measure_coverage,
    measure_errors,
    measure_others,
    measure_power,
    measure_speed,
)
from benchmarks.program import run_benchmark

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "statistics.json"
PAGE = ROOT / "docs" / "understanding" / "statistics.md"
LEAST_COVERAGE = 0.93
LONGEST_COMPARE_S = 10.0

Rows = list[dict[str, Any]]


def measure(is_quick: bool, seed: int, console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    effort = QUICK if is_quick else FULL
    parts: dict[str, Callable[[], Sequence[dict[str, Any]]]] = {
        "compare": lambda: list(measure_speed(is_quick, seed)),
        "false_rejections": lambda: list(measure_errors(effort, seed)),
        "coverage": lambda: list(measure_coverage(effort, seed)),
        "other_intervals": lambda: list(measure_others(effort, seed)),
        "power": lambda: list(measure_power(effort, seed)),
    }
    environment = describe_environment(ROOT)
    report: dict[str, Any] = {"seed": seed, **effort._asdict(), "is_busy": is_busy()}
    for name, part in parts.items():
        console.print(f"measuring {name}")
        report[name] = part()
    return report | {"environment": environment}


def judge(report: dict[str, Any]) -> int:
    """
    The exit code: whether what the docs promise was seen. Of `--quick` nothing can be said.
    """
    return 1 if report["sets"] > QUICK.sets and find_broken(report) else 0


def find_broken(report: dict[str, Any]) -> list[str]:
    """
    The promises that a report breaks, in words.
    """
    rejections = report["false_rejections"]
    least_p = ALPHA / len(rejections)
    return [
        *(
            f"false rejections: {row}"
            for row in rejections
            if _excess_p(row["rate"], report["sets"]) < least_p
        ),
        *(f"coverage: {row}" for row in report["coverage"] if row["rate"] < LEAST_COVERAGE),
        *(
            f"coverage: {row}"
            for row in report["other_intervals"]
            if row["interval"] == "A12" and row["rate"] < LEAST_COVERAGE
        ),
        *(f"compare: {row}" for row in report["compare"] if row["wall_s"] > LONGEST_COMPARE_S),
    ]


def _excess_p(rate: float, sets: int) -> float:
    """
    How likely so many rejections or more are, if 5 % are the truth.
    """
    tested = stats.binomtest(round(rate * sets), sets, ALPHA, alternative="greater")
    return float(tested.pvalue)


def make_tables(report: dict[str, Any]) -> dict[str, str]:
    """
    The tables of the page in Markdown, by their names there.
    """
    return {
        "false rejections": _pivot(
            report["false_rejections"], ("test", "pairs", "data"), "runs", _percent
        ),
        "coverage": _pivot(report["coverage"], ("location", "pairs", "data"), "runs", _percent),
        "other intervals": _pivot(
            report["other_intervals"], ("interval", "data"), "runs", _percent
        ),
        "power": _plain(report["power"]),
        "compare": _plain(report["compare"]),
    }


def write_page(report: dict[str, Any], page: Path = PAGE) -> None:
    """
    The page with the tables of this report, between the marks of each.
    """
    text = page.read_text(encoding="utf-8")
    for name, table in make_tables(report).items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{page}: no place for the table {name!r}")
        text = f"{before}{begin}\n\n{table}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def _pivot(rows: Rows, names: tuple[str, ...], across: str, shown: Callable[[float], str]) -> str:
    """
    One line for each combination of `names`; the worst rate where several rows fall together.
    """
    columns = sorted({row[across] for row in rows})
    lines: dict[tuple[str, ...], dict[int, float]] = {}
    for row in rows:
        line = lines.setdefault(tuple(_word(name, row[name]) for name in names), {})
        line[row[across]] = min(row["rate"], line.get(row[across], 1.0))
    head = [*names, *(f"{column} {across}" for column in columns)]
    body = [
        [*key, *(shown(line[column]) if column in line else "" for column in columns)]
        for key, line in lines.items()
    ]
    return _markdown(head, body)


def _plain(rows: Rows) -> str:
    return _markdown(list(rows[0]), [[f"{value}" for value in row.values()] for row in rows])


def _markdown(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _word(name: str, value: Any) -> str:
    return ("pairs" if value else "no pairs") if name == "pairs" else str(value)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The tables, and what is not as promised.
    """
    for name, table in make_tables(report).items():
        console.print(f"\n{name}\n{table}", highlight=False, markup=False, soft_wrap=True)
    for line in find_broken(report):
        console.print(f"not as promised: {line}", highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=20_270_101)
    parser.add_argument("--write-page", action="store_true")
    options, others = parser.parse_known_args(arguments)
    if options.write_page:
        write_page(json.loads(OUTPUT.read_text(encoding="utf-8")))
        return 0
    return run_benchmark(
        others,
        description="How far the statistics of comparison can be trusted. --seed N: other data; "
        "--write-page: only the tables of docs/understanding/statistics.md.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(is_quick, options.seed, console),
        show=print_report,
        judge=judge,
    )


if __name__ == "__main__":
    sys.exit(main())
