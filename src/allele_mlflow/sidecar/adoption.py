"""
What other boots, containers and hosts left in a spool: a starting sidecar takes up those runs of
them that it could have been asked to deliver itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import HeldLock, try_lock
from allele_mlflow.records import RunSpec
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.profile import SALT_FILE, lock_path, profile_of


class Adopted(NamedTuple):
    """
    Another scope of the spool, its profile that is ours, and the lock that says that we serve it.
    """

    scope: Path
    profile: str
    lock: HeldLock


def adopt_scopes(scope: Path, settings: Settings) -> Iterator[Adopted]:
    """
    Take the other scopes of this scope's spool in which runs of our profile wait that nobody
    serves.

    Only on a local file system: elsewhere a lock says nothing about the other host.
    """
    if not spool.is_local(scope):
        return
    for other in sorted(scope.parent.iterdir()):
        if other == scope or not (other / SALT_FILE).exists():
            continue
        with contextlib.suppress(OSError):
            profile = profile_of(other, settings)
            if not any(spec.profile == profile for spec in _waiting(other)):
                continue
            lock = try_lock(lock_path(other, profile))
            if lock is not None:
                yield Adopted(other, profile, lock)


def _waiting(scope: Path) -> Iterator[RunSpec]:
    for run in (scope / spool.RUNS).iterdir():
        spec = spool.read_struct(run / spool.RUN_FILE, RunSpec)
        if spec is not None and not spec.offline:
            yield spec
