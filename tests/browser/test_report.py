"""
The report of a suite as a person sees it: from the disk, in a real browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from tests.browser.conftest import LABELS, Open, Opened
from tests.browser.page_scripts import BACKGROUNDS, EXCESS_PX, FIGURES, TEXTS

pytestmark = [pytest.mark.slow, pytest.mark.process]

#: WCAG 2, level AA, for text of usual size.
LEAST_CONTRAST_RATIO = 4.5
LEAST_SIZE_PX = 10


def hard_to_read(opened: Opened) -> list[dict[str, Any]]:
    """
    The texts that are too small or too faint.
    """
    texts: list[dict[str, Any]] = opened.evaluate(TEXTS)
    return [
        one
        for one in texts
        if one["contrast_ratio"] < LEAST_CONTRAST_RATIO or one["size_px"] < LEAST_SIZE_PX
    ]


def test_report_opens_from_the_disk(open_page: Open, report: Path) -> None:
    """
    It asks nothing of any address but its own, and neither a script fails nor a dialog comes up.
    """
    opened = open_page(report)
    opened.page.mouse.move(400, 600)
    opened.page.wait_for_load_state("networkidle")
    assert opened.requests == [report.as_uri()]
    assert opened.problems == []


def test_figures_are_drawn(open_page: Open, report: Path) -> None:
    """
    Each figure is shown, with points and labels: the heat map, by cell, by step, and what a suite
    of searches over several parameters has besides.
    """
    figures = open_page(report).evaluate(FIGURES)
    assert len(figures) >= 3
    for figure in figures:
        assert figure["width_px"] > 500
        assert figure["height_px"] > 100
        assert figure["points"] > 0
        assert len(figure["labels"]) > 4


def test_figures_and_tables_tell_the_same(open_page: Open, suites_report: Path) -> None:
    """
    The figure names the cells in the order of the table of results, best first; names that are too
    long for it aside.
    """
    opened = open_page(suites_report)
    cells = opened.page.locator("section table").first.locator("tbody th").all_inner_texts()
    assert len(cells) == 6
    short = [cell for cell in cells if LABELS[2] not in cell and "..." not in cell]
    assert len(short) == 4
    labels = opened.evaluate(FIGURES)[0]["labels"]
    assert [label for label in labels if label in cells] == short


def test_tables_are_there(open_page: Open, suites_report: Path) -> None:
    """
    Results, objective, failures, parameters, settings and environment, each with its rows.
    """
    page = open_page(suites_report).page
    for title in ("Results by cell", "Failures", "Parameters", "Settings", "Environment"):
        section = page.locator("section").filter(has=page.get_by_role("heading", name=title))
        assert section.locator("tbody tr").count() > 0, title
        assert section.locator("tbody tr").first.is_visible(), title
    failures = page.locator("section").filter(has=page.get_by_role("heading", name="Failures"))
    assert f"ValueError: no good: {LABELS[1]}" in failures.inner_text()


def test_hostile_names_are_text(open_page: Open, suites_report: Path) -> None:
    """
    A name that is a script or a picture stands in the page as it was written, in tables and
    figures, and makes no element.
    """
    opened = open_page(suites_report)
    shown = opened.page.locator("main").inner_text()
    for label in LABELS[:2]:
        assert label in shown
    drawn = " ".join(opened.evaluate(FIGURES)[0]["labels"])
    assert "<script>" in drawn
    assert "<img src=x" in drawn
    assert opened.page.locator("img, main b").count() == 0
    assert opened.page.locator("main script:not([type='application/json'])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_on_a_narrow_screen(
    open_page: Open, report: Path, scheme: Literal["light", "dark"]
) -> None:
    """
    400 pixels wide the page scrolls up and down only, and figures fit into it.
    """
    opened = open_page(report, width_px=400, scheme=scheme)
    assert opened.evaluate(EXCESS_PX) == 0
    for figure in opened.evaluate(FIGURES):
        assert figure["width_px"] > 250
        assert figure["right_px"] <= 400
    assert opened.problems == []


@pytest.mark.parametrize("width_px", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(
    open_page: Open, report: Path, scheme: Literal["light", "dark"], width_px: int
) -> None:
    """
    In light and in dark mode each text, those in the figures too, is large enough and stands out
    from what is behind it as WCAG wants it; page and figures are as light or dark as was asked.
    """
    opened = open_page(report, width_px=width_px, scheme=scheme)
    assert len(opened.evaluate(TEXTS)) > 50
    assert hard_to_read(opened) == []
    paper, *drawings = opened.evaluate(BACKGROUNDS)
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(drawings) >= 3
    assert set(drawings) == {paper}


def test_change_of_the_scheme_is_followed(open_page: Open, suites_report: Path) -> None:
    """
    A page that is open when the system goes dark redraws its figures, and stays readable.
    """
    opened = open_page(suites_report)
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function(f"() => new Set(({BACKGROUNDS})()).size === 1")
    assert hard_to_read(opened) == []
    assert opened.problems == []
