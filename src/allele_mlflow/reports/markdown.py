"""
A report as Markdown, for the summary pages of CI.
"""

from __future__ import annotations

import re

from allele_mlflow.reports import tables
from allele_mlflow.reports.page import Page, Section
from allele_mlflow.reports.suite_page import suite_page
from allele_mlflow.reports.summary import SuiteSummary

#: Rows of a table; a summary page is to be read at a glance, and some hold 1 MB.
MOST_ROWS = 100
#: What Markdown, GitHub's included, may read as its own within a line. Blocks need no care: no line
#: begins with text from outside.
_SPECIAL = re.compile(r"[\\`*_\[\]~$]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}


def suite_markdown(summary: SuiteSummary) -> str:
    """
    The report of one execution: headline, results by cell, failures, environment.

    Raises:
        ValueError: results lack a column, or a moment its time zone.
    """
    return write_markdown(suite_page(summary))


def write_markdown(page: Page) -> str:
    """
    A report's headline and tables.
    """
    blocks = [_heading(1, page.name)]
    blocks += [f"> Note: {escape(note)}" for note in page.notes]
    blocks.append("\n".join(f"- {escape(name)}: {escape(text)}" for name, text in page.headline))
    for section in page.sections:
        if section.is_brief and (
            section.table.rows or not (section.is_half or section.is_optional)
        ):
            blocks.append(_heading(2, section.title))
            blocks += [f"> Note: {escape(note)}" for note in section.notes]
            blocks.append(_contents(section))
    return "\n\n".join(blocks) + "\n"


def _contents(section: Section) -> str:
    if section.table.noun == "links":
        return "\n".join(_link(text, address) for text, address in section.table.rows)
    return write_table(section.table)


def write_table(table: tables.Table) -> str:
    """
    A table of GitHub's Markdown, and below it what was left out.
    """
    if not table.rows:
        return "None."
    shown = table.bounded(MOST_ROWS)
    lines = [
        _row([escape(column.title) for column in shown.columns]),
        _row(["---:" if column.is_number else "---" for column in shown.columns]),
        *(_row([escape(text) for text in row]) for row in shown.rows),
    ]
    return "\n".join(lines) + (f"\n\n{escape(shown.note)}" if shown.note else "")


def escape(text: str) -> str:
    """
    Text of one line that Markdown shows as it is, also in a table.
    """
    marked = _SPECIAL.sub(lambda found: "\\" + found.group(), text)
    return re.sub("[&<>|]", lambda found: _ENTITIES[found.group()], marked)


def _heading(level: int, text: str) -> str:
    # number signs at its end would be read as its frame
    return re.sub("#(?=#*$)", r"\\#", f"{'#' * level} {escape(text)}")


def _link(text: str, address: str) -> str:
    """
    Addresses of pages can be followed, all others are text.
    """
    is_page = re.fullmatch(r"https?://[^\s<>]+", address)
    return f"- {escape(text)}: {f'<{address}>' if is_page else escape(address)}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
