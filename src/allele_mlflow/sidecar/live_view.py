"""
The view of a run for who watches: kept while it is delivered, written beside its state.

It holds what was read. A sidecar reads no further than it can send, so where reading lags (the
store is away, or the run is quiet or offline) the newest unread readings and phase edges of each
stream are looked at as well, once a second, and stand in the view as `ahead`, until they are read.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from pathlib import Path

import anyio
import msgspec

from allele_mlflow.clock import now_ns, thread_cpu_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.live import (
    KEPT_KEYS,
    KEPT_READINGS,
    RECORD,
    WINDOW_BYTES,
    LiveKey,
    LivePhase,
    LiveView,
    read_live,
)
from allele_mlflow.queue.run_reader import RunReader, StreamChunk
from allele_mlflow.queue.stream_reader import PhaseEdge, StreamReader
from allele_mlflow.records import Reading, RunSpec, RunState
from allele_mlflow.sampling.phases import OpenPhase, PhaseRow
from allele_mlflow.sidecar.run_files import RunFiles

_logger = logging.getLogger(__name__)

VIEW_EVERY_S = 1.0
#: A large view is written less often, so that it takes no more than this of a core.
MAX_CPU_RATIO = 0.01
#: How long ago the counts were taken that rates compare with, at least; twice that at most.
RATE_OVER_NS = 10_000_000_000
#: Unread records that are looked at under lag, of each of the last two metric segments.
TAIL_RECORDS = 1000
#: Phases shown: those begun last that are open, and those closed last.
OPEN_PHASES = 50
CLOSED_PHASES = 20
#: Names of keys that are left out are remembered, to count each once, up to so many.
MAX_LEFT_OUT = 100_000


class _Kept:
    """
    One key on its way.
    """

    __slots__ = ("ahead", "count", "earlier_count", "is_resource", "marked_count", "window")

    def __init__(self, *, is_resource: bool) -> None:
        self.is_resource = is_resource
        self.count = self.marked_count = self.earlier_count = 0
        self.window = bytearray()
        self.ahead = b""


class LiveKeeper:
    """
    Keeps the last readings of a run's keys, in bounded memory. Pure; not thread-safe.

    The user's keys are kept in the order in which they come, `KEPT_KEYS` of them. Resources take
    the room that is left, and give it up, the last come first, when another key of the user's
    comes.

    Args:
        run_uid: Of the run.
        began_ns: When counting began: rates are since then, at first.
        before: What a sidecar before us had written.
    """

    def __init__(self, run_uid: str, *, began_ns: int, before: LiveView | None = None) -> None:
        self._run_uid = run_uid
        self._keys: dict[str, _Kept] = {}
        self._resource_count = 0
        self._left_out: set[str] = set()
        self._left_out_before = 0
        self._edges_ahead: list[PhaseEdge] = []
        self._has_readings_ahead = False
        self._marked = self._earlier = (began_ns, 0)
        #: Whether there is anything that the last `view` did not show.
        self.is_changed = False
        if before is not None:
            self._restore(before)

    @property
    def is_ahead(self) -> bool:
        """
        Whether anything is shown ahead of what waits before it.
        """
        return self._has_readings_ahead or bool(self._edges_ahead)

    def take(self, readings: Iterable[Reading], *, is_resource: bool) -> None:
        """
        These were read, in this order.
        """
        keys, pack, size = self._keys, RECORD.pack, RECORD.size
        for key, value, timestamp_ms, step in readings:
            kept = keys.get(key) or self._admit(key, is_resource=is_resource)
            if kept is None:
                continue
            kept.count += 1
            window = kept.window
            window += pack(step, timestamp_ms, value)
            if len(window) > WINDOW_BYTES:
                del window[:size]
        self.is_changed = True

    def show_ahead(self, chunks: Iterable[StreamChunk]) -> None:
        """
        These wait and are the newest; they take the place of those of the last time.
        """
        if self.is_ahead:
            self.is_changed = True
        for one in self._keys.values():
            one.ahead = b""
        self._edges_ahead = []
        newest: defaultdict[str, list[Reading]] = defaultdict(list)
        resources: set[str] = set()
        for stream, chunk in chunks:
            self._edges_ahead += chunk.edges
            for reading in chunk.readings:
                newest[reading.key].append(reading)
            if stream.is_sampler:
                resources.update(reading.key for reading in chunk.readings)
        for key, readings in newest.items():
            kept = self._keys.get(key) or self._admit(key, is_resource=key in resources)
            if kept is not None:
                readings.sort(key=itemgetter(2))  # stable: of equal times the last logged is last
                kept.ahead = b"".join(
                    RECORD.pack(reading.step, reading.timestamp_ms, reading.value)
                    for reading in readings[-KEPT_READINGS:]
                )
        self._edges_ahead.sort(key=lambda edge: edge.timestamp_ns)
        self._has_readings_ahead = bool(newest)
        self.is_changed = self.is_changed or self.is_ahead

    def mark(self, accepted: int, at_ns: int) -> None:
        """
        Note the counts for rates, now and then.

        Args:
            accepted: Records that the run's ledger had at that time.
            at_ns: Wall clock.
        """
        if abs(at_ns - self._marked[0]) < RATE_OVER_NS:
            return
        self._earlier, self._marked = self._marked, (at_ns, accepted)
        for kept in self._keys.values():
            kept.earlier_count, kept.marked_count = kept.marked_count, kept.count

    def view(
        self,
        at_ns: int,
        *,
        accepted: int,
        open_phases: Sequence[LivePhase],
        closed_phases: Iterable[LivePhase],
    ) -> LiveView:
        """
        The view as it is now.
        """
        opened, closed = _phases_with(self._edges_ahead, open_phases, closed_phases)
        self.is_changed = False
        return LiveView(
            run_uid=self._run_uid,
            updated_ns=at_ns,
            keys={
                name: LiveKey(
                    count=kept.count,
                    earlier_count=kept.earlier_count,
                    readings=bytes(kept.window),
                    ahead=kept.ahead,
                    is_resource=kept.is_resource,
                )
                for name, kept in self._keys.items()
                if kept.window or kept.ahead
            },
            left_out=max(self._left_out_before, len(self._left_out)),
            is_ahead=self.is_ahead,
            open_phases=opened[-OPEN_PHASES:],
            open_count=len(opened),
            closed_phases=closed[-CLOSED_PHASES:],
            accepted=accepted,
            earlier_ns=self._earlier[0],
            earlier_accepted=self._earlier[1],
        )

    def _admit(self, key: str, *, is_resource: bool) -> _Kept | None:
        if len(self._keys) >= KEPT_KEYS:
            if is_resource or not self._resource_count:
                self._leave_out(key)
                return None
            last = next(name for name in reversed(self._keys) if self._keys[name].is_resource)
            del self._keys[last]
            self._resource_count -= 1
            self._leave_out(last)
        return self._keep(key, is_resource=is_resource)

    def _keep(self, key: str, *, is_resource: bool) -> _Kept:
        kept = self._keys[key] = _Kept(is_resource=is_resource)
        self._resource_count += is_resource
        return kept

    def _leave_out(self, key: str) -> None:
        if len(self._left_out) < MAX_LEFT_OUT:
            self._left_out.add(key)

    def _restore(self, before: LiveView) -> None:
        for name, found in before.keys.items():
            kept = self._keep(name, is_resource=found.is_resource)
            kept.count = kept.marked_count = kept.earlier_count = found.count
            kept.window += found.readings
        self._left_out_before = before.left_out
        self._marked = self._earlier = (before.updated_ns, before.accepted)


class LiveViewWriter:
    """
    Writes one run's view while the run is delivered. For the event loop only.

    Args:
        folder: The run's folder in the spool.
        spec: What the logger wrote about it.
        reader: The run's streams.
        files: Its phases.
        state: Its ledger, as far as it was published.
        is_behind: Whether reading lags.
        on_cost: Told of the CPU seconds that a view took.
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        reader: RunReader,
        files: RunFiles,
        state: RunState,
        *,
        is_behind: Callable[[], bool],
        on_cost: Callable[[float], None],
    ) -> None:
        self._path = folder / spool.LIVE_FILE
        self._run_uid = spec.run_uid
        self._reader = reader
        self._files = files
        self._state = state
        self._is_behind = is_behind
        self._on_cost = on_cost
        self._keeper = LiveKeeper(spec.run_uid, began_ns=spec.created_ns, before=read_live(folder))
        self._line_count = files.line_count
        #: What waited at the last look ahead.
        self._looked_at: tuple[int, int] | None = None
        self._taken_count = 0
        self._cost_s = 0.0
        self._is_closed = False

    def take(self, stream: StreamReader, readings: list[Reading]) -> None:
        """
        Take in what was read from a stream.
        """
        if readings:
            self._taken_count += len(readings)
            self._keeper.take(readings, is_resource=stream.is_sampler)

    async def run(self) -> None:
        """
        Write what is new about once a second, until cancelled; also while a call of the store's
        hangs.
        """
        while True:
            await anyio.sleep(max(VIEW_EVERY_S, self._cost_s / MAX_CPU_RATIO))
            try:
                self.write()
            except Exception:
                # a task's border: without a view the records are delivered all the same
                _logger.exception("run %s: the live view ended", self._run_uid)
                return

    def write(self) -> None:
        """
        Write the view now, where anything is new.
        """
        before_s = thread_cpu_s()
        with contextlib.suppress(OSError):  # it is looked at again
            self._look_ahead()
        self._keeper.mark(self._state.ledger.accepted, now_ns())
        if self._keeper.is_changed or self._files.line_count != self._line_count:
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone
                self._write()
        self._cost_s = thread_cpu_s() - before_s
        self._on_cost(self._cost_s)

    def close(self) -> None:
        """
        Write a last time; the reader must still be open.
        """
        if not self._is_closed:
            self._is_closed = True
            self.write()

    def _write(self) -> None:
        view = self._keeper.view(
            now_ns(),
            accepted=self._state.ledger.accepted,
            open_phases=[_of_open(phase) for phase in self._files.phases.open_phases],
            closed_phases=[_of_row(row) for row in self._files.last_closed],
        )
        self._line_count = self._files.line_count
        self._keeper.is_changed = True  # until it is written
        spool.write_struct(self._path, view)
        self._keeper.is_changed = False

    def _look_ahead(self) -> None:
        if not self._is_behind():
            if self._keeper.is_ahead:
                self._keeper.show_ahead(())
            self._looked_at = None
            return
        waiting = sum(stream.pending() for stream in self._reader.streams.values())
        if (waiting, self._taken_count) != self._looked_at:
            self._looked_at = waiting, self._taken_count
            self._keeper.show_ahead(self._reader.newest_unread(TAIL_RECORDS))


