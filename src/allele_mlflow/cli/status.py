"""
`allele-mlflow status`: what waits in the spools, what became of the rest, how the sidecars are.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.revival import revive
from allele_mlflow.records import SEVERITIES
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.profile import is_served
from allele_mlflow.watching.spool_look import (
    SpoolLook,
    look_into_spool,
    sidecars_in,
    spools_document,
    status_of,
)
from allele_mlflow.watching.spools import (
    SpooledRun,
    describe_empty,
    find_all_spools,
    find_spools,
)

#: A shorter lag is none.
SHOWN_LAG_S = 1.0


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path))
@click.option("--all", "with_done", is_flag=True, help="Delivered runs too.")
@click.option("--look-only", is_flag=True, help="Start no sidecar for runs that were left alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def status(spool_dir: Path | None, with_done: bool, look_only: bool, as_json: bool) -> None:
    """
    Show the runs in your spools: ledger, lag, last error, whether a sidecar serves them.

    Without SPOOL_DIR: the setting `spool_dir`, the spool in the user's state folder, and every
    other spool of yours in which anything waits. A run whose benchmark is gone and that has no
    sidecar gets one, where your settings and credentials are those that it was started with.
    """
    settings = settings_module.load()
    if spool_dir is not None:
        usual = find_spools(spool_dir, settings.spool_dir)
        folders = usual
    else:
        usual = find_spools(None, settings.spool_dir)
        folders = find_all_spools(settings.spool_dir)
    spools = []
    for folder in folders:
        try:
            spools.append(_look_into(folder, settings, with_done=with_done, look_only=look_only))
        except OSError as exc:
            if folder in usual:
                raise
            spools.append(SpoolLook(folder, problem=f"{folder}: {exc.strerror or exc}"))
    if as_json:
        say(json_text(spools_document(spools)))
    else:
        _show(spools, usual)
    for one in spools:
        if one.problem is not None:
            complain(f"cannot look into {shown(one.problem)}")


def _look_into(folder: Path, settings: Settings, *, with_done: bool, look_only: bool) -> SpoolLook:
    look = look_into_spool(folder, with_done=with_done)
    if not look_only:
        look.revived = revive(look.runs, settings)
        look.sidecars = sidecars_in(folder) if look.revived else look.sidecars
    return look


def _show(spools: list[SpoolLook], usual: list[Path]) -> None:
    quiet = [one for one in spools if not one.runs]
    for one in quiet:
        if one.folder == usual[0] or one.wanted_sidecars:
            say(describe_empty("nothing waits", one.folder))
            _show_sidecars(one)
    for one in spools:
        if one.runs:
            _show_table(one)
            _show_sidecars(one)
            _show_hint(one)
            _show_errors(one)
            _show_alerts(one)
    others = [
        one
        for one in quiet
        if one.folder not in usual and not one.wanted_sidecars and one.problem is None
    ]
    if others:
        say(f"nothing waits in {len(others)} other spool{'s' if len(others) > 1 else ''} of yours")


def _show_table(place: SpoolLook) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = Text(f"spool {shown(str(place.folder))}", overflow="fold")
    table = Table(title=title, title_justify="left")
    for column in ("run", "experiment", "status", "sidecar"):
        table.add_column(column, overflow="fold")
    for column in ("accepted", "pending", "lost"):
        table.add_column(column, justify="right", no_wrap=True)
    health = {(one.scope, one.profile): one.health for one in place.sidecars}
    for run in place.runs:
        table.add_row(
            Text(shown(run.name)),
            Text(shown(run.spec.experiment)),
            status_of(run),
            _sidecar_of(place, run, health.get((run.folder.parent.parent, run.spec.profile))),
            f"{run.ledger.accepted:,}",
            f"{run.ledger.pending:,}",
            f"{run.ledger.lost:,}",
        )
    console = Console()
    with console.capture() as capture:
        console.print(table)
    say(capture.get(), nl=False)


def _sidecar_of(place: SpoolLook, run: SpooledRun, health: str | None) -> str:
    if not run.is_waiting:
        return "-"
    if run.folder in place.revived:
        return "starting"
    if not run.is_served:
        return "none"
    lag_s = run.state.lag_s if run.state is not None else 0.0
    text = "silent" if health == "silent" else "alive"
    return f"{text}, lag {lag_s:,.0f} s" if lag_s >= SHOWN_LAG_S else text


def _show_errors(place: SpoolLook) -> None:
    for run in place.runs:
        if run.state is not None and run.state.last_error:
            # below the table, whole: a column of it would be nine characters wide
            say(f"last error of {shown(run.name)}: {shown(run.state.last_error)}")


def _show_alerts(place: SpoolLook) -> None:
    for run in place.runs:
        state = run.state
        if state is None or not state.last_alert:
            continue
        found = state.alert_counts
        counts = [f"{found[one]:,} {one}" for one in reversed(SEVERITIES) if found.get(one)]
        say(f"alerts of {shown(run.name)}: {', '.join(counts)}; last {shown(state.last_alert)}")


def _show_sidecars(place: SpoolLook) -> None:
    for one in place.wanted_sidecars:
        status = one.status
        who = f"sidecar {one.pid or '?'}" + (" (a thread)" if one.is_thread else "")
        where = "" if one.is_here else f" of {one.scope.name}"
        text = f"{who}{where}: {one.health}"
        if status is not None and one.is_held:
            runs = f"{len(status.runs)} run{'s' if len(status.runs) != 1 else ''}"
            text += (
                f", heartbeat {one.heartbeat_age_s or 0.0:,.0f} s ago, {runs}, "
                f"{status.cpu_s:,.1f} s of CPU, to {status.store}"
            )
            text += f", written by {status.writes_by}" if status.writes_by else ""
        say(shown(text))
        if status is not None and status.last_error:
            say(f"  its last error: {shown(status.last_error)}")


def _show_hint(place: SpoolLook) -> None:
    left = [
        run
        for run in place.waiting
        if not run.is_served and run.folder not in place.revived and _is_left(run)
    ]
    if left:
        command = f"allele-mlflow sync {shlex.quote(str(place.folder))}"
        say(f"without a sidecar: {len(left):,}; delivered by: {shown(command)}")


def _is_left(run: SpooledRun) -> bool:
    # one may have come while we looked; and without a description nobody can deliver it
    return run.is_described and not is_served(run.folder.parent.parent, run.spec)
