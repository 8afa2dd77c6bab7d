"""
`allele-mlflow sync`: deliver what waits in a spool, in the foreground, with the caller's own
settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.spools import SpooledRun, scopes, spooled_runs
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import ErrorKind, SettingsError, TrackingError
from allele_mlflow.records import RunSpec
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.store import open_store
from allele_mlflow.sidecar.worker import Worker

UNREACHABLE, LOST = 6, 7
LOOK_S = 0.5


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--tracking-uri", help="Deliver here instead of to the setting `tracking_uri`.")
@click.option(
    "--give-up-after",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop when nothing could be delivered for so long.",
)
def sync(spool_dir: Path | None, tracking_uri: str | None, give_up_after: float) -> None:
    """
    Deliver the runs that wait in a spool and have no sidecar.

    SPOOL_DIR is the setting `spool_dir` by default. Exit code 6: the store was unreachable; 7:
    records were refused or torn. Ctrl-C is safe: what is not delivered goes on waiting.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri} if tracking_uri else None)
    if settings.is_offline:
        raise SettingsError(
            "tracking_uri='offline': want a store to deliver to, e.g. --tracking-uri sqlite:///mlflow.db",
            kind=ErrorKind.BAD_SETTING,
        )
    spool_dir = spool_dir or Path(settings.spool_dir)
    waiting = [run for run in spooled_runs(spool_dir, with_done=False) if not run.is_served]
    if not waiting:
        click.echo(f"nothing to deliver in {spool_dir}")
        return
    try:
        store = open_store(settings)
    except TrackingError as exc:
        click.echo(f"allele-mlflow: the store cannot be reached: {exc}", err=True)
        sys.exit(UNREACHABLE)
    is_done = True
    for scope in scopes(spool_dir):
        worker = Worker(
            scope,
            None,
            connect=lambda: store,
            idle_timeout_s=0.0,
            is_drain=True,
            adapt=_adapted_to(settings),
        )
        anyio.run(_serve, worker, give_up_after)
        is_done = is_done and not worker.has_gaps
    sys.exit(_report(spool_dir, waiting, is_done=is_done))


def _adapted_to(settings: Settings) -> Callable[[RunSpec], RunSpec]:
    def adapt(spec: RunSpec) -> RunSpec:
        if not spec.offline:
            return spec
        return msgspec.structs.replace(
            spec,
            artifact_location=settings.experiment_artifact_location,
            batch_size=settings.batch_size,
        )

    return adapt


async def _serve(worker: Worker, give_up_after_s: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_give_up, worker, give_up_after_s)
        await worker.serve()
        group.cancel_scope.cancel()


async def _give_up(worker: Worker, after_s: float) -> None:
    progress, since_s = -1, now_monotonic_s()
    while True:
        await anyio.sleep(LOOK_S)
        present = worker.progress
        if present != progress:
            progress, since_s = present, now_monotonic_s()
        elif now_monotonic_s() - since_s > after_s:
            worker.stop()
        if sys.stderr.isatty():
            click.echo(f"\r{present:,} records dealt with", nl=False, err=True)


def _report(spool_dir: Path, before: list[SpooledRun], *, is_done: bool) -> int:
    wanted = {run.spec.run_uid for run in before}
    lost = undelivered = 0
    for run in spooled_runs(spool_dir, with_done=True):
        if run.spec.run_uid not in wanted:
            continue
        damage = run.state.damage if run.state else []
        lost += run.ledger.lost + len(damage)
        undelivered += run.is_waiting
        metrics = run.ledger.delivered.get("metric", 0)
        name = run.spec.run_name or run.spec.run_uid
        end = "still waiting" if run.is_waiting else run.state.status if run.state else "?"
        error = f" ({run.state.last_error})" if run.is_waiting and run.state else ""
        click.echo(
            f"{run.spec.experiment} {name}: {end}, {metrics:,} metrics delivered, "
            f"{run.ledger.pending:,} pending, {run.ledger.lost:,} rejected, dropped or torn{error}"
        )
        for text in damage:
            click.echo(f"  not readable: {text}")
    if undelivered or not is_done:
        return UNREACHABLE
    return LOST if lost else 0
