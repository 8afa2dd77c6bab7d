"""
`allele-mlflow status`: what waits in the spools, what became of the rest, how the sidecars are.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.output import complain, json_text, path_text, say, shown
from allele_mlflow.cli.revival import revive
from allele_mlflow.cli.sidecars import Sidecar, find_sidecars
from allele_mlflow.cli.spools import (
    SpooledRun,
    describe_empty,
    find_all_spools,
    find_spools,
    scopes,
    spooled_runs,
)
from allele_mlflow.records import SEVERITIES
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.profile import is_served

#: A shorter lag is none.
SHOWN_LAG_S = 1.0


@dataclass
class _Spool:
    """
    What was found in one spool. `problem`: why it could not be looked into.
    """

    folder: Path
    runs: list[SpooledRun] = field(default_factory=list)
    sidecars: list[Sidecar] = field(default_factory=list)
    #: Folders of the runs whose sidecar was started just now.
    revived: Collection[Path] = ()
    problem: str | None = None

    @property
    def waiting(self) -> list[SpooledRun]:
        return [run for run in self.runs if run.is_waiting]

    @property
    def wanted_sidecars(self) -> list[Sidecar]:
        """
        Those that live, and those that are gone and left a run behind.
        """
        left = {
            (run.folder.parent.parent, run.spec.profile)
            for run in self.waiting
            if run.folder not in self.revived
        }
        return [one for one in self.sidecars if one.is_held or (one.scope, one.profile) in left]


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
            spools.append(_Spool(folder, problem=f"{folder}: {exc.strerror or exc}"))
    if as_json:
        say(json_text(_document(spools)))
    else:
        _show(spools, usual)
    for one in spools:
        if one.problem is not None:
            complain(f"cannot look into {shown(one.problem)}")


def _look_into(folder: Path, settings: Settings, *, with_done: bool, look_only: bool) -> _Spool:
    runs = list(spooled_runs(folder, with_done=with_done))
    revived = set() if look_only else revive(runs, settings)
    sidecars = [one for scope in scopes(folder) for one in find_sidecars(scope)]
    return _Spool(folder, runs, sidecars, revived)


def _document(spools: list[_Spool]) -> dict[str, Any]:
    return {
        "spool": path_text(spools[0].folder),
        "runs": [_describe(one, run) for one in spools for run in one.runs],
        "spools": [
            {
                "spool": path_text(one.folder),
                "waiting_runs": len(one.waiting),
                "pending": sum(run.ledger.pending for run in one.waiting),
                "problem": one.problem,
            }
            for one in spools
        ],
        "sidecars": [
            {"spool": path_text(one.folder)} | sidecar.describe()
            for one in spools
            for sidecar in one.sidecars
        ],
    }


def _describe(place: _Spool, run: SpooledRun) -> dict[str, Any]:
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
        "durable_count": state.durable_count if state else None,
        "alerts": state.alert_counts if state else {},
        "last_alert": state.last_alert if state else None,
        "accepted": run.ledger.accepted,
        "ledger": msgspec.to_builtins(run.ledger),
        "spool": path_text(place.folder),
        "starting": run.folder in place.revived,
        "scope": run.folder.parent.parent.name,
        "profile": run.spec.profile,
        "updated_ns": state.updated_ns if state else None,
        "damage": state.damage if state else [],
    }


def _status_of(run: SpooledRun) -> str:
    if not run.is_described:
        return "no description"
    return run.state.status if run.state else "WAITING"


def _show(spools: list[_Spool], usual: list[Path]) -> None:
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


def _show_table(place: _Spool) -> None:
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
            _status_of(run),
            _sidecar_of(place, run, health.get((run.folder.parent.parent, run.spec.profile))),
            f"{run.ledger.accepted:,}",
            f"{run.ledger.pending:,}",
            f"{run.ledger.lost:,}",
        )
    console = Console()
    with console.capture() as capture:
        console.print(table)
    say(capture.get(), nl=False)


def _sidecar_of(place: _Spool, run: SpooledRun, health: str | None) -> str:
    if not run.is_waiting:
        return "-"
    if run.folder in place.revived:
        return "starting"
    if not run.is_served:
        return "none"
    lag_s = run.state.lag_s if run.state is not None else 0.0
    text = "silent" if health == "silent" else "alive"
    return f"{text}, lag {lag_s:,.0f} s" if lag_s >= SHOWN_LAG_S else text


def _show_errors(place: _Spool) -> None:
    for run in place.runs:
        if run.state is not None and run.state.last_error:
            # below the table, whole: a column of it would be nine characters wide
            say(f"last error of {shown(run.name)}: {shown(run.state.last_error)}")


def _show_alerts(place: _Spool) -> None:
    for run in place.runs:
        state = run.state
        if state is None or not state.last_alert:
            continue
        found = state.alert_counts
        counts = [f"{found[one]:,} {one}" for one in reversed(SEVERITIES) if found.get(one)]
        say(f"alerts of {shown(run.name)}: {', '.join(counts)}; last {shown(state.last_alert)}")


def _show_sidecars(place: _Spool) -> None:
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


def _show_hint(place: _Spool) -> None:
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
