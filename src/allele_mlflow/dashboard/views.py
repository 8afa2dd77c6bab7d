"""
How a page is to be seen, which its URL says: filter, sort, group, page, options. Pure.

A view that is worth keeping is a bookmark. What means nothing is refused and never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.errors import MatrixError
from allele_mlflow.expressions import parse_expression
from allele_mlflow.numerals import whole_number

T = TypeVar("T")

DEFAULT_ROWS, MOST_ROWS = 50, 500
MOST_PAGES = 1_000_000
LONGEST_TEXT = 2000
#: What each page with a table of the kind knows.
FILTER, FIND, SORT, GROUP, PAGE, ROWS = "filter", "find", "sort", "group", "page", "rows"


@dataclass(frozen=True)
class Option:
    """
    Something that a page may be told besides: its name in the URL, and what it may be.

    Attributes:
        name: In the URL and of the control.
        label: For people.
        choices: What it may be; any text where there are none.
        default: Where the URL does not say it.
        is_repeated: The URL may say it several times: all that are not empty are in `View.lists`.
    """

    name: str
    label: str
    choices: tuple[str, ...] = ()
    default: str = ""
    is_repeated: bool = False


@dataclass(frozen=True)
class Knobs:
    """
    What a page understands in its URL.

    Attributes:
        sorts: Columns by which it can be sorted; `metric.` and the like stand for all that begin
            so.
        has_filter: It takes an expression over params and tags.
        has_find: It takes a text that names must contain.
        has_group: It takes a param or tag to group by.
        has_pages: It has a table in pages.
        options: Of its own.
        default_sort: Where the URL names none.
    """

    sorts: tuple[str, ...] = ()
    has_filter: bool = False
    has_find: bool = False
    has_group: bool = False
    has_pages: bool = False
    options: tuple[Option, ...] = ()
    default_sort: str = ""

    @property
    def names(self) -> list[str]:
        """
        All names that the URL may have.
        """
        flags = {
            FILTER: self.has_filter,
            FIND: self.has_find,
            SORT: bool(self.sorts),
            GROUP: self.has_group,
            PAGE: self.has_pages,
            ROWS: self.has_pages,
        }
        return [
            *(name for name, is_known in flags.items() if is_known),
            *(option.name for option in self.options),
        ]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """
    One way to see a page. `sort` has a minus before it where the largest comes first.
    """

    filter: str = ""
    find: str = ""
    sort: str = ""
    group: str = ""
    page: int = 1
    rows: int = DEFAULT_ROWS
    options: dict[str, str] = {}
    lists: dict[str, list[str]] = {}

    @property
    def sort_name(self) -> str:
        """
        The column, without its direction.
        """
        return self.sort.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        """
        Whether the largest comes first.
        """
        return self.sort.startswith("-")

    def sorted_by(self, name: str) -> View:
        """
        The same by a column; by the same column once more, the other way round.
        """
        is_same = self.sort == name
        return msgspec.structs.replace(self, sort=f"-{name}" if is_same else name, page=1)

    def at_page(self, page: int) -> View:
        """
        The same at another page.
        """
        return msgspec.structs.replace(self, page=page)

    def with_option(self, name: str, value: str) -> View:
        """
        The same with another option, at its first page.
        """
        return msgspec.structs.replace(self, options=self.options | {name: value}, page=1)

    def query(self) -> str:
        """
        As a URL has it behind its question mark; empty where nothing is unusual.
        """
        usual = View()
        told = {name: getattr(self, name) for name in (FILTER, FIND, SORT, GROUP, PAGE, ROWS)}
        told = {name: value for name, value in told.items() if value != getattr(usual, name)}
        told |= {name: value for name, value in self.options.items() if value}
        return urlencode(told | self.lists, doseq=True)


def parse_view(pairs: Iterable[tuple[str, str]], knobs: Knobs) -> View:
    """
    The view that a URL's query says.

    Raises:
        RefusalError: 400: a name that the page does not know, or twice, or a value that means
            nothing.
    """
    given: dict[str, str] = {}
    lists: dict[str, list[str]] = {one.name: [] for one in knobs.options if one.is_repeated}
    for name, value in pairs:
        if name not in knobs.names:
            known = ", ".join(knobs.names) or "nothing"
            raise RefusalError(400, f"{name}={value!r}: this page knows {known}")
        if name in given and name not in lists:
            raise RefusalError(400, f"{name} stands in the address twice: want it once")
        if len(value) > LONGEST_TEXT:
            raise RefusalError(
                400, f"{name} has {len(value):,} characters: want at most {LONGEST_TEXT:,}"
            )
        given[name] = value
        if name in lists and value.strip():
            lists[name].append(value.strip())
    return View(
        filter=_checked_filter(given.get(FILTER, "").strip()),
        find=given.get(FIND, "").strip(),
        sort=_checked_sort(given.get(SORT) or knobs.default_sort, knobs),
        group=given.get(GROUP, "").strip(),
        page=_whole_number(given, PAGE, 1, MOST_PAGES),
        rows=_whole_number(given, ROWS, DEFAULT_ROWS, MOST_ROWS),
        options={
            one.name: _checked_option(one, given) for one in knobs.options if not one.is_repeated
        },
        lists=lists,
    )


def typed_view(pairs: Iterable[tuple[str, str]], knobs: Knobs) -> View:
    """
    What a URL's query says, whether it means something or not: to show a form as it was filled in.
    """
    given = [(name, value[:LONGEST_TEXT].strip()) for name, value in pairs]
    last = dict(given)
    return View(
        filter=last.get(FILTER, ""),
        find=last.get(FIND, ""),
        group=last.get(GROUP, ""),
        options={
            one.name: last.get(one.name, one.default)
            for one in knobs.options
            if not one.is_repeated
        },
        lists={
            one.name: [value for name, value in given if name == one.name and value]
            for one in knobs.options
            if one.is_repeated
        },
    )


class Paged(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """
    The rows of one page, and of how many.
    """

    rows: list[T]
    row_count: int
    page: int
    page_count: int
    #: The number of the first row shown, from 1; 0 where there is none.
    first: int


def page_of(items: Sequence[T], view: View) -> Paged[T]:
    """
    The items of the view's page; of a page past the end, the last one.
    """
    page_count = max(1, -(-len(items) // view.rows))
    page = min(view.page, page_count)
    start = (page - 1) * view.rows
    return Paged(
        rows=list(items[start : start + view.rows]),
        row_count=len(items),
        page=page,
        page_count=page_count,
        first=start + 1 if items else 0,
    )


def sorted_rows(items: Iterable[T], view: View, value_of: Callable[[T, str], Any]) -> list[T]:
    """
    The items in the view's order; those without a value last, whichever way it goes.
    """
    rows = list(items)
    if not view.sort:
        return rows
    known: list[tuple[Any, T]] = []
    unknown: list[tuple[Any, T]] = []
    for row in rows:
        value = value_of(row, view.sort_name)
        (unknown if value is None or value != value else known).append((value, row))
    are_numbers = all(isinstance(value, int | float) for value, _ in known)
    known.sort(
        key=lambda pair: pair[0] if are_numbers else str(pair[0]), reverse=view.is_descending
    )
    return [row for _, row in (*known, *unknown)]


def _checked_filter(text: str) -> str:
    if text:
        try:
            parse_expression(text)
        except MatrixError as exc:
            raise RefusalError(400, str(exc)) from exc
    return text


def _checked_sort(text: str, knobs: Knobs) -> str:
    name = text.removeprefix("-")
    is_known = any(
        name == one or (one.endswith(".") and name.startswith(one)) for one in knobs.sorts
    )
    if text and not is_known:
        raise RefusalError(400, f"sort={text!r}: want one of {', '.join(knobs.sorts)}")
    return text


def _checked_option(option: Option, given: dict[str, str]) -> str:
    value = given.get(option.name, option.default).strip()
    if option.choices and value not in (*option.choices, option.default):
        raise RefusalError(400, f"{option.name}={value!r}: want one of {', '.join(option.choices)}")
    return value


def _whole_number(given: dict[str, str], name: str, default: int, most: int) -> int:
    text = given.get(name, "").strip()
    if not text:
        return default
    number = whole_number(text)
    if number is None or not 1 <= number <= most:
        raise RefusalError(400, f"{name}={text!r}: want a number from 1 to {most:,}")
    return number
