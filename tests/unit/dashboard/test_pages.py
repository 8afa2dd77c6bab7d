"""
Pages, looks, addresses and recent answers by themselves.
"""

from __future__ import annotations

import re
import threading

import msgspec
import pytest

from allele_mlflow.dashboard.addresses import ServerAddresses, fill
from allele_mlflow.dashboard.api import description
from allele_mlflow.dashboard.catalogue import PAGES
from allele_mlflow.dashboard.export import FileAddresses, file_name
from allele_mlflow.dashboard.looks import look_of, sparkline
from allele_mlflow.dashboard.pages.page import Kind
from allele_mlflow.dashboard.recent import RecentAnswers
from allele_mlflow.dashboard.rendering import write_moment, write_value
from allele_mlflow.dashboard.static_files import NAMES, PLOTLY, static_file
from allele_mlflow.dashboard.views import View
from allele_mlflow.reports.wording import MISSING


def test_every_page_has_its_place() -> None:
    """
    Names and paths are each page's own, and a page that can be sorted can be sorted by each of its
    columns that says so.
    """
    assert len({page.name for page in PAGES}) == len(PAGES)
    assert len({page.path for page in PAGES}) == len(PAGES)
    for page in PAGES:
        assert page.summary.endswith(".")
        assert page.knobs.default_sort.removeprefix("-") in ("", *page.knobs.sorts)
        if page.tab:
            assert page.path.startswith("/experiments/{experiment_id}")


@pytest.mark.parametrize(
    "value", ["../..", "//evil", "a/b", "?x=1", "#x", "%2e%2e", "\r\nx", "日本", "{run_id}", ""]
)
def test_no_value_leaves_its_place_in_a_path(value: str) -> None:
    """
    Whatever an id is, it is one part of a path.
    """
    path = fill("/runs/{run_id}/live", {"run_id": value})
    assert path.count("/") == 3
    assert not set("?#\r\n") & set(path)


def test_addresses_stand_below_their_root() -> None:
    """
    A dashboard that is mounted refers to its own pages, with the view.
    """
    to = ServerAddresses("/allele/")
    view = View(filter="a < 2", page=3)
    assert (
        to.page("/runs/{run_id}", {"run_id": "x"}, view) == "/allele/runs/x?filter=a+%3C+2&page=3"
    )
    assert to.api("/", {}) == "/allele/api/suites.json"
    assert to.figure("/runs/{run_id}", {"run_id": "x"}, "metric") == (
        "/allele/api/runs/x/figures/metric.json"
    )
    assert to.static("a.css") == "/allele/static/a.css"


def test_a_copy_refers_to_what_is_written_alone() -> None:
    """
    A page that is not among the files has no address.
    """
    page = next(one for one in PAGES if one.name == "run")
    to = FileAddresses([(page, {"run_id": "x/../y"})])
    name = file_name(page, {"run_id": "x/../y"})
    assert re.fullmatch(r"runs-x-2F-2Fy-[0-9a-f]{8}\.html", name)
    assert to.page(page.path, {"run_id": "x/../y"}) == name
    assert to.page(page.path, {"run_id": "z"}) == ""


def test_no_two_pages_are_one_file() -> None:
    """
    Names that differ in punctuation alone, or only behind what a file's name can hold, are told
    apart.
    """
    page = next(one for one in PAGES if one.name == "run")
    names = ["a.b", "a-b", "a b", "a_b", "ab", "ä" * 200, "ä" * 201]
    files = [file_name(page, {"run_id": name}) for name in names]
    assert len(set(files)) == len(names)
    assert max(map(len, files)) < 150


def test_states_have_a_sign_each() -> None:
    """
    A state is told by more than its colour, whatever its case; an unknown one is one of no account.
    """
    assert look_of("FINISHED").symbol != look_of("FAILED").symbol != look_of("RUNNING").symbol
    assert look_of("Failed") == look_of("failed")
    assert look_of("<b>").style == "soft"


def test_short_curves() -> None:
    """
    A curve is made of the numbers that are some; fewer than two are none.
    """
    assert sparkline([[0, 0, 1.0], [1, 1, "NaN"]]) == ""
    drawn = sparkline([[0, 0, 1.0], [1, 1, "<b>"], [2, 2, 3.0]])
    assert '<polyline points="0.0,23.0 120.0,1.0"/>' in drawn
    assert "<b>" not in drawn
    assert "12.0" in sparkline([[0, 0, 2.0], [1, 1, 2.0]])


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, Kind.COUNT, MISSING),
        (float("nan"), Kind.NUMBER, MISSING),
        (float("inf"), Kind.NUMBER, "∞"),
        (12345, Kind.COUNT, "12,345"),
        (90.0, Kind.SECONDS, "1 min 30 s"),
        (0.25, Kind.RATIO, "25 %"),
        (1_700_000_000_000, Kind.TIME, "2023-11-14 22:13:20"),
        (10**30, Kind.TIME, MISSING),
        ("2023-11-14T22:13:20.5+00:00", Kind.TIME, "2023-11-14 22:13:20.5"),
        ("a\nb\u202e", Kind.NAME, "a b�"),
        ("", Kind.NAME, MISSING),
        ("x" * 5000, Kind.TEXT, "x" * 500 + "…" + "x" * 499),
    ],
)
def test_values_in_a_line(value: object, kind: Kind, text: str) -> None:
    """
    Whatever a value is, it is written in one line of bounded length.
    """
    assert write_value(value, kind) == text


def test_moments_that_are_none() -> None:
    """
    A text in the place of a time is shown, not believed.
    """
    assert write_moment("<b>") == "<b>"


def test_static_files_are_named_one_by_one() -> None:
    """
    No other name is a file, however it is written.
    """
    for name in NAMES:
        assert static_file(name) is not None
    for name in ("", "../app.py", "dashboard.css/", "%2e%2e", f"{PLOTLY}/.."):
        assert static_file(name) is None


def test_description_is_of_every_page() -> None:
    """
    The description names each page's path with its parameters, and what each option may be.
    """
    told = msgspec.json.decode(description(PAGES, "/allele"))
    assert told["servers"] == [{"url": "/allele"}]
    for path, operation in told["paths"].items():
        named = {one["name"] for one in operation["get"]["parameters"] if one["in"] == "path"}
        assert named == {part.partition("}")[0] for part in path.split("{")[1:]}
    options = told["paths"]["/api/delivery.json"]["get"]["parameters"]
    state = next(one for one in options if one["name"] == "state")
    assert state["schema"]["enum"] == ["waiting", "all"]


def test_what_was_asked_a_moment_ago_is_known() -> None:
    """
    Asked by many threads at once, an answer is made once; another question is another answer; only
    so many are kept; an error is nobody's answer.
    """
    made: list[str] = []
    recent = RecentAnswers(kept_s=60.0, most=2)

    def make(name: str) -> str:
        made.append(name)
        return name

    threads = [threading.Thread(target=recent.get, args=("a", lambda: make("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recent.get("b", lambda: make("b")) == "b"
    assert made == ["a", "b"]
    recent.get("c", lambda: make("c"))
    assert recent.get("a", lambda: make("a again")) == "a again"
    with pytest.raises(ZeroDivisionError):
        recent.get("d", lambda: 1 // 0)
    assert recent.get("d", lambda: make("d")) == "d"


def test_old_answers_are_made_anew() -> None:
    """
    An answer is kept for so long.
    """
    recent = RecentAnswers(kept_s=0.0)
    assert recent.get("a", lambda: 1) == 1
    assert recent.get("a", lambda: 2) == 2
