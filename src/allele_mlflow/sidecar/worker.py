"""
The sidecar's one coroutine: finds runs in a spool, delivers each, leaves when there is nothing
left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import anyio
import msgspec

from allele_mlflow.clock import now_monotonic_s, now_ns, process_cpu_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import bring_back
from allele_mlflow.queue.locks import try_lock_folder
from allele_mlflow.records import RunSpec
from allele_mlflow.sidecar import descriptors
from allele_mlflow.sidecar.delivery import RunDelivery
from allele_mlflow.sidecar.profile import is_served
from allele_mlflow.sidecar.run_store import Limiters, RunLocks, RunStore
from allele_mlflow.sidecar.turns import Candidate, Turns
from allele_mlflow.tracking.protocol import Tracking

_logger = logging.getLogger(__name__)

DISCOVER_S = 0.1
STATUS_S = 1.0
#: How long a run that failed in the sidecar rests before it is taken up again, doubled each time.
RETAKE_S = 1.0
#: ... so many times at most: a minute.
LONGEST_RETAKE = 6
#: Calls of MLflow's in flight at once, over all runs, and uploads beside them.
PARALLEL_CALLS = 8
PARALLEL_UPLOADS = 4


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
    #: What writes batches, e.g. "bulk"; empty before the store is opened.
    writes_by: str = ""


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

    @property
    def writes_by(self) -> str:
        """
        As the store's; empty before it is opened.
        """
        return self._tracking.writes_by if self._tracking is not None else ""

    def close(self) -> None:
        """
        Give back connections.
        """
        if self._tracking is not None:
            self._tracking.close()


def raise_descriptor_limit() -> None:
    """
    Let this process, which is the sidecar's own, open as many files as the system allows it.
    """
    # some ten descriptors a run; 1024, the usual limit, are soon used up
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def raise_limits() -> None:
    """
    As `raise_descriptor_limit`, and the memory too: a soft limit that the benchmark gave itself is
    meant for the benchmark, and the sidecar that it starts inherits it.
    """
    raise_descriptor_limit()
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(limit)
            resource.setrlimit(limit, (hard, hard))


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
        is_needed: Whether to stay though there is no work.
        adapt: Changes what the logger wrote about a run to where it is delivered now; None where it
            is not ours to deliver. Asked only where `profile` is None.
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
        is_needed: Callable[[], bool] = lambda: False,
        adapt: Callable[[RunSpec], RunSpec | None] = lambda spec: spec,
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
        self._is_needed = is_needed
        self._adapt = adapt
        self._records_of_done = 0
        #: Runs that are left as they are, or are another profile's, by name, and their
        #: descriptions' identity then.
        self._left: dict[str, tuple[int, int] | None] = {}
        #: Runs that failed in us (not in the store): when to take them up again, and how often they
        #: failed.
        self._failed: dict[str, tuple[float, int]] = {}
        self._failure_texts: dict[str, str] = {}
        #: Whether somebody else delivers a run of ours just now, and may leave it to us.
        self._is_waiting = False
        self._turns = Turns(is_drain=is_drain)
        self._scopes: dict[str, anyio.CancelScope] = {}
        #: One set a run: a call that was abandoned in the middle may still go on.
        self._locks: dict[str, RunLocks] = {}
        self.is_stopping = False
        #: Whether runs have waited for want of descriptors; said once.
        self._is_short = False

    async def serve(self) -> None:
        """
        Deliver until idle for `idle_timeout_s`, the spool's folder is gone, or `stop` was called.
        """
        limiters = Limiters(
            calls=anyio.CapacityLimiter(PARALLEL_CALLS),
            uploads=anyio.CapacityLimiter(PARALLEL_UPLOADS),
        )
        bring_back(self.scope)
        idle_since_s = now_monotonic_s()
        async with anyio.create_task_group() as group:
            group.start_soon(self._publish)
            while not self.is_stopping and self.scope.is_dir():
                for delivery in self._discover(limiters):
                    group.start_soon(self._deliver, delivery)
                now_s = now_monotonic_s()
                is_needed = bool(self._failed) or self._is_waiting or self._is_needed()
                is_busy = bool(self.deliveries) or self._turns.has_any
                if is_busy or (is_needed and not self._is_drain):
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
        entries = self._run_folders()
        return any(self._turns.is_waiting(one.name) or self._wants(one) for one in entries)

    @property
    def progress(self) -> int:
        """
        Records dealt with so far, to see whether it goes on.
        """
        return self._records_of_done + sum(d.records_settled for d in self.deliveries.values())

    @property
    def writes_by(self) -> str:
        """
        What writes batches; empty before the store is opened.
        """
        return self._tracking.writes_by

    @property
    def bytes_in_flight(self) -> int:
        """
        Size of the largest file that is being uploaded.
        """
        return max((d.bytes_in_flight for d in self.deliveries.values()), default=0)

    @property
    def has_gaps(self) -> bool:
        """
        Whether a run was left undelivered, for a fault of ours or because we were stopped.
        """
        return bool(self._failed) or self.is_stopping

    @property
    def failures(self) -> dict[str, str]:
        """
        Runs that failed in us (not in the store) and what their failures said, the last of each.
        """
        return {name: self._failure_texts[name] for name in self._failed}

    def stop(self) -> None:
        """
        Leave at the next occasion; what is not delivered waits in the spool.
        """
        self.is_stopping = True

    def _run_folders(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.scope / spool.RUNS) as entries:
                return list(entries)
        except OSError:
            return []

    def _wants(self, entry: os.DirEntry[str]) -> Candidate | None:
        """
        A run that is ours to serve and that nobody serves.
        """
        name = entry.name
        if name in self.deliveries or self._turns.is_waiting(name):
            return None
        folder = Path(entry.path)
        # first its identity: who resumes it meanwhile is seen
        description = spool.identity_of(folder / spool.RUN_FILE)
        if name in self._left:  # until somebody resumes it
            if self._left[name] == description:
                return None
            del self._left[name]
        spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
        if spec is None:
            return None
        if self.profile is None:
            adapted = None if is_served(self.scope, spec) else self._adapt(spec)
            return None if adapted is None else Candidate(folder, adapted, description)
        if spec.profile == self.profile:
            return Candidate(folder, spec, description)
        self._left[name] = description
        return None

    def _discover(self, limiters: Limiters) -> list[RunDelivery]:
        entries = self._run_folders()
        names = {entry.name for entry in entries}
        self._failed = {name: failure for name, failure in self._failed.items() if name in names}
        self._turns.keep(names)
        for name in self._turns.given_up(self.deliveries):
            self._scopes[name].cancel()
        found = []
        self._is_waiting = False
        for candidate in self._due(entries):
            is_room = descriptors.is_room_for_another(len(self.deliveries))
            if not (is_room or self._turns.is_asked_for(candidate.folder.name)):
                self._note_shortage()
                break  # they wait in the spool until another one is over
            try:
                delivery = self._take_up(candidate, limiters)
            except Exception as exc:  # noqa: BLE001 - the worker's border: it is noted, the others go on
                self._note_failure(candidate.folder.name, exc)
                continue
            if delivery is not None:
                found.append(delivery)
        return found

    def _due(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[Candidate]:
        """
        The runs to take up now.
        """
        now_s = now_monotonic_s()
        for entry in entries:
            if now_s < self._failed.get(entry.name, (0.0, 0))[0]:
                continue
            try:
                candidate = self._wants(entry)
                is_due = candidate is not None and self._turns.is_due(candidate)
            except Exception as exc:  # noqa: BLE001 - the worker's border: it is noted, the others go on
                self._note_failure(entry.name, exc)
                continue
            if candidate is not None and is_due:
                yield candidate
        yield from self._turns.next(self.deliveries)

    def _take_up(self, candidate: Candidate, limiters: Limiters) -> RunDelivery | None:
        folder = candidate.folder
        lock = try_lock_folder(folder)
        if lock is None:
            self._is_waiting = True
            return None
        try:
            delivery = RunDelivery(
                folder,
                candidate.spec,
                lock=lock,
                connect=self._tracking,
                limiters=limiters,
                locks=self._locks.setdefault(
                    folder.name, RunLocks(threading.Lock(), threading.Lock())
                ),
                share=lambda: len(self.deliveries),
                find_store=self._find_store,
                description=candidate.description,
                is_drain=self._is_drain,
            )
        except BaseException:
            lock.release()
            raise
        if delivery.is_wanted:
            self.deliveries[folder.name] = delivery
            return delivery
        self._left[folder.name] = delivery.description
        delivery.close()
        return None

    def _find_store(self, run_uid: str) -> RunStore | None:
        delivery = self.deliveries.get(run_uid)
        if delivery is None:
            self._turns.ask_for(run_uid)
            return None
        return delivery.store

    async def _deliver(self, delivery: RunDelivery) -> None:
        name = delivery.folder.name
        scope = self._scopes[name] = anyio.CancelScope()
        is_archived = False
        try:
            with scope:
                is_archived = await delivery.run()
        except Exception as exc:  # noqa: BLE001 - the worker's border: it goes on from its cursor
            self._note_failure(name, exc)
        else:
            self._failed.pop(name, None)
            # an archived one may come again by its uid, and one that gave up its turn comes again
            if not (is_archived or scope.cancelled_caught):
                self._left[name] = delivery.description
        finally:
            delivery.close()
            self._records_of_done += delivery.records_settled
            self.deliveries.pop(name, None)
            del self._scopes[name]

    def _note_shortage(self) -> None:
        if not self._is_short:
            self._is_short = True
            _logger.warning(
                "%d runs are served, others wait: the limit of open files (ulimit -Hn) is low",
                len(self.deliveries),
            )

    def _note_failure(self, name: str, exc: Exception) -> None:
        self._status.last_error = f"run {name}: {exc!r}"
        text = f"run {name} failed in the sidecar ({exc!r}); it will be taken up again"
        _logger.error("%s", text, exc_info=exc)
        self._failure_texts[name] = repr(exc)
        failures = self._failed.get(name, (0.0, 0))[1] + 1
        rest_s = RETAKE_S * 2 ** min(failures - 1, LONGEST_RETAKE)
        self._failed[name] = (now_monotonic_s() + rest_s, failures)

    async def _publish(self) -> None:
        while self._status_path is not None:
            status = self._status
            status.updated_ns = now_ns()
            status.runs = sorted(self.deliveries)
            status.cpu_s = process_cpu_s()
            status.writes_by = self.writes_by
            try:
                spool.write_whole(self._status_path, msgspec.json.encode(status))
            except OSError as exc:
                _logger.warning("status not written: %s", exc)
            await anyio.sleep(STATUS_S)
