"""
What the benchmark of the statistics calls broken, and that the page shows what it measured.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.evidence import (
    OUTPUT,
    PAGE,
    find_broken,
    judge,
    make_tables,
    write_page,
)
from benchmarks.evidence_trials import QUICK, draw

REPORT: dict[str, Any] = json.loads(OUTPUT.read_text(encoding="utf-8"))


def test_page_shows_what_was_measured() -> None:
    """Every table of the page is the one that the committed JSON makes, to the last digit."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in make_tables(REPORT).items():
        assert f"<!-- table: {name} -->\n\n{table}\n<!-- end -->" in text


def test_committed_report_keeps_its_promises() -> None:
    """No false rejections beyond chance, coverage of 93 % from ten runs on, compare within 10 s."""
    assert find_broken(REPORT) == []
    assert REPORT["sets"] > QUICK.sets


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("false_rejections", "rate", 0.08, "false rejections"),
        ("coverage", "rate", 0.929, "coverage"),
        ("compare", "wall_s", 10.1, "compare"),
    ],
)
def test_broken_promise_is_told(part: str, key: str, value: float, words: str) -> None:
    """One row that is not as promised is named; exit code 1, except of a quick run."""
    report = copy.deepcopy(REPORT)
    report[part][0][key] = value
    (line,) = find_broken(report)
    assert line.startswith(words)
    assert judge(report) == 1
    assert judge(report | {"sets": QUICK.sets}) == 0


def test_chance_is_no_broken_promise() -> None:
    """One of many rates a little above 5 % is what chance does: 5.7 % of 4,000 sets."""
    report = copy.deepcopy(REPORT)
    report["false_rejections"][0]["rate"] = 0.057
    assert find_broken(report | {"sets": 4000}) == []


def test_page_is_written_between_its_marks(tmp_path: Path) -> None:
    """What stood in the tables goes, the rest stays; a page without marks is told."""
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("| 10 runs |", "| old |"))
    write_page(REPORT, page)
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no place for the table 'false rejections'"):
        write_page(REPORT, page)


@pytest.mark.parametrize(
    ("shape", "centre"), [("normal", 0.0), ("skewed", 1.0), ("heavy-tailed", 0.0), ("tied", 2.0)]
)
def test_shapes_are_what_they_are_called(shape: str, centre: float) -> None:
    """Their medians are known; only tied data tie."""
    values = draw(shape, (20_001,), np.random.default_rng(0))
    assert np.median(values) == pytest.approx(centre, abs=0.03)
    assert (len(np.unique(values)) < 20) is (shape == "tied")
