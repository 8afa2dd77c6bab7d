"""
Sampling one run: resource readings go through a stream of the sidecar's own, like anybody's
readings.

So they survive a kill of the sidecar and an outage of the store, and memory does not grow with
either.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from allele_mlflow.clock import now_monotonic_s, now_ns, thread_cpu_s
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.locks import is_writer_alive, process_start_time
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import RunSpec, Sample, StreamEnded
from allele_mlflow.sampling.sampler import ResourceSampler
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.tracking.limits import check_key

_logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A first sample needs an interval for its CPU percentages.
FIRST_SAMPLE_S = 0.06
#: How often to look whether the benchmark is still there.
LOOK_EVERY_S = 0.1
#: Longest look at the machine; a driver that hangs for longer ends the sampling of the run.
LOOK_LIMIT_S = 10.0
#: Samples are few; a small segment gives its room back sooner.
SEGMENT_BYTES = layout.HEADER_BYTES + (64 << 10)


class RunSampler:
    """
    Samples the processes of one run until it is told to stop, once at once and once at the end.

    Thread safety: for the event loop; only the look at the machine is made in a thread, which may
    hang in a GPU's driver and is waited for `LOOK_LIMIT_S` at most.
    """

    def __init__(self, folder: Path, spec: RunSpec, reader: RunReader, files: RunFiles) -> None:
        self._folder = folder
        self._spec = spec
        self._reader = reader
        self._files = files
        self._lock = threading.Lock()
        self._sampler: ResourceSampler | None = None
        self._writer: StreamWriter | None = None
        self._is_finished = False
        self._followed: set[int] = set()

    async def run(self, stop: anyio.Event) -> None:
        """
        Sample at once, then every `sample_interval_s`; a last time when the owner closes or dies.
        """
        if not self._is_process_alive():
            self._is_finished = True  # a leftover: what the machine does now is not its doing
            return
        await self._start()
        next_s = now_monotonic_s() + FIRST_SAMPLE_S
        while not stop.is_set() and not self._is_finished:
            with anyio.move_on_after(min(LOOK_EVERY_S, max(0.0, next_s - now_monotonic_s()))):
                await stop.wait()
            if not self._is_owner_alive():
                await self.finish()
            elif now_monotonic_s() >= next_s:
                await self._take()
                next_s = max(next_s + self._spec.sample_interval_s, now_monotonic_s())

    def _is_owner_alive(self) -> bool:
        # asked of the lock and not of the reader, which may wait for a store that is down
        return is_writer_alive(self._folder / spool.STREAMS / self._spec.owner_stream)

    def _is_process_alive(self) -> bool:
        owner = self._reader.streams.get(self._spec.owner_stream)
        if owner is None or owner.page is None or not owner.page.process_start:
            return self._is_owner_alive()
        return process_start_time(owner.page.pid) in (None, owner.page.process_start)

    async def finish(self) -> None:
        """
        Take the last sample and close the stream.
        """
        if not self._is_finished:
            await self._take()
        self.close()

    def close(self) -> None:
        """
        Close the stream without another sample.
        """
        self._is_finished = True
        if self._writer is not None:
            self._writer.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
        if self._lock.acquire(blocking=False):  # else a thread hangs in a look: it keeps its own
            try:
                if self._sampler is not None:
                    self._sampler.close()
            finally:
                self._lock.release()

    async def _in_thread(self, work: Callable[[], T]) -> T | None:
        """
        What `work` gives, or None and the end of sampling where it takes too long.
        """
        with anyio.move_on_after(LOOK_LIMIT_S):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        _logger.warning("run %s: a look at the machine hangs; sampling ends", self._spec.run_uid)
        self.close()
        return None

    async def _start(self) -> None:
        # the owner's process may have closed its stream already, and wait for us
        pids = [self._spec.owner_pid, *self._reader.producer_pids()]
        self._followed = set(pids)
        is_inside = os.getpid() in pids  # worker="thread": we are what is measured
        sampler = await self._in_thread(
            lambda: ResourceSampler(
                dict.fromkeys(pids),
                excluded_pids=() if is_inside else None,
                cpu_clock=thread_cpu_s,
                visible_devices=self._spec.visible_devices,
            )
        )
        if sampler is None or self._is_finished:
            return
        self._sampler = sampler
        self._writer = StreamWriter(
            self._folder,
            check_key=check_key,
            segment_bytes=SEGMENT_BYTES,
            quota_bytes=self._spec.spool_quota_bytes,
            role=layout.ROLE_SAMPLER,
        )

    async def _take(self) -> None:
        for pid in set(self._reader.producer_pids()) - self._followed:
            self._followed.add(pid)
            if self._sampler is not None:
                self._sampler.follow(pid)
        # in a thread, for a GPU's driver may hang; what follows touches what the delivery owns
        sample = await self._in_thread(self._look)
        if sample is None or self._writer is None:
            return
        self._files.phases.sample(sample)
        step = self._reader.newest_step()
        if step is None:
            step = self._files.phases.step_for_sample(sample.timestamp_ns)
        self._writer.metrics(sample.values, step=step if step is not None else 0)

    def _look(self) -> Sample | None:
        with self._lock:
            if self._is_finished or self._sampler is None:
                return None
            # stamped when it is complete: phases that ended meanwhile may have been read already
            return self._sampler.sample()._replace(timestamp_ns=now_ns())
