"""
`allele-mlflow status`: what waits in a spool, what became of the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.spools import SpooledRun, spooled_runs


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--all", "with_done", is_flag=True, help="Delivered runs too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def status(spool_dir: Path | None, with_done: bool, as_json: bool) -> None:
    """
    Show the runs in a spool: ledger, lag, last error, whether a sidecar serves them.

    SPOOL_DIR is the setting `spool_dir` by default.
    """
    spool_dir = spool_dir or Path(settings_module.load().spool_dir)
    runs = list(spooled_runs(spool_dir, with_done=with_done))
    if as_json:
        document = {"spool": str(spool_dir), "runs": [_describe(run) for run in runs]}
        click.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
        return
    if not runs:
        click.echo(f"nothing waits in {spool_dir}")
        return
    _print_table(spool_dir, runs)


def _describe(run: SpooledRun) -> dict[str, Any]:
    state = run.state
    return {
        "run_uid": run.spec.run_uid,
        "run_id": state.run_id if state else None,
        "experiment": run.spec.experiment,
        "run_name": run.spec.run_name,
        "status": state.status if state else "WAITING",
        "store": run.spec.tracking_uri_masked,
        "waiting": run.is_waiting,
        "served": run.is_served,
        "lag_s": state.lag_s if state and run.is_waiting else None,
        "last_error": state.last_error if state else None,
        "accepted": run.ledger.accepted,
        "ledger": msgspec.to_builtins(run.ledger),
    }


def _print_table(spool_dir: Path, runs: list[SpooledRun]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"spool {escape(str(spool_dir))}", title_justify="left")
    for column in ("run", "experiment", "status", "sidecar"):
        table.add_column(column, overflow="fold")
    for column in ("accepted", "pending", "lost"):
        table.add_column(column, justify="right")
    table.add_column("last error", overflow="fold")
    for run in runs:
        state = run.state
        table.add_row(
            escape(run.spec.run_name or run.spec.run_uid),
            escape(run.spec.experiment),
            state.status if state else "WAITING",
            "alive" if run.is_served else "none" if run.is_waiting else "-",
            f"{run.ledger.accepted:,}",
            f"{run.ledger.pending:,}",
            f"{run.ledger.lost:,}",
            escape((state.last_error if state else None) or ""),
        )
    Console().print(table)
