"""
Finding the runs of a spool, for the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.queue import spool
from allele_mlflow.queue.run_reader import count_ledger
from allele_mlflow.records import Ledger, RunSpec, RunState
from allele_mlflow.sidecar.profile import is_served


class SpooledRun(NamedTuple):
    """
    One run of a spool. `is_served`: a sidecar of its profile is alive.
    """

    folder: Path
    spec: RunSpec
    state: RunState | None
    ledger: Ledger
    is_waiting: bool
    is_served: bool


def scopes(spool_dir: Path) -> list[Path]:
    """
    The scopes of a spool: boots, hosts and PID namespaces that wrote into it.
    """
    if not spool_dir.is_dir():
        return []
    return sorted(folder for folder in spool_dir.iterdir() if (folder / spool.RUNS).is_dir())


def spooled_runs(spool_dir: Path, *, with_done: bool) -> Iterator[SpooledRun]:
    """
    The runs of a spool, oldest first; those that wait counted from their files.
    """
    for scope in scopes(spool_dir):
        folders = [(folder, True) for folder in (scope / spool.RUNS).iterdir()]
        if with_done:
            folders += [(folder, False) for folder in (scope / spool.DONE).iterdir()]
        found = []
        for folder, is_waiting in folders:
            spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
            if spec is None:
                continue
            state = spool.read_struct(folder / spool.STATE_FILE, RunState)
            has_sidecar = is_served(scope, spec)
            ledger = state.ledger if state is not None else Ledger()
            if is_waiting and not has_sidecar:
                ledger = count_ledger(folder) or ledger
            found.append(SpooledRun(folder, spec, state, ledger, is_waiting, has_sidecar))
        yield from sorted(found, key=lambda run: run.spec.created_ns)
