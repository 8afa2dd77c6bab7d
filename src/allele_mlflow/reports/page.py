"""
What a report is made of, whatever it is written into: a headline, and sections of figures and
tables. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from allele_mlflow.reports.tables import Table


class Draw(Protocol):
    """
    Draws a figure of plotly; called once for a light page and once for a dark one.
    """

    def __call__(self, *, is_dark: bool) -> Any:
        """
        The figure.
        """


@dataclass(frozen=True)
class Section:
    """
    One part of a report.

    Attributes:
        title: Its heading.
        table: All that its figures show, in words.
        draws: Its figures.
        notes: What a reader must know of it, in plain text.
        empty: What stands in the place of a table without rows.
        is_wide: The table has many columns: its first stays in sight.
        is_half: It may stand beside another.
        is_optional: Left out where the table has no rows.
        is_brief: Part of the summary in Markdown.
    """

    title: str
    table: Table
    draws: tuple[Draw, ...] = ()
    notes: tuple[str, ...] = ()
    empty: str = "None."
    is_wide: bool = False
    is_half: bool = False
    is_optional: bool = False
    is_brief: bool = True


@dataclass(frozen=True)
class Page:
    """
    A report.

    Attributes:
        kind: What it is of, in a word or two.
        name: Whose it is.
        headline: Names and values of what a reader wants first.
        notes: What a reader must know before the numbers.
        sections: In order.
        footer: How to read it.
    """

    kind: str
    name: str
    headline: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    footer: str
