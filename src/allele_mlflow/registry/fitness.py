"""
What a version's tags say of its fitness: of each metric the mean, its interval and the runs. Pure.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import NamedTuple

#: Begins the tags; then come the metric's name and one of the parts.
FITNESS_PREFIX = "allele.fitness."
_MEAN, _RUNS, _LOW, _HIGH = ".mean", ".n", ".ci_low", ".ci_high"


class Fitness(NamedTuple):
    """
    The mean of a metric over `runs` finished runs, and its 95 % interval; None where there is none.
    """

    metric: str
    mean: float
    runs: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        has_interval = self.low is not None and self.high is not None
        interval = f" [{self.low:.5g}, {self.high:.5g}]" if has_interval else ""
        return f"{self.metric} {self.mean:.5g}{interval}, n = {self.runs}"


def encode_fitness(fitness: Fitness) -> dict[str, str]:
    """
    The tags. An interval that there is none of is `nan`, so that no older one stays.
    """
    start = f"{FITNESS_PREFIX}{fitness.metric}"
    low, high = (math.nan if end is None else end for end in (fitness.low, fitness.high))
    return {
        f"{start}{_MEAN}": repr(fitness.mean),
        f"{start}{_RUNS}": str(fitness.runs),
        f"{start}{_LOW}": repr(low),
        f"{start}{_HIGH}": repr(high),
    }


def decode_fitness(tags: Mapping[str, str]) -> list[Fitness]:
    """
    The fitness in a version's tags, by metric; what is none is passed over.
    """
    found = []
    for key in sorted(tags):
        if not (key.startswith(FITNESS_PREFIX) and key.endswith(_MEAN)):
            continue
        start = key.removesuffix(_MEAN)
        with contextlib.suppress(KeyError, ValueError):  # anybody may write tags
            found.append(
                Fitness(
                    start.removeprefix(FITNESS_PREFIX),
                    float(tags[key]),
                    int(tags[f"{start}{_RUNS}"]),
                    _end(tags[f"{start}{_LOW}"]),
                    _end(tags[f"{start}{_HIGH}"]),
                )
            )
    return found


def _end(text: str) -> float | None:
    value = float(text)
    return None if math.isnan(value) else value
