"""
`allele-mlflow stop`: end the sidecars of a spool; what they have not delivered goes on waiting.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import psutil

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.sidecar.profile import lock_path
from allele_mlflow.uris import path_text
from allele_mlflow.watching.sidecars import (
    Sidecar,
    ask_to_leave,
    find_process,
    find_sidecars,
    has_ended,
)
from allele_mlflow.watching.spools import (
    SpooledRun,
    find_all_spools,
    find_spools,
    scopes,
    spooled_runs,
)

LOOK_S = 0.05

#: "unknown": somebody holds the lock who is not surely a sidecar of ours.
Outcome = Literal["stopped", "running", "thread", "elsewhere", "unknown"]
FAILURES: tuple[Outcome, ...] = ("running", "elsewhere", "unknown")


@dataclass
class _Stopping:
    """
    One sidecar that was found alive, and what becomes of it.
    """

    sidecar: Sidecar
    process: psutil.Process | None
    outcome: Outcome

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else self.sidecar.pid


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path))
@click.option("--all", "is_everywhere", is_flag=True, help="The sidecars of all your spools.")
@click.option(
    "--timeout",
    "timeout_s",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for their end.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
def stop(spool_dir: Path | None, is_everywhere: bool, timeout_s: float, as_json: bool) -> ExitCode:
    """
    End the sidecars of a spool. Nothing is lost: what is not delivered goes on waiting.

    SPOOL_DIR is by default the setting `spool_dir`. A benchmark that still runs starts a sidecar
    again when it logs. Exit code 1: a sidecar did not end in time, or cannot be ended from here.
    """
    if math.isnan(timeout_s) or timeout_s < 0:
        raise click.BadParameter(f"want seconds, 0 or more, got {timeout_s}")
    if is_everywhere and spool_dir is not None:
        raise click.UsageError("want a SPOOL_DIR or --all, got both")
    setting = settings_module.load().spool_dir
    spools = find_all_spools(setting) if is_everywhere else find_spools(spool_dir, setting)[:1]
    found = {folder: _find(folder) for folder in spools}
    _stop_all([one for some in found.values() for one in some], timeout_s)
    waiting = {folder: list(spooled_runs(folder, with_done=False)) for folder in spools}
    if as_json:
        documents = [_describe(folder, found[folder], waiting[folder]) for folder in spools]
        say(json_text({"spools": documents}))
    for folder in spools:
        if not as_json and (folder == spools[0] or found[folder] or waiting[folder]):
            _show(folder, found[folder], waiting[folder])
    failed = [one for some in found.values() for one in some if one.outcome in FAILURES]
    for one in failed:
        complain(_complaint(one, timeout_s))
    return ExitCode.FAILED if failed else ExitCode.FINE


def _find(spool_dir: Path) -> list[_Stopping]:
    return [
        _Stopping(sidecar, process, _first_outcome(sidecar, process))
        for scope in scopes(spool_dir)
        for sidecar in find_sidecars(scope)
        if sidecar.is_held
        for process in [find_process(sidecar)]
    ]


def _first_outcome(sidecar: Sidecar, process: psutil.Process | None) -> Outcome:
    if sidecar.is_thread:
        return "thread"
    if not sidecar.is_here:
        return "elsewhere"
    if process is None:
        # it may have left since we saw its lock
        is_held = is_locked(lock_path(sidecar.scope, sidecar.profile))
        return "unknown" if is_held else "stopped"
    return "running"


def _stop_all(found: list[_Stopping], timeout_s: float) -> None:
    """
    Ask all, then wait for all.
    """
    leaving = []
    for one in found:
        if one.outcome == "running" and one.process is not None:
            try:
                ask_to_leave(one.process, one.sidecar)
            except PermissionError as exc:
                complain(f"sidecar {one.pid} cannot be stopped: {exc.strerror}")
                continue
            leaving.append((one, one.process))
    deadline_s = now_monotonic_s() + timeout_s
    while True:
        for one, process in leaving:
            is_held = is_locked(lock_path(one.sidecar.scope, one.sidecar.profile))
            # held all the same: by another one, which a benchmark has started since
            if not is_held or has_ended(process):
                one.outcome = "stopped"
        leaving = [(one, process) for one, process in leaving if one.outcome == "running"]
        if not leaving or now_monotonic_s() >= deadline_s:
            return
        pause_s(LOOK_S)


def _describe(spool_dir: Path, found: list[_Stopping], waiting: list[SpooledRun]) -> dict[str, Any]:
    return {
        "spool": path_text(spool_dir),
        "sidecars": [
            {
                "pid": one.pid,
                "scope": one.sidecar.scope.name,
                "profile": one.sidecar.profile,
                "outcome": one.outcome,
            }
            for one in found
        ],
        "waiting_runs": len(waiting),
        "pending": sum(run.ledger.pending for run in waiting),
    }


def _show(spool_dir: Path, found: list[_Stopping], waiting: list[SpooledRun]) -> None:
    place = shown(str(spool_dir))
    if not found:
        say(f"no sidecar in {place}" + ("" if scopes(spool_dir) else ": no spool there yet"))
    for one in found:
        if one.outcome == "stopped":
            say(f"stopped sidecar {one.pid} of {place}")
        elif one.outcome == "thread":
            say(f"process {one.pid} delivers in a thread of its own, which ends with it: {place}")
    if not waiting:
        return
    pending = sum(run.ledger.pending for run in waiting)
    counted = f"{len(waiting):,} run{'s' if len(waiting) > 1 else ''} with {pending:,} records"
    command = f"allele-mlflow sync {shlex.quote(str(spool_dir))}"
    if all(run.spec.offline for run in waiting):
        say(
            f"waiting: {counted}, logged offline; deliver with: {shown(command)} --tracking-uri ..."
        )
    else:
        say(f"waiting: {counted}; delivered by the next run's sidecar, or by: {shown(command)}")


def _complaint(one: _Stopping, timeout_s: float) -> str:
    lock = lock_path(one.sidecar.scope, one.sidecar.profile)
    if one.outcome == "elsewhere":
        return f"{lock} is held on another host, boot or container: stop it there"
    if one.outcome == "unknown":
        return f"{lock} is held by no sidecar that can be recognised; it was left alone"
    return f"sidecar {one.pid} did not end within {timeout_s:g} s; its lock is {lock}"
