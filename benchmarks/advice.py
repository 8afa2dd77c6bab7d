"""
How often advice is wrong where the truth is known: matrices without and with effects, and curves
whose end is known.

No clock is read: the numbers depend on the seed and on nothing else of the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from allele_mlflow.analysis.factor_model import MatrixRuns
from allele_mlflow.analysis.factors import estimate_effects
from allele_mlflow.analysis.intervals import wilson_interval
from allele_mlflow.analysis.next_cells import propose_cells
from allele_mlflow.analysis.predictions import predict_final
from allele_mlflow.units import Direction
from benchmarks.environment import describe_environment
from benchmarks.program import run_benchmark

OUTPUT = Path(__file__).resolve().parent / "results" / "advice.json"
#: Not the one on which the interval of a step beyond was chosen (20_261_128).
SEED = 20_270_101
#: Levels of each axis, and seeds that each cell is run with.
DESIGNS = {
    "5 x 4, 3 seeds": ((5, 4), 3),
    "2 x 2, 5 seeds": ((2, 2), 5),
    "3 x 3 x 2, 3 seeds": ((3, 3, 2), 3),
}
#: What a matrix without effects is made of: n values, and the level of the first axis of each.
NOISE: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "normal": lambda chance, level: chance.normal(size=len(level)),
    "log-normal": lambda chance, level: np.exp(chance.normal(size=len(level))),
    "Student's t, 3": lambda chance, level: chance.standard_t(3, size=len(level)),
    "grows with a level": lambda chance, level: chance.normal(size=len(level)) * level,
    "three values": lambda chance, level: chance.integers(0, 3, size=len(level)).astype(float),
}
#: By how many deviations each level of the first axis is better than the one before.
SLOPES = (0.5, 1.0, 2.0)
STEPS = np.arange(101.0)
CURVES = ("exponential", "power", "exponential, AR(1) 0.7", "best so far")
PARTS = (20, 50)


def measure(is_quick: bool, console: Console) -> dict[str, Any]:
    """
    All rows.
    """
    count = 20 if is_quick else 1000
    report: dict[str, Any] = {"environment": describe_environment(Path.cwd()), "seed": SEED}
    report["count"] = count
    report["nulls"] = []
    for design, noise in product(DESIGNS, NOISE):
        console.print(f"{design}: {noise}", style="dim")
        report["nulls"].append(_matrices(design, count, noise=noise, slope=0.0))
    report["slopes"] = [
        _matrices("5 x 4, 3 seeds", count // 2, noise="normal", slope=slope) for slope in SLOPES
    ]
    report["curves"] = [
        _coverage(kind, seen, count, has_past=has_past)
        for kind, seen, has_past in product(CURVES, PARTS, (False, True))
    ]
    return report


def _matrices(design: str, count: int, *, noise: str, slope: float) -> dict[str, Any]:
    """
    How often an effect is called clear, and a cell recommended.
    """
    shape, seeds = DESIGNS[design]
    cells = list(product(*(range(1, size + 1) for size in shape))) * seeds
    points = pd.DataFrame(cells, columns=list("abc")[: len(shape)], dtype="object")
    level = np.array(cells)[:, 0].astype(np.float64)
    told = pd.Series(np.repeat(np.arange(seeds, dtype=np.float64), len(cells) // seeds))
    chance = np.random.default_rng([SEED, len(design), len(noise), round(10 * slope)])
    clear = recommended = 0
    for _ in range(count):
        values = pd.DataFrame({"y": NOISE[noise](chance, level) + slope * level})
        runs = MatrixRuns(points, values, told)
        effects = estimate_effects(runs, {"y": Direction.HIGHER})
        clear += any(one.is_clear for one in effects)
        recommended += bool(propose_cells(runs, effects, "y", Direction.HIGHER).cells)
    return {
        "design": design,
        "noise": noise,
        "slope": slope,
        "clear": _rate(clear, count),
        "recommended": _rate(recommended, count),
    }


def _curve(kind: str, chance: np.random.Generator, constant: float, exponent: float) -> np.ndarray:
    noise = chance.normal(size=len(STEPS))
    if kind == "power":
        found: np.ndarray = 10 - 5 * (1 + STEPS) ** -exponent + 0.25 * noise
        return found
    rise = 10 - 5 * np.exp(-STEPS / constant)
    if kind == "best so far":
        return np.maximum.accumulate(rise + noise)
    if kind != "exponential":
        for i in range(1, len(noise)):
            noise[i] += 0.7 * noise[i - 1]
    return np.asarray(rise + 0.25 * noise)


def _coverage(kind: str, seen: int, count: int, *, has_past: bool) -> dict[str, Any]:
    """
    How often the end lies in the intervals of its prediction, and what skill that has.
    """
    chance = np.random.default_rng([SEED, len(kind), seen, has_past])
    hits, errors = np.zeros(2, dtype=int), np.zeros(2)
    for _ in range(count):
        shape = float(np.exp(chance.uniform(np.log(5), np.log(70)))), chance.uniform(0.2, 1.5)
        own, *past = (_curve(kind, chance, *shape) for _ in range(6 if has_past else 1))
        changes = [one[-1] - one[seen - 1] for one in past]
        found = predict_final("y", STEPS[:seen], own[:seen], STEPS[-1], past_changes=changes)
        end = own[-1]
        hits += [found.low_80 <= end <= found.high_80, found.low_95 <= end <= found.high_95]
        errors += [abs(found.value - end), abs(own[seen - 1] - end)]
    return {
        "curve": kind,
        "seen": seen,
        "made_of": "five past runs" if has_past else "its own curve",
        "in_80": _rate(int(hits[0]), count),
        "in_95": _rate(int(hits[1]), count),
        "skill": 1.0 - errors[0] / errors[1],
    }


def _rate(hits: int, count: int) -> dict[str, float]:
    low, high = wilson_interval(hits, count, confidence=0.95)
    return {"ratio": hits / count, "low": low, "high": high}


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    Three tables, in percent.
    """
    table = Table(title=f"matrices, {report['count']} each of noise alone")
    for name in ("design", "noise", "levels apart", "an effect is clear", "a cell is recommended"):
        table.add_column(name)
    for row in [*report["nulls"], *report["slopes"]]:
        rates = (_text(row[name]) for name in ("clear", "recommended"))
        table.add_row(row["design"], row["noise"], f"{row['slope']:g}", *rates)
    console.print(table)
    table = Table(title="ends of curves")
    for name in ("curve", "seen of 101", "made of", "in 80 %", "in 95 %", "skill"):
        table.add_column(name)
    for row in report["curves"]:
        rates = (_text(row[name]) for name in ("in_80", "in_95"))
        table.add_row(row["curve"], str(row["seen"]), row["made_of"], *rates, f"{row['skill']:.2f}")
    console.print(table)


def _text(rate: dict[str, float]) -> str:
    parts = (100 * rate[name] for name in ("ratio", "low", "high"))
    return "{:.1f} [{:.1f}, {:.1f}]".format(*parts)


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="How often advice is wrong.",
        output=OUTPUT,
        measure=measure,
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
