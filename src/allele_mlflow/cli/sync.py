"""
`allele-mlflow sync`: deliver what waits in a spool, in the foreground, with the caller's own
settings, each run to its own store.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, say
from allele_mlflow.cli.sync_outcome import SyncOutcome
from allele_mlflow.cli.targets import adapt_spec, find_target
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import ErrorKind, SettingsError, TrackingError
from allele_mlflow.records import RunSpec
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.sidecar.store import open_store
from allele_mlflow.sidecar.worker import Worker, raise_descriptor_limit
from allele_mlflow.tracking.protocol import Tracking
from allele_mlflow.watching.spools import describe_empty, find_spools, scopes, spooled_runs

LOOK_S = 0.5
#: An upload shows no progress; one that is slower than this is given up.
SLOWEST_BYTES_S = 1_000_000


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path))
@click.option("--tracking-uri", help="Deliver all runs here, and not each to its own store.")
@click.option(
    "--give-up-after",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Leave a store to which nothing could be delivered for so long.",
)
def sync(spool_dir: Path | None, tracking_uri: str | None, give_up_after: float) -> ExitCode:
    """
    Deliver the runs that wait in a spool and have no sidecar.

    SPOOL_DIR is by default the setting `spool_dir`, and the spool in the user's state folder. A run
    goes to the store that it was started with, an offline one to the setting `tracking_uri`. Exit
    code 2: a store must be named with --tracking-uri; 6: a store was unreachable; 7: records were
    refused, torn or cannot be read. Ctrl-C is safe: what is not delivered goes on waiting.
    """
    if math.isnan(give_up_after) or give_up_after < 0:
        raise click.BadParameter(f"want seconds, 0 or more, got {give_up_after}")
    is_explicit = tracking_uri is not None
    settings = settings_module.load({"tracking_uri": tracking_uri} if is_explicit else None)
    if is_explicit and settings.is_offline:
        raise SettingsError(
            "tracking_uri='offline': want a store to deliver to, e.g. --tracking-uri sqlite:///mlflow.db",
            kind=ErrorKind.BAD_SETTING,
        )
    spools = find_spools(spool_dir, settings.spool_dir)
    found = [run for folder in spools for run in spooled_runs(folder, with_done=False)]
    find = partial(find_target, setting_uri=settings.tracking_uri, is_explicit=is_explicit)
    outcome = SyncOutcome()
    for run in found:
        if not run.is_served:
            outcome.add(run, find(run.spec) if run.is_described else None)
    if outcome.is_empty:
        served = f"; with a sidecar: {len(found)}" if found else ""
        say(describe_empty("nothing to deliver", spools[0]) + served)
        return ExitCode.FINE
    folders = [scope for folder in spools for scope in scopes(folder)]
    try:
        _deliver_all(outcome, settings, folders, find=find, give_up_after_s=give_up_after)
    except KeyboardInterrupt:
        outcome.is_interrupted = True
    return outcome.report()


def _deliver_all(
    outcome: SyncOutcome,
    settings: Settings,
    folders: list[Path],
    *,
    find: Callable[[RunSpec], str | None],
    give_up_after_s: float,
) -> None:
    """
    Deliver to one store after another, whatever becomes of the others.
    """
    raise_descriptor_limit()
    with Progress() as progress:
        for target in outcome.runs:
            try:
                theirs = _settings_for(target, settings)
                store = open_store(theirs)
            except SettingsError as exc:
                outcome.complaints.append(f"{mask_secrets(target)} is no store: {exc}")
                outcome.is_store_wanted = True
                continue
            except TrackingError as exc:
                outcome.complaints.append(f"the store cannot be reached: {exc}")
                outcome.has_gaps = True
                continue
            for scope in folders:
                worker = Worker(
                    scope,
                    None,
                    connect=partial(_same, store),
                    idle_timeout_s=0.0,
                    is_drain=True,
                    adapt=partial(_adapt, find=find, target=target, settings=theirs),
                )
                anyio.run(_serve, worker, give_up_after_s, progress)
                outcome.has_gaps |= worker.has_gaps
                if worker.is_stopping:
                    where = f"{mask_secrets(target)}: left"
                    outcome.complaints.append(f"{where}, no progress for {give_up_after_s:g} s")
                    break


def _settings_for(target: str, settings: Settings) -> Settings:
    if target == settings.tracking_uri:
        return settings
    return settings_module.load({"tracking_uri": target})


def _same(store: Tracking) -> Tracking:
    return store


def _adapt(
    spec: RunSpec, *, find: Callable[[RunSpec], str | None], target: str, settings: Settings
) -> RunSpec | None:
    return adapt_spec(spec, settings) if find(spec) == target else None


async def _serve(worker: Worker, give_up_after_s: float, progress: Progress) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, worker, give_up_after_s, progress)
        await worker.serve()
        group.cancel_scope.cancel()


async def _watch(worker: Worker, give_up_after_s: float, progress: Progress) -> None:
    dealt_with, since_s = -1, now_monotonic_s()
    while True:
        await anyio.sleep(LOOK_S)
        present = worker.progress
        if present != dealt_with:
            dealt_with, since_s = present, now_monotonic_s()
        elif (
            now_monotonic_s() - since_s > give_up_after_s + worker.bytes_in_flight / SLOWEST_BYTES_S
        ):
            worker.stop()
        progress.show(f"{present:,} records dealt with")
