"""
How often the statistics of comparison are wrong, on data of which the truth is known.

Each data set is a column, so that thousands of them are tested as one table. Skewed data are
log-normal with a sigma of 0.5, heavy-tailed ones Student's with three degrees of freedom, tied ones
whole numbers (Poisson with a mean of 2).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from allele_mlflow.analysis.comparison import CompareOptions, compare
from allele_mlflow.analysis.differences import permutation_tests, rank_tests
from allele_mlflow.analysis.effects import estimate_a12
from allele_mlflow.analysis.intervals import estimate_differences, wilson_interval
from allele_mlflow.analysis.locations import FloatArray, Location, centres_of
from allele_mlflow.analysis.power import Design

ALPHA = 0.05
#: Runs a side. Coverage is promised from ten on.
COUNTS = (5, 10, 15, 20, 30)
SHAPES = ("normal", "skewed", "heavy-tailed", "tied")
#: A12 of two normal samples that are 0.8 apart: Phi(0.8 / sqrt(2)).
SHIFTED_A12 = float(stats.norm.cdf(0.8 / np.sqrt(2)))
#: Data sets that are tested as one table; bounds the memory.
CHUNK = 500


class Effort(NamedTuple):
    """
    How much is tried.
    """

    sets: int
    arrangements: int
    resamples: int
    population: int


FULL = Effort(sets=4000, arrangements=19_999, resamples=10_000, population=2_000_000)
QUICK = Effort(sets=40, arrangements=199, resamples=100, population=20_000)


def draw(shape: str, size: tuple[int, ...], chance: np.random.Generator) -> FloatArray:
    """
    Values of one of the shapes.
    """
    if shape == "skewed":
        return np.exp(0.5 * chance.normal(size=size))
    if shape == "heavy-tailed":
        return chance.standard_t(3, size=size)
    if shape == "tied":
        return chance.poisson(2.0, size=size).astype(np.float64)
    return chance.normal(size=size)


def measure_errors(effort: Effort, seed: int) -> Iterator[dict[str, Any]]:
    """
    False rejections at nominal 5 % where both sides are drawn from the same distribution.
    """
    chance = np.random.default_rng([seed, 1])
    for is_paired, shape, count in product((False, True), SHAPES, COUNTS):
        counts = {"permutation test": 0, "rank test": 0}
        for sets in _chunks(effort.sets):
            first, second = draw(shape, (2, count, sets), chance)
            for name, test in zip(counts, (permutation_tests, rank_tests), strict=True):
                found = test(first, second, is_paired=is_paired, arrangements=effort.arrangements)
                counts[name] += sum(one.p_value < ALPHA for one in found)
        for name, rejected in counts.items():
            yield {
                "test": name,
                "pairs": is_paired,
                "data": shape,
                "runs": count,
                **_rate(rejected, effort.sets),
                "attainable": round(Design(count, is_paired=is_paired).attainable_alpha, 5),
            }


def measure_coverage(effort: Effort, seed: int) -> Iterator[dict[str, Any]]:
    """
    How often the interval at nominal 95 % contains the true difference; `scaled`: the second side
    scatters twice as much.
    """
    chance = np.random.default_rng([seed, 2])
    cases = product((False, True), SHAPES[:3], (False, True), Location, COUNTS[1:])
    for is_paired, shape, is_scaled, location, count in cases:
        factor = 2.0 if is_scaled else 1.0
        truth = _true_difference(shape, factor, location, is_paired, effort, chance)
        held, methods = 0, set()
        for sets in _chunks(effort.sets):
            first, second = draw(shape, (2, count, sets), chance)
            found = estimate_differences(
                first,
                factor * second,
                is_paired=is_paired,
                location=location,
                resamples=effort.resamples,
            )
            held += sum(not one.excludes(truth) for one in found)
            methods |= {one.method for one in found}
        yield {
            "location": location.value,
            "method": ", ".join(sorted(methods)),
            "pairs": is_paired,
            "data": shape,
            "scaled": is_scaled,
            "runs": count,
            **_rate(held, effort.sets),
        }


def measure_others(effort: Effort, seed: int) -> Iterator[dict[str, Any]]:
    """
    Coverage of what is beside the intervals of differences: SciPy's BCa of means, which is not
    used because of it, and the interval of A12.
    """
    chance = np.random.default_rng([seed, 3])
    sets = effort.sets // 2
    for shape, count in product(SHAPES[:3], COUNTS[1:]):
        held = sum(
            _scipy_bca_holds(draw(shape, (2, count, some), chance), effort)
            for some in _chunks(sets, 100)
        )
        yield {
            "interval": "BCa of means (SciPy)",
            "data": shape,
            "runs": count,
            **_rate(held, sets),
        }
    for count in COUNTS:
        first, second = draw("normal", (2, count, sets), chance)
        found = estimate_a12(first, second + 0.8, resamples=max(effort.resamples // 5, 100))
        held = sum(not one.excludes(SHIFTED_A12) for one in found)
        yield {"interval": "A12", "data": "normal", "runs": count, **_rate(held, sets)}


def measure_power(effort: Effort, seed: int) -> Iterator[dict[str, Any]]:
    """
    How often a true shift of one standard deviation is found; Welch's t-test beside it.
    """
    chance = np.random.default_rng([seed, 4])
    for shape, count in product(SHAPES[:3], (10, 20)):
        first, second = draw(shape, (2, count, effort.sets), chance)
        second = second + float(draw(shape, (effort.population,), chance).std())
        counts = {"welch": _welch_rejections(first, second)}
        for sets in np.array_split(np.arange(effort.sets), -(-effort.sets // CHUNK)):
            sides = first[:, sets], second[:, sets]
            for location in Location:
                tested = permutation_tests(
                    *sides, location=location, arrangements=effort.arrangements
                )
                rejected = sum(one.p_value < ALPHA for one in tested)
                counts[location.value] = counts.get(location.value, 0) + rejected
            ranked = rank_tests(*sides, arrangements=effort.arrangements)
            counts["ranks"] = counts.get("ranks", 0) + sum(one.p_value < ALPHA for one in ranked)
        ratios = {name: round(found / effort.sets, 4) for name, found in counts.items()}
        yield {"data": shape, "runs": count, **ratios, "said": round(Design(count).power(1.0), 4)}


def measure_speed(is_quick: bool, seed: int) -> Iterator[dict[str, Any]]:
    """
    `compare` of 200 runs of 50 metrics, all of one cell and over ten cells.
    """
    chance = np.random.default_rng([seed, 5])
    metrics = 3 if is_quick else 50
    for cells, location in product((1, 10), (Location.MEAN, Location.MEDIAN)):
        sides = []
        for _ in range(2):
            table = pd.DataFrame(
                chance.lognormal(size=(100, metrics)),
                columns=[f"metric_{number}" for number in range(metrics)],
            )
            sides.append(table.assign(cell=np.repeat(np.arange(cells), 100 // cells)))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = compare(*sides, options=CompareOptions(location=location))
        yield {
            "runs": 200,
            "cells": cells,
            "metrics": metrics,
            "location": location.value,
            "rows": len(found.rows),
            "wall_s": round(time.perf_counter() - wall_s, 2),
            "cpu_s": round(time.process_time() - cpu_s, 2),
        }


def _true_difference(
    shape: str,
    factor: float,
    location: Location,
    is_paired: bool,
    effort: Effort,
    chance: np.random.Generator,
) -> float:
    """
    Of the whole population; by a large sample where no formula is at hand.
    """
    if shape != "skewed" or (factor == 1.0 and not is_paired):
        return 0.0  # symmetric around zero, or the same twice
    if location is Location.MEAN:
        return (factor - 1.0) * float(np.exp(0.125))
    if factor == 1.0:
        return 0.0  # the difference of two independent draws is symmetric
    if is_paired:
        one, other = draw(shape, (2, effort.population), chance)
        return float(centres_of(factor * other - one, location))
    return (factor - 1.0) * float(centres_of(draw(shape, (effort.population,), chance), location))


def _scipy_bca_holds(sides: FloatArray, effort: Effort) -> int:
    first, second = (side.T for side in sides)
    found = stats.bootstrap(
        (second, first),
        lambda one, other, axis: one.mean(axis=axis) - other.mean(axis=axis),
        axis=-1,
        n_resamples=max(effort.resamples // 5, 100),
        batch=200,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return int(np.count_nonzero((found.low <= 0.0) & (found.high >= 0.0)))


def _welch_rejections(first: FloatArray, second: FloatArray) -> int:
    p_values = stats.ttest_ind(first, second, equal_var=False).pvalue
    return int(np.count_nonzero(p_values < ALPHA))


def _rate(count: int, sets: int) -> dict[str, float]:
    low, high = wilson_interval(count, sets, confidence=0.95)
    return {"rate": round(count / sets, 5), "low": round(low, 5), "high": round(high, 5)}


def _chunks(sets: int, largest: int = CHUNK) -> Iterator[int]:
    for start in range(0, sets, largest):
        yield min(largest, sets - start)
