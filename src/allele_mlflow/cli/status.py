"""
`allele-mlflow status`: what waits in a spool, what became of the rest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.output import say, shown
from allele_mlflow.cli.spools import SpooledRun, describe_empty, find_spools, spooled_runs


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path))
@click.option("--all", "with_done", is_flag=True, help="Delivered runs too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def status(spool_dir: Path | None, with_done: bool, as_json: bool) -> None:
    """
    Show the runs in a spool: ledger, lag, last error, whether a sidecar serves them.

    SPOOL_DIR is by default the setting `spool_dir`, and the spool in the user's state folder.
    """
    spools = find_spools(spool_dir, settings_module.load().spool_dir)
    runs = {folder: list(spooled_runs(folder, with_done=with_done)) for folder in spools}
    if as_json:
        described = [_describe(folder, run) for folder in spools for run in runs[folder]]
        say(_json({"spool": _text(spools[0]), "runs": described}))
        return
    if not runs[spools[0]]:
        say(describe_empty("nothing waits", spools[0]))
    for folder in spools:
        if runs[folder]:
            _show_table(folder, runs[folder])


def _describe(spool_dir: Path, run: SpooledRun) -> dict[str, Any]:
    state = run.state
    return {
        "run_uid": run.spec.run_uid,
        "run_id": state.run_id if state else None,
        "experiment": run.spec.experiment,
        "run_name": run.spec.run_name,
        "status": _status_of(run),
        "store": run.spec.tracking_uri_masked,
        "waiting": run.is_waiting,
        "served": run.is_served,
        "lag_s": state.lag_s if state and run.is_waiting else None,
        "last_error": state.last_error if state else None,
        "accepted": run.ledger.accepted,
        "ledger": msgspec.to_builtins(run.ledger),
        "spool": _text(spool_dir),
    }


def _status_of(run: SpooledRun) -> str:
    if not run.is_described:
        return "no description"
    return run.state.status if run.state else "WAITING"


def _text(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _json(document: dict[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(document)).decode()
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # in JSON's own escapes, which a program can read
        return json.dumps(msgspec.json.decode(text), indent=2)
    return text


def _show_table(spool_dir: Path, runs: list[SpooledRun]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = Text(f"spool {shown(str(spool_dir))}", overflow="fold")
    table = Table(title=title, title_justify="left")
    for column in ("run", "experiment", "status", "sidecar"):
        table.add_column(column, overflow="fold")
    for column in ("accepted", "pending", "lost"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            Text(shown(run.name)),
            Text(shown(run.spec.experiment)),
            _status_of(run),
            "-" if not run.is_waiting else "alive" if run.is_served else "none",
            f"{run.ledger.accepted:,}",
            f"{run.ledger.pending:,}",
            f"{run.ledger.lost:,}",
        )
    console = Console()
    with console.capture() as capture:
        console.print(table)
    say(capture.get(), nl=False)
    for run in runs:
        if run.state is not None and run.state.last_error:
            # below the table, whole: a column of it would be nine characters wide
            say(f"last error of {shown(run.name)}: {shown(run.state.last_error)}")
