"""
Delivering one run: performs what `RunPlan` says, samples the benchmark, ends the run in MLflow.

One coroutine a run, one call in flight. A call of MLflow's blocks in a worker thread and cannot be
cancelled; the run waits for it while the other runs go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from allele_mlflow.clock import now_monotonic_s, now_ns, process_cpu_s, thread_cpu_s
from allele_mlflow.errors import (
    TrackingError,
)
from allele_mlflow.queue import spool
from allele_mlflow.queue.run_reader import RunReader, StreamChunk
from allele_mlflow.queue.stream_reader import StreamMark
from allele_mlflow.records import (
    ArtifactAdded,
    ErrorLogged,
    Event,
    FlushAsked,
    Ledger,
    ParamLogged,
    RecordRejected,
    RunEnded,
    RunSpec,
    RunState,
    TagSet,
)
from allele_mlflow.sidecar.pacing import CpuBudget
from allele_mlflow.sidecar.plan import Commit, Item, Read, RunPlan, Send, SetAside, Wait
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.sidecar.run_sampler import RunSampler
from allele_mlflow.sidecar.run_store import RunStore
from allele_mlflow.sidecar.run_summary import run_tags, summary_files, summary_readings
from allele_mlflow.tracking.protocol import Tracking

_logger = logging.getLogger(__name__)

POLL_S = 0.1
URGENT_POLL_S = 0.005
PUBLISH_EVERY_S = 0.5
#: Readings waiting, in batches, from which on the newest of each key is shown ahead of its turn.
LAG_BATCHES = 20
LIVE_VIEW_EVERY_S = 5.0
SPARE_EVERY_S = 0.5
#: How often to try to create a run that has nothing to send yet.
CREATE_EVERY_S = 5.0
#: Records read and not sent from which on a pause hears nothing more, for memory's sake.
HEARD_AHEAD = 10_000
#: Calls over which the rate of delivery is taken.
RATE_CALLS = 8


class Flush(NamedTuple):
    """
    Somebody waits until each stream is delivered up to its mark.
    """

    flush_id: int
    marks: dict[str, StreamMark]


class RunDelivery:
    """
    One run on its way into MLflow.

    Args:
        folder: The run's folder in the spool.
        spec: What the logger wrote about it.
        connect: Gives the tracking store; called in a worker thread, may block and may raise
            TrackingError.
        share: Of how many runs this is one, for the CPU limit.
        find_store: Gives the store side of another run that is being delivered, by its uid.
        is_drain: Deliver all there is at once and do not wait for the benchmark (`sync`).
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        *,
        connect: Callable[[], Tracking],
        limiter: anyio.CapacityLimiter,
        share: Callable[[], int],
        find_store: Callable[[str], RunStore | None],
        is_drain: bool = False,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.reader = RunReader(folder, spec)
        self.plan = RunPlan(batch_size=spec.batch_size, flush_interval_s=spec.flush_interval_s)
        self.state = spool.read_struct(folder / spool.STATE_FILE, RunState) or RunState(
            run_uid=spec.run_uid, updated_ns=now_ns()
        )
        self.files = RunFiles(folder)
        self.store = RunStore(
            folder,
            spec,
            self.state,
            connect=connect,
            limiter=limiter,
            find=find_store,
            on_news=lambda: self._publish(if_older_s=PUBLISH_EVERY_S),
        )
        self._share = share
        self._budget = CpuBudget(spec.sidecar_cpu_percent, now_monotonic_s())
        self._sampler = RunSampler(folder, spec, self.reader, self.files)
        self._is_drain = is_drain
        #: Records dealt with since this delivery began.
        self.records_settled = 0
        self._cpu_at_start_s = process_cpu_s()
        self._is_cap_lifted = False
        self._flushes: list[Flush] = []
        self._delivered_files: list[Path] = []
        self._published_s = -1e9
        self._spare_s = -1e9
        self._live_view_s = now_monotonic_s()
        self._caught_up_s = now_monotonic_s()
        #: Readings and seconds of the last calls.
        self._rates: deque[tuple[int, float]] = deque(maxlen=RATE_CALLS)
        self._stop_sampling = anyio.Event()
        self._is_offline = spec.offline and not is_drain
        self._is_idle = False
        self._idle_reads = 0
        self._create_at_s = 0.0
        self._apply_end()

    @property
    def is_wanted(self) -> bool:
        """
        Whether anything is left to do: False once archived, or offline and without its benchmark.
        """
        return self.folder.exists() and not (self._is_offline and self.state.end is not None)

    async def run(self) -> None:
        """
        Deliver until every producer is gone and all is in MLflow, then archive the run's folder.
        """
        async with anyio.create_task_group() as group:
            if not self._is_drain and self.state.end is None:
                group.start_soon(self._sample)
            await self._deliver_until(self._is_first_part_over)
            if self.state.end is None or self._is_offline:
                self._stop_sampling.set()
                self.close()
                return
            if not self.state.done:
                await self._end_run()
            self._stop_sampling.set()
            is_over = False
            while not is_over:
                await self._deliver_until(lambda: self.reader.is_finished and self._is_idle)
                is_over = await self._finish()

    def _is_first_part_over(self) -> bool:
        if self._is_offline:
            return self.state.end is not None
        return self._is_idle and (self.state.end is not None or self._is_drain)

    def close(self) -> None:
        """
        Give back what is open; the run is taken up again by the next sidecar.
        """
        self._sampler.close()
        self.reader.close()

    # --- performing the plan --------------------------------------------------------------------

    async def _deliver_until(self, is_over: Callable[[], bool]) -> None:
        self._is_idle = False
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
                    self._publish(if_older_s=PUBLISH_EVERY_S)
                    await anyio.sleep(min(seconds, POLL_S))

    async def _read(self, limit: int) -> None:
        before_s = thread_cpu_s()
        chunks = self._take_in_news(limit)
        now_s = now_monotonic_s()
        self._is_idle = not chunks and not self.plan.in_flight
        if not chunks:
            self._caught_up_s = now_s
            await self._create_early(now_s)
        self._relax_limits(now_s)
        if now_s - self._spare_s >= SPARE_EVERY_S:
            self._spare_s = now_s
            for stream in self.reader.streams.values():
                if not stream.is_sampler:
                    stream.prepare_spare()
        self._publish(if_older_s=PUBLISH_EVERY_S)
        await self._pause_for(thread_cpu_s() - before_s)
        self._idle_reads = 0 if chunks else self._idle_reads + 1
        if not chunks:
            # after an end somebody waits for us, but perhaps a worker process stays for hours
            soon_s = URGENT_POLL_S * self._idle_reads if self.plan.is_urgent else POLL_S
            await anyio.sleep(min(POLL_S, soon_s, self.plan.flush_in_s))

    def _take_in_news(self, limit: int) -> list[StreamChunk]:
        chunks = self.reader.read(limit)
        for found in chunks:
            self._take_in(found)
        self._aim_flushes()
        self._look_for_end()
        return chunks

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

    def _take_in(self, found: StreamChunk) -> None:
        stream, chunk = found
        stream_id = stream.stream_id
        now_s = now_monotonic_s()
        self.plan.settle(stream_id, Ledger())  # whatever it holds, it is to be committed
        if chunk.readings:
            self.plan.offer((Item(stream_id, "metric", r) for r in chunk.readings), now_s)
            if not stream.is_sampler:
                last = chunk.readings[-1]
                self.files.phases.note_metric_step(last.step, last.timestamp_ms * 1_000_000)
        for edge in chunk.edges:
            self.files.note_edge(edge)
        if chunk.edges:
            self.plan.settle(stream_id, Ledger(delivered={"phase": len(chunk.edges)}))
        for letter in chunk.rejected:
            self.files.note_rejected(letter)
            self.plan.settle(stream_id, Ledger(rejected={letter.reason: 1}))
        for event in chunk.events:
            self._take_in_event(stream_id, event, now_s)

    def _take_in_event(self, stream_id: str, event: Event, now_s: float) -> None:
        match event:
            case ParamLogged(key=key, value=value):
                self.plan.offer([Item(stream_id, "param", (key, value))], now_s)
            case TagSet(key=key, value=value):
                self.plan.offer([Item(stream_id, "tag", (key, value))], now_s)
            case ArtifactAdded():
                self.plan.offer([Item(stream_id, "artifact", event)], now_s)
            case ErrorLogged():
                self.files.note_error(event)
                self.plan.settle(stream_id, Ledger(delivered={"error": 1}))
            case RecordRejected():
                self.files.note_rejected(event)
            case FlushAsked(flush_id=flush_id) if not self._is_offline:
                self.plan.is_urgent = True
                self._flushes.append(Flush(flush_id, {}))
            case RunEnded():
                self._end_with(event)

    def _look_for_end(self) -> None:
        if self.state.end is not None:
            return
        owner = self.reader.streams.get(self.spec.owner_stream)
        if owner is not None and not owner.has_read_last_event:
            return
        if not self.spec.owner_stream and spool.process_start_time(self.spec.owner_pid):
            return  # it found no room for a stream, and lives
        self._end_with(
            RunEnded(timestamp_ns=now_ns(), status="KILLED", slots={}, ended_by="unknown")
        )

    def _end_with(self, end: RunEnded) -> None:
        self.state.end = end
        # how fast it goes now, without limits and competitors, is what `close` wants to know
        self._rates.clear()
        self.state.delivered_per_s = None
        self._apply_end()
        self._publish()

    def _apply_end(self) -> None:
        if self.state.end is not None:
            self._is_cap_lifted = True
        self.plan.is_quiet = self.spec.delivery == "quiet"
        self.plan.is_urgent = self.state.end is not None or self._is_drain
        if self._is_offline:
            self.plan.is_quiet, self.plan.is_urgent = True, False

    async def _send(self, send: Send) -> None:
        try:
            await self.store.ensure_run()
            cost = await self.store.call(partial(self.store.perform, send))
        except TrackingError as exc:
            self.plan.failed(exc, now_monotonic_s())
            self.state.last_error = str(exc)
            _logger.warning("run %s: %s", self.spec.run_uid, exc)
            return
        self.plan.acknowledged()
        self.state.last_error = None
        if send.kind == "artifact":
            self._delivered_files.extend(
                self.folder / spool.ARTIFACTS / item.value.source
                for item in send.items
                if isinstance(item.value, ArtifactAdded) and item.value.copied
            )
        if send.kind == "metric":
            self._rates.append((len(send.items), cost.seconds))
        await self._pause_for(cost.cpu_s)
        await self._show_newest()

    def _commit(self, outcomes: Mapping[str, Ledger]) -> None:
        for stream_id, outcome in outcomes.items():
            self.records_settled += outcome.accepted
            stream = self.reader.streams[stream_id]
            if stream.is_sampler:
                outcome = Ledger(sampled=sum(outcome.delivered.values()))
            try:
                stream.commit(outcome)
            except OSError as exc:  # a full disk: the same records will be sent once more
                _logger.warning("run %s: cursor not written: %s", self.spec.run_uid, exc)
        for file in self._delivered_files:
            with contextlib.suppress(OSError):
                file.unlink()
        self._delivered_files.clear()
        self._settle_flushes()

    def _aim_flushes(self) -> None:
        """
        For each flush that was just read: how far each stream must be read for it.
        """
        for flush in self._flushes:
            if not flush.marks:
                self.reader.discover()  # who wrote before the flush may be newer than this read
                streams = self.reader.streams.values()
                flush.marks.update((stream.stream_id, stream.mark()) for stream in streams)

    def _settle_flushes(self) -> None:
        if not self._flushes or self.plan.in_flight:
            return
        streams = self.reader.streams
        while self._flushes and all(
            streams[stream_id].has_passed(mark)
            for stream_id, mark in self._flushes[0].marks.items()
        ):
            self.state.flushed_id = max(self.state.flushed_id, self._flushes.pop(0).flush_id)
        if not self._flushes:
            self._apply_end()
        self._publish()

    def _relax_limits(self, now_s: float) -> None:
        lag_s = now_s - self._caught_up_s
        if self._is_cap_lifted or lag_s < 1.0:
            return
        if lag_s > self.spec.max_lag_s and not self.plan.is_quiet:
            reason = f"delivery is {lag_s:.0f} s behind (MAX_LAG_S={self.spec.max_lag_s:g})"
        elif self._is_half_full():
            reason = "half of the spool's quota is used"
        else:
            return
        self._is_cap_lifted = True
        _logger.warning("run %s: CPU limit lifted: %s", self.spec.run_uid, reason)

    def _is_half_full(self) -> bool:
        quota = self.spec.spool_quota_bytes
        if not quota or now_monotonic_s() - self._published_s < PUBLISH_EVERY_S:
            return False
        return spool.used_bytes(self.folder.parent.parent) * 2 > quota

    @property
    def _is_unlimited(self) -> bool:
        return self._is_cap_lifted or self.plan.is_urgent or self._is_drain

    async def _pause_for(self, cpu_s: float) -> None:
        """
        Wait until the CPU that was just spent is earned; without a limit it is nobody's debt.
        """
        if self._is_unlimited:
            return
        self._budget.percent = self.spec.sidecar_cpu_percent / max(1, self._share())
        wait_s = self._budget.spend(cpu_s, now_monotonic_s())
        while wait_s > 0 and not self._is_unlimited:
            await anyio.sleep(min(wait_s, POLL_S))
            wait_s -= POLL_S
            if self.plan.in_flight < HEARD_AHEAD:
                self._take_in_news(0)  # a flush or the end, which lift the limit
            self._publish(if_older_s=PUBLISH_EVERY_S)

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
        newest = self.reader.newest_readings(2000)[: self.plan.batch_size]
        if newest and self.store.is_idempotent:
            with contextlib.suppress(TrackingError):  # a view, not the delivery
                cost = await self.store.call(partial(self.store.log_batch, readings=newest))
                await self._pause_for(cost.cpu_s)

    # --- the end --------------------------------------------------------------------------------

    async def _end_run(self) -> None:
        end = self.state.end
        assert end is not None
        await self._sampler.finish()
        self.files.close_phases(end.timestamp_ns)
        await self._deliver_until(lambda: self._is_idle)
        await self.store.insist_on_run()
        readings = summary_readings(self.files, end.timestamp_ns)
        for start in range(0, len(readings), self.plan.batch_size):
            batch = readings[start : start + self.plan.batch_size]
            await self.store.insist(partial(self.store.log_batch, readings=batch))
        for name, path in summary_files(self.files, self.folder, self.spec):
            await self.store.insist(partial(self.store.log_artifact, path, name))
        await self._tag_ledger()
        await self.store.insist(partial(self.store.end_run, end))
        self.state.status = end.status
        self.state.done = True
        self._publish(is_exact=True)

    async def _tag_ledger(self) -> None:
        assert self.state.end is not None
        ledger = self.reader.ledger(is_exact=True)
        tags = run_tags(
            self.files, self.state.end, ledger, cpu_s=process_cpu_s() - self._cpu_at_start_s
        )
        await self.store.insist(partial(self.store.log_batch, tags=tags))

    async def _finish(self) -> bool:
        """
        Publish the last ledger and archive the run; False where somebody has joined it meanwhile.
        """
        ledger = self.reader.ledger(is_exact=True)
        if self.state.run_id is not None and ledger != self.state.ledger:
            await self._tag_ledger()
        self._publish(is_exact=True)
        return self.reader.archive()

    # --- what the others see --------------------------------------------------------------------

    def _publish(self, *, if_older_s: float = 0.0, is_exact: bool = False) -> None:
        now_s = now_monotonic_s()
        if now_s - self._published_s < if_older_s:
            return
        self._published_s = now_s
        state = self.state
        state.updated_ns = now_ns()
        state.ledger = self.reader.ledger(is_exact=is_exact)
        samplers = {s.stream_id for s in self.reader.streams.values() if s.is_sampler}
        state.ledger.add(self.plan.uncommitted(leaving_out=samplers))
        state.damage = self.reader.damage()
        state.sidecar_pid = os.getpid()
        state.lag_s = now_s - self._caught_up_s
        if len(self._rates) == RATE_CALLS:  # the first calls are slow, and tell nothing
            state.delivered_per_s = sum(n for n, _ in self._rates) / sum(s for _, s in self._rates)
        state.sidecar_cpu_s = process_cpu_s() - self._cpu_at_start_s
        try:
            spool.write_struct(self.folder / spool.STATE_FILE, state)
        except OSError as exc:
            _logger.warning("run %s: state not written: %s", self.spec.run_uid, exc)

    async def _sample(self) -> None:
        await self._sampler.run(self._stop_sampling)
