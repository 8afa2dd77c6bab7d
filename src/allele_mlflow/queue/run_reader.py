"""
Reading one run: all its streams side by side, one ledger.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import RUBBISH, stream_names, take_over, tidy_up
from allele_mlflow.queue.stream_reader import Chunk, StreamMark, StreamReader
from allele_mlflow.queue.uploads import UploadList
from allele_mlflow.records import Event, FlushAsked, Ledger, Reading, RunSpec

#: Age from which on a folder's time of change tells of every change.
SETTLED_NS = 2_000_000_000
#: Of many streams each shows so many of its newest records.
LEAST_NEWEST = 50


class StreamChunk(NamedTuple):
    """
    What one stream gave in a read of the run.
    """

    stream: StreamReader
    chunk: Chunk


class RunReader:
    """
    The unread part of a run. Not thread-safe; one reader at a time.
    """

    def __init__(self, folder: Path, spec: RunSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.streams: dict[str, StreamReader] = {}
        #: Artifacts that were read and are not in MLflow.
        self.uploads = UploadList(folder)
        self._turn = 0
        #: When the folder of the streams had changed last as it was listed.
        self._listed_ns = 0

    def discover(self) -> None:
        """
        Look for streams that have come; `read` and the properties do so by themselves.
        """
        try:
            changed_ns = os.stat(self.folder / spool.STREAMS).st_mtime_ns
        except FileNotFoundError:
            return
        if changed_ns == self._listed_ns:
            return
        # what comes within the grain of the clock leaves no other time behind
        self._listed_ns = changed_ns if now_ns() - changed_ns > SETTLED_NS else 0
        for name in stream_names(self.folder):
            if name not in self.streams:
                self.streams[name] = StreamReader(self.folder / spool.STREAMS / name)

    def read(self, limit: int) -> list[StreamChunk]:
        """
        About `limit` readings and edges of all streams, each stream in its turn; only what is not
        empty.
        """
        self.discover()
        streams = list(self.streams.values())
        chunks: list[StreamChunk] = []
        if not streams:
            return chunks
        self._turn = (self._turn + 1) % len(streams)
        rest = limit
        for stream in streams[self._turn :] + streams[: self._turn]:
            chunk = stream.read(rest)
            if not chunk.is_empty:
                chunks.append(StreamChunk(stream, chunk))
                rest -= chunk.record_count
                if rest <= 0:
                    break
        return chunks

    def earlier_flushes(self, after_id: int) -> list[FlushAsked]:
        """
        See `StreamReader.earlier_flushes`, of all streams, oldest first.
        """
        self.discover()
        found = [f for stream in self.streams.values() for f in stream.earlier_flushes(after_id)]
        return sorted(found, key=lambda flush: flush.flush_id)

    def listen(self) -> list[tuple[str, Event]]:
        """
        Flushes and ends that were not heard before, of all streams, each with its stream.
        """
        self.discover()
        return [(name, event) for name, stream in self.streams.items() for event in stream.listen()]

    def marks(self) -> dict[str, StreamMark]:
        """
        How far each stream is written now, those included that have come since the last read.
        """
        self.discover()
        return {stream_id: stream.mark() for stream_id, stream in self.streams.items()}

    def has_passed(self, marks: Mapping[str, StreamMark]) -> bool:
        """
        Whether everything up to the marks was read.
        """
        return all(self.streams[stream_id].has_passed(mark) for stream_id, mark in marks.items())

    @property
    def has_live_writer(self) -> bool:
        """
        Whether any producer of the run lived at the last read (the sidecar's own sampler aside).
        """
        self.discover()
        return any(s.has_live_writer for s in self.streams.values() if not s.is_sampler)

    @property
    def is_owner_alive(self) -> bool:
        """
        Whether the process that started the run lived at the last read of its stream.
        """
        owner = self.streams.get(self.spec.owner_stream)
        return owner is not None and owner.has_live_writer

    @property
    def is_finished(self) -> bool:
        """
        Whether every stream is read to its end and has no writer any more.
        """
        self.discover()
        return all(stream.is_finished for stream in self.streams.values())

    def ledger(self, *, is_exact: bool = False) -> Ledger:
        """
        The run's ledger; resource samples only under `sampled`.
        """
        self.discover()
        ledger = Ledger()
        for stream in self.streams.values():
            if stream.is_sampler:
                ledger.sampled += stream.totals.sampled
            else:
                ledger.add(stream.ledger(is_exact=is_exact))
        offsets = {name: stream.events_offset for name, stream in self.streams.items()}
        ledger.add(self.uploads.ledger(offsets))
        return ledger

    def pending(self) -> int:
        """
        Records of the user's that were not read yet, about.
        """
        return sum(s.pending() for s in self.streams.values() if not s.is_sampler)

    def unread_outside(self, segments: Mapping[str, Container[str]]) -> int:
        """
        Readings and edges of the user's that were not read yet and stand in none of these segments,
        by stream.
        """
        return sum(
            stream.unread_outside(segments.get(name, ()))
            for name, stream in self.streams.items()
            if not stream.is_sampler
        )

    def newest_readings(self, limit: int) -> list[Reading]:
        """
        The newest reading of each key, read past everything that waits.
        """
        newest: dict[str, Reading] = {}
        for stream in self.streams.values():
            for reading in stream.newest_readings(limit):
                known = newest.get(reading.key)
                if known is None or (reading.step, reading.timestamp_ms) > (
                    known.step,
                    known.timestamp_ms,
                ):
                    newest[reading.key] = reading
        return list(newest.values())

    def newest_unread(self, limit: int) -> list[StreamChunk]:
        """
        See `StreamReader.newest_unread`, of all streams that have any; about `limit` in all.
        """
        self.discover()
        streams = [stream for stream in self.streams.values() if not stream.is_finished]
        each = max(LEAST_NEWEST, limit // max(1, len(streams)))
        found = (StreamChunk(stream, stream.newest_unread(each)) for stream in streams)
        return [one for one in found if one.chunk.record_count]

    def newest_step(self) -> int | None:
        """
        The step the benchmark is at: of its innermost open phase, else of its last reading; see
        `StreamReader.newest_step`.
        """
        steps = [
            step
            for stream in self.streams.values()
            if not stream.is_sampler and (step := stream.newest_step()) is not None
        ]
        return max(steps, key=lambda found: found[0])[1] if steps else None

    def newest_ns(self) -> int:
        """
        When the benchmark logged last, as far as it was not read and removed; 0 where all was.
        """
        found = (s.newest_ns() for s in self.streams.values() if not s.is_sampler)
        return max(found, default=0)

    def damage(self) -> list[str]:
        """
        What could not be read, in words.
        """
        texts = [text for stream in self.streams.values() for text in stream.damage]
        return [*texts, *self.uploads.damage]

    def producer_pids(self) -> dict[int, int]:
        """
        Process id to start time of every live producer.
        """
        return {
            stream.page.pid: stream.page.process_start
            for stream in self.streams.values()
            if stream.page is not None and stream.has_live_writer and not stream.is_sampler
        }

    def close(self) -> None:
        """
        Give back the descriptors.
        """
        for stream in self.streams.values():
            stream.close()

    def clear_up(self) -> None:
        """
        Of a finished run: remove segments that are read and still there, find those that cannot be.
        """
        for stream in self.streams.values():
            stream.clear_up()

    def archive(self) -> bool:
        """
        Move what is left of a delivered run (spec, state, dead letters, damaged files) out of the
        way; False where a process has joined it meanwhile and there is more to deliver.

        Raises:
            OSError: it cannot be moved; nothing has changed.
        """
        target = self.folder.parent.parent / spool.DONE / self.folder.name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if stream_names(target):  # an earlier part, whose archiving was cut short: to be read too
            for name in stream_names(target):
                source = target / spool.STREAMS / name
                source.rename(self.folder / spool.STREAMS / name)
            return False
        if target.exists():  # an earlier part of the same run
            take_over(self.folder)
            shutil.rmtree(target, ignore_errors=True)
        self.folder.rename(target)
        # nobody joins any more; whoever did before the move is seen now
        if any(not self._is_over(name) for name in stream_names(target)):
            target.rename(self.folder)
            return False
        self.close()
        for stream in self.streams.values():
            for name in stream.damaged_files:
                (target / spool.DAMAGED).mkdir(mode=0o700, exist_ok=True)
                with contextlib.suppress(OSError):
                    source = target / spool.STREAMS / stream.stream_id / name
                    source.rename(target / spool.DAMAGED / f"{stream.stream_id}-{name}")
        # from here on the run is over, and what is still there is rubbish; see `bring_back`
        (target / spool.STREAMS).rename(target / RUBBISH)
        tidy_up(target)
        return True

    def _is_over(self, name: str) -> bool:
        stream = self.streams.get(name)
        return stream is not None and stream.is_finished


def count_ledger(folder: Path, *, is_exact: bool = True) -> Ledger | None:
    """
    A run's ledger counted from its files alone, None where the folder holds no run; changes
    nothing.
    """
    spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
    if spec is None:
        return None
    reader = RunReader(folder, spec)
    try:
        return reader.ledger(is_exact=is_exact)
    finally:
        reader.close()
