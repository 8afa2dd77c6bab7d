"""
Change detection on series whose truth is known: false alarms, and shifts that are found.

Both presets of this project, and beside them Apache Otava, asv's step detection, ruptures' PELT
(each in an environment of its own in `.venv-peers/`, kept for the next time) and a fixed threshold.
Thresholds of ours were set on seeds 0 to 9999 (shift_thresholds.py); no seed here draws one of
these.

    python benchmarks/detection.py                       make bench-detection
    python benchmarks/detection.py --seed 7 --series 2000
    python benchmarks/detection.py --quick               tiny, ours alone, to see that it runs

Writes benchmarks/results/detection.json; docs/understanding/change-detection.md has the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from scipy.stats import beta

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.analysis.changes import SENSITIVE, STRICT, find_shifts
from benchmarks.environment import describe_environment
from benchmarks.made_series import (
    NULLS,
    OTHER_NULLS,
    SHIFTS,
    FloatArray,
    draw_null,
    draw_shifted,
)
from benchmarks.peers import ENVIRONMENTS, INSTALL_S, PeerError, run, version_of
from benchmarks.program import run_benchmark
from benchmarks.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "detection.json"
COUNTS, SHIFTED_COUNT = (30, 60), 40
#: How far from its place a shift may be found.
SLACK = 2
#: Seeds below are those of the thresholds; each --seed has a million of its own.
FIRST_SEED, SEEDS_EACH = 10_000, 1_000_000
PEERS = ("apache-otava", "asv", "ruptures")
PEER_SERIES, PEER_S = 1_000, 400.0
#: With fewer series of a null its bound of 2 % cannot be shown.
FEWEST_SERIES = 2_000
PRESETS = {"strict": STRICT, "sensitive": SENSITIVE}
FIXED_RATIO, FIXED_POINTS = 0.1, 3


class Group(NamedTuple):
    """
    Series of one kind. `place` is where they shift, None where they do not.
    """

    name: str
    draw: Callable[[int], FloatArray]
    place: int | None


def groups() -> list[Group]:
    """
    All kinds of series, without a shift and with one.
    """
    nulls = [
        Group(f"{name}, n = {count}", partial(draw_null, name, count), None)
        for name in (*NULLS, *OTHER_NULLS)
        for count in COUNTS
    ]
    shifted = [
        Group(one.name, partial(draw_shifted, one, SHIFTED_COUNT), SHIFTED_COUNT - one.points_after)
        for one in SHIFTS
    ]
    return nulls + shifted


def is_hit(found: Iterable[int], place: int | None) -> bool:
    """
    Whether what was found counts: as an alarm where there is no shift, else as the shift.
    """
    return any(place is None or abs(one - place) <= SLACK for one in found)


def find_ours(group: Group, seeds: list[int]) -> dict[str, int]:
    """
    Hits of both presets.
    """
    hits = dict.fromkeys(PRESETS, 0)
    for seed in seeds:
        values = group.draw(seed)
        for name, preset in PRESETS.items():
            places = (shift.index for shift in find_shifts(values, preset=preset))
            hits[name] += is_hit(places, group.place)
    return hits


def find_fixed(values: FloatArray) -> list[int]:
    """
    What many a pipeline has: a point that is 10 % off the median of those before it.
    """
    series = values.tolist()
    return [
        index
        for index in range(FIXED_POINTS, len(series))
        if abs(series[index] / statistics.median(series[:index]) - 1) > FIXED_RATIO
    ]


def rate(hits: int, of: int) -> dict[str, Any]:
    """
    A count, and the upper bound of its rate at 95 % (Clopper and Pearson, one-sided).
    """
    upper = 1.0 if hits >= of else float(beta.ppf(0.95, hits + 1, of - hits))
    return {"hits": hits, "of": of, "ratio": round(hits / max(1, of), 4), "upper": round(upper, 4)}


def measure_ours(seed: int, series: int, console: Console) -> dict[str, Any]:
    """
    Both presets and the fixed threshold. Shifts get a fifth of the series: their rates are larger.
    """
    found: dict[str, Any] = {name: {} for name in (*PRESETS, "fixed 10 %")}
    first = FIRST_SEED + seed * SEEDS_EACH
    with ProcessPoolExecutor() as pool:
        for group in groups():
            total = series if group.place is None else max(1, series // 5)
            seeds = list(range(first, first + total))
            chunks = [seeds[start : start + 200] for start in range(0, total, 200)]
            with console.status(group.name):
                parts = list(pool.map(partial(find_ours, group), chunks))
            for name in PRESETS:
                found[name][group.name] = rate(sum(part[name] for part in parts), total)
            few = seeds[:PEER_SERIES]
            fixed = sum(is_hit(find_fixed(group.draw(one)), group.place) for one in few)
            found["fixed 10 %"][group.name] = rate(fixed, len(few))
    return {name: {"groups": rates} for name, rates in found.items()}


def prepare_peer(name: str) -> Path:
    """
    The interpreter of a peer's environment, which is made where it is not there.

    Raises:
        PeerError: it cannot be installed.
    """
    folder = ENVIRONMENTS / f"detect-{name}"
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        run([sys.executable, "-m", "venv", "--clear", str(folder)], INSTALL_S)
        run([str(python), "-m", "pip", "install", "--quiet", name], INSTALL_S)
        stamp.touch()
    return python


def measure_peer(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """
    One peer on the first series of each group.

    Raises:
        PeerError: it cannot be installed, or failed.
    """
    python = prepare_peer(name)
    given, result = folder / "series.json", folder / f"{name}.json"
    first = FIRST_SEED + seed * SEEDS_EACH
    drawn = [
        [group.draw(one).tolist() for one in range(first, first + PEER_SERIES)]
        for group in groups()
    ]
    given.write_text(json.dumps(drawn), encoding="utf-8")
    arm = str(ROOT / "benchmarks" / "detection_arm.py")
    run([str(python), arm, name, str(given), str(result), str(PEER_S)], 2 * PEER_S)
    found = json.loads(result.read_text(encoding="utf-8"))
    rates = {
        group.name: rate(sum(is_hit(one, group.place) for one in places), len(places))
        for group, places in zip(groups(), found, strict=True)
    }
    return {"version": version_of(name, python), "groups": rates}


def measure(seed: int, series: int, peers: tuple[str, ...], console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    detectors = measure_ours(seed, series, console)
    with scratch_folder() as folder:
        environment = describe_environment(folder)
        for name in peers:
            with console.status(name):
                try:
                    detectors[name] = measure_peer(name, seed, folder)
                except PeerError as exc:
                    detectors[name] = {"error": str(exc)}
    return {
        "format": 1,
        "seed": seed,
        "series": series,
        "detectors": detectors,
        "environment": environment,
    }


def as_markdown(report: dict[str, Any]) -> list[str]:
    """
    The table of a report, as it stands in the docs: per cent, of ours false alarms with their upper
    bound.
    """
    detectors = {name: one for name, one in report["detectors"].items() if "groups" in one}
    lines = [f"| series | {' | '.join(detectors)} |", f"|---|{'---|' * len(detectors)}"]
    for group in groups():
        cells = [
            cell_of(one["groups"][group.name], is_bounded=group.place is None and name in PRESETS)
            for name, one in detectors.items()
        ]
        lines.append(f"| {group.name} | {' | '.join(cells)} |")
    return lines


def cell_of(one: dict[str, Any], *, is_bounded: bool) -> str:
    """
    One rate in per cent; a dash where a peer got to no series.
    """
    if not one["of"]:
        return "-"
    bound = f" (≤ {100 * one['upper']:.2f})" if is_bounded else ""
    return f"{100 * one['ratio']:.{2 if is_bounded else 1}f}{bound}"


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    table = Table(title="False alarms and shifts found, in per cent of series")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in as_markdown(report)]
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows[2:]:
        table.add_row(*row)
    console.print(table)
    for name, one in report["detectors"].items():
        if "error" in one:
            console.print(f"{name} is missing: {one['error']}", markup=False)


def judge(report: dict[str, Any]) -> int:
    """
    1 where the strict preset cannot be shown to keep its bound on a null that it promises; with too
    few series, that is not asked.
    """
    if report["series"] < FEWEST_SERIES:
        return 0
    rates = report["detectors"]["strict"]["groups"]
    promised = [rates[f"{name}, n = {count}"] for name in NULLS for count in COUNTS]
    return int(any(one["upper"] > 0.02 for one in promised))


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--series", type=int, default=10_000)
    options, rest = parser.parse_known_args(arguments)
    return run_benchmark(
        rest,
        description="False alarms and power of change detection; --seed N, --series N (of a null).",
        output=OUTPUT,
        measure=lambda is_quick, console: (
            measure(options.seed, 200, (), console)
            if is_quick
            else measure(options.seed, options.series, PEERS, console)
        ),
        show=print_report,
        judge=judge,
    )


if __name__ == "__main__":
    sys.exit(main())
