"""
`worker="thread"`: the sidecar's coroutine in a daemon thread, for places that forbid processes.

Slower for the benchmark, which shares its GIL with the delivery.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - at shutdown it could not register itself any more
import logging
import os
import threading
from pathlib import Path

import anyio

from allele_mlflow.queue import spool_index
from allele_mlflow.queue.locks import try_lock
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.sidecar.profile import lock_path
from allele_mlflow.sidecar.store import open_store
from allele_mlflow.sidecar.worker import Worker

_logger = logging.getLogger(__name__)
_threads: dict[tuple[int, Path, str], threading.Thread] = {}
_guard = threading.Lock()


def ensure_thread(scope: Path, profile: str, settings: Settings) -> None:
    """
    See to it that a thread of this process (or whoever has the lock) serves the profile.
    """
    identity = (os.getpid(), scope, profile)
    with _guard:
        thread = _threads.get(identity)
        if thread is not None and thread.is_alive():
            return
        thread = threading.Thread(
            target=_serve, args=(scope, profile, settings), name="allele-mlflow", daemon=True
        )
        _threads[identity] = thread
        thread.start()


def _serve(scope: Path, profile: str, settings: Settings) -> None:
    spool_index.register(scope.parent)
    while True:
        lock = try_lock(lock_path(scope, profile))
        if lock is None:
            return
        worker = Worker(
            scope,
            profile,
            connect=lambda: open_store(settings, owns_process=False),
            idle_timeout_s=settings.idle_timeout_s,
            status_path=scope / f"sidecar-{profile}.json",
            store=mask_secrets(settings.tracking_uri),
        )
        try:
            anyio.run(worker.serve)
        finally:
            lock.release()
        if not worker.has_work():
            return
