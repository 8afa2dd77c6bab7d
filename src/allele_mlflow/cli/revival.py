"""
Starting the sidecar for runs that nobody delivers any more, where it would be the very one that
they were left by.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.output import complain
from allele_mlflow.cli.targets import find_target
from allele_mlflow.errors import QueueError, SettingsError, SidecarStartError
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_writer_alive
from allele_mlflow.records import RunSpec
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.launch import ensure_sidecar
from allele_mlflow.sidecar.profile import profile_of
from allele_mlflow.watching.spools import SpooledRun


def revive(runs: Iterable[SpooledRun], settings: Settings) -> set[Path]:
    """
    Start a sidecar for each run whose benchmark is gone and that nobody serves, where the
    environment is the one that the run wants: same store, credentials, Python and version of ours.

    Returns:
        The folders of the runs that will be served by one that was started here.
    """
    started: set[tuple[Path, str]] = set()
    failed: set[tuple[Path, str]] = set()
    revived = set()

    @cache
    def theirs(target: str) -> Settings:
        # in a process of its own whatever the setting says: a thread would end with this command
        return settings_module.load({"tracking_uri": target, "worker": "process"})

    @cache
    def profile(scope: Path, target: str) -> str:
        return profile_of(scope, theirs(target))

    for run in runs:
        if not _is_orphan(run):
            continue
        scope, wanted = run.folder.parent.parent, run.spec.profile
        target = find_target(_as_begun(run), settings.tracking_uri, is_explicit=False)
        place = (scope, wanted)
        if target is None or place in failed:
            continue
        try:
            if place not in started:
                if profile(scope, target) != wanted:
                    continue
                # what another boot left is taken up by the sidecar of this one
                here = scope if spool.is_here(run.folder) else spool.open_scope(scope.parent)
                ensure_sidecar(here, profile(here, target), theirs(target))
                started.add(place)
            revived.add(run.folder)
        except SidecarStartError as exc:
            complain(str(exc))
            failed.add(place)
        except (SettingsError, QueueError, OSError):
            failed.add(place)  # no store for this version, or a spool that we may only read
    return revived


def _is_orphan(run: SpooledRun) -> bool:
    """
    Whether a sidecar of ours is all that the run lacks.
    """
    if not run.is_waiting or run.is_served or run.spec.offline or not run.is_described:
        return False
    if not spool.is_here(run.folder) and not spool.is_local(run.folder):
        return False
    try:
        if run.folder.stat().st_uid != os.getuid():
            return False
    except OSError:
        return False
    # a benchmark that lives sees to its own sidecar
    return not is_writer_alive(run.folder / spool.STREAMS / run.spec.owner_stream)


def _as_begun(run: SpooledRun) -> RunSpec:
    """
    The description with the store that the run is in already, where it was begun.
    """
    if run.state is None or run.state.run_id is None or not run.state.store:
        return run.spec
    return msgspec.structs.replace(run.spec, tracking_uri_masked=run.state.store)
