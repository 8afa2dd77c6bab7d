"""
`allele-mlflow confirm`: two commits in turn on this machine; is one of them worse?
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.interruption import terminated_as_interrupted
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.suite_display import open_view
from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix.confirmation import (
    Confirmation,
    Confirmed,
    check_sides,
    choose_repeats,
    compared_metrics,
    count_hypotheses,
    selected,
)
from allele_mlflow.matrix.confirmation_side import Side, WantedSide, find_side, open_side
from allele_mlflow.matrix.worktree import top_of
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # pandas and SciPy are read where they are needed
    from allele_mlflow.analysis.verdicts import Verdict

DOCUMENT_FILE, PAGE_FILE = "confirmation.json", "confirmation.md"


@dataclass(frozen=True)
class _Wanted:
    suite: str
    sides: tuple[WantedSide, WantedSide]
    only: str | None
    repeats: int | None
    metrics: tuple[str, ...]
    finding: str | None


@click.command()
@click.argument("suite")
@click.option("--baseline", required=True, metavar="COMMIT|FOLDER", help="What it was before.")
@click.option("--candidate", required=True, metavar="COMMIT|FOLDER", help="What may be worse.")
@click.option("--baseline-python", metavar="PYTHON", help="The baseline's interpreter; this one.")
@click.option("--candidate-python", metavar="PYTHON", help="Likewise.")
@click.option("--install", is_flag=True, help="Install each side into an environment of its own.")
@click.option("--only", metavar="EXPRESSION", help="Only cells of which this is true.")
@click.option("--repeats", type=click.IntRange(1), help="Of each cell on each side.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME|GLOB", help="Only these.")
@click.option("--finding", metavar="ID", help="The finding that this is about, for its tag.")
@click.option("--fail-on", type=click.Choice(["worse"]), help="End with code 1 where it is worse.")
@click.option("--require-evidence", is_flag=True, help="End with code 4 where nothing is decided.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--markdown", is_flag=True, help="Tables in Markdown.")
@click.option("--quiet", is_flag=True, help="Plain lines even on a terminal.")
@click.option("--tracking-uri", metavar="URI", help="Instead of the setting.")
@tells_errors
def confirm(
    suite: str,
    baseline: str,
    candidate: str,
    baseline_python: str | None,
    candidate_python: str | None,
    install: bool,
    only: str | None,
    repeats: int | None,
    metrics: tuple[str, ...],
    finding: str | None,
    fail_on: str | None,
    require_evidence: bool,
    as_json: bool,
    markdown: bool,
    quiet: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Run SUITE at two commits in turn, one cell at a time, and compare them in pairs.

    Each side is a commit, checked out into a worktree that is gone afterwards, or a folder as it
    is (`.` is this checkout). Both run as often as significance needs, with the same seeds, in
    randomised blocks. The verdict goes into MLflow with the candidate's run.

    Exit codes: 0 nothing to complain of, 1 --fail-on, 2 a side cannot be resolved, or the two are
    not one suite, 4 --require-evidence, 5 nothing was measured, 6 MLflow could not be reached, 130
    interrupted.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    if not settings.enabled or settings.is_offline:
        raise MatrixError(
            "confirm keeps its runs and its verdict in MLflow: want a store that can be reached, "
            "and ALLELE_MLFLOW_ENABLED=true",
            kind=ErrorKind.BAD_SUITE,
        )
    wanted = _Wanted(
        suite,
        (
            WantedSide("baseline", baseline, baseline_python or sys.executable, install),
            WantedSide("candidate", candidate, candidate_python or sys.executable, install),
        ),
        only,
        repeats,
        metrics,
        finding,
    )
    with terminated_as_interrupted():
        found, sides = _confirmed(wanted, settings, is_quiet=quiet or as_json or markdown)
    say(_rendered(found, sides, wanted, as_json=as_json, markdown=markdown))
    return _code(found.verdict, fail_on, require_evidence=require_evidence)


@contextlib.contextmanager
def _opened(wanted: _Wanted) -> Iterator[tuple[Side, Side]]:
    """
    Both sides with the cells and repeats that are run, once all that can be refused is checked.
    """
    here = Path.cwd()
    top = top_of(here)
    # both are found before either is checked out
    places = [(side, find_side(side, here, top)) for side in wanted.sides]
    with contextlib.ExitStack() as closing:
        first, second = (
            selected(closing.enter_context(open_side(*place, wanted.suite, here)), wanted.only)
            for place in places
        )
        check_sides(first.prepared, second.prepared)
        metrics = compared_metrics(first.prepared, wanted.metrics)
        hypotheses = count_hypotheses(first.prepared, metrics)
        repeats = choose_repeats(first.prepared.suite.repeats, hypotheses, wanted.repeats)
        if repeats.warning:
            complain(repeats.warning)
        yield selected(first, None, repeats.count), selected(second, None, repeats.count)


def _confirmed(
    wanted: _Wanted, settings: Settings, *, is_quiet: bool
) -> tuple[Confirmed, tuple[Side, Side]]:
    with (
        _opened(wanted) as sides,
        open_view(sides[0].prepared.suite, is_quiet=is_quiet) as view,
    ):
        metrics = compared_metrics(sides[0].prepared, wanted.metrics)
        confirmation = Confirmation(*sides, settings, view, metrics=metrics, finding=wanted.finding)

        def attach(found: Confirmed, log: RunLogger) -> None:
            log.json(_document(found, sides, wanted), DOCUMENT_FILE)
            log.text(_page(found, sides), PAGE_FILE)

        return confirmation.run(attach), sides


def _rendered(
    found: Confirmed, sides: Sequence[Side], wanted: _Wanted, *, as_json: bool, markdown: bool
) -> str:
    from allele_mlflow.cli import comparison_tables as tables
    from allele_mlflow.cli.rendering import rendered

    if as_json:
        return json_text(_document(found, sides, wanted))
    if markdown:
        return _page(found, sides).rstrip()
    parts = [shown(_side_line(side)) for side in sides]
    if found.comparison is not None:
        parts += [rendered(table).rstrip() for table in tables.comparison_tables(found.comparison)]
        parts += map(shown, tables.summary_lines(found.comparison))
    return "\n".join([*parts, shown(_verdict_line(found))])


def _page(found: Confirmed, sides: Sequence[Side]) -> str:
    from allele_mlflow.cli import comparison_tables as tables

    lines = [f"- {_side_line(side)}" for side in sides]
    lines += [f"- {_verdict_line(found)}", ""]
    if found.comparison is not None:
        lines += tables.markdown_lines([found.comparison], [])
    return "\n".join(lines).rstrip() + "\n"


def _side_line(side: Side) -> str:
    suite = side.prepared.suite
    what = f"commit {side.commit}" if side.commit is not None else str(side.place.folder)
    counts = f"{len(side.prepared.cells)} cells x {suite.repeats} repeats"
    return f"{side.name:9} {suite.name}: {side.label}, {what}, {counts}"


def _verdict_line(found: Confirmed) -> str:
    if found.verdict is None:
        return "nothing was measured: no run finished"
    return f"the candidate is {found.verdict.value}: run {found.run_ids[1]} in MLflow has it"


def _document(found: Confirmed, sides: Sequence[Side], wanted: _Wanted) -> dict[str, Any]:
    from allele_mlflow.cli import comparison_tables as tables

    compared = [found.comparison] if found.comparison is not None else []
    return {
        "format": 1,
        "suite": sides[0].prepared.suite.name,
        "verdict": found.verdict.value if found.verdict is not None else None,
        "finding": wanted.finding,
        "repeats": sides[0].prepared.suite.repeats,
        "sides": {
            side.name: {
                "asked": asked.text,
                "commit": side.commit,
                "run_id": run_id,
                "benchmark_version": side.prepared.version,
                "environment": side.prepared.environment.identity,
            }
            for side, asked, run_id in zip(sides, wanted.sides, found.run_ids, strict=True)
        },
        "comparison": tables.document(compared, [])["comparisons"][0] if compared else None,
    }


def _code(verdict: Verdict | None, fail_on: str | None, *, require_evidence: bool) -> ExitCode:
    from allele_mlflow.analysis.verdicts import Verdict

    if verdict is None:
        return ExitCode.NOTHING_MEASURED
    if fail_on is not None and verdict is Verdict.WORSE:
        return ExitCode.FAILED
    if require_evidence and verdict is Verdict.INCONCLUSIVE:
        return ExitCode.INCONCLUSIVE
    return ExitCode.FINE
