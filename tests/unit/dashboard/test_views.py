"""
What an address may say about how a page is seen.
"""

from __future__ import annotations

import math
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.views import (
    LONGEST_TEXT,
    Knobs,
    Option,
    View,
    page_of,
    parse_view,
    sorted_rows,
)

KNOBS = Knobs(
    sorts=("name", "metric."),
    has_filter=True,
    has_find=True,
    has_group=True,
    has_pages=True,
    options=(Option("state", "State", ("waiting", "all"), "waiting"), Option("metric", "Metric")),
    default_sort="-name",
)


def test_nothing_said_is_the_usual_view() -> None:
    """
    Without a query a page is seen as it usually is.
    """
    view = parse_view([], KNOBS)
    assert view == View(sort="-name", options={"state": "waiting", "metric": ""})


def test_all_is_said() -> None:
    """
    Each name of the address is heard.
    """
    query = "filter=a+<+2&find=x&sort=-metric.loss/x&group=b&page=3&rows=20&state=all&metric=m"
    view = parse_view(parse_qsl(query), KNOBS)
    assert (view.filter, view.find, view.group) == ("a < 2", "x", "b")
    assert (view.sort_name, view.is_descending) == ("metric.loss/x", True)
    assert (view.page, view.rows) == (3, 20)
    assert view.options == {"state": "all", "metric": "m"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("colour=red", "this page knows filter, find, sort"),
        ("page=0", "a number from 1"),
        ("page=-1", "a number from 1"),
        ("page=1e9", "a number from 1"),
        ("page=99999999999999999999", "a number from 1"),
        ("page=٣", "a number from 1"),
        ("rows=501", "from 1 to 500"),
        ("page=1&page=2", "twice"),
        ("sort=size", "want one of name, metric."),
        ("sort=--name", "want one of name"),
        ("filter=import os", "import os"),
        ("filter=__import__('os')", "__import__"),
        ("state=gone", "want one of waiting, all"),
        (f"find={'x' * (LONGEST_TEXT + 1)}", "want at most 2,000"),
    ],
)
def test_what_means_nothing_is_refused(query: str, words: str) -> None:
    """
    A name or value that means nothing is told, with what would.
    """
    with pytest.raises(RefusalError, match=words) as caught:
        parse_view(parse_qsl(query), KNOBS)
    assert caught.value.status == 400


@given(
    find=st.text(max_size=50).map(str.strip),
    group=st.text(max_size=50).map(str.strip),
    page=st.integers(1, 1_000_000),
    rows=st.integers(1, 500),
    metric=st.text(max_size=50).map(str.strip),
    sort=st.sampled_from(["-name", "name", "metric.a&b=c", "-metric.#?"]),
)
def test_view_comes_back_from_its_address(
    find: str, group: str, page: int, rows: int, metric: str, sort: str
) -> None:
    """
    A view written into an address is the same view when it is read, whatever the texts hold.
    """
    options = {"state": "all", "metric": metric}
    view = View(find=find, group=group, page=page, rows=rows, sort=sort, options=options)
    assert parse_view(parse_qsl(view.query(), keep_blank_values=True), KNOBS) == view


@pytest.mark.parametrize(
    ("count", "page", "rows", "shown", "at", "pages", "first"),
    [
        (0, 1, 50, [], 1, 1, 0),
        (5, 1, 2, [0, 1], 1, 3, 1),
        (5, 3, 2, [4], 3, 3, 5),
        (5, 9, 2, [4], 3, 3, 5),
        (4, 2, 2, [2, 3], 2, 2, 3),
    ],
)
def test_pages_of_rows(
    count: int, page: int, rows: int, shown: list[int], at: int, pages: int, first: int
) -> None:
    """
    A page has its rows; one past the end is the last.
    """
    found = page_of(range(count), View(page=page, rows=rows))
    assert (found.rows, found.page, found.page_count, found.first) == (shown, at, pages, first)
    assert found.row_count == count


def test_rows_without_a_value_come_last() -> None:
    """
    None and NaN stand at the end, whichever way a table is sorted.
    """
    rows = [3.0, None, 1.0, math.nan, 2.0]
    up = sorted_rows(rows, View(sort="name"), lambda row, _: row)
    down = sorted_rows(rows, View(sort="-name"), lambda row, _: row)
    assert (up[:3], down[:3]) == ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert sorted_rows(rows, View(), lambda row, _: row) is not rows


def test_numbers_and_texts_can_be_sorted_together() -> None:
    """
    A column of both is sorted as text.
    """
    assert sorted_rows([2, "a", 10], View(sort="name"), lambda row, _: row) == [10, 2, "a"]


def test_same_column_again_turns_the_order_round() -> None:
    """
    A click on a column sorts by it, the next one the other way, each from the first page.
    """
    view = View(page=4).sorted_by("name")
    assert (view.sort, view.page) == ("name", 1)
    assert view.sorted_by("name").sort == "-name"
    assert view.sorted_by("name").sorted_by("name").sort == "name"
