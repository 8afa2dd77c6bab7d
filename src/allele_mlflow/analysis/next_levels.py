"""
Where an axis of numbers could go next: past its last level, or between its best ones.

Each answer is a new level and the weights of the known levels in the value that is to be expected
there, so that its scatter follows from theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np


def step_beyond(levels: Sequence[Any], place: int) -> tuple[Any, dict[Any, float]] | None:
    """
    One step past the last level, where `place` is one, with the weights of the known levels in a
    value that goes on as it did between the last two.

    Steps are as those before: equal differences, or equal ratios where the levels are nearer to
    that. What was positive stays so, and what lay between 0 and 1 goes to 1 at most.

    Args:
        levels: Numbers in order, two or more.
        place: Of the best.
    """
    if place not in (0, len(levels) - 1):
        return None
    last, before = levels[place], levels[1] if place == 0 else levels[-2]
    if _is_geometric(levels) or (place == 0 and min(levels) > 0 and 2 * last - before <= 0):
        level = last * (last / before)
    else:
        level = last + (last - before)
    if min(levels) >= 0 and max(levels) <= 1:
        level = min(level, 1.0)
    level = _like(level, levels)
    is_past = level <= 0 < min(levels)
    if is_past or level in levels or not math.isfinite(level):
        return None
    scale = math.log if _is_geometric(levels) else float
    share = (scale(level) - scale(last)) / (scale(last) - scale(before))
    return level, {last: 1.0 + share, before: -share}


def step_between(
    levels: Sequence[Any], means: Sequence[float], place: int
) -> tuple[Any, dict[Any, float]] | None:
    """
    The top of the parabola through an inner level and its neighbours, with the weights of the three
    in its value; None where it is at a known level.

    Args:
        levels: Numbers in order.
        means: Of each, higher is better.
        place: Of the best.
    """
    if not 0 < place < len(levels) - 1:
        return None
    scale = math.log if _is_geometric(levels) else float
    three = levels[place - 1 : place + 2]
    places = [scale(one) for one in three]
    heights = means[place - 1 : place + 2]
    slopes = [(heights[i + 1] - heights[i]) / (places[i + 1] - places[i]) for i in (0, 1)]
    bend = (slopes[1] - slopes[0]) / (places[2] - places[0])
    if not bend < 0.0:
        return None
    top = (places[0] + places[1]) / 2 - slopes[0] / (2 * bend)
    level = _like(math.exp(top) if scale is math.log else top, levels)
    if level in levels or not three[0] < level < three[2]:
        return None
    at = scale(level)
    weights = {}
    for i, one in enumerate(three):
        others = [places[j] for j in range(3) if j != i]
        weights[one] = math.prod((at - other) / (places[i] - other) for other in others)
    return level, weights


def _is_geometric(levels: Sequence[Any]) -> bool:
    """
    Whether the steps are nearer to equal ratios than to equal differences.
    """
    if len(levels) < 3 or min(levels) <= 0:
        return False
    steps = [[b - a for a, b in pairwise(one)] for one in (levels, list(map(math.log, levels)))]
    plain, ratios = (float(np.std(one) / np.mean(one)) for one in steps)
    return ratios < plain


def _like(level: float, levels: Sequence[Any]) -> Any:
    """
    A whole number where all are, else with as many digits as tell it from its neighbours.
    """
    if all(isinstance(one, int) for one in levels):
        return round(level)
    return float(f"{level:.4g}")
