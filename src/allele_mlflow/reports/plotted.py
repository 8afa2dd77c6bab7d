"""
The numbers that figures draw: repeats as points in rows, histories as curves. Pure.

All is bounded, for a report must open in a browser: of what is too much, evenly fewer are taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from allele_mlflow.reports.summary import HISTORY_COLUMNS, check_columns, values_of
from allele_mlflow.reports.wording import clean

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
    filled = filled.iloc[_even_places(step_count, MOST_CURVE_POINTS)]
    quartiles = filled.quantile([0.25, 0.5, 0.75], axis=1).transpose()
    quartiles.columns = ["low", "median", "high"]
    return quartiles.assign(count=filled.count(axis=1)), step_count, repeat_count


def _even_places(count: int, most: int) -> list[int]:
    """
    At most `most` of `count` places, evenly apart, the first and the last among them.
    """
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]
