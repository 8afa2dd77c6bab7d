"""
`allele-mlflow anytime`: how good searches are after how many evaluations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.rendering import rendered
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction

if TYPE_CHECKING:
    import pandas as pd

    from allele_mlflow.analysis.search_curves import SearchCurves
    from allele_mlflow.analysis.selection import Selection

_SHOWN_TARGETS = 4


@click.command()
@click.argument("selection")
@click.option("--metric", help="The objective; by default the suite's first.")
@click.option("--direction", type=click.Choice(["higher", "lower"]), help="Which way is better.")
@click.option("--per-step", metavar="N|PARAM", help="Evaluations of a step; 1 by default.")
@click.option("--target", "targets", type=float, multiple=True, help="A value to be reached.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document of all frames.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def anytime(
    selection: str,
    metric: str | None,
    direction: str | None,
    per_step: str | None,
    targets: Sequence[float],
    as_json: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Show the anytime performance of the searches in SELECTION, by COCO's definitions: the area under
    the best so far, the expected running time (ERT) to targets, the part of targets reached.

    Evaluations are steps, times --per-step: a number, or a param such as population_size. Exit code
    2: no such selection, metric or direction; 6: the store was unreachable.
    """
    from allele_mlflow.analysis.search_curves import read_curves
    from allele_mlflow.analysis.selection import select
    from allele_mlflow.tracking.reader import open_reader

    settings = settings_module.load({"tracking_uri": tracking_uri})
    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        chosen = select(reader, uri, selection, prefix=settings.experiment_prefix)
        name, way = _objective(chosen, metric, direction)
        curves = read_curves(reader, chosen.frames, name, way, per_step=per_step, targets=targets)
    if as_json:
        say(json_text(_document(curves)))
    else:
        say(rendered(_table(curves)).rstrip())
        say(shown(f"{name}, {way} is better, of {chosen.label}; ERT in evaluations"))
    return ExitCode.FINE


def _objective(
    chosen: Selection, metric: str | None, direction: str | None
) -> tuple[str, Direction]:
    objectives = [name for name, facts in chosen.facts.metrics.items() if facts.is_objective]
    name = metric or next(iter(objectives), None)
    if name is None:
        raise AnalysisError("the runs name no objective: --metric", kind=ErrorKind.BAD_DATA)
    if direction is not None:
        return name, Direction(direction)
    facts = chosen.facts.metrics.get(name)
    if facts is None or facts.direction is Direction.NONE:
        raise AnalysisError(
            f"which way is better is not known of {name!r}: --direction", kind=ErrorKind.BAD_DATA
        )
    return name, facts.direction


def _table(curves: SearchCurves) -> Table:
    from allele_mlflow.analysis.median_interval import median_interval
    from allele_mlflow.analysis.search_curves import target_texts

    areas, times = curves.areas(), curves.running_times()
    step = max(1, len(curves.targets) // _SHOWN_TARGETS)
    targets = curves.targets[::-1][::step][::-1][-_SHOWN_TARGETS:]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cell", overflow="fold")
    for name in ("runs", "best", "area"):
        table.add_column(name, justify="right", no_wrap=True)
    for text in target_texts(targets):
        table.add_column(f"ERT to\n{text}", justify="right", no_wrap=True)
    for cell, group in areas.groupby("cell", sort=False):
        own = times[times["cell"] == cell].set_index("target")
        best = median_interval(group["best"]).median
        table.add_row(
            Text(shown(str(cell) or "all runs")),
            str(len(group)),
            "-" if best is None else f"{best:.5g}",
            f"{group['area'].mean():.3f}",
            *(_ert(own, target) for target in targets),
        )
    return table


def _ert(times: pd.DataFrame, target: float) -> str:
    row = times.loc[target]
    if not row["reached"]:
        return "never"
    part = "" if row["reached"] == row["runs"] else f" ({row['reached']}/{row['runs']})"
    return f"{row['expected_evaluations']:.4g}{part}"


def _document(curves: SearchCurves) -> dict[str, Any]:
    return {
        "format": 1,
        "metric": curves.metric,
        "direction": curves.direction.value,
        "targets": list(curves.targets),
        "areas": _records(curves.areas()),
        "running_times": _records(curves.running_times()),
        "runtimes": _records(curves.runtimes()),
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.astype("object").where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
