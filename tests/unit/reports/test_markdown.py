"""
A suite's report as Markdown: GitHub's tables, nothing that is read as markup.
"""

from __future__ import annotations

import re

import pandas as pd
import pytest

from allele_mlflow.reports import markdown
from allele_mlflow.reports.markdown import escape, suite_markdown
from allele_mlflow.reports.summary import FailureGroup, Link, Objective
from allele_mlflow.reports.wording import MISSING
from tests.report_tools import HOSTILE, make_results, make_summary


def cells_of(line: str) -> list[str]:
    """
    A table's row as GitHub splits it: at bars without a backslash.
    """
    return re.split(r"(?<!\\)\|", line.strip().strip("|"))


def test_report_says_what_the_page_says() -> None:
    """
    Headline, notes, results by cell, objectives, failures, settings and links are there.
    """
    text = suite_markdown(make_summary(make_results({"a": [1.0, 2.0, None], "b": [4.0]})))
    for line in (
        *("# speed", "> Note: machine was busy", "- Started: 2024-05-01 10:00:00 UTC"),
        *("- Cells: 2: 1 finished, 1 finished in part", "## Failures", "## Environment"),
        *(
            f"| b | 1 | 4.000 | {MISSING} | {MISSING} |",
            "| repeats | 5 |",
            "## score (points, higher is better)",
        ),
        "- MLflow: <http://127.0.0.1:5000/#/runs/a_b>",
    ):
        assert line in text.splitlines()


def test_tables_are_even() -> None:
    """
    Each row of a table has as many cells as its head, whatever is in them.
    """
    evil = make_summary(
        make_results({HOSTILE: [1.0], "a\\|b": [2.0]}),
        suite=HOSTILE,
        failures=(FailureGroup("error", "f", 1, "x | y\n| z |", (HOSTILE,)),),
        settings={"|": "\\"},
        environment={HOSTILE: HOSTILE},
        links=(Link(HOSTILE, "javascript:alert(1)"),),
        objectives=(Objective("score|"),),
    )
    text = suite_markdown(evil)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert len({len(cells_of(line)) for line in table}) == 1
    assert "<script" not in text
    assert "<javascript" not in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a_b*c", r"a\_b\*c"),
        ("a|b", "a&#124;b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[a](b) `c` \\ ~~d~~ $e$", r"\[a\](b) \`c\` \\ \~\~d\~\~ \$e\$"),
        ("size=10, rate=0.1", "size=10, rate=0.1"),
    ],
)
def test_text_is_shown_as_it_is(text: str, wanted: str) -> None:
    """
    What Markdown would read as its own is escaped, and nothing else.
    """
    assert escape(text) == wanted


def test_long_tables_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A table stops after so many rows, and says how many there are.
    """
    monkeypatch.setattr(markdown, "MOST_ROWS", 3)
    text = suite_markdown(make_summary(make_results({name: [1.0] for name in "abcde"})))
    assert "The first 3 of 5 cells." in text.splitlines()
    assert not any(line.startswith("| d ") for line in text.splitlines())


def test_name_that_ends_in_number_signs() -> None:
    """
    Number signs at the end of a heading are part of the name.
    """
    text = suite_markdown(make_summary(make_results({"a": [1.0]}), suite="C #"))
    assert text.splitlines()[0] == r"# C \#"


def test_execution_without_runs() -> None:
    """
    There is a report where nothing ran.
    """
    assert "None." in suite_markdown(make_summary(pd.DataFrame())).splitlines()
