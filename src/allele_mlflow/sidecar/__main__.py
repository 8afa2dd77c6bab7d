"""
The sidecar's process: takes the profile's lock, then serves until idle.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from allele_mlflow import settings as settings_module
from allele_mlflow.queue import spool_index
from allele_mlflow.queue.locks import HeldLock, try_lock
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.sidecar.adoption import adopt_scopes
from allele_mlflow.sidecar.profile import lock_path
from allele_mlflow.sidecar.store import open_store
from allele_mlflow.sidecar.worker import Worker, raise_limits

_logger = logging.getLogger(__name__)

NICENESS = 10
LOG_MAX_BYTES = 4 << 20
#: How often to look for what other boots and containers left in the spool; at the start at once.
ADOPT_EVERY_S = 30.0
#: How long a sidecar that was told to leave may take to put things in order.
LEAVE_S = 1.0
#: Collections of garbage go by allocations, and a batch allocates a thousand tuples: the default
#: of 700 looks through MLflow's half a million objects again and again.
GC_ALLOCATIONS = 20_000
#: How often to look whether the store is open, after which MLflow's objects are looked at no more.
FREEZE_EVERY_S = 1.0


class _Stop:
    """
    What SIGTERM asks for, whichever workers serve just then.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.workers: list[Worker] = []

    def ask(self) -> None:
        """
        Leave now; an event loop that hangs is not waited for, as nothing that was accepted is lost
        with it.
        """
        if self.is_asked:
            return
        self.is_asked = True
        # the kernel's own end: a thread cannot be started in a handler, which may interrupt a start
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, LEAVE_S)
        for worker in self.workers:
            worker.stop()


def main() -> None:
    """
    Serve one profile of one scope.
    """
    parser = argparse.ArgumentParser(prog="allele_mlflow.sidecar")
    parser.add_argument("--scope", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    arguments = parser.parse_args()
    # Ctrl-C is for the benchmark, and a closed terminal is no reason to lose a queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # not "/": MLflow up to 3.8 makes ./mlruns when it opens a store, wherever that is
    os.chdir(arguments.scope)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    stop = _Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.ask())
    raise_limits()
    gc.set_threshold(GC_ALLOCATIONS)
    spool_index.register(arguments.scope.parent)
    settings = settings_module.load(forgive_unknown=True)
    _start_logging(settings, arguments.scope / f"sidecar-{arguments.profile}.log")
    while True:
        lock = try_lock(lock_path(arguments.scope, arguments.profile))
        if lock is None:
            return  # another one serves
        try:
            worker = _serve(arguments.scope, arguments.profile, settings, stop)
        finally:
            lock.release()
        # released first, looked then: a producer that wrote and found the lock held is seen here
        if stop.is_asked or not worker.has_work():
            os._exit(0)  # a hung call of MLflow's must not keep us


def _serve(scope: Path, profile: str, settings: Settings, stop: _Stop) -> Worker:
    busy: set[Worker] = set()
    worker = _make_worker(
        scope,
        profile,
        settings,
        idle_timeout_s=settings.idle_timeout_s,
        is_needed=lambda: bool(busy),
    )
    stop.workers = [worker]
    if stop.is_asked:  # between two workers
        worker.stop()

    async def serve_other(other: Worker, lock: HeldLock) -> None:
        try:
            await other.serve()
        finally:
            lock.release()
            busy.discard(other)
            stop.workers.remove(other)

    async def adopt(group: TaskGroup) -> None:
        while not worker.is_stopping:
            for one in adopt_scopes(scope, settings):
                _logger.info("taking up what is left in %s", one.scope)
                other = _make_worker(one.scope, one.profile, settings, idle_timeout_s=0.0)
                busy.add(other)
                stop.workers.append(other)
                group.start_soon(serve_other, other, one.lock)
            await anyio.sleep(ADOPT_EVERY_S)

    async def freeze() -> None:
        while not worker.writes_by:  # noqa: ASYNC110 - a worker thread opens it
            await anyio.sleep(FREEZE_EVERY_S)
        gc.collect()
        gc.freeze()

    async def serve_all() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(adopt, group)
            group.start_soon(freeze)
            await worker.serve()
            for other in busy:
                other.stop()
            group.cancel_scope.cancel()

    anyio.run(serve_all)
    return worker


def _make_worker(
    scope: Path,
    profile: str,
    settings: Settings,
    *,
    idle_timeout_s: float,
    is_needed: Callable[[], bool] = lambda: False,
) -> Worker:
    return Worker(
        scope,
        profile,
        connect=lambda: open_store(settings),
        idle_timeout_s=idle_timeout_s,
        status_path=scope / f"sidecar-{profile}.json",
        store=mask_secrets(settings.tracking_uri),
        is_needed=is_needed,
    )


def _start_logging(settings: Settings, path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_MAX_BYTES:
            os.truncate(path, 0)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )
    logging.captureWarnings(True)


if __name__ == "__main__":
    main()
