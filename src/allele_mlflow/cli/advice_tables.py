"""
Effects of a matrix and the cells to try next: for a terminal, and as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow.analysis.factors import Effect
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.next_cells import NextCell, NextCells
from allele_mlflow.analysis.own_recommendations import MatrixAdvice
from allele_mlflow.cli.output import shown


def effect_tables(made: MatrixAdvice) -> Iterator[Table]:
    """
    A table an objective, a line an effect: the axes, then the pairs.
    """
    for proposal in made.proposals:
        effects = [one for one in made.effects if one.metric == proposal.metric]
        table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
        table.title = Text(shown(f"{proposal.metric} ({_way(proposal)}; {_support_text(effects)})"))
        table.add_column("parameter", overflow="fold")
        table.add_column("from -> to", overflow="fold")
        for name in ("effect", "of the scatter", "p after Holm"):
            table.add_column(name, justify="right")
        for one in effects:
            row = [
                " x ".join(one.term),
                between_text(one),
                "-" if one.size is None else estimate_text(one.size, "{:+.4g}"),
                "-" if one.variance_ratio is None else f"{one.variance_ratio:.0%}",
                one.reason if one.p_holm is None else f"{one.p_holm:.2g}",
            ]
            table.add_row(*(Text(shown(text)) for text in row), style="" if one.is_clear else "dim")
        yield table


def advice_lines(made: MatrixAdvice) -> Iterator[str]:
    """
    What to try, and why nothing more.
    """
    for proposal in made.proposals:
        if not proposal.cells:
            yield f"{proposal.metric}: {proposal.reason}"
        for cell in proposal.cells:
            yield f"{proposal.metric}: {cell_text(cell)}"
    documents = made.documents()
    for one in documents:
        yield f"{one['id']}  {one['title']}"
    environments = made.selection.environment_ids
    if len(environments) > 1:
        yield f"the runs are of {len(environments)} environments, and taken together"
    if made.selection.running_count:
        yield f"{made.selection.running_count} runs go on and are left out"


def cell_text(cell: NextCell) -> str:
    """
    A recommended cell in a sentence.
    """
    return (
        f"try {_named(cell.params)} ({cell.kind}): "
        f"{estimate_text(cell.value, '{:.4g}')} is to be expected, "
        f"{estimate_text(cell.gain, '{:+.4g}')} better than {_named(cell.best)}, "
        f"from {cell.support.runs} runs of {cell.support.cells} cells"
    )


def between_text(effect: Effect) -> str:
    """
    The levels that an effect is between.
    """
    return ", ".join(f"{low} -> {high}" for low, high in effect.between) or "-"


def estimate_text(one: Estimate, form: str) -> str:
    """
    A value with its interval, where there is one.
    """
    value = form.format(one.value)
    if one.low is None or one.high is None:
        return value
    return f"{value} [{form.format(one.low)}, {form.format(one.high)}]"


def advice_document(made: MatrixAdvice, run_id: str | None) -> dict[str, Any]:
    """
    Everything, as `--json` shows it.
    """
    return {
        "format": 1,
        "selection": made.selection.label,
        "runs": len(made.selection.frames.runs),
        "effects": [_effect_document(one) for one in made.effects],
        "recommendations": made.documents(),
        "silent": {one.metric: one.reason for one in made.proposals if not one.cells},
        "logged_to": run_id,
    }


def _effect_document(one: Effect) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(
        {
            "metric": one.metric,
            "term": one.term,
            "size": one.size and one.size._asdict(),
            "between": one.between,
            "p_value": one.p_value,
            "p_holm": one.p_holm,
            "variance_ratio": one.variance_ratio,
            "support": one.support._asdict(),
            "is_clear": one.is_clear,
            "reason": one.reason,
        }
    )
    told["levels"] = [
        {"level": level.level, "runs": level.runs, "mean": level.mean._asdict()}
        for level in one.levels
    ]
    return told


def _way(proposal: NextCells) -> str:
    return "no way is better" if proposal.direction == "none" else f"{proposal.direction} is better"


def _support_text(effects: list[Effect]) -> str:
    support = effects[0].support
    seeds = f", matched over {support.seeds} seeds" if support.seeds else ""
    failed = f", {support.failed} more without a value" if support.failed else ""
    return f"{support.runs} runs of {support.cells} cells{seeds}{failed}"


def _named(params: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())
