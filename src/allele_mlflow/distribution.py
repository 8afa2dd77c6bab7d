"""
The numbers that describe many values: what `RunLogger.distribution` logs.
"""

from __future__ import annotations

import math
from typing import Any

from allele_mlflow.queue import plain

#: The parts of the range that are told, by the name of their metric.
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


def describe_values(values: Any) -> dict[str, float] | str:
    """
    `min`, `q25`, `median`, `q75`, `max`, `mean` and `std` of values, or what was wanted instead.

    Quantiles are interpolated linearly and `std` is of the whole population, as NumPy's defaults
    are; where one value is NaN, all of them are. An array of any shape counts as its values.
    """
    if getattr(values, "ndim", 1) != 1 and hasattr(values, "reshape"):
        try:
            values = values.reshape(-1)
        except Exception as exc:  # noqa: BLE001 - the log call's border: the array is the caller's code
            return f"want numbers: {plain.said(exc)}"
    data = plain.doubles(values)
    if isinstance(data, str):
        return data
    if not len(data):
        return "want one value or more, got none"
    array: Any = data.obj
    if hasattr(array, "dtype"):  # a few passes in C
        has_nan, ordered = bool((array != array).any()), array.copy()
        ordered.sort()
    else:
        has_nan, ordered = any(value != value for value in data), sorted(data)
    if has_nan:
        return dict.fromkeys((*QUANTILES, "mean", "std"), math.nan)
    found = {name: _quantile(ordered, part) for name, part in QUANTILES.items()}
    if not (math.isfinite(found["min"]) and math.isfinite(found["max"])):
        mean, std = found["min"] + found["max"], math.nan
    elif hasattr(array, "dtype"):
        mean, std = float(array.mean()), float(array.std())
    else:
        mean = math.fsum(ordered) / len(ordered)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    return {**found, "mean": mean, "std": std}


def _quantile(ordered: Any, part: float) -> float:
    place = part * (len(ordered) - 1)
    index = int(place)
    value, rest = float(ordered[index]), place - index
    if not rest:
        return value
    return value * (1 - rest) + float(ordered[index + 1]) * rest
