"""
What a page is: a query, what it finds, and how that is shown; `catalogue.py` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, View

Params = Mapping[str, str]


class Ask(NamedTuple):
    """
    One question for a page: where to look, the values in its path, and how it is to be seen.
    """

    source: Source
    params: Params
    view: View


class Kind(StrEnum):
    """
    How a column is written.
    """

    TEXT = "text"
    NAME = "name"
    NUMBER = "number"
    COUNT = "count"
    SECONDS = "seconds"
    BYTES = "bytes"
    TIME = "time"
    RATIO = "ratio"
    STATUS = "status"
    CODE = "code"
    #: A few words that are not broken, and many that have room.
    WORDS = "words"
    SENTENCE = "sentence"


_STYLED = (Kind.TIME, Kind.NAME, Kind.WORDS, Kind.SENTENCE)


@dataclass(frozen=True)
class Column:
    """
    A column of a table.

    Attributes:
        name: The attribute of a row that it shows; by it the table is sorted.
        title: Its head.
        kind: How it is written.
        path: Of the page that it leads to, in which attributes of the row stand in braces.
        can_sort: Whether the page can be sorted by it.
        option: The option of the page that its link sets to its value.
        also: Options that the link sets to attributes of the row by the same names.
        below: The attribute whose words stand below the value, in small letters.
    """

    name: str
    title: str
    kind: Kind = Kind.TEXT
    path: str = ""
    can_sort: bool = True
    option: str = ""
    also: tuple[str, ...] = ()
    below: str = ""

    @property
    def style(self) -> str:
        """
        The class of its cells: numbers stand to the right, times and words in one line, and
        sentences have room.
        """
        if self.is_number:
            return "number"
        return self.kind.value if self.kind in _STYLED else ""

    @property
    def is_number(self) -> bool:
        """
        Whether it stands to the right.
        """
        return self.kind in (*(Kind.NUMBER, Kind.COUNT, Kind.SECONDS, Kind.BYTES, Kind.RATIO),)


#: A table's columns, or what makes them of what a page found.
Columns: TypeAlias = tuple[Column, ...] | Callable[[Any], tuple[Column, ...]]
PAIR_COLUMNS = (Column("key", "Name", Kind.NAME), Column("value", "Value"))


@dataclass(frozen=True)
class Page:
    """
    One page.

    Attributes:
        name: Of the page, in our own code and in the API's description.
        path: Its address, values in braces.
        summary: What it shows, in a line.
        query: Finds its content; may block.
        content: The type of that, a msgspec struct: the API's answer.
        template: Shows it.
        title: In the bar at the top; empty for one that only links lead to.
        tab: Among the pages of an experiment; empty for others.
        columns: Of its tables, by their names in the template; where they depend on what was
            found, a function of that.
        knobs: What its URL may say.
        figures: Each by its name: makes a plotly figure, for a dark page or a light one; None where
            there is nothing to draw. May block.
        instances: The values of its path for which a static copy has a page each.
    """

    name: str
    path: str
    summary: str
    query: Callable[[Ask], Any]
    content: type
    template: str
    title: str = ""
    tab: str = ""
    columns: Mapping[str, Columns] = field(default_factory=dict)
    knobs: Knobs = field(default_factory=Knobs)
    figures: Mapping[str, Callable[[Ask, bool], Any]] = field(default_factory=dict)
    instances: Callable[[Source], Iterable[Params]] = lambda source: [{}]

    @property
    def param_names(self) -> list[str]:
        """
        The names in the braces of its path.
        """
        return [part.partition("}")[0] for part in self.path.split("{")[1:]]


@dataclass(frozen=True)
class Action:
    """
    Something that a form of ours changes; the guard has looked at who sent it.

    Attributes:
        name: In our own code.
        path: Where the form is sent to, values in braces.
        perform: Does it, as the visitor of that name, with the form's fields; returns the path of
            the page to go to. May block.
        page: The path of the page that has the form.
    """

    name: str
    path: str
    perform: Callable[[Source, Params, Mapping[str, str], str], str]
    page: str
