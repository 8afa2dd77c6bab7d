"""
The ledger of recommendations and the scores of predictions: for a terminal, and as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.analysis.advice_ledger import Calibration, LedgerEntry
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.prediction_scores import PredictionScore, Settled
from allele_mlflow.cli.output import shown

_ID_LENGTH = 8


def ledger_table(entries: Sequence[LedgerEntry]) -> Table:
    """
    A line a recommendation, gains in percent of the baseline: above zero is better.
    """
    names = ("recommendation", "source", "runs", "expected %", "realised %", "verdict")
    table = _table("recommendations", names, left={"recommendation", "source", "verdict"})
    for one in entries:
        told = one.recommendation
        verdict = one.reason if one.found is None else f"{one.found.verdict}"
        _add(
            table,
            f"{told.recommendation_id[:_ID_LENGTH]} {told.title}",
            told.source,
            str(len(one.follow_ups)),
            _percent(told.expected),
            _percents(one.gain),
            verdict,
        )
    return table


def source_table(sources: Sequence[Calibration]) -> Table:
    """
    A line a source: how far its word can be relied on.
    """
    names = ("source", "told", "judged", "right way", "realised / expected", "as expected", "")
    table = _table("sources", names, left={"source", ""})
    for one in sources:
        ratio = "-" if one.realised_ratio is None else f"{one.realised_ratio:.2f}"
        _add(
            table,
            one.source,
            str(one.told),
            str(one.judged),
            _percents(one.direction_right, "{:.0f}"),
            ratio,
            _percents(one.coverage, "{:.0f}"),
            one.verdict,
        )
    return table


def score_table(scores: Sequence[PredictionScore]) -> Table:
    """
    A line for each source, kind and metric; coverage in percent.
    """
    names = ("predicted", "source", "settled", "in 80 %", "in 95 %", "bias", "skill", "")
    table = _table("predictions", names, left={"predicted", "source", ""})
    for one in scores:
        bias = "-" if one.bias is None else f"{one.bias.value:+.3g}"
        _add(
            table,
            f"{one.kind} of {one.metric}",
            one.source,
            f"{one.settled}/{one.told}",
            _percents(one.coverage_80, "{:.0f}"),
            _percents(one.coverage_95, "{:.0f}"),
            bias,
            "-" if one.skill is None else f"{one.skill:.2f}",
            one.verdict,
        )
    return table


def ledger_document(
    entries: Sequence[LedgerEntry], sources: Sequence[Calibration]
) -> dict[str, Any]:
    """
    Everything, as `--json` shows it; gains are ratios.
    """
    return {
        "format": 1,
        "entries": [_entry_document(one) for one in entries],
        "sources": [_plain(asdict(one) | {"verdict": one.verdict}) for one in sources],
    }


def scores_document(
    scores: Sequence[PredictionScore], settled: Sequence[Settled]
) -> dict[str, Any]:
    """
    Everything, as `--json` shows it.
    """
    return {
        "format": 1,
        "scores": [_plain(asdict(one) | {"verdict": one.verdict}) for one in scores],
        "predictions": [
            _plain(asdict(one.told) | {"outcome": one.outcome, "naive": one.naive})
            | {"reason": one.reason}
            for one in settled
        ],
    }


def _entry_document(one: LedgerEntry) -> dict[str, Any]:
    found = one.found
    told: dict[str, Any] = _plain(asdict(one.recommendation))
    return told | {
        "judged_by": one.metric,
        "follow_ups": list(one.follow_ups),
        "gain": one.gain and one.gain._asdict(),
        "is_as_expected": one.is_as_expected,
        "verdict": None if found is None else found.verdict.value,
        "p_value": None if found is None else found.p_value,
        "reason": one.reason,
    }


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """
    Without what JSON has no word for.
    """
    found = {}
    for name, value in told.items():
        if isinstance(value, Estimate):
            value = value._asdict()
        found[name] = None if isinstance(value, float) and value != value else value
    return found


def _table(title: str, names: Sequence[str], *, left: set[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for name in names:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    return table


def _add(table: Table, *texts: str) -> None:
    table.add_row(*(Text(shown(text)) for text in texts))


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:+.3g}"


def _percents(one: Estimate | None, form: str = "{:+.3g}") -> str:
    if one is None:
        return "-"
    value = form.format(100 * one.value)
    if one.low is None or one.high is None:
        return value
    return f"{value} [{form.format(100 * one.low)}, {form.format(100 * one.high)}]"
