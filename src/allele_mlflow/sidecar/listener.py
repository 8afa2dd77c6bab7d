"""
Who waits for what: the flushes and the end of one run, heard ahead of everything that waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_process_alive
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.queue.stream_reader import StreamMark
from allele_mlflow.records import FlushAsked, RunEnded, RunSpec
from allele_mlflow.sidecar.owner_watch import OwnerWatch
from allele_mlflow.sidecar.run_ending import end_without_farewell


class Flush(NamedTuple):
    """
    Somebody waits until each stream is delivered up to its mark.
    """

    flush_id: int
    marks: Mapping[str, StreamMark]


class Listener:
    """
    Hears a run's event lanes and sees whether its owner lives. Not thread-safe.

    Args:
        reader: The run's streams.
        spec: What the logger wrote about it.
        owner: Tells how the owner ended.
        last_sign_ns: When the benchmark was last known to live or to have logged.
        flushed_id: Of the last flush that was answered; later ones may have been heard by a sidecar
            that is gone.
    """

    def __init__(
        self,
        reader: RunReader,
        spec: RunSpec,
        owner: OwnerWatch,
        *,
        last_sign_ns: int,
        flushed_id: int,
    ) -> None:
        self._reader = reader
        self._spec = spec
        self._owner = owner
        self._last_sign_ns = last_sign_ns
        self._end: RunEnded | None = None
        #: Flushes that are not over, oldest first.
        self.flushes: list[Flush] = []
        #: Of them those that a sidecar before us has heard.
        self._inherited = reader.earlier_flushes(flushed_id)

    def listen(self) -> bool:
        """
        Take in what is new; whether a flush is.
        """
        before = len(self.flushes)
        inherited, self._inherited = self._inherited, []
        heard = [(self._spec.owner_stream, flush) for flush in inherited]
        for stream_id, event in (*heard, *self._reader.listen()):
            if isinstance(event, FlushAsked):
                self.flushes.append(Flush(event.flush_id, self._reader.marks()))
            elif isinstance(event, RunEnded) and self._spec.owner_stream in ("", stream_id):
                self._end = event  # that of an owner before, whose run was resumed, is not one
        return len(self.flushes) > before

    def find_end(self) -> RunEnded | None:
        """
        How the run ended: by the owner's farewell, or by its absence. None while it lives, and for
        the moment that it takes to learn how it died.
        """
        if self._end is not None:
            return self._end
        owner = self._reader.streams.get(self._spec.owner_stream)
        has_no_stream = owner is None and not self._spec.owner_stream  # it found no room for one
        if has_no_stream and spool.is_here(self._reader.folder):
            is_alive = is_process_alive(self._spec.owner_pid, self._spec.owner_start)
        else:
            is_alive = owner is not None and not owner.has_heard_last_event
        if is_alive:
            self._last_sign_ns = now_ns()
            return None
        # heard already by a sidecar before us, whose word of it was lost?
        farewell = owner.farewell() if owner is not None else None
        if isinstance(farewell, RunEnded):
            return farewell
        found = self._owner.find_end()
        if found is None:
            return None
        return end_without_farewell(found, max(self._last_sign_ns, self._reader.newest_ns()))

    def settle_flushes(self) -> list[int]:
        """
        Forget the flushes whose records are read; their ids, oldest first.
        """
        passed = []
        while self.flushes and self._reader.has_passed(self.flushes[0].marks):
            passed.append(self.flushes.pop(0).flush_id)
        return passed
