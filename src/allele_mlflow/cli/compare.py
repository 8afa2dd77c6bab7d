"""
`allele-mlflow compare`: is one set of runs better than another?
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.units import Direction

if TYPE_CHECKING:  # pandas and SciPy are read where they are needed
    from allele_mlflow.analysis.options import CompareOptions
    from allele_mlflow.analysis.suite_comparison import SuiteComparison, SuiteRanking

LOCATIONS = ("mean", "median", "iqm")


@click.command()
@click.argument("selections", metavar="BASELINE CANDIDATE...", nargs=-1, required=True)
@click.option("--metric", "metrics", multiple=True, metavar="NAME|GLOB", help="Only these.")
@click.option("--higher", multiple=True, metavar="METRIC", help="Of this one more is better.")
@click.option("--lower", multiple=True, metavar="METRIC", help="Of this one less is better.")
@click.option("--by", multiple=True, metavar="PARAM", help="Names the cells of runs of no suite.")
@click.option("--alpha", default=0.05, show_default=True, help="Chance of a false verdict, of all.")
@click.option("--confidence", default=0.95, show_default=True, help="Of the intervals.")
@click.option("--location", type=click.Choice(LOCATIONS), default="mean", show_default=True)
@click.option(
    "--equivalence",
    default=0.02,
    show_default=True,
    help="Part of the baseline that makes no difference in practice.",
)
@click.option("--seed", default=0, help="Of resamples and random arrangements.")
@click.option("--across-environments", is_flag=True, help="Compare timings whatever differs.")
@click.option(
    "--fail-on",
    type=click.Choice(["worse", "different"]),
    help="End with code 1 where a row is worse (or differs at all).",
)
@click.option("--require-evidence", is_flag=True, help="End with code 4 where nothing is decided.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--markdown", is_flag=True, help="Tables in Markdown.")
@click.option("--output", type=click.Path(path_type=Path), help="Write there, not to the terminal.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def compare(
    selections: Sequence[str],
    metrics: Sequence[str],
    higher: Sequence[str],
    lower: Sequence[str],
    by: Sequence[str],
    alpha: float,
    confidence: float,
    location: str,
    equivalence: float,
    seed: int,
    across_environments: bool,
    fail_on: str | None,
    require_evidence: bool,
    as_json: bool,
    markdown: bool,
    output: Path | None,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Compare the runs of each CANDIDATE with those of BASELINE, cell by cell and metric by metric.

    A selection is NAME, NAME~N or NAME[EXPRESSION]: an experiment (of a suite its newest
    execution, with ~1 the one before it), or a run by its id, uid or name. The expression is over
    params and tags: 'evolution[mutation_rate == 0.1]'.

    A verdict of better or worse needs a p-value below alpha after Holm's correction and an interval
    of the difference without zero; equivalent, an interval within what makes no difference. All
    else is inconclusive. Runs with the same seeds are compared in pairs; failed runs count as the
    worst. With three selections or more the configurations are ranked as well.

    Exit code 1: --fail-on; 2: there is no such selection or metric; 4: --require-evidence; 6: the
    store was unreachable.
    """
    if len(selections) < 2:
        raise click.UsageError("want a BASELINE and at least one CANDIDATE")
    settings = settings_module.load({"tracking_uri": tracking_uri})
    options = _options(alpha, confidence, location, equivalence, seed, higher, lower)
    compared, ranked = _compared(
        settings, selections, metrics, by, options, across_environments=across_environments
    )
    _write(comparison_text(compared, ranked, as_json=as_json, markdown=markdown), output)
    return _code(compared, fail_on, require_evidence=require_evidence)


def _options(
    alpha: float,
    confidence: float,
    location: str,
    equivalence: float,
    seed: int,
    higher: Sequence[str],
    lower: Sequence[str],
) -> CompareOptions:
    from allele_mlflow.analysis.locations import Location
    from allele_mlflow.analysis.options import CompareOptions

    directions = dict.fromkeys(higher, Direction.HIGHER)
    directions |= dict.fromkeys(lower, Direction.LOWER)
    return CompareOptions(
        alpha=alpha,
        confidence=confidence,
        location=Location(location),
        equivalence_ratio=equivalence,
        directions=directions,
        seed=seed,
    )


def _compared(
    settings: settings_module.Settings,
    selections: Sequence[str],
    metrics: Sequence[str],
    by: Sequence[str],
    options: CompareOptions,
    *,
    across_environments: bool,
) -> tuple[list[SuiteComparison], list[SuiteRanking]]:
    from allele_mlflow.analysis.selection import select
    from allele_mlflow.analysis.suite_comparison import compare_selections, rank_selections
    from allele_mlflow.tracking.reader import open_reader

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        sides = [select(reader, uri, one, prefix=settings.experiment_prefix) for one in selections]
    compared = [
        compare_selections(
            sides[0],
            other,
            metrics=metrics,
            by=by,
            options=options,
            across_environments=across_environments,
        )
        for other in sides[1:]
    ]
    ranked = rank_selections(sides, metrics=metrics, by=by, options=options) if sides[2:] else []
    return compared, ranked


def comparison_text(
    compared: Sequence[SuiteComparison],
    ranked: Sequence[SuiteRanking],
    *,
    as_json: bool,
    markdown: bool,
) -> str:
    """
    Comparisons and rankings as text: for a terminal, as Markdown, or as one JSON document.
    """
    from allele_mlflow.cli import comparison_tables as tables
    from allele_mlflow.cli.rendering import rendered

    if as_json:
        return json_text(tables.document(compared, ranked))
    if markdown:
        return "\n".join(tables.markdown_lines(compared, ranked)).rstrip()
    parts = []
    for one in compared:
        parts.append(shown(f"baseline  {one.baseline.label}"))
        parts.append(shown(f"candidate {one.candidate.label}"))
        parts += [rendered(table).rstrip() for table in tables.comparison_tables(one)]
        parts += map(shown, tables.summary_lines(one))
    for rank in ranked:
        parts.append(rendered(tables.ranking_table(rank)).rstrip())
        parts += map(shown, tables.ranking_lines(rank))
    return "\n".join(parts)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        say(text)
    else:
        output.write_text(f"{text}\n", encoding="utf-8")


def _code(
    compared: Sequence[SuiteComparison], fail_on: str | None, *, require_evidence: bool
) -> ExitCode:
    from allele_mlflow.analysis.comparison import Verdict

    rows = [row for one in compared if one.found is not None for row in one.found.rows]
    verdicts = {row.verdict for row in rows}
    bad = {"worse": {Verdict.WORSE}, "different": {*Verdict} - {Verdict.EQUIVALENT}}
    bad["different"].discard(Verdict.INCONCLUSIVE)
    if fail_on is not None and verdicts & bad[fail_on]:
        return ExitCode.FAILED
    if require_evidence and verdicts <= {Verdict.INCONCLUSIVE}:
        return ExitCode.INCONCLUSIVE
    return ExitCode.FINE
