"""
One run's side of the tracking store: it is created once, and every call is made in a worker thread.

A call of MLflow's cannot be cancelled: the run waits for it while the other runs go on.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, TypedDict

import anyio
import anyio.to_thread

from allele_mlflow.clock import now_monotonic_s, thread_cpu_s, utc_iso
from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.numerals import whole_number
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import is_abandoned
from allele_mlflow.records import (
    OWN_ARTIFACTS,
    ArtifactAdded,
    Reading,
    RunEnded,
    RunId,
    RunSpec,
    RunState,
)
from allele_mlflow.sidecar import retry
from allele_mlflow.sidecar.plan import Send, is_pair
from allele_mlflow.sidecar.run_summary import ORIGIN_TAGS, STARTED_TAG, start_tags
from allele_mlflow.tracking.protocol import Tracking

_logger = logging.getLogger(__name__)


class CallCost(NamedTuple):
    """
    What one call took: seconds on the clock and of its thread's CPU.
    """

    seconds: float
    cpu_s: float


class RunLocks(NamedTuple):
    """
    Of one run, whoever delivers it in this process: one call at a time, and its creation, for which
    a child may be waiting.
    """

    calling: threading.Lock
    creating: threading.Lock


class Limiters(NamedTuple):
    """
    How many calls of MLflow's may be in flight; uploads apart, for those that hang would keep
    numbers waiting.
    """

    calls: anyio.CapacityLimiter
    uploads: anyio.CapacityLimiter


class RunStore:
    """
    The calls of one run.

    Args:
        folder: The run's folder in the spool.
        spec: What the logger wrote about it.
        state: Where the run's id and the store's last words are noted.
        connect: Gives the tracking store; called in a worker thread, may block, may raise
            TrackingError.
        limiters: Bound the calls in flight of all runs.
        locks: Held by calls of the run, also by one that nobody waits for any more.
        find: Gives the store side of another run that is being delivered, by its uid.
        on_news: Called when `state` changed.
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        state: RunState,
        *,
        connect: Callable[[], Tracking],
        limiters: Limiters,
        locks: RunLocks,
        find: Callable[[str], RunStore | None],
        on_news: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._state = state
        self._connect = connect
        self._limiters = limiters
        self._find = find
        self._on_news = on_news
        self._locks = locks
        #: A later part of the run has opened it meanwhile, here or on another machine.
        self._is_superseded = False
        self._chance = random.SystemRandom()

    # --- in the event loop ----------------------------------------------------------------------

    async def call(self, work: Callable[[], None], *, is_upload: bool = False) -> CallCost:
        """
        Make one call in a worker thread.

        Raises:
            TrackingError: the store did not take it.
        """

        def measured() -> CallCost:
            # one that a delivery before us has abandoned may still be under way
            with nullcontext() if is_upload else self._locks.calling:
                before = now_monotonic_s(), thread_cpu_s()
                work()
            return CallCost(now_monotonic_s() - before[0], thread_cpu_s() - before[1])

        limiter = self._limiters.uploads if is_upload else self._limiters.calls
        return await anyio.to_thread.run_sync(measured, abandon_on_cancel=True, limiter=limiter)

    async def insist(self, work: Callable[[], None]) -> bool:
        """
        Call until the store takes it; False where it never will.
        """
        attempt = 0
        while True:
            try:
                await self.call(work)
                self._state.last_error = None
                return True
            except TransientTrackingError as exc:
                self._note(exc)
                await anyio.sleep(
                    retry.delay_s(attempt, retry_after_s=exc.retry_after_s, chance=self._chance)
                )
                attempt += 1
            except TrackingError as exc:
                self._note(exc)
                return False

    async def ensure_run(self) -> None:
        """
        Create the run in MLflow where that was not done yet.

        Raises:
            TrackingError: the store did not take it.
        """
        if self._state.run_id is None or self._state.is_reopen_due:
            await self.call(self.create_run)
            self._state.last_error = None
            self._on_news()

    async def insist_on_run(self) -> None:
        """
        Create the run however long it takes: without it there is nowhere to deliver to.
        """
        if self._state.run_id is None or self._state.is_reopen_due:
            await self.insist(self.create_run)

    async def is_superseded(self) -> bool:
        """
        Whether a later part of the run has opened it, and will say how it ends.
        """
        await self.insist(self._look)
        return self._is_superseded

    # --- in a worker thread ---------------------------------------------------------------------

    @property
    def run_id(self) -> RunId:
        """
        MLflow's id of the run, which exists.
        """
        assert self._state.run_id is not None
        return RunId(self._state.run_id)

    @property
    def is_idempotent(self) -> bool:
        """
        Whether a reading may be sent twice.
        """
        return self._connect().is_idempotent

    @property
    def readings_per_call(self) -> int:
        """
        As `Tracking.readings_per_call`.
        """
        return self._connect().readings_per_call

    def perform(self, send: Send) -> None:
        """
        Make the one call that the plan wants.

        Raises:
            TrackingError: the store did not take it.
        """
        batch = batch_of(send)
        readings = batch.get("readings", ())
        size = max(self._spec.batch_size, self.readings_per_call)
        if len(readings) <= size:
            self.log_batch(**batch)
            return
        for start in range(0, len(readings), size):  # the store takes less by now than it did
            self.log_batch(readings=readings[start : start + size])

    def log_batch(
        self,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        As `Tracking.log_batch`, for this run.
        """
        self._connect().log_batch(self.run_id, readings=readings, params=params, tags=tags)

    def upload(self, artifact: ArtifactAdded) -> None:
        """
        Upload one artifact.

        Raises:
            TrackingError: the store did not take it, or it changed or went away.
        """
        self.log_artifact(artifact_file(self._folder, artifact), artifact.artifact_path)

    def log_artifact(self, file: Path, artifact_path: str) -> None:
        """
        As `Tracking.log_artifact`, for this run.
        """
        self._connect().log_artifact(self.run_id, file, artifact_path)

    def end_run(self, end: RunEnded) -> None:
        """
        As `Tracking.end_run`, for this run; never before its start, also where the clock went back.
        """
        end_ns = max(end.timestamp_ns, self._spec.created_ns)
        self._connect().end_run(self.run_id, end.status, end_ns // 1_000_000)

    def create_run(self) -> None:
        """
        Create the run in MLflow, or open it again, where that was not done yet; its parent too,
        which must be first.

        Raises:
            TransientTrackingError: the store did not take it.
        """
        try:
            with self._locks.creating:
                if self._state.run_id is None or self._state.is_reopen_due:
                    self._create_run()
        except PermanentTrackingError as exc:
            # nobody's record is at fault, so none may be set aside for it
            raise TransientTrackingError(exc.message, kind=exc.kind) from exc

    def _create_run(self) -> None:
        tracking, spec, state = self._connect(), self._spec, self._state
        tags = start_tags(spec, parent_run_id=self._parent_run_id())
        found = state.run_id or spec.run_id
        if found is None:
            experiment_id = tracking.ensure_experiment(
                spec.experiment, artifact_location=spec.artifact_location
            )
            # an earlier part of the run, or a call of ours that was lost on its way back
            found = tracking.find_run(experiment_id, spec.run_uid)
        if found is not None:
            run_id = RunId(found)
            experiment_id = self._reopen(tracking, run_id, tags)
        else:
            run_id = tracking.create_run(
                experiment_id,
                run_name=spec.run_name,
                start_ms=spec.created_ns // 1_000_000,
                tags=tags,
            )
        if not (experiment_id and run_id):  # a proxy's answer, perhaps
            raise TransientTrackingError(
                "the server answered without an id", kind=ErrorKind.STORE_BUSY
            )
        state.store = spec.tracking_uri_masked
        state.experiment_id = experiment_id
        state.run_url = tracking.run_url(experiment_id, run_id)
        state.status = "RUNNING"
        state.run_id, state.is_reopen_due = run_id, False

    def _reopen(self, tracking: Tracking, run_id: RunId, tags: Mapping[str, str]) -> str:
        found = tracking.look_at_run(run_id)
        started_ns = _started_ns(found.tags)
        ours = (0, self._spec.created_ns, self._state.opened_ns)
        if self._state.run_id is None and started_ns not in ours:
            self._state.artifact_folder = _folder_of_part(self._spec.created_ns)
        if not is_abandoned(self._folder):  # who lives is the last, whatever other clocks say
            self._state.opened_ns = max(started_ns + 1, self._spec.created_ns)
            with contextlib.suppress(OSError):
                # before MLflow has it: who comes after us would take it for a later part's
                spool.write_struct(self._folder / spool.STATE_FILE, self._state)
            tags = {**tags, STARTED_TAG: str(self._state.opened_ns)}
        self._is_superseded = started_ns > self._present_ns
        if not self._is_superseded:
            tracking.reopen_run(run_id)
            # who began it, and from where, stays
            more = {k: v for k, v in tags.items() if k not in ORIGIN_TAGS}
            tracking.log_batch(run_id, tags=more)
        return found.experiment_id

    def _look(self) -> None:
        if not self._is_superseded:
            tags = self._connect().look_at_run(self.run_id).tags
            self._is_superseded = _started_ns(tags) > self._present_ns

    @property
    def _present_ns(self) -> int:
        return self._state.opened_ns or self._spec.created_ns

    def _parent_run_id(self) -> str | None:
        if self._spec.parent_run_id or not self._spec.parent_run_uid:
            return self._spec.parent_run_id
        parent = self._find(self._spec.parent_run_uid)
        if parent is not None:
            parent.create_run()
            return parent.run_id
        own = self._folder
        theirs = Path(self._spec.parent_folder) if self._spec.parent_folder else own
        for scope in dict.fromkeys((own.parent.parent, theirs.parent.parent)):
            for place in (spool.RUNS, spool.DONE):
                folder = scope / place / self._spec.parent_run_uid
                state = spool.read_struct(folder / spool.STATE_FILE, RunState)
                if state is not None and state.run_id:
                    return state.run_id
                if (folder / spool.RUN_FILE).exists():
                    raise TransientTrackingError(
                        "the parent run is not in MLflow yet", kind=ErrorKind.STORE_BUSY
                    )
        _logger.warning("run %s: its parent is in no spool here", self._spec.run_uid)
        return None

    def _note(self, exc: TrackingError) -> None:
        self._state.last_error = str(exc)
        _logger.warning("run %s: %s", self._spec.run_uid, exc)
        self._on_news()


def _folder_of_part(created_ns: int) -> str:
    return f"{OWN_ARTIFACTS}/parts/{utc_iso(created_ns).replace(':', '-')}"


def _started_ns(tags: Mapping[str, str]) -> int:
    return whole_number(tags.get(STARTED_TAG)) or 0


class Batch(TypedDict, total=False):
    """
    What one call of `Tracking.log_batch` takes: one of these.
    """

    readings: Sequence[Reading]
    params: Mapping[str, str]
    tags: Mapping[str, str]


def batch_of(send: Send) -> Batch:
    """
    The arguments of the one call that the plan wants.
    """
    if send.kind == "metric":
        return {"readings": [i.value for i in send.items if isinstance(i.value, Reading)]}
    pairs = dict(i.value for i in send.items if is_pair(i.value))
    return {"params": pairs} if send.kind == "param" else {"tags": pairs}


def artifact_file(folder: Path, artifact: ArtifactAdded) -> Path:
    """
    Where the bytes of an artifact of the run's are.

    Raises:
        PermanentTrackingError: it was too large to copy and has changed or gone since.
    """
    if artifact.copied:
        return folder / spool.ARTIFACTS / artifact.source
    path = Path(artifact.source)
    try:
        found = path.stat()
    except OSError:
        found = None
    wanted = (artifact.size_bytes, artifact.mtime_ns)
    if found is None or (found.st_size, found.st_mtime_ns) != wanted:
        raise PermanentTrackingError(
            f"artifact {path} was too large to copy and has changed or gone since",
            kind=ErrorKind.BAD_ARTIFACT,
            reason="artifact_changed",
        )
    return path
