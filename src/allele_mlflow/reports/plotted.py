"""
The numbers that figures draw: repeats as points in rows, histories as curves, phases as bars. Pure.

All is bounded, for a report must open in a browser: of what is too much, evenly fewer are taken.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from allele_mlflow.reports.summary import HISTORY_COLUMNS, check_columns, values_of
from allele_mlflow.reports.wording import clean
from allele_mlflow.units import Direction

#: Points of repeats in one figure, and points of one curve, at most.
MOST_REPEAT_POINTS = 4000
MOST_CURVE_POINTS = 200
#: Spreads repeats of a cell evenly over its row, whatever their number, without chance.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def repeat_points(outcomes: pd.DataFrame, objective: str, keys: Sequence[str]) -> pd.DataFrame:
    """
    One row a repeat of the cells shown: `row` of its cell, `height` in that row, `value` or NaN.
    """
    points = outcomes.assign(value=values_of(outcomes, f"metric.{objective}"))
    points = points[points.cell_key.isin(keys)]
    points = points.assign(row=points.cell_key.map({key: row for row, key in enumerate(keys)}))
    points = points.sort_values("row", kind="stable", ignore_index=True)
    numbers = points.groupby("row").cumcount()
    return points.assign(height=points.row + 0.5 * ((numbers * _GOLDEN_RATIO + 0.5) % 1 - 0.5))


def thin_repeats(points: pd.DataFrame) -> pd.DataFrame:
    """
    Evenly fewer repeats of each cell, so many that all fit; of each at least one.
    """
    stride = math.ceil(len(points) / MOST_REPEAT_POINTS) if len(points) else 1
    return points[points.groupby("row").cumcount() % stride == 0] if stride > 1 else points


def names_of(points: pd.DataFrame, cell_count: int) -> list[str]:
    """
    The names of the cells, by row.
    """
    names = points.drop_duplicates("row").set_index("row").cell
    return [clean(names[row]) for row in range(cell_count)]


def tell_apart(names: Sequence[str]) -> list[str]:
    """
    Names that shortening, or their owner, made equal, told apart by their place.
    """
    counts = Counter(names)
    return [f"{name} ·{place}" if counts[name] > 1 else name for place, name in enumerate(names, 1)]


def readings_of(history: pd.DataFrame, objective: str) -> tuple[pd.DataFrame, int]:
    """
    Finite readings of one key in order of time, and how many there were without a value.
    """
    frame = check_columns(history, HISTORY_COLUMNS, name="history")
    frame = frame[frame.key == objective]
    values = pd.to_numeric(frame["value"], errors="coerce").astype("float64")
    frame = frame.assign(value=values, cell=frame.cell.where(frame.cell.notna(), frame.cell_key))
    is_finite = values.abs() < math.inf
    readings = frame[is_finite]
    if "timestamp_ms" in readings.columns:
        # only the order within a cell matters: the cells stay as they first appear
        first_seen = pd.Series(pd.factorize(readings.cell_key)[0], index=readings.index)
        readings = readings.assign(place=first_seen).sort_values(
            ["place", "timestamp_ms"], kind="stable"
        )
    return readings, int((~is_finite).sum())


def curve_of(readings: pd.DataFrame) -> tuple[pd.DataFrame, int, int]:
    """
    Low, median, high and count by step, thinned; how many steps and repeats there were.
    """
    last = readings.drop_duplicates(["repeat", "step"], keep="last")
    table = last.pivot(index="step", columns="repeat", values="value").sort_index()
    step_count, repeat_count = table.shape
    filled = table.ffill().where(table.bfill().notna())
    filled = filled.iloc[even_places(step_count, MOST_CURVE_POINTS)]
    # of halves, for the sum of two values may be too large for a number
    quartiles = 2.0 * (filled / 2.0).quantile([0.25, 0.5, 0.75], axis=1).transpose()
    quartiles.columns = ["low", "median", "high"]
    return quartiles.assign(count=filled.count(axis=1)), step_count, repeat_count


def even_places(count: int, most: int) -> list[int]:
    """
    At most `most` of `count` places, evenly apart, the first and the last among them.
    """
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def levels_of(values: pd.Series, direction: Direction) -> pd.Series:
    """
    The rank of each value as a part, 1 for the best (where no way is better: the highest); NaN for
    what is none, 1 where there is but one.
    """
    ranks = values.rank(ascending=direction is not Direction.LOWER, method="average")
    count = values.notna().sum()
    return (ranks - 1) / (count - 1) if count > 1 else ranks


def blend(one: str, other: str, part: float) -> str:
    """
    A colour between two.
    """
    pairs = [(int(one[at : at + 2], 16), int(other[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(low + (high - low) * part):02x}" for low, high in pairs)


def thin_peaks(values: np.ndarray[Any, Any], most: int) -> list[int]:
    """
    Places of at most `most` values, in order: of each of `most` / 2 even parts its smallest and its
    largest, so that no peak is lost.
    """
    if len(values) <= most:
        return list(range(len(values)))
    places: set[int] = set()
    edges = np.linspace(0, len(values), most // 2 + 1).astype(int)
    for start, end in itertools.pairwise(edges.tolist()):
        part = values[start:end]
        places |= {start + int(part.argmin()), start + int(part.argmax())}
    return sorted(places)


def merge_spans(spans: pd.DataFrame, *, near_ratio: float) -> pd.DataFrame:
    """
    Spans of one name that nearly touch as one.

    Args:
        spans: Columns name, step, begin_s, seconds, is_complete.
        near_ratio: How near, as a part of the time from the first begin to the last end.
    Returns:
        The same columns and `count_of`; what is not complete stands alone.
    """
    ordered = spans.sort_values(["name", "begin_s"], kind="stable", ignore_index=True)
    ends = ordered.begin_s + ordered.seconds
    near_s = near_ratio * (ends.max() - ordered.begin_s.min()) if len(ordered) else 0.0
    reach = ends.groupby(ordered.name).cummax().groupby(ordered.name).shift()
    is_apart = reach.isna() | (ordered.begin_s - reach > near_s) | ~ordered.is_complete.astype(bool)
    is_apart |= ~ordered.is_complete.astype(bool).shift(fill_value=True)
    grouped = ordered.assign(end_s=ends).groupby(is_apart.cumsum(), sort=False)
    found = grouped.agg(
        name=("name", "first"),
        step=("step", "first"),
        begin_s=("begin_s", "first"),
        end_s=("end_s", "max"),
        is_complete=("is_complete", "first"),
        count_of=("name", "size"),
    )
    return found.assign(seconds=found.end_s - found.begin_s).reset_index(drop=True)


def ancestry_of(genome_id: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """
    A genome and all that it came from, as far as they are known; empty where it is not.
    """
    found: set[str] = set()
    waiting = [genome_id] if genome_id in parents else []
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [parent for parent in parents[one] if parent in parents]
    return found
