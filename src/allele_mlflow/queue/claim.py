"""
Who owns a run: the first process in its folder, and whoever resumes it after its owner is gone.
"""

from __future__ import annotations

import os
from pathlib import Path

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import is_abandoned, is_being_archived, is_over
from allele_mlflow.queue.locks import HeldLock, try_lock

#: How long a start waits for an earlier part of its run to be archived.
CLAIM_S = 2.0
CLAIM_POLL_S = 0.005


def claim_run(folder: Path) -> tuple[bool, HeldLock | None]:
    """
    Whether this process owns the run of that folder: the first one there, and whoever resumes it
    after its owner is gone. The lock of a resumed one, to be released once it is described.

    An earlier part of the run that is over may be on its way to `done/` just now, or its first
    process be about to describe it; that takes a moment, and is waited for.
    """
    deadline_s = now_monotonic_s() + CLAIM_S
    while True:
        is_late = now_monotonic_s() > deadline_s
        try:
            if is_late or not is_being_archived(folder):
                folder.mkdir(mode=0o700)
                return True, None
        except FileExistsError:
            is_described = os.path.exists(folder / spool.RUN_FILE)
            if is_described and not is_abandoned(folder):
                return False, None
            if is_late or (is_described and not is_over(folder)):
                lock = _lock_claim(folder)
                if lock is not None:
                    return True, lock
                if is_late:
                    return False, None  # somebody else resumes it
        except OSError:
            return True, None  # the stream will find out and count
        pause_s(CLAIM_POLL_S)


def _lock_claim(folder: Path) -> HeldLock | None:
    """
    The lock under which a run is taken over, None where somebody else was quicker.
    """
    try:
        lock = try_lock(folder / spool.CLAIM_FILE)
    except OSError:  # it was archived just now
        return None
    is_described = os.path.exists(folder / spool.RUN_FILE)
    if lock is not None and is_described and not is_abandoned(folder):
        lock.release()
        return None
    return lock
