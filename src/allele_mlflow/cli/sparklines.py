"""
Curves in a line of text. Pure.

A NaN or an infinity has a mark of its own, and is in no mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Glyphs:
    """
    The characters that a curve and a table are made of; each is one cell wide.
    """

    levels: str
    nan: str
    up: str
    down: str
    ellipsis: str
    dot: str


UNICODE = Glyphs(levels="▁▂▃▄▅▆▇█", nan="?", up="↑", down="↓", ellipsis="…", dot="·")
ASCII = Glyphs(levels="_.,-=+*#", nan="?", up="^", down="v", ellipsis="~", dot="-")


def glyphs_for(encoding: str) -> Glyphs:
    """
    What an output of that encoding can show.
    """
    wanted = "".join(vars(UNICODE).values())
    try:
        wanted.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def sparkline(values: Sequence[float], width: int, glyphs: Glyphs = UNICODE) -> str:
    """
    The values as a curve of at most `width` characters, from their least to their greatest.

    Where there are more values than characters, each character is the mean of some in a row, or
    the mark of those that are no numbers where these are half of them. A curve without a slope
    stands in the middle.
    """
    if width <= 0 or not values:
        return ""
    columns = list(_columns(values, min(width, len(values))))
    finite = [value for value in columns if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_mark(value, low, high, glyphs) for value in columns)


def _columns(values: Sequence[float], width: int) -> Iterator[float]:
    for column in range(width):
        part = values[column * len(values) // width : (column + 1) * len(values) // width]
        finite = [value for value in part if math.isfinite(value)]
        if 2 * len(finite) <= len(part):
            yield next(value for value in reversed(part) if not math.isfinite(value))
        elif min(finite) == max(finite):  # no rounding makes a slope of equal ones
            yield finite[0]
        else:
            # divided first, for a sum of large ones may be none
            yield sum(value / len(finite) for value in finite)


def _mark(value: float, low: float, high: float, glyphs: Glyphs) -> str:
    if math.isnan(value):
        return glyphs.nan
    if math.isinf(value):
        return glyphs.up if value > 0 else glyphs.down
    top = len(glyphs.levels) - 1
    # halved, for the difference of two large ones may be none
    span = high / 2 - low / 2
    if span == 0.0:
        return glyphs.levels[top // 2]
    share = (value / 2 - low / 2) / span
    return glyphs.levels[min(top, max(0, round(share * top)))]
