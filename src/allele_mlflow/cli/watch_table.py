"""
A table of keys and their curves in so many columns of a terminal. Pure.

What does not fit gives way in an order: the greatest and least, rate and step go first, the curve
and long names are cut, the newest value stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from allele_mlflow.cli.sparklines import UNICODE, Glyphs, sparkline
from allele_mlflow.watching.run_document import bounds

#: Beside the key, in the order in which they are given room.
NUMBERS = ("last", "step", "per s", "min", "max")
LEAST_KEY = 16
LEAST_CURVE = 12
LONGEST_CURVE = 60
GAP = "  "


@dataclass(frozen=True)
class KeyRow:
    """
    One key. `key` is fit for a terminal; `values` are oldest first, and not empty.
    """

    key: str
    values: Sequence[float]
    step: int
    per_s: float | None

    def cell(self, column: str) -> str:
        """
        The text of one of `NUMBERS`.
        """
        match column:
            case "last":
                return value_text(self.values[-1])
            case "step":
                return str(self.step)
            case "per s":
                return rate_text(self.per_s)
            case _:
                low, high = bounds(self.values)
                return value_text(low if column == "min" else high)


def value_text(value: float) -> str:
    """
    A value in a few characters.
    """
    return f"{value:.6g}"


def rate_text(per_s: float | None) -> str:
    """
    A rate; a dash where it is not known.
    """
    if per_s is None:
        return "-"
    return f"{per_s:,.1f}" if per_s < 100 else f"{per_s:,.0f}"


def fit(text: str, width: int, glyphs: Glyphs = UNICODE) -> str:
    """
    The text in at most `width` cells of a terminal, some of which are two for one character.
    """
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1).rstrip() + glyphs.ellipsis


def table_lines(rows: Sequence[KeyRow], width: int, glyphs: Glyphs = UNICODE) -> list[str]:
    """
    A head and a line for each row, none wider than `width`; without rows nothing.
    """
    if not rows:
        return []
    cells = {name: [row.cell(name) for row in rows] for name in NUMBERS}
    widths = {name: max(map(len, (name, *texts))) for name, texts in cells.items()}
    wanted = max(cell_len(row.key) for row in rows)
    names = _fitting(widths, width - min(wanted, LEAST_KEY) - len(GAP) - LEAST_CURVE)
    rest = width - sum(widths[name] + len(GAP) for name in names)
    key_width = max(1, min(wanted, rest - len(GAP) - LEAST_CURVE, max(LEAST_KEY, rest // 2)))
    if rest < LEAST_KEY + len(GAP) + LEAST_CURVE:  # no room for a curve
        key_width = max(1, min(wanted, rest))
    curve_width = min(LONGEST_CURVE, rest - key_width - len(GAP))
    lines = [_line("key", key_width, [name.rjust(widths[name]) for name in names], "", glyphs)]
    for index, row in enumerate(rows):
        numbers = [cells[name][index].rjust(widths[name]) for name in names]
        curve = sparkline(row.values, curve_width, glyphs)
        lines.append(_line(row.key, key_width, numbers, curve, glyphs))
    return [fit(line, width, glyphs) for line in lines]


def _fitting(widths: dict[str, int], room: int) -> list[str]:
    names = [NUMBERS[0]]
    room -= widths[NUMBERS[0]] + len(GAP)
    for name in NUMBERS[1:]:
        room -= widths[name] + len(GAP)
        if room < 0:
            break
        names.append(name)
    return names


def _line(key: str, key_width: int, numbers: list[str], curve: str, glyphs: Glyphs) -> str:
    name = set_cell_size(fit(key, key_width, glyphs), key_width)
    return GAP.join([name, *numbers, curve]).rstrip()
