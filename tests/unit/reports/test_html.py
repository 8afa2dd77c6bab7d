"""
A suite's report as a page: one file, complete without JavaScript, safe whatever is in it.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from allele_mlflow.reports import html
from allele_mlflow.reports.html import suite_report
from allele_mlflow.reports.summary import FailureGroup, Link, Objective
from allele_mlflow.units import Direction
from tests.report_tools import (
    HOSTILE,
    SIX_MB,
    ReadPage,
    make_history,
    make_results,
    make_row,
    make_summary,
)


@pytest.fixture
def page() -> ReadPage:
    results = make_results({"a": [1.0, 2.0, None], "b": [4.0, 8.0, math.nan]})
    history = make_history({"a": [[0.5, 1.0], [1.0, 2.0]], "b": [[2.0, 4.0]]})
    return ReadPage(suite_report(make_summary(results, history=history, planned_count=8)))


def test_headline_counts_all(page: ReadPage) -> None:
    """
    Suite, execution, time and place stand first, with cells and repeats by how they ended.
    """
    assert [text for tag, text in page.texts if tag == "h1"] == ["speed"]
    names = [text for tag, text in page.texts if tag == "dt"]
    values = [text for tag, text in page.texts if tag == "dd"]
    assert dict(zip(names, values, strict=True)) == {
        "Execution": "first",
        "Started": "2024-05-01 10:00:00 UTC",
        "Ended": "2024-05-01 11:07:00 UTC",
        "Duration": "1 h 7 min",
        "Where": "bench-host",
        "Cells": "2: 1 finished, 1 finished in part",
        "Repeats": "6: 5 finished, 1 failed; 2 of 8 not run",
    }
    assert "machine was busy" in page.visible()


def test_tables_have_all_numbers(page: ReadPage) -> None:
    """
    Without JavaScript there are tables: success, seconds, n, median, quartiles and extremes by
    cell, failures, parameters, settings, environment, links.
    """
    shown = page.visible()
    for text in (
        *("Median score (points, higher is better)", "3 of 3", "100 %", "2 of 3", "67 %"),
        *("score (points, higher is better)", "6.000", "5.000 … 7.000", "4.000 … 8.000"),
        *("timeout", "took too long", "a, b", "f00d", "size", "repeats", "python", "3.11.4"),
        *("MLflow", "http://127.0.0.1:5000/#/runs/a_b"),
    ):
        assert text in shown
    assert page.count("noscript") == 2
    assert page.count("table") == 7


def test_best_cell_is_first(page: ReadPage) -> None:
    """
    The tables begin with the cell that is best.
    """
    names = [text for tag, text in page.texts if tag == "th" and text in ("a", "b")]
    assert names == ["b", "a"] * 2


def test_figures_are_drawn_from_what_is_in_the_file(page: ReadPage) -> None:
    """
    Each objective has its figures, light and dark; plotly.js is inside, once.
    """
    heat_map, by_cell, by_step = page.figures()
    assert heat_map["traces"][0]["type"] == "bar"
    assert by_cell["traces"][0]["name"] == "repeat"
    assert by_step["traces"][-1]["mode"] == "lines+markers"
    for figure in (heat_map, by_cell, by_step):
        colours = {layout["paper_bgcolor"] for layout in figure["layouts"].values()}
        assert len(colours) == 2
        assert len(figure["darkLooks"]) == len(figure["traces"])
        assert not {"x", "y"} & set(figure["darkLooks"][0])
    scripts = [text for tag, text in page.texts if tag == "script"]
    assert sum("plotly.js v" in text[:200] for text in scripts) == 1


def test_nothing_is_loaded_from_elsewhere(page: ReadPage) -> None:
    """
    No attribute names an address, and the page's policy lets it load nothing.
    """
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes)
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policies
    assert str(policies[0]).startswith("default-src 'none'")
    styles = [text for tag, text in page.texts if tag == "style"]
    assert not any("url(" in text or "@import" in text for text in styles)


def test_page_suits_screen_and_paper(page: ReadPage) -> None:
    """
    Styles are there for dark pages, narrow ones and print.
    """
    style = next(text for tag, text in page.texts if tag == "style")
    for query in ("prefers-color-scheme: dark", "max-width: 600px", "@media print"):
        assert query in style


def test_hostile_texts_are_text() -> None:
    """
    Markup in any name or message makes no tag and ends no script; it is shown as it is.
    """
    results = pd.DataFrame([make_row(HOSTILE, 0, 1.0, **{f"param.{HOSTILE}": HOSTILE})])
    results = results.rename(columns={"metric.score": f"metric.{HOSTILE}"})
    evil = make_summary(
        results,
        history=make_history({HOSTILE: [[1.0, 2.0]]}).assign(key=HOSTILE),
        suite=HOSTILE,
        execution=HOSTILE,
        where=HOSTILE,
        objectives=(Objective(HOSTILE, HOSTILE, Direction.LOWER),),
        failures=(FailureGroup(HOSTILE, HOSTILE, 1, HOSTILE, (HOSTILE,)),),
        settings={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        links=(Link(HOSTILE, "javascript:alert(1)"),),
        notes=(HOSTILE, "</script><img src=x onerror=alert(1)>"),
    )
    tame = make_summary(make_results({"a": [1.0]}), history=make_history({"a": [[1.0, 2.0]]}))
    page, other = ReadPage(suite_report(evil)), ReadPage(suite_report(tame))
    assert page.count("script") == other.count("script")
    assert page.count("img") == 0
    assert len(page.figures()) == 3
    assert any(text.startswith("<script>alert(1)</script> | `x` %{x}") for text in page.visible())
    assert not any("\u202e" in text for _, text in page.texts[:200])


@pytest.mark.parametrize(
    "facts",
    [
        {"results": pd.DataFrame()},
        {"results": make_results({"a": [None]})},
        {"results": make_results({"a": [1.0]}), "objectives": ()},
        {"results": make_results({"a": [1.0]}), "ended_at": None, "failures": (), "notes": ()},
    ],
    ids=["no runs", "all failed", "no objective", "not ended"],
)
def test_any_execution_has_a_report(facts: dict[str, Any]) -> None:
    """
    An execution without runs, values, objectives or end is reported too.
    """
    page = ReadPage(suite_report(make_summary(**facts)))
    assert "Results by cell" in page.visible()


def test_only_counted_attempts_are_in_the_curves() -> None:
    """
    Readings of an attempt that does not count, because a later one finished, are not drawn.
    """
    results = pd.DataFrame(
        [make_row("a", 0, None, run_id="bad"), make_row("a", 0, 1.0, attempt=2, run_id="good")]
    )
    history = make_history({"a": [[1.0, 2.0]]}).assign(run_id="good")
    bad = make_history({"a": [[9.0, 9.0, 9.0]]}).assign(run_id="bad")
    summary = make_summary(results, history=pd.concat([history, bad]))
    curve = ReadPage(suite_report(summary)).figures()[2]["traces"][-1]
    assert curve["y"] == [1.0, 2.0]


def test_large_suites_stay_under_six_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the number of cells, repeats and objectives, and however long the names, the file can
    be opened; what is left out is said.
    """
    monkeypatch.setattr(html, "plotly_script", lambda: "/**\n* plotly.js v" + "x" * 4_800_000)
    names = [f"{number} " + "長い名前" * 60 for number in range(300)]
    results = make_results({name: [1.0, 2.0, 3.0] for name in names})
    objectives = []
    for number in range(8):
        results[f"metric.m{number}"] = results["metric.score"] * number
        objectives.append(Objective(f"m{number}"))
    report = suite_report(make_summary(results, objectives=tuple(objectives)))
    assert len(report.encode()) < SIX_MB
    shown = ReadPage(report).visible()
    assert any("of 300 cells." in text for text in shown)
    assert "A figure is left out: this file would be too large to open." in shown


def test_page_without_figures_has_no_script() -> None:
    """
    plotly.js is not carried along where nothing is drawn.
    """
    report = suite_report(make_summary(pd.DataFrame()))
    assert ReadPage(report).count("script") == 0
    assert len(report.encode()) < 20_000


def test_real_script_leaves_room() -> None:
    """
    The installed plotly.js fits, stands once between its tags, and leaves room for a suite's own.
    """
    report = suite_report(make_summary(make_results({"a": [1.0]})))
    assert len(report.encode()) < SIX_MB - 500_000
    assert report.count("plotly.js v") <= 2
    assert report.startswith("<!DOCTYPE html>")


def test_moment_without_zone_is_refused() -> None:
    """
    A time that could be any is not written.
    """
    with pytest.raises(ValueError, match="time zone"):
        suite_report(
            make_summary(
                make_results({"a": [1.0]}),
                started_at=datetime(2024, 5, 1, tzinfo=UTC).replace(tzinfo=None),
            )
        )
