"""
Comparisons as tables: for a terminal, for a page in Markdown, as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.analysis.comparison import Comparison, Verdict
from allele_mlflow.analysis.comparison_lines import (
    VERDICT_ORDER,
    comparison_lines,
)
from allele_mlflow.analysis.comparison_lines import (
    ranking_lines as ranking_lines,
)
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.suite_comparison import SuiteComparison, SuiteRanking
from allele_mlflow.cli.output import shown

#: How verdicts are shown.
STYLES = {
    Verdict.WORSE: "bold red",
    Verdict.BETTER: "green",
    Verdict.DIFFERENT: "yellow",
    Verdict.EQUIVALENT: "cyan",
    Verdict.INCONCLUSIVE: "dim",
}
MOST_ROWS = 200
Row = tuple[str, ...]
METRIC_WIDTH = 20
HEADINGS = ("cell", "metric", "baseline", "candidate", "difference", "A12", "p", "verdict")


def sorted_rows(compared: SuiteComparison) -> list[Comparison]:
    """
    Rows with what matters most first: worse, better, different, equivalent, inconclusive.
    """
    rows = compared.found.rows if compared.found is not None else ()
    return sorted(rows, key=lambda row: VERDICT_ORDER.index(row.verdict))


def comparison_tables(compared: SuiteComparison) -> Iterator[Table]:
    """
    A table a cell, a line a metric; cells in the order of `sorted_rows`.
    """
    by_cell: dict[str, list[Comparison]] = {}
    for row in sorted_rows(compared)[:MOST_ROWS]:
        by_cell.setdefault(row.cell, []).append(row)
    for cell, rows in by_cell.items():
        table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
        table.title = Text(shown(f"{cell or 'all runs'} ({_runs_text(rows[0])})"))
        for name in HEADINGS[1:]:
            if name == "metric":
                table.add_column(name, overflow="fold", width=METRIC_WIDTH)
            else:
                justify: Literal["left", "right"] = "left" if name == "verdict" else "right"
                table.add_column(name, justify=justify, no_wrap=True)
        for row in rows:
            cells = [Text(shown(text)) for text in _texts(row, compared)[1:]]
            cells[-1].stylize(STYLES[row.verdict])
            table.add_row(*cells)
        yield table


def _runs_text(row: Comparison) -> str:
    paired = ", in pairs" if row.is_paired else ""
    return f"{row.baseline.runs} and {row.candidate.runs} runs{paired}"


def summary_lines(compared: SuiteComparison) -> Iterator[str]:
    """
    As of `comparison_lines`, and how many rows are not shown.
    """
    yield from comparison_lines(compared)
    found = compared.found
    if found is not None and len(found.rows) > MOST_ROWS:
        yield f"{len(found.rows) - MOST_ROWS} rows are not shown: --json has all"


def ranking_table(ranked: SuiteRanking) -> Table:
    """
    A line a configuration, the best first.
    """
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.title = Text(shown(f"{ranked.metric}, {ranked.direction} is better, {ranked.note}"))
    for name in ("configuration", "mean rank", "IQM", "P(better than the first)"):
        table.add_column(name, justify="left" if name == "configuration" else "right")
    for row in ranking_rows(ranked):
        table.add_row(*(Text(shown(text)) for text in row))
    return table


def ranking_rows(ranked: SuiteRanking) -> Iterator[Row]:
    """
    The same as texts.
    """
    by_label = {one.label: one for one in ranked.aggregates}
    order = ranked.ranking.names if ranked.ranking is not None else tuple(by_label)
    for place, label in enumerate(order):
        one = by_label[label]
        rank = f"{ranked.ranking.mean_ranks[place]:.2f}" if ranked.ranking is not None else "-"
        better = "-" if one.improvement is None else _estimate(one.improvement, "{:.2f}")
        yield label, rank, _estimate(one.iqm, "{:.5g}"), better


def markdown_lines(
    compared: Sequence[SuiteComparison], ranked: Sequence[SuiteRanking]
) -> Iterator[str]:
    """
    The same for a page, such as a summary of a CI job.
    """
    for one in compared:
        yield f"### {_escaped(one.candidate.label)} against {_escaped(one.baseline.label)}"
        yield ""
        yield _line(HEADINGS)
        yield _line("---" for _ in HEADINGS)
        for row in sorted_rows(one)[:MOST_ROWS]:
            texts = _texts(row, one)
            yield _line((*map(_escaped, texts[:-1]), f"**{texts[-1]}**"))
        yield ""
        for text in summary_lines(one):
            yield f"- {_escaped(text)}"
        yield ""
    for rank in ranked:
        yield f"### {_escaped(rank.metric)}, {rank.direction} is better"
        yield ""
        yield _line(("configuration", "mean rank", "IQM", "P(better than the first)"))
        yield _line(("---",) * 4)
        for row_of_rank in ranking_rows(rank):
            yield _line(map(_escaped, row_of_rank))
        yield ""
        for text in (rank.note, *ranking_lines(rank)):
            yield f"- {_escaped(text)}"
        yield ""


def document(compared: Sequence[SuiteComparison], ranked: Sequence[SuiteRanking]) -> dict[str, Any]:
    """
    Everything, as `--json` shows it.
    """
    return {
        "format": 1,
        "comparisons": [_comparison_document(one) for one in compared],
        "rankings": [_ranking_document(one) for one in ranked],
    }


def _comparison_document(one: SuiteComparison) -> dict[str, Any]:
    found, comparability = one.found, one.comparability
    return {
        "baseline": one.baseline.label,
        "candidate": one.candidate.label,
        "baseline_runs": list(one.baseline.frames.runs["run_id"]),
        "candidate_runs": list(one.candidate.frames.runs["run_id"]),
        "verdicts": {v.value: found.count(v) for v in STYLES} if found is not None else {},
        "hypotheses": found.family_count if found is not None else 0,
        "alpha": found.options.alpha if found is not None else None,
        "rows": [_plain(row) for row in found.frame().to_dict("records")] if found else [],
        "only_baseline": list(found.only_baseline) if found is not None else [],
        "only_candidate": list(found.only_candidate) if found is not None else [],
        "environments": None
        if comparability is None
        else {
            "verdict": comparability.verdict.value,
            "differences": list(map(str, comparability.differences)),
        },
        "not_compared": list(one.not_compared),
        "notes": list(one.notes),
    }


def _ranking_document(one: SuiteRanking) -> dict[str, Any]:
    ranking = one.ranking
    return {
        "metric": one.metric,
        "direction": one.direction.value,
        "cells": list(one.cells),
        "note": one.note,
        "configurations": [
            {
                "name": each.label,
                "iqm": each.iqm._asdict(),
                "probability_of_improvement": each.improvement and each.improvement._asdict(),
            }
            for each in one.aggregates
        ],
        "mean_ranks": dict(zip(ranking.names, ranking.mean_ranks, strict=True)) if ranking else {},
        "friedman_p": ranking.friedman.p_value if ranking else None,
        "critical_difference": ranking.critical_difference if ranking else None,
        "pairs": [
            {
                "better": pair.better,
                "worse": pair.worse,
                "p_holm": pair.p_holm,
                "is_different": pair.is_different,
            }
            for pair in (ranking.pairs if ranking else ())
        ],
    }


def _texts(row: Comparison, compared: SuiteComparison) -> Row:
    unit = compared.units.get(row.metric)
    is_said = unit is None or row.metric.endswith(unit)
    metric = row.metric if is_said else f"{row.metric} ({unit})"
    return (
        row.cell or "all runs",
        metric,
        _side(row.baseline.centre, row.baseline.values, row.baseline.runs),
        _side(row.candidate.centre, row.candidate.values, row.candidate.runs),
        _difference(row),
        f"{row.a12.value:.2f}" if row.a12 is not None else "-",
        f"{row.p_holm:.2g}" if row.p_holm is not None else "-",
        row.verdict.value,
    )


def _side(centre: float | None, values: int, runs: int) -> str:
    text = "-" if centre is None else f"{centre:.5g}"
    return text if values == runs else f"{text} ({values}/{runs})"


def _difference(row: Comparison) -> str:
    """
    In percent where there is a ratio, else in the metric's unit.
    """
    ratio = row.ratio
    if ratio is not None and ratio.low is not None and ratio.high is not None:
        parts = [_percent(one) for one in (ratio.value, ratio.low, ratio.high)]
        return f"{parts[0]} % [{parts[1]}, {parts[2]}]"
    return _estimate(row.difference, "{:+.4g}") if row.difference is not None else "-"


def _percent(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    return f"{percent:+.2f}" if abs(percent) < 10 else f"{percent:+.0f}"


def _estimate(one: Estimate, form: str) -> str:
    value = form.format(one.value)
    if one.low is None or one.high is None:
        return value
    return f"{value} [{form.format(one.low)}, {form.format(one.high)}]"


def _line(texts: Any) -> str:
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    plain = " ".join(text.split())
    for mark in "\\`*_[]<>|":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(name): None if value is None or value != value else value for name, value in row.items()
    }
