"""
`allele-mlflow rejected`: the records that were refused, and sending them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.resubmit import resubmit_all
from allele_mlflow.clock import utc_iso
from allele_mlflow.queue import spool
from allele_mlflow.records import RunSpec, RunState
from allele_mlflow.sidecar.dead_letters import DeadLetter, DeadLetters
from allele_mlflow.uris import path_text
from allele_mlflow.watching.spools import find_spools, scopes

#: Letters of one run that the text lists.
LISTED = 100


@dataclass(frozen=True)
class RefusedRun:
    """
    A run that has dead letters; `spec` is None where its description cannot be read.
    """

    spool_dir: Path
    folder: Path
    spec: RunSpec | None
    state: RunState | None

    @property
    def is_waiting(self) -> bool:
        """
        Whether it is not delivered whole yet.
        """
        return self.folder.parent.name == spool.RUNS

    @property
    def label(self) -> str:
        """
        What a person calls it, fit for a terminal.
        """
        if self.spec is None:
            return shown(self.folder.name)
        return shown(f"{self.spec.experiment} {self.spec.run_name or self.spec.run_uid}")

    @cached_property
    def letters(self) -> list[DeadLetter]:
        """
        Its letters, those too that no sidecar has read.
        """
        letters = DeadLetters(self.folder)
        if self.is_waiting and self.spec is not None:
            letters.add_unread(self.folder, self.spec)
        elif self.state is not None:
            letters.drop_repeats(self.state.ledger.rejected)
        return letters.letters


@click.command()
@click.argument("spool_dir", required=False, type=click.Path(path_type=Path))
@click.option("--run", "run_uid", metavar="RUN_UID", help="Of this run only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, with all letters.")
@click.option("--resubmit", is_flag=True, help="Send again what the store refused.")
@click.option("--all", "is_everything", is_flag=True, help="With --resubmit: of all runs.")
@click.option("--tracking-uri", help="The whole address of a store whose secrets are masked.")
@click.option(
    "--give-up-after",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --resubmit: leave a store that gave no answer for so long.",
)
def rejected(
    spool_dir: Path | None,
    run_uid: str | None,
    as_json: bool,
    resubmit: bool,
    is_everything: bool,
    tracking_uri: str | None,
    give_up_after: float,
) -> ExitCode:
    """
    List the records that were refused, with the reason; --resubmit sends them again.

    SPOOL_DIR is by default the setting `spool_dir`, and the spool in the user's state folder. What
    the store refused can be sent again to the run it is of, e.g. when a deleted run was restored;
    what the logger refused cannot. Exit code 2: a store must be named with --tracking-uri; 6: a
    store was unreachable; 7: some are still refused, or their run is not delivered yet.
    """
    if math.isnan(give_up_after) or give_up_after < 0:
        raise click.BadParameter(f"want seconds, 0 or more, got {give_up_after}")
    if resubmit and (run_uid is None) == (not is_everything):
        raise click.UsageError("--resubmit: want --run RUN_UID or --all")
    if is_everything and not resubmit:
        raise click.UsageError("--all: want --resubmit beside it; without, all are listed")
    settings = settings_module.load({"tracking_uri": tracking_uri})
    spools = find_spools(spool_dir, settings.spool_dir)
    runs = [run for folder in spools for run in _refused_runs(folder, run_uid)]
    if run_uid is not None and not runs:
        raise click.BadParameter(f"--run={run_uid}: no such run in {', '.join(map(str, spools))}")
    if resubmit:
        targets = [(run.label, run.folder) for run in runs if run.letters]
        return resubmit_all(targets, settings, give_up_after_s=give_up_after, as_json=as_json)
    if as_json:
        say(json_text({"letters": [one for run in runs for one in _describe(run)]}))
        return ExitCode.FINE
    _show(runs, spools[0])
    return ExitCode.FINE


def _refused_runs(spool_dir: Path, run_uid: str | None) -> Iterator[RefusedRun]:
    """
    The runs of a spool, or those of one uid; whether they have letters is not looked at.
    """
    for scope in scopes(spool_dir):
        for place in (spool.RUNS, spool.DONE):
            parent = scope / place
            if not parent.is_dir():
                continue
            for folder in sorted(parent.iterdir()):
                if folder.is_dir() and run_uid in (None, folder.name):
                    yield RefusedRun(
                        spool_dir,
                        folder,
                        spool.read_struct(folder / spool.RUN_FILE, RunSpec),
                        spool.read_struct(folder / spool.STATE_FILE, RunState),
                    )


def _describe(run: RefusedRun) -> Iterator[dict[str, Any]]:
    for letter in run.letters:
        line = letter.line
        yield {
            "run_uid": run.folder.name,
            "run_id": run.state.run_id if run.state else None,
            "run_name": run.spec.run_name if run.spec else None,
            "experiment": run.spec.experiment if run.spec else None,
            "spool": path_text(run.spool_dir),
            "waiting": run.is_waiting,
            "time": utc_iso(line.timestamp_ns),
            "reason": line.reason,
            "call": line.call,
            "key": letter.key,
            "value": letter.value,
            "step": letter.step,
            "wanted": line.wanted,
            "refused_by": "store" if letter.is_of_the_store else "logger",
            "can_be_sent_again": letter.record is not None and not run.is_waiting,
            "ledger_rejected": msgspec.to_builtins(run.state.ledger.rejected) if run.state else {},
        }


def _show(runs: list[RefusedRun], first: Path) -> None:
    with_letters = [run for run in runs if run.letters]
    if not with_letters:
        say(f"nothing was refused in {shown(str(first))}")
        return
    for run in with_letters:
        say(f"{run.label} (--run {shown(run.folder.name)}):")
        for letter in run.letters[:LISTED]:
            line = letter.line
            step = f" at step {letter.step}" if letter.step is not None else ""
            what = f"{line.reason}: {line.call} {letter.key} = {letter.value}{step}"
            say(f"  {shown(what)}: {shown(line.wanted)}")
        more = len(run.letters) - LISTED
        if more > 0:
            say(f"  and {more:,} more; --json lists all")
    again = sum(
        letter.record is not None and not run.is_waiting
        for run in with_letters
        for letter in run.letters
    )
    if again:
        say(f"refused by the store: {again:,}; send them again with --resubmit")
