"""
`allele-mlflow anomalies`: what is wrong within runs.
"""

from __future__ import annotations

import contextlib

import click
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, json_text, say, shown
from allele_mlflow.cli.rendering import rendered

MOST_ROWS = 100
_STYLES = {"error": "bold red", "critical": "bold red", "warning": "yellow", "info": "dim"}


@click.command()
@click.argument("selection")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, as anomalies.json.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def anomalies(selection: str, as_json: bool, tracking_uri: str | None) -> ExitCode:
    """
    Look within each run of SELECTION for what is wrong: readings that are not finite, divergence, a
    stuck objective, collapsed diversity, growing memory, spikes, throughput that dropped, stalls;
    and list what the runs were told of (`log.feed` of Allele's AnomalyResult), by phase and step.

    SELECTION is NAME, NAME~N or NAME[EXPRESSION], as of `compare`. Exit code 1: something was
    found; 2: there is no such selection; 6: the store was unreachable.
    """
    from allele_mlflow.analysis.selection import select
    from allele_mlflow.analysis.suite_anomalies import (
        anomalies_document,
        find_in_runs,
        told_anomalies,
    )
    from allele_mlflow.tracking.reader import open_reader
    from allele_mlflow.units import Direction

    settings = settings_module.load({"tracking_uri": tracking_uri})
    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader, Progress() as progress:
        chosen = select(reader, uri, selection, prefix=settings.experiment_prefix)
        count = len(chosen.frames.runs)
        progress.show(f"looking through {count:,} runs")
        objectives = {
            name: facts.direction
            for name, facts in chosen.facts.metrics.items()
            if facts.is_objective and facts.direction is not Direction.NONE
        }
        found = find_in_runs(reader, chosen.frames, objectives=objectives)
        told = told_anomalies(uri, chosen.frames)
        found = pd.concat([found, told], ignore_index=True) if len(told) else found
    if as_json:
        say(json_text(anomalies_document(found, runs=count)))
    else:
        if len(found):
            say(rendered(_table(found)).rstrip())
        say(shown(f"{len(found)} anomalies in {count} runs of {chosen.label}"))
    return ExitCode.FAILED if len(found) else ExitCode.FINE


def _table(found: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "cell", "steps", "what"):
        table.add_column(name, overflow="fold", no_wrap=name in ("run", "steps"))
    for row in found.head(MOST_ROWS).to_dict("records"):
        place = "".join(f", {name} {row[name]}" for name in ("component", "phase") if row[name])
        what = Text(
            shown(f"{row['kind']} of {row['key']}{place}: {row['message'] or row['source']}")
        )
        what.stylize(_STYLES.get(row["severity"], ""))
        first, last = row["first_step"], row["last_step"]
        steps = "-" if pd.isna(first) else f"{first}-{last}"
        table.add_row(row["run_id"][:8], Text(shown(row["cell"] or "")), steps, what)
    if len(found) > MOST_ROWS:
        table.add_row(f"and {len(found) - MOST_ROWS} more: --json")
    return table
