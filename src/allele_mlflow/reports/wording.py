"""
How names, numbers and times are written in a report, whatever is in them.
"""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime

from allele_mlflow.units import Direction

#: What stands where nothing was measured.
MISSING = "\N{EN DASH}"
_DIGITS = 4
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-3, 1e7
#: Control characters, halves of surrogate pairs, and what turns the direction of writing around.
_UNSHOWN = frozenset({"Cc", "Cs"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: object) -> str:
    """
    Text that any file and page can hold in one line: spaces for line breaks, � for what has no
    picture.
    """
    return "".join(map(_clean_character, str(text)))


def shorten(text: str, most_characters: int) -> str:
    """
    The text, without its middle where it is too long: names of cells differ at both ends.
    """
    if len(text) <= most_characters:
        return text
    head = most_characters // 2
    return f"{text[:head]}…{text[len(text) - (most_characters - head - 1) :]}"


def write_number(value: float | None) -> str:
    """
    Four digits that count; thousands apart; `MISSING` for None and NaN.
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size == 0:
        return "0"
    if not _SMALLEST_PLAIN <= size < _LARGEST_PLAIN:
        return f"{value:.{_DIGITS - 1}e}"
    return f"{value:,.{max(0, _DIGITS - 1 - math.floor(math.log10(size)))}f}"


def write_duration(seconds: float | None) -> str:
    """
    A length of time as a person says it.
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{write_number(seconds)} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest_s} s"


def write_time(moment: datetime) -> str:
    """
    A moment in UTC, to the second.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r}: want a moment with its time zone, e.g. datetime.now(UTC)")
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def write_ratio(part: int, whole: int) -> str:
    """
    A part of a whole in percent; `MISSING` where there is no whole.
    """
    return f"{part / whole:.0%}".replace("%", " %") if whole else MISSING


def explain(unit: str, direction: Direction) -> str:
    """
    Unit and better direction of a metric in brackets; empty where neither is known.
    """
    better = "" if direction is Direction.NONE else f"{direction.value} is better"
    inside = ", ".join(part for part in (clean(unit), better) if part)
    return f" ({inside})" if inside else ""


def _clean_character(character: str) -> str:
    if character in "\n\r\t":
        return " "
    if character in _BIDI or unicodedata.category(character) in _UNSHOWN:
        return "�"
    return character