def view_of_files(folder: Path, spec: RunSpec) -> LiveView:
    """
    The view of a run that no sidecar serves: what the last one wrote, and the newest of what waits.
    Changes nothing.

    Raises:
        OSError: the run's files cannot be read now.
    """
    before = read_live(folder)
    keeper = LiveKeeper(spec.run_uid, began_ns=spec.created_ns, before=before)
    reader = RunReader(folder, spec)
    try:
        keeper.show_ahead(reader.newest_unread(TAIL_RECORDS))
    finally:
        reader.close()
    return keeper.view(
        before.updated_ns if before is not None else spec.created_ns,
        accepted=before.accepted if before is not None else 0,
        open_phases=before.open_phases if before is not None else (),
        closed_phases=before.closed_phases if before is not None else (),
    )


def _phases_with(
    edges: Iterable[PhaseEdge], opened: Iterable[LivePhase], closed: Iterable[LivePhase]
) -> tuple[list[LivePhase], list[LivePhase]]:
    """
    The open and the closed phases after these edges, each once.
    """
    open_by_identity = {phase.identity: phase for phase in opened}
    # a row may be there twice, after a kill
    closed_by_identity = {phase.identity: phase for phase in closed}
    for edge in edges:
        identity = edge.stream_id, edge.instance
        if edge.is_begin:
            if identity not in closed_by_identity:
                open_by_identity.setdefault(identity, _of_edge(edge))
        elif identity in open_by_identity:
            phase = open_by_identity.pop(identity)
            end_ns = max(edge.timestamp_ns, phase.begin_ns)
            closed_by_identity[identity] = msgspec.structs.replace(phase, end_ns=end_ns)
    return list(open_by_identity.values()), list(closed_by_identity.values())


def _of_edge(edge: PhaseEdge) -> LivePhase:
    return LivePhase(
        stream_id=edge.stream_id,
        instance=edge.instance,
        name=edge.name,
        begin_ns=edge.timestamp_ns,
        step=edge.step,
    )


def _of_open(phase: OpenPhase) -> LivePhase:
    return LivePhase(
        stream_id=phase.stream_id,
        instance=phase.instance,
        name=phase.name,
        begin_ns=phase.begin_ns,
        step=phase.step,
    )


def _of_row(row: PhaseRow) -> LivePhase:
    span = row.span
    return LivePhase(
        stream_id=span.stream_id,
        instance=span.instance,
        name=span.name,
        begin_ns=span.begin_ns,
        step=span.step,
        end_ns=span.end_ns,
        complete=span.complete,
    )
