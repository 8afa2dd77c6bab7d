"""
Delivering one run: performs what `RunPlan` says, samples the benchmark, ends the run in MLflow.

One coroutine a run, one call in flight. A call of MLflow's blocks in a worker thread and cannot be
cancelled; the run waits for it while the other runs go on.

Over 500 lines because it is the one place that performs: what it performs is decided in `plan`,
and each thing that it needs is a module of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from allele_mlflow.clock import now_monotonic_s, now_ns, process_cpu_s, thread_cpu_s
from allele_mlflow.errors import TrackingError
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import take_over
from allele_mlflow.queue.events import EventFrame
from allele_mlflow.queue.locks import HeldLock
from allele_mlflow.queue.room import Room
from allele_mlflow.queue.run_reader import RunReader, StreamChunk
from allele_mlflow.queue.stream_reader import StreamMark
from allele_mlflow.queue.write_through import WriteThrough
from allele_mlflow.records import (
    RECORD_KINDS,
    AlertRaised,
    ArtifactAdded,
    ErrorLogged,
    Ledger,
    ParamLogged,
    PredictionMade,
    RecommendationMade,
    RecordRejected,
    RunEnded,
    RunSpec,
    RunState,
    TagSet,
)
from allele_mlflow.resolution import parse_rules
from allele_mlflow.sidecar.alerting import RunAlerts
from allele_mlflow.sidecar.full_readings import FullReadings
from allele_mlflow.sidecar.heartbeat import Heartbeat
from allele_mlflow.sidecar.listener import Listener
from allele_mlflow.sidecar.live_view import LiveViewWriter
from allele_mlflow.sidecar.owner_watch import OwnerWatch, note_error_of_end
from allele_mlflow.sidecar.pacing import CpuLimit, stretch_of
from allele_mlflow.sidecar.plan import (
    STAND_IN,
    Commit,
    Item,
    Read,
    RunPlan,
    Send,
    SetAside,
    Wait,
)
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.sidecar.run_sampler import RunSampler
from allele_mlflow.sidecar.run_store import Limiters, RunLocks, RunStore
from allele_mlflow.sidecar.summary_writer import SummaryWriter
from allele_mlflow.sidecar.uploader import Uploader
from allele_mlflow.tracking.protocol import Tracking

_logger = logging.getLogger(__name__)

POLL_S = 0.1
URGENT_POLL_S = 0.005
PUBLISH_EVERY_S = 0.5
#: Readings waiting, in batches, from which on the newest of each key is shown ahead of its turn.
LAG_BATCHES = 20
LIVE_VIEW_EVERY_S = 5.0
#: A lag from which on who watches is shown what is not read yet.
BEHIND_S = 1.0
SPARE_EVERY_S = 0.5
#: How often to listen for flushes and ends, however much there is to do.
LISTEN_EVERY_S = 0.05
#: How often to try to create a run that has nothing to send yet.
CREATE_EVERY_S = 5.0
#: How often to try to write the files of a run's end where the disk is full.
OFFER_EVERY_S = 1.0
#: How often to write full segments through to the disk, where that is wanted.
WRITE_THROUGH_EVERY_S = 1.0
#: Calls over which the rate of delivery is taken.
RATE_CALLS = 8


class RunDelivery:
    """
    One run on its way into MLflow.

    Args:
        folder: The run's folder in the spool.
        spec: What the logger wrote about it.
        lock: The folder's lock, which says that nobody else delivers the run; released by `close`.
        connect: Gives the tracking store; called in a worker thread, may block and may raise
            TrackingError.
        locks: Held by calls of the run, by whatever delivery of it.
        share: Of how many runs this is one, for the CPU limit.
        find_store: Gives the store side of another run that is being delivered, by its uid.
        description: Identity of the file that `spec` was read from.
        is_drain: Deliver all there is at once and do not wait for the benchmark (`sync`).
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        *,
        lock: HeldLock,
        connect: Callable[[], Tracking],
        limiters: Limiters,
        locks: RunLocks,
        share: Callable[[], int],
        find_store: Callable[[str], RunStore | None],
        description: tuple[int, int] | None,
        is_drain: bool = False,
    ) -> None:
        self.folder = folder
        self.spec = spec
        #: Identity of the description that this delivers by: before reading what it tells of.
        self.description = description
        self._lock = lock
        self.reader = RunReader(folder, spec)
        self.plan = RunPlan(batch_size=spec.batch_size, flush_interval_s=spec.flush_interval_s)
        self.state = spool.read_struct(folder / spool.STATE_FILE, RunState) or RunState(
            run_uid=spec.run_uid, updated_ns=spec.created_ns, part_ns=spec.created_ns
        )
        if self.state.part_ns not in (0, spec.created_ns):
            self.state.resume(spec.created_ns)
        if self.state.run_id is not None and self.state.store != spec.tracking_uri_masked:
            _logger.warning(
                "run %s was begun in %s: what was delivered there stays there",
                spec.run_uid,
                self.state.store,
            )
            self.state.forget_run()
        self.state.last_error = None  # of a sidecar before us
        self._owner = OwnerWatch(folder, spec, self.state)
        self._listener = Listener(
            self.reader,
            spec,
            self._owner,
            last_sign_ns=self.state.updated_ns,
            flushed_id=self.state.flushed_id,
        )
        with contextlib.suppress(OSError):  # it is tried again when this part is archived
            take_over(folder)
        self.files = RunFiles(folder)
        self._alerts = RunAlerts(spec, self.files, self.state, self.reader)
        self._readings = FullReadings(
            folder, parse_rules(spec.sampling), is_durable=spec.durability == "power"
        )
        self.store = RunStore(
            folder,
            spec,
            self.state,
            connect=connect,
            limiters=limiters,
            locks=locks,
            find=find_store,
            on_news=lambda: self._publish(if_older_s=PUBLISH_EVERY_S),
        )
        self._heartbeat = Heartbeat(self.store, self.state)
        self._uploader = Uploader(
            folder,
            self.reader.uploads,
            store=self.store,
            files=self.files,
            state=self.state,
            is_due=self._is_upload_due,
            pause=self._pause_for,
        )
        self._summaries = SummaryWriter(
            folder, spec, self.state, self.files, self.store, self._uploader
        )
        #: Flushes whose records are delivered: their ids, and the last artifact before each.
        self._flushed: list[tuple[int, int]] = []
        self._share = share
        self._limit = CpuLimit(
            spec.sidecar_cpu_percent,
            max_lag_s=spec.max_lag_s,
            is_half_full=Room(folder.parent.parent, spec.spool_quota_bytes).is_half_full,
            now_s=now_monotonic_s(),
        )
        self._sampler = RunSampler(folder, spec, self.reader, self.files)
        self._through = WriteThrough(folder) if spec.durability == "power" else None
        self._is_drain = is_drain
        self._settled_count = 0
        self._cpu_at_start_s = process_cpu_s()
        self._published_s = -1e9
        self._spare_s = -1e9
        self._live_view_s = now_monotonic_s()
        self._caught_up_s = now_monotonic_s()
        self._view = LiveViewWriter(
            folder,
            spec,
            self.reader,
            self.files,
            self.state,
            is_behind=lambda: now_monotonic_s() - self._caught_up_s >= BEHIND_S,
            on_cost=self._owe,
        )
        #: Readings and seconds of the last calls.
        self._rates: deque[tuple[int, float]] = deque(maxlen=RATE_CALLS)
        self._stop_sampling = anyio.Event()
        self._is_offline = spec.offline and not is_drain
        self._idle_reads = 0
        self._listened_s = -1e9
        self._create_at_s = self._offer_at_s = 0.0
        #: How far the streams were written when the end was heard; None before.
        self._end_marks: dict[str, StreamMark] | None = None
        self._apply_end()

    @property
    def is_wanted(self) -> bool:
        """
        Whether anything is left to do: False once archived, or offline and without its benchmark.
        """
        return self.folder.exists() and not (self._is_offline and self.state.end is not None)

    @property
    def is_in_trouble(self) -> bool:
        """
        Whether the last call of the store's failed.
        """
        return self.state.last_error is not None

    @property
    def records_settled(self) -> int:
        """
        Records dealt with since this delivery began, and artifacts of before.
        """
        return self._settled_count + self.reader.uploads.settled_count

    @property
    def bytes_in_flight(self) -> int:
        """
        Size of the file that is being uploaded.
        """
        return self._uploader.bytes_in_flight

    async def run(self) -> bool:
        """
        Deliver until every producer is gone and all is in MLflow, then archive the run's folder.

        Returns:
            False where the run is left as it is: offline, without an end in a drain, or resumed
            under another owner, which wants a delivery of its own.
        Raises:
            OSError: the run's files cannot be read or moved now.
        """
        is_left = True
        async with anyio.create_task_group() as group:
            group.start_soon(self._leave_when_resumed, group.cancel_scope)
            if not self._is_drain and self.state.end is None and spool.is_here(self.folder):
                group.start_soon(self._sample)
            group.start_soon(self._uploader.run)
            group.start_soon(self._alerts.hooks.run)
            group.start_soon(self._view.run)
            if self._through is not None:
                group.start_soon(self._write_through, self._through)
            await self._deliver_until(self._is_first_part_over)
            is_over = self.state.end is None or self._is_offline
            is_left = is_over
            if not is_over and not self.state.done:
                await self._end_run()
            self._stop_sampling.set()
            if self.state.end is not None:
                await self._deliver_until(self._owner.is_farewell_settled)
                await self._correct_end()
            while not is_over:
                await self._deliver_until(self._is_all_over)
                is_over = await self._finish()
            await self._alerts.hooks.finish()
            group.cancel_scope.cancel()
        self.close()
        return not is_left

    async def _leave_when_resumed(self, scope: anyio.CancelScope) -> None:
        # whoever resumes a run writes its description anew
        while spool.identity_of(self.folder / spool.RUN_FILE) in (None, self.description):  # noqa: ASYNC110 - no event reaches us from there
            await anyio.sleep(POLL_S * stretch_of(self._share()))
        _logger.info("run %s was resumed", self.spec.run_uid)
        scope.cancel()

    def _is_first_part_over(self) -> bool:
        if self._is_offline:
            return self.state.end is not None
        if self.state.end is None and (not self._is_drain or self._owner.is_asked):
            return False
        if self._end_marks is None:
            self._end_marks = self.reader.marks()
        if not self.plan.is_settled or not self.reader.has_passed(self._end_marks):
            return False
        return self.state.end is not None or not self.reader.uploads.has_waiting()

    def _is_all_over(self) -> bool:
        is_read = self.reader.is_finished and self.plan.is_settled
        return is_read and not self._has_files_waiting

    @property
    def _has_files_waiting(self) -> bool:
        return self.reader.uploads.has_waiting() or self._uploader.has_own

    def _is_upload_due(self) -> bool:
        is_holding = self.plan.is_quiet and not self.plan.is_urgent
        return self.state.run_id is not None and not is_holding

    def close(self) -> None:
        """
        Give back what is open; the run is taken up again by the next sidecar.
        """
        self._sampler.close()
        self._owner.close()
        self._view.close()
        self.reader.close()
        self._lock.release()

    # --- performing the plan --------------------------------------------------------------------

    async def _deliver_until(self, is_over: Callable[[], bool]) -> None:
        self._keep_house()
        while not is_over():
            instruction = self.plan.next(now_monotonic_s())
            match instruction:
                case Read(limit):
                    await self._read(limit)
                case Send():
                    await self._send(instruction)
                case Commit(outcomes):
                    self._commit(outcomes)
                case SetAside(item, reason, words):
                    self.files.note_refused(item.kind, item.value, reason, words)
                case Wait(seconds, error):
                    self.state.last_error = error or self.state.last_error
                    await anyio.sleep(min(seconds, POLL_S))
            await self._beat()
            self._keep_house()

    async def _read(self, limit: int) -> None:
        before_s = thread_cpu_s()
        chunks = self.reader.read(limit)
        for found in chunks:
            self._take_in(found)
        now_s = now_monotonic_s()
        is_all = sum(found.chunk.record_count for found in chunks) < limit
        if is_all:
            self._caught_up_s = now_s
        if not chunks:
            await self._create_early(now_s)
        reason = None if self.plan.is_quiet else self._limit.relax(now_s - self._caught_up_s)
        if reason is not None:
            _logger.warning("run %s: CPU limit lifted: %s", self.spec.run_uid, reason)
        await self._pause_for(thread_cpu_s() - before_s)
        self._idle_reads = 0 if chunks else self._idle_reads + 1
        if is_all:
            # after an end somebody waits for us, but perhaps a worker process stays for hours; else
            # what comes next is read together, for a look costs as much as a hundred readings
            soon_s = URGENT_POLL_S * self._idle_reads if self.plan.is_urgent else POLL_S
            pause_s = min(POLL_S, soon_s, self.plan.flush_in_s)
            await anyio.sleep(pause_s * stretch_of(self._share()))

    def _keep_house(self) -> None:
        """
        What goes on whatever the plan does: listening, the next segments, the status.
        """
        now_s, before_s = now_monotonic_s(), thread_cpu_s()
        if now_s - self._listened_s >= LISTEN_EVERY_S:
            self._listened_s = now_s
            self._listen(now_s)
        self._settle_flushes()
        if now_s - self._spare_s >= SPARE_EVERY_S:
            self._spare_s = now_s
            for stream in self.reader.streams.values():
                if not stream.is_sampler:
                    stream.prepare_spare()
        if self.state.end is None and not self._is_drain:
            self._alerts.tick(self.reader, read_s=self._caught_up_s)
        self._publish(if_older_s=PUBLISH_EVERY_S)
        self._owe(thread_cpu_s() - before_s)

    def _owe(self, cpu_s: float) -> None:
        if not self._is_unlimited:  # a debt, for the next pause
            self._limit.spend(cpu_s, now_monotonic_s(), runs=self._share())

    async def _create_early(self, now_s: float) -> None:
        """
        Create the run before it has anything to send: somebody may look for it, or be its child.
        """
        is_holding = self.plan.is_quiet and not self.plan.is_urgent
        if self.state.run_id is not None or is_holding or now_s < self._create_at_s:
            return
        try:
            await self.store.ensure_run()
        except TrackingError as exc:
            self.state.last_error = str(exc)
            self._create_at_s = now_s + CREATE_EVERY_S

    async def _beat(self) -> None:
        is_holding = self.plan.is_quiet and not self.plan.is_urgent
        if self.state.end is None and not (is_holding or self._is_drain):
            await self._pause_for(await self._heartbeat.beat())

    def _take_in(self, found: StreamChunk) -> None:
        stream, chunk = found
        stream_id = stream.stream_id
        now_s = now_monotonic_s()
        self.plan.settle(stream_id, Ledger())  # whatever it holds, it is to be committed
        self._view.take(stream, chunk.readings)
        if chunk.readings and stream.is_sampler:
            self.plan.offer((Item(stream_id, "metric", r) for r in chunk.readings), now_s)
        elif chunk.readings:
            thinned = self._readings.thin(stream, chunk.readings)
            self.plan.settle(stream_id, Ledger(archived=dict(thinned.archived)))
            self.plan.offer((Item(STAND_IN, "metric", r) for r in thinned.standing_in), now_s)
            self.plan.offer((Item(stream_id, "metric", r) for r in thinned.shown), now_s)
            last = chunk.readings[-1]
            self.files.phases.note_metric_step(last.step, last.timestamp_ms * 1_000_000)
        for edge in chunk.edges:
            self.files.note_edge(edge)
        if chunk.edges:
            self.plan.settle(stream_id, Ledger(delivered={"phase": len(chunk.edges)}))
        for letter in chunk.rejected:
            self.files.note_rejected(letter)
            self.plan.settle(stream_id, Ledger(rejected={letter.reason: 1}))
        for frame in chunk.events:
            self._take_in_event(stream_id, frame, now_s)
        self._alerts.take_in(found)

    def _take_in_event(self, stream_id: str, frame: EventFrame, now_s: float) -> None:
        match frame.event:
            case ParamLogged(key=key, value=value):
                self.plan.offer([Item(stream_id, "param", (key, value))], now_s)
            case TagSet(key=key, value=value):
                self.plan.offer([Item(stream_id, "tag", (key, value))], now_s)
            case ArtifactAdded() as artifact:
                self.reader.uploads.add(artifact, stream=stream_id, end=frame.end_offset)
                self._uploader.wake()
            case ErrorLogged() as event:
                self.files.note_error(event)
                self.plan.settle(stream_id, Ledger(delivered={"error": 1}))
            case AlertRaised() as alert:
                self._alerts.take_alert(stream_id, alert)
                self.plan.settle(stream_id, Ledger(delivered={"alert": 1}))
            case RecommendationMade() | PredictionMade() as advice:
                self._alerts.take_advice(advice)
                self.plan.settle(stream_id, Ledger(delivered={RECORD_KINDS[type(advice)]: 1}))
            case RecordRejected() as event:
                self.files.note_rejected(event)

    def _listen(self, now_s: float) -> None:
        if self._listener.listen() and not self._is_offline:
            self.plan.is_urgent = True
            self._hurry(now_s)
        end = self._listener.find_end() if self.state.end is None else None
        if end is not None:
            self._end_with(end, now_s)

    def _end_with(self, end: RunEnded, now_s: float) -> None:
        self.state.end = end
        self._end_marks = None if self._is_offline else self.reader.marks()
        self._hurry(now_s)
        # how fast it goes now, without limits and competitors, is what `close` wants to know
        self._rates.clear()
        self.state.delivered_per_s = None
        self._apply_end()
        self._publish()

    def _apply_end(self) -> None:
        if self.state.end is not None:
            self._limit.is_lifted = True
        self.plan.is_quiet = self.spec.delivery == "quiet"
        self.plan.is_urgent = self.state.end is not None or self._is_drain
        if self._is_offline:
            self.plan.is_quiet, self.plan.is_urgent = True, False

    async def _send(self, send: Send) -> None:
        was_sent = False
        try:
            await self.store.ensure_run()
            was_sent = True
            cost = await self.store.call(partial(self.store.perform, send))
        except TrackingError as exc:
            self.plan.failed(exc, now_monotonic_s(), was_sent=was_sent)
            self.state.last_error = str(exc)
            _logger.warning("run %s: %s", self.spec.run_uid, exc)
            return
        self.plan.acknowledged()
        self.plan.readings_per_send = self.store.readings_per_call
        self.state.last_error = None
        if send.kind == "metric":
            self._rates.append((len(send.items), cost.seconds))
        await self._pause_for(cost.cpu_s)
        await self._show_newest()

    def _commit(self, outcomes: Mapping[str, Ledger]) -> None:
        for stream_id, outcome in outcomes.items():
            self._settled_count += outcome.accepted
            stream = self.reader.streams[stream_id]
            if stream.is_sampler:
                outcome = Ledger(sampled=sum(outcome.delivered.values()))
            # what is only in our memory must be read again by who comes after us
            is_kept = not (self.files.has_unwritten or self.reader.uploads.has_unwritten)
            try:
                stream.commit(outcome, is_kept=is_kept)
            except OSError as exc:  # a full disk: the same records will be sent once more
                _logger.warning("run %s: cursor not written: %s", self.spec.run_uid, exc)

    def _hurry(self, now_s: float) -> None:
        self.plan.hurry(now_s)
        self._uploader.hurry()

    def _settle_flushes(self) -> None:
        uploads = self.reader.uploads
        if self._listener.flushes and self.plan.is_settled:
            passed = self._listener.settle_flushes()
            self._flushed += [(flush_id, uploads.last_number) for flush_id in passed]
        answered = 0
        while self._flushed and not uploads.has_waiting(up_to=self._flushed[0][1]):
            answered = max(answered, self._flushed.pop(0)[0])
        if not answered:
            return
        # a thread may be held up between its id and its frame, and be heard after a later one
        self.state.flushed_id = max(self.state.flushed_id, answered)
        if not self._listener.flushes and not self._flushed:
            self._apply_end()
        self._publish()

    @property
    def _is_unlimited(self) -> bool:
        return self._limit.is_lifted or self.plan.is_urgent or self._is_drain

    async def _pause_for(self, cpu_s: float) -> None:
        """
        Wait until the CPU that was just spent is earned; without a limit it is nobody's debt.
        """
        if self._is_unlimited:
            return
        wait_s = self._limit.spend(cpu_s, now_monotonic_s(), runs=self._share())
        while wait_s > 0 and not self._is_unlimited:
            await anyio.sleep(min(wait_s, POLL_S))
            wait_s -= POLL_S
            self._keep_house()  # a flush or the end lift the limit

    async def _show_newest(self) -> None:
        """
        Under lag, send the newest reading of each key ahead of its turn; it is sent again in its
        turn.
        """
        now_s = now_monotonic_s()
        if self.plan.is_urgent or now_s - self._live_view_s < LIVE_VIEW_EVERY_S:
            return
        self._live_view_s = now_s
        if self.reader.pending() < LAG_BATCHES * self.plan.batch_size:
            return
        newest = [
            reading
            for reading in self.reader.newest_readings(2000)
            if not self._readings.is_thinned(reading.key)
        ][: self.plan.batch_size]
        if newest and self.store.is_idempotent:
            with contextlib.suppress(TrackingError):  # a view, not the delivery
                cost = await self.store.call(partial(self.store.log_batch, readings=newest))
                await self._pause_for(cost.cpu_s)

    # --- the end --------------------------------------------------------------------------------

    async def _end_run(self) -> None:
        end = self.state.end
        assert end is not None
        await self._sampler.finish()
        note_error_of_end(self.files, self.spec, end)
        self.files.close_phases(end.timestamp_ns)
        last = self.reader.marks()
        await self._deliver_until(lambda: self.plan.is_settled and self.reader.has_passed(last))
        await self._show_last()
        await self.store.insist_on_run()
        await self._write_summaries()
        await self._set_status(end)
        await self._offer_readings()
        await self._deliver_until(lambda: self._offer_files() and not self._has_files_waiting)
        await self._write_summaries()  # uploads count too: who reads the tag after `close` sees all
        self.state.done = True
        self._publish(is_exact=True)

    async def _set_status(self, end: RunEnded) -> None:
        if not await self.store.is_superseded():
            await self.store.insist(partial(self.store.end_run, end))
        self.state.status = end.status
        self._publish()

    async def _correct_end(self) -> None:
        """
        What the owner's farewell did not know of its exit; also where a sidecar before us began to
        say so.
        """
        if self._owner.correct():
            self._publish()
        end = self.state.end
        assert end is not None
        if self.state.done and self.state.run_id is not None and self.state.status != end.status:
            note_error_of_end(self.files, self.spec, end)
            await self._write_summaries()
            await self._set_status(end)

    async def _write_summaries(self) -> None:
        end = self.state.end
        assert end is not None
        await self._summaries.write(end)
        ledger = self.reader.ledger(is_exact=True)
        if self._summaries.has_told(end, ledger) or await self.store.is_superseded():
            return
        cpu_s = process_cpu_s() - self._cpu_at_start_s
        await self._summaries.tag(end, ledger, cpu_s=cpu_s)

    async def _show_last(self) -> None:
        """
        Send what MLflow is to be shown of thinned keys at the end.
        """
        last = self._readings.finish(self.reader.streams.values())
        self.plan.offer((Item(STAND_IN, "metric", reading) for reading in last), now_monotonic_s())
        await self._deliver_until(lambda: self.plan.is_settled)

    async def _offer_readings(self) -> None:
        """
        Have all readings of thinned keys uploaded, where there are more than last time.
        """
        if not self._readings.has_news:
            return
        is_over = False

        async def write() -> None:
            nonlocal is_over
            try:
                await self._summaries.offer_readings(self._readings)
            finally:
                is_over = True

        async with anyio.create_task_group() as group:  # flushes and status go on meanwhile
            group.start_soon(write)
            await self._deliver_until(lambda: is_over)

    def _offer_files(self) -> bool:
        """
        Have the files uploaded that the run adds up to; False where they cannot be written now.
        """
        if now_monotonic_s() < self._offer_at_s:
            return False
        try:
            self._summaries.offer_files()
        except OSError as exc:  # a full disk
            self.state.last_error = f"files that describe the run: {exc}"
            self._offer_at_s = now_monotonic_s() + OFFER_EVERY_S
            return False
        return True

    async def _finish(self) -> bool:
        """
        Write what has come since the end, publish the last ledger and archive the run; False where
        that brought files to upload, or somebody has joined it meanwhile.
        """
        self.reader.clear_up()
        if self.state.run_id is not None:
            await self._show_last()
            await self._offer_readings()
            await self._write_summaries()
            if not self._offer_files():
                await anyio.sleep(POLL_S)
                return False
        self._publish(is_exact=True)
        return not self._uploader.has_own and self.reader.archive()

    # --- what the others see --------------------------------------------------------------------

    def _publish(self, *, if_older_s: float = 0.0, is_exact: bool = False) -> None:
        now_s = now_monotonic_s()
        if now_s - self._published_s < if_older_s:
            return
        self._published_s = now_s
        state = self.state
        state.updated_ns = now_ns()
        self._alerts.publish(state)
        state.ledger = self.reader.ledger(is_exact=is_exact)
        samplers = {s.stream_id for s in self.reader.streams.values() if s.is_sampler}
        state.ledger.add(self.plan.uncommitted(leaving_out=samplers))
        damage = (
            *state.damage,
            *self.reader.damage(),
            *self.files.damage,
            *self._readings.damage,
        )
        state.damage = list(dict.fromkeys(damage))
        if self._through is not None:
            exposed = self.reader.unread_outside(self._through.segments)
            state.durable_count = state.ledger.accepted - exposed
        state.sidecar_pid = os.getpid()
        state.lag_s = now_s - self._caught_up_s
        if len(self._rates) == RATE_CALLS:  # the first calls are slow, and tell nothing
            state.delivered_per_s = sum(n for n, _ in self._rates) / sum(s for _, s in self._rates)
        state.sidecar_cpu_s = process_cpu_s() - self._cpu_at_start_s
        if is_exact:
            self._view.write()  # before the state, which may say that the run is done
        try:
            spool.write_struct(self.folder / spool.STATE_FILE, state)
        except OSError as exc:
            _logger.warning("run %s: state not written: %s", self.spec.run_uid, exc)

    async def _write_through(self, through: WriteThrough) -> None:
        while True:
            finished = [name for name, s in self.reader.streams.items() if not s.has_live_writer]
            write = partial(through.write, finished=finished)
            try:
                await anyio.to_thread.run_sync(write, abandon_on_cancel=True)
            except OSError as exc:  # it is tried again
                _logger.warning("run %s: not written through: %s", self.spec.run_uid, exc)
            await anyio.sleep(WRITE_THROUGH_EVERY_S)

    async def _sample(self) -> None:
        try:
            await self._sampler.run(self._stop_sampling)
        except Exception:
            # a task's border: without samples the records are delivered all the same
            _logger.exception("run %s: sampling ended", self.spec.run_uid)
            self._sampler.close()
