"""
One exclusive suite a machine at a time, so that none of them is timed beside another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from allele_mlflow.clock import pause_s
from allele_mlflow.queue import spool_index
from allele_mlflow.queue.locks import try_lock

LOCK_FILE = "exclusive.lock"
_LOOK_S = 0.5


@contextlib.contextmanager
def hold_machine(say: Callable[[str], None]) -> Iterator[None]:
    """
    Wait until no other exclusive suite of this user runs here, and keep others out meanwhile.

    Args:
        say: Told that there is a wait.
    Raises:
        OSError: the user's state folder cannot be written.
    """
    folder = spool_index.state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = try_lock(folder / LOCK_FILE)
    if lock is None:
        say("another exclusive suite runs on this machine: waiting for its end")
    while lock is None:
        pause_s(_LOOK_S)
        lock = try_lock(folder / LOCK_FILE)
    try:
        yield
    finally:
        lock.release()
