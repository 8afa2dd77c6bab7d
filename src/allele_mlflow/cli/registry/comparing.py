"""
Two versions beside each other: in what they differ, and which is better by its evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.cli.compare import comparison_text
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.registry.opening import open_settings_registry
from allele_mlflow.cli.rendering import rendered
from allele_mlflow.errors import AnalysisError
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # pandas is read where it is needed
    from allele_mlflow.analysis.suite_comparison import SuiteComparison
    from allele_mlflow.registry.differences import Change
    from allele_mlflow.registry.registry import Registry

_MOST_SHOWN = 30
#: What is shown before the first difference of two long texts.
_BEFORE = 8


@click.command()
@click.argument("one")
@click.argument("other")
def diff(one: str, other: str) -> ExitCode:
    """
    Show in what two versions differ: traits, parts of a component, files.
    """
    opened, _ = open_settings_registry()
    say(change_text(_changes(opened, one, other), one, other))
    return ExitCode.FINE


@click.command()
@click.argument("one")
@click.argument("other")
@click.option("--metric", "metrics", multiple=True, metavar="NAME|GLOB", help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def compare(one: str, other: str, metrics: Sequence[str], as_json: bool) -> ExitCode:
    """
    Show in what two versions differ, and compare the runs of their evidence: is OTHER better than
    ONE? Runs with the same seeds are compared in pairs, as `allele-mlflow compare` does.
    """
    opened, settings = open_settings_registry()
    changes = _changes(opened, one, other)
    found: SuiteComparison | None = None
    reason = None
    try:
        found = _compared(opened, settings, one, other, metrics)
    except AnalysisError as exc:
        reason = str(exc)
    if as_json:
        say(json_text(_document(changes, found, reason)))
        return ExitCode.FINE
    say(change_text(changes, one, other))
    if found is not None:
        say(comparison_text([found], [], as_json=False, markdown=False))
    else:
        say(shown(f"the evidence is not compared: {reason}"))
    return ExitCode.FINE


def _changes(opened: Registry, one: str, other: str) -> list[Change]:
    from allele_mlflow.registry.differences import find_changes

    return find_changes(opened.load_version(one), opened.load_version(other))


def _compared(
    opened: Registry, settings: Settings, one: str, other: str, metrics: Sequence[str]
) -> SuiteComparison:
    from allele_mlflow.analysis.suite_comparison import compare_selections
    from allele_mlflow.errors import ErrorKind
    from allele_mlflow.registry.evidence import objectives_of, select_evidence
    from allele_mlflow.registry.evidence_document import EVIDENCE_TAG

    sides = []
    for where in (one, other):
        evidence = opened.version(*opened.find(where)).tags.get(EVIDENCE_TAG)
        if evidence is None:
            raise AnalysisError(f"{where} has none", kind=ErrorKind.BAD_DATA)
        sides.append(select_evidence(settings, evidence))
    return compare_selections(*sides, metrics=metrics or objectives_of(*sides))


def _document(
    changes: list[Change], found: SuiteComparison | None, reason: str | None
) -> dict[str, Any]:
    from allele_mlflow.cli.comparison_tables import document

    comparisons = document([found], [])["comparisons"] if found is not None else []
    return {
        "format": 1,
        "changes": [change._asdict() for change in changes],
        "comparison": comparisons[0] if comparisons else None,
        "not_compared": reason,
    }


def change_text(changes: list[Change], one: str, other: str) -> str:
    """
    What differs, as a table for a terminal.
    """
    if not changes:
        return "nothing differs"
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", one, other, "difference"):
        table.add_column(Text(shown(name)), justify="right" if name else "left")
    for change in changes:
        texts = _cells(change.before, change.after)
        delta = "-" if change.delta is None else f"{change.delta:+.6g}"
        table.add_row(*(Text(shown(text)) for text in (change.where, *texts, delta)))
    return rendered(table).rstrip()


def _cells(before: str | None, after: str | None) -> list[str]:
    """
    Both texts short enough for a table; of long ones the part where they begin to differ.
    """
    from allele_mlflow.registry.differences import number_of

    pairs = enumerate(zip(before or "", after or "", strict=False))
    start = max(0, next((place for place, (a, b) in pairs if a != b), 0) - _BEFORE)
    texts = []
    for text in (before, after):
        level = number_of(text)
        if level is not None:
            texts.append(f"{level:.6g}")
        elif text is None or len(text) <= _MOST_SHOWN:
            texts.append(text or "-")
        else:
            end = start + _MOST_SHOWN
            texts.append(f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}")
    return texts


COMMANDS = (diff, compare)
