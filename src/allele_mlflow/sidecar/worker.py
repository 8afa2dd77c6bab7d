"""
The sidecar's one coroutine: finds runs in a spool, delivers each, leaves when there is nothing
left.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from allele_mlflow.clock import now_monotonic_s, now_ns, process_cpu_s
from allele_mlflow.queue import spool
from allele_mlflow.records import RunSpec
from allele_mlflow.sidecar.delivery import RunDelivery
from allele_mlflow.sidecar.profile import is_served
from allele_mlflow.sidecar.run_store import RunStore
from allele_mlflow.tracking.protocol import Tracking

_logger = logging.getLogger(__name__)

DISCOVER_S = 0.1
STATUS_S = 1.0
#: How long a run that failed in the sidecar rests before it is taken up again, doubled each time.
RETAKE_S = 1.0
#: Calls of MLflow's in flight at once, over all runs.
PARALLEL_CALLS = 8


class SidecarStatus(msgspec.Struct, kw_only=True):
    """
    What a sidecar says of itself in `sidecar-<profile>.json`; `updated_ns` is its heartbeat.
    """

    pid: int
    profile: str
    updated_ns: int
    started_ns: int
    runs: list[str]
    cpu_s: float
    store: str = ""
    last_error: str | None = None


class SharedTracking:
    """
    One connection to the store for all runs, made at the first need.

    Thread safety: any thread; the others wait while one connects.
    """

    def __init__(self, connect: Callable[[], Tracking]) -> None:
        self._make = connect
        self._lock = threading.Lock()
        self._tracking: Tracking | None = None

    def __call__(self) -> Tracking:
        """
        The store.

        Raises:
            TrackingError: it cannot be opened now.
        """
        with self._lock:
            if self._tracking is None:
                self._tracking = self._make()
            return self._tracking

    def close(self) -> None:
        """
        Give back connections.
        """
        if self._tracking is not None:
            self._tracking.close()


class Worker:
    """
    Serves the runs of one profile in one scope.

    Args:
        scope: The scope's folder in the spool.
        profile: Whose runs; None for everybody's (`sync`).
        connect: Opens the store.
        idle_timeout_s: How long to wait for work before leaving.
        is_drain: Deliver what there is, wait for nobody, then leave.
        status_path: Where to write the heartbeat, or None.
        store: The store's name for the status, secrets masked.
        adapt: Changes what the logger wrote about a run to where it is delivered now.
    """

    def __init__(
        self,
        scope: Path,
        profile: str | None,
        *,
        connect: Callable[[], Tracking],
        idle_timeout_s: float,
        is_drain: bool = False,
        status_path: Path | None = None,
        store: str = "",
        adapt: Callable[[RunSpec], RunSpec] = lambda spec: spec,
    ) -> None:
        self.scope = scope
        self.profile = profile
        self.deliveries: dict[str, RunDelivery] = {}
        self._tracking = SharedTracking(connect)
        self._idle_timeout_s = idle_timeout_s
        self._is_drain = is_drain
        self._status_path = status_path
        self._status = SidecarStatus(
            pid=os.getpid(),
            profile=profile or "",
            updated_ns=now_ns(),
            started_ns=now_ns(),
            runs=[],
            cpu_s=0.0,
            store=store,
        )
        self._adapt = adapt
        self._records_of_done = 0
        self._done: set[str] = set()
        #: Runs that failed in us (not in the store): when to take them up again, and how often they
        #: failed.
        self._failed: dict[str, tuple[float, int]] = {}
        self.is_stopping = False

    async def serve(self) -> None:
        """
        Deliver until idle for `idle_timeout_s`, the spool's folder is gone, or `stop` was called.
        """
        limiter = anyio.CapacityLimiter(PARALLEL_CALLS)
        idle_since_s = now_monotonic_s()
        async with anyio.create_task_group() as group:
            group.start_soon(self._publish)
            while not self.is_stopping and self.scope.is_dir():
                for delivery in self._discover(limiter):
                    group.start_soon(self._deliver, delivery)
                now_s = now_monotonic_s()
                if self.deliveries:
                    idle_since_s = now_s
                elif self._is_drain or now_s - idle_since_s >= self._idle_timeout_s:
                    break
                await anyio.sleep(DISCOVER_S)
            group.cancel_scope.cancel()
        self._tracking.close()

    def has_work(self) -> bool:
        """
        Whether a run waits that nobody serves: the second look of a sidecar that leaves.
        """
        return any(self._wants(folder) for folder in self._run_folders())

    @property
    def progress(self) -> int:
        """
        Records dealt with so far, to see whether it goes on.
        """
        return self._records_of_done + sum(d.records_settled for d in self.deliveries.values())

    @property
    def has_gaps(self) -> bool:
        """
        Whether a run was left undelivered, for a fault of ours or because we were stopped.
        """
        return bool(self._failed) or self.is_stopping

    def stop(self) -> None:
        """
        Leave at the next occasion; what is not delivered waits in the spool.
        """
        self.is_stopping = True

    def _run_folders(self) -> list[Path]:
        try:
            return [Path(entry.path) for entry in os.scandir(self.scope / "runs")]
        except OSError:
            return []

    def _wants(self, folder: Path) -> RunSpec | None:
        if folder.name in self.deliveries or folder.name in self._done:
            return None
        if now_monotonic_s() < self._failed.get(folder.name, (0.0, 0))[0]:
            return None
        spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
        if spec is None:
            return None
        if self.profile is not None:
            return spec if spec.profile == self.profile else None
        return None if is_served(self.scope, spec) else self._adapt(spec)

    def _discover(self, limiter: anyio.CapacityLimiter) -> list[RunDelivery]:
        found = []
        for folder in self._run_folders():
            spec = self._wants(folder)
            if spec is None:
                continue
            delivery = RunDelivery(
                folder,
                spec,
                connect=self._tracking,
                limiter=limiter,
                share=lambda: len(self.deliveries),
                find_store=self._find_store,
                is_drain=self._is_drain,
            )
            if delivery.is_wanted:
                self.deliveries[folder.name] = delivery
                found.append(delivery)
            else:
                self._done.add(folder.name)
                delivery.close()
        return found

    def _find_store(self, run_uid: str) -> RunStore | None:
        delivery = self.deliveries.get(run_uid)
        return delivery.store if delivery is not None else None

    async def _deliver(self, delivery: RunDelivery) -> None:
        name = delivery.folder.name
        try:
            await delivery.run()
        except Exception as exc:
            # the worker's border: one run's fault must not end the others'; it goes on from its
            # cursor
            self._status.last_error = f"run {name}: {exc!r}"
            _logger.exception("run %s failed in the sidecar; it will be taken up again", name)
            failures = self._failed.get(name, (0.0, 0))[1] + 1
            self._failed[name] = (now_monotonic_s() + RETAKE_S * 2 ** min(failures, 6), failures)
        else:
            if (
                delivery.folder.exists()
            ):  # an offline run; a delivered one may come again by its uid
                self._done.add(name)
        finally:
            delivery.close()
            self._records_of_done += delivery.records_settled
            self.deliveries.pop(name, None)

    async def _publish(self) -> None:
        while self._status_path is not None:
            status = self._status
            status.updated_ns = now_ns()
            status.runs = sorted(self.deliveries)
            status.cpu_s = process_cpu_s()
            try:
                spool.write_whole(self._status_path, msgspec.json.encode(status))
            except OSError as exc:
                _logger.warning("status not written: %s", exc)
            await anyio.sleep(STATUS_S)
