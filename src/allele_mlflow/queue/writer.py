"""
The hot path: a log call becomes one store into a mapped file.

Everything that a call needs is in one tuple, the *lane* (keys, offsets, pack, target, segment),
which is loaded once: a roll can never pair an old slot with a new map, and a fork has one thing to
swap. Values are made plain before an offset is taken, so no code of the user's runs between taking
and packing. A slow path (new key, roll, fork) may be entered again by a signal handler or a
finalizer in its middle: ids come from counters, a frame is written before its key is known, and
nobody waits for himself.

Over 500 lines because the calls and their slow sides keep one invariant between them (which lane,
which slot, who may wait) and are to be read together.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NoReturn, SupportsFloat, SupportsIndex

from allele_mlflow.clock import now_monotonic_s, now_ns, process_cpu_s
from allele_mlflow.errors import ErrorKind, RecordError
from allele_mlflow.queue import layout, plain
from allele_mlflow.queue.counters import ReasonCounters, SharedSum
from allele_mlflow.queue.room import Room
from allele_mlflow.queue.stream_files import (
    NO_SEGMENT,
    Lane,
    NoRoomError,
    StreamFiles,
    WrittenSegment,
    empty_lane,
    reason_of,
)
from allele_mlflow.records import Event, KeyDefined, RecordRejected, RunEnded

#: Text of the rule that a key breaks, or None where it is a good key.
KeyCheck = Callable[[object], str | None]

#: How long a thread that needs a new segment waits for the one that is making it.
ROLL_WAIT_S = 0.05
#: How often a lane without room looks again.
RETRY_S = 1.0
#: What an event is taken to need in the spool.
EVENT_BYTES = 1024
#: How often to warn while there is no room.
WARN_EVERY_S = 60.0
#: Dead letters kept for each key; the rest are only counted.
DEAD_LETTERS_PER_KEY = 100
#: Dead letters kept of a stream in all.
DEAD_LETTERS = 10_000
#: Segments that the other threads may fill before a store has its turn: with small segments and a
#: busy lock that is hundreds.
STORE_TRIES = 10_000
#: What no metric's name begins with: phases share the key table.
PHASE_PREFIX = "\0phase:"


_pack_mapped = layout.PACK_RECORD
_pack_head = layout.RECORD_HEAD.pack
_pack_behind_head = layout.RECORD_BEHIND_HEAD.pack_into


def _fits(step: object) -> bool:
    return type(step) is int and layout.STEP_MIN <= step <= layout.STEP_MAX


_ERROR_KINDS = {kind.value: kind for kind in ErrorKind}


class StreamWriter:
    """
    One process's stream into a run: metrics, series, phases and events.

    Thread safety: every method may be called from any thread, a signal handler or a finalizer.
    Process safety: in a forked child the first call opens a stream of the child's own; nothing of
    the parent's files is written. No method raises because of the environment: what cannot be kept
    is counted in `counters`. With `strict`, a caller's mistake raises RecordError.
    """

    def __init__(
        self,
        run_folder: Path | None,
        *,
        check_key: KeyCheck,
        strict: bool = False,
        segment_bytes: int = layout.SEGMENT_BYTES,
        quota_bytes: int = 0,
        role: int = layout.ROLE_PRODUCER,
        on_mistake: Callable[[str, str], None] | None = None,
    ) -> None:
        """
        A stream in `run_folder`, or with None one that only counts what it drops.

        Args:
            run_folder: The run's folder in the spool.
            check_key: Tells what is wrong with a key (tracking.limits.check_key).
            strict: Raise RecordError on a caller's mistake.
            segment_bytes: Size of a segment: the header page and whole records.
            quota_bytes: Most bytes of the whole spool, 0 for no limit.
            role: Producer, or the sidecar's own sampler.
            on_mistake: Called with (key, text) at a key's first mistake, and when records are
                dropped.
        """
        self._run_folder = run_folder
        self._check_key = check_key
        self._strict = strict
        self._segment_bytes = segment_bytes
        self._room = Room(run_folder.parent.parent, quota_bytes) if run_folder is not None else None
        self._role = role
        self._on_mistake = on_mistake
        #: Called at slow points: a new segment, an event.
        self.on_slow: Callable[[], None] | None = None
        self._start_afresh()
        self._make_room(layout.METRIC_LANE, self._lane)
        _writers.add(self)

    def _start_afresh(self) -> None:
        self._stream: StreamFiles | None = None
        self._is_closed = False
        self.counters = ReasonCounters()
        self._auto_steps: dict[str, Callable[[], int]] = {}
        self._dead_letters: dict[str, int] = {}
        self._dead_letter_ids = count().__next__
        self._key_ids = count(1).__next__
        self._instances = count(1).__next__
        self._roll_lock = threading.Lock()
        self._roll_owner = 0
        self._retry_at_s = 0.0
        self._warn_at_s = 0.0
        self._no_room_reason = "dropped.no_spool"
        self._full_slots = 0
        #: Records kept outside the metric lane: events, and the values of series.
        self._kept_elsewhere = SharedSum()
        self._lane: Lane = empty_lane()
        self._series_lane: Lane = empty_lane()

    # --- the calls ------------------------------------------------------------------------------

    def metric(self, key: str, value: SupportsFloat, step: SupportsIndex | None = None) -> None:
        """
        Log one reading, fire and forget.

        Args:
            key: Metric name as MLflow allows it: up to 250 of letters, digits, `_ - . / :` and
                space.
            value: A number: Python, NumPy or a torch scalar; NaN and infinities are kept.
            step: A 64-bit integer; without one this process numbers the key's readings 0, 1, 2, ...
        Raises:
            RecordError: only with `strict=True`, for a bad key, value or step.

        Cost: one clock read and one 32-byte store; no lock, no system call, no thread.
        Thread safety: any thread, signal handler or finalizer.
        """
        lane = self._lane
        keys, offsets, pack, target, _ = lane
        offset = 0
        try:
            word = keys[key]
            if type(value) is float and type(step) is int:
                offset = next(offsets)
                pack(target, offset, now_ns(), step, value, word)
                return
        except Exception:  # noqa: BLE001 - the log call's border: _log_slowly finds out what, and counts it
            pass
        self._log_slowly(key, value, step, now_ns(), lane, offset)

    def metrics(
        self, mapping: Mapping[str, SupportsFloat], step: SupportsIndex | None = None
    ) -> None:
        """
        Log several readings of one moment and step, each for less than `metric` takes.

        Args:
            mapping: Names to numbers; each is checked as `metric` does, and a bad one spoils no
                other.
            step: As for `metric`; without one each key is numbered by itself.
        Raises:
            RecordError: only with `strict=True`.
        """
        now = now_ns()
        lane = self._lane
        keys, offsets, pack, target, _ = lane
        try:
            # With a step that fits, a mapped store fails at the end of the segment only, so no slot
            # need be remembered to be voided.
            if type(mapping) is dict and pack is _pack_mapped and _fits(step):
                head = _pack_head(now, step)
                for key, value in mapping.items():
                    try:
                        word = keys[key]
                        if type(value) is float:
                            _pack_behind_head(target, next(offsets), head, value, word)
                            continue
                    except Exception:  # noqa: BLE001 - as in metric
                        pass
                    self._log_slowly(key, value, step, now, lane, 0)
                    lane = self._lane
                    keys, offsets, pack, target, _ = lane
                    if pack is not _pack_mapped:  # after a roll: no key is known to this loop
                        keys = {}
                return
            items = [(key, value) for key, value in mapping.items()]
        except RecordError:
            raise
        except Exception as exc:  # noqa: BLE001 - the log call's border: the mapping is the caller's code
            self.reject(
                "bad_value", "metrics", "", mapping, f"want names and numbers: {plain.said(exc)}"
            )
            return
        for key, value in items:
            self._log_slowly(key, value, step, now, self._lane, 0)

    def series(self, key: str, values: Any, first_step: SupportsIndex = 0) -> None:
        """
        Log an array of readings of one key with steps `first_step`, `first_step + 1`, ... in one
        go.

        Args:
            key: As for `metric`.
            values: Shape (n,): a NumPy array, a torch tensor, `array.array` or any iterable of
                numbers.
            first_step: Step of the first value.
        Raises:
            RecordError: only with `strict=True`.

        Cost: a copy of 8 bytes a value. All values carry the time of the call.
        """
        now = now_ns()
        key = plain.key(key)
        data = plain.doubles(values)
        if isinstance(data, str):
            self._reject_series("bad_value", key, values, data, plain.size_of(values))
            return
        size = len(data)
        step = plain.step(first_step)
        if isinstance(step, str) or step + size > layout.STEP_MAX:
            wanted = step if isinstance(step, str) else "want steps of 64 bits"
            self._reject_series("bad_step", key, first_step, wanted, size)
            return
        is_known = type(key) is str and key in self._series_lane[0]
        problem = None if is_known else self._check_key(key)
        if problem is not None:
            self._reject_series("bad_key", key, values, problem, size)
            return
        for start in range(0, size, layout.SERIES_PAGE_VALUES):
            part = data[start : start + layout.SERIES_PAGE_VALUES]
            self._store_page(key, now, step + start, part)

    def _reject_series(
        self, reason: str, key: object, value: object, wanted: str, size: int
    ) -> None:
        self.counters.count(f"rejected.{reason}", max(size, 1) - 1)
        self.reject(reason, "series", key, value, wanted)

    def __deepcopy__(self, memo: object) -> StreamWriter:
        return self  # a copy of an object that logs logs into the same stream

    def __copy__(self) -> StreamWriter:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a logger cannot be pickled: hand over log.handle(), and attach() to it")

    def phase_edge(self, name: str, step: int | None, begun: int | None = None) -> int:
        """
        Log that a phase begins, or with the number that its begin gave, that it ends.

        Args:
            name: Of the phase.
            step: A plain 64-bit integer, or None.
            begun: What this method gave at the begin; None for a begin.
        Returns:
            The phase's number, 0 where the begin could not be kept (its end is then left out too).

        Cost: two clocks, one of them a system call for the CPU time of the process, and one store.
        """
        if begun is None:
            instance = self._instances() & 0xFFFFFFFF
            kind = layout.KIND_PHASE_BEGIN
        elif begun:
            instance = begun
            kind = layout.KIND_PHASE_END
        else:
            return 0
        key = PHASE_PREFIX + name
        keys, offsets, pack, target, _ = self._lane
        word = keys.get(key)
        # As in metrics: the one store that can fail is the one past the end, which takes no slot.
        present = layout.NO_STEP if step is None else step
        if word is not None and pack is _pack_mapped:
            word += (instance << 32) + kind - layout.KIND_METRIC
            try:
                pack(target, next(offsets), now_ns(), present, process_cpu_s(), word)
                return instance
            except struct.error:
                pass
        if self._store(key, kind, instance, now_ns(), present, process_cpu_s()):
            return instance
        return 0

    def event(self, event: Event, *, counts: bool = True) -> bool:
        """
        Append to the event lane; whether it is in the log.

        Args:
            event: The event.
            counts: Whether it is a record of the user's, to be counted where it cannot be kept.
        """
        stream = self._ready_stream()
        reason: str | None = None
        if stream is None:
            reason = self._no_room_reason
        elif counts:
            reason = stream.room.refusal(EVENT_BYTES)
        if stream is not None and reason is None:
            try:
                stream.append(event)
            except OSError:
                reason = "dropped.disk_full"
            else:
                if counts:
                    self._kept_elsewhere.add(1)
                if self.on_slow is not None:
                    self.on_slow()
                return True
        if counts and reason is not None:
            self.drop(reason)
        return False

    def room_refusal(self, size_bytes: int) -> str | None:
        """
        Why the spool has no room for so many bytes, as `drop` wants it; None where it has.
        """
        return self._room.refusal(size_bytes) if self._room is not None else "dropped.no_spool"

    def drop(self, reason: str, number: int = 1) -> None:
        """
        Count records that cannot be kept, and warn of it once a minute.
        """
        self.counters.count(reason, number)
        now_s = now_monotonic_s()
        if self._on_mistake is None or self._room is None or now_s < self._warn_at_s:
            return  # without any spool the logger has said so
        self._warn_at_s = now_s + WARN_EVERY_S
        name = reason.partition(".")[2]
        if name == "closed":
            text = "logged after the run was closed: dropped, and counted"
        else:
            text = f"no room in the spool ({name}): records are dropped, and counted"
        self._on_mistake(f"{name} at {now_s:.0f} s", text)

    @property
    def is_closed(self) -> bool:
        """
        Whether `close` was called.
        """
        return self._is_closed

    def reject(self, reason: str, call: str, key: object, value: object, wanted: str) -> None:
        """
        Count a caller's mistake, keep it as a dead letter, warn once a key; with `strict` raise.

        Raises:
            RecordError: only with `strict=True`.
        """
        shown_key, shown_value = plain.shown(key), plain.shown(value)
        self.counters.count(f"rejected.{reason}")
        seen = self._dead_letters.get(shown_key, 0)
        is_kept = seen < DEAD_LETTERS_PER_KEY and self._dead_letter_ids() < DEAD_LETTERS
        if is_kept:
            self._dead_letters[shown_key] = seen + 1
            letter = RecordRejected(
                timestamp_ns=now_ns(),
                reason=reason,
                call=call,
                key=shown_key,
                value=shown_value,
                wanted=wanted,
            )
            self.event(letter, counts=False)
        message = f"{call}({shown_key}, {shown_value}): {wanted}"
        if self._strict:
            kind = _ERROR_KINDS.get(reason, ErrorKind.REFUSED)
            raise RecordError(message, kind=kind, call=call, key=shown_key, value=shown_value)
        if is_kept and not seen and self._on_mistake is not None:
            self._on_mistake(shown_key, f"not logged: {message}")

    def close(self, end: Callable[[dict[str, int]], Event] | None = None) -> bool:
        """
        Close the stream: what is logged afterwards is dropped and counted.

        Args:
            end: Makes the last event from the number of slots that each segment has given out.
        Returns:
            Whether the last event is in the log (also where there was none to write).
        """
        if self._is_closed:
            return False
        self._is_closed = True
        self._no_room_reason = "dropped.closed"
        stream, self._stream = self._stream, None
        lanes = [self._lane, self._series_lane]
        self._lane = self._series_lane = empty_lane()
        if stream is None:
            return end is None
        slots = stream.slots_given(lanes)
        is_written = True
        if end is not None:
            last = end(slots)
            if isinstance(last, RunEnded):
                stream.note_end(last)
            try:
                stream.append(last)
            except OSError:
                is_written = False
        stream.release()
        return is_written

    def stored_count(self) -> int:
        """
        About how many slots of the metric lane were used so far; takes one itself. For cost
        reports.
        """
        stream, lane = self._stream, self._lane
        present = sum(stream.slots_given([lane]).values()) if stream is not None else 0
        return self._full_slots + present

    @property
    def kept_elsewhere(self) -> int:
        """
        Records that were kept outside the metric lane: events, and the values of series.
        """
        return self._kept_elsewhere.total

    @property
    def stream_id(self) -> str:
        """
        Name of the stream's folder, "" before there is one.
        """
        return self._stream.stream_id if self._stream is not None else ""

    @property
    def is_mapped(self) -> bool:
        """
        Whether records go through a map, and not through `os.pwrite`.
        """
        return not isinstance(self._lane[3], WrittenSegment)

    # --- the slow paths -------------------------------------------------------------------------

    def _log_slowly(
        self, key: str, value: Any, step: Any, timestamp_ns: int, lane: Lane, offset: int
    ) -> None:
        if layout.HEADER_BYTES <= offset < lane[4].size_bytes:
            self._void(lane, offset)
        key = plain.key(key)
        number = value if type(value) is float else plain.number(value)
        if type(number) is not float:
            self.reject("bad_value", "metric", key, value, str(number))
            return
        if type(key) is not str or key not in lane[0]:
            problem = self._check_key(key)
            if problem is not None:
                self.reject("bad_key", "metric", key, value, problem)
                return
        plain_step = self._next_step(key) if step is None else plain.step(step)
        if isinstance(plain_step, str):
            self.reject("bad_step", "metric", key, step, plain_step)
            return
        self._store(key, layout.KIND_METRIC, 0, timestamp_ns, plain_step, number)

    def _store(
        self, key: str, kind: int, instance: int, timestamp_ns: int, step: int, value: float
    ) -> bool:
        extra = layout.pack_word(kind, 0, instance) - layout.KIND_METRIC
        for _ in range(STORE_TRIES):
            lane = self._lane
            keys, offsets, pack, target, _ = lane
            word = keys.get(key)
            if word is None:
                if not self._intern(key, lane):
                    return False
                continue
            offset = next(offsets)
            try:
                pack(target, offset, timestamp_ns, step, value, word + extra)
            except struct.error:
                if not self._make_room(layout.METRIC_LANE, lane):
                    break
            except OSError:
                self._void(lane, offset)
                self._no_room_reason = "dropped.disk_full"
                break
            else:
                return True
        self.drop(self._no_room_reason)
        return False

    def _store_page(self, key: str, timestamp_ns: int, step: int, part: memoryview) -> bool:
        for _ in range(STORE_TRIES):
            lane = self._series_lane
            keys, offsets, _, target, segment = lane
            word = keys.get(key)
            if word is None:
                if segment is NO_SEGMENT:
                    if not self._make_room(layout.SERIES_LANE, lane):
                        break
                elif not self._intern(key, lane, len(part)):
                    return False
                continue
            offset = next(offsets)
            if offset < layout.HEADER_BYTES or offset + layout.PAGE_BYTES > segment.size_bytes:
                if not self._make_room(layout.SERIES_LANE, lane):
                    break
                continue
            word += layout.KIND_SERIES - layout.KIND_METRIC
            try:
                plain.store_page(target, offset, timestamp_ns, step, part, word)
            except OSError:
                self._void(lane, offset)
                self._no_room_reason = "dropped.disk_full"
                break
            self._kept_elsewhere.add(len(part))
            return True
        self.drop(self._no_room_reason, len(part))
        return False

    def _void(self, lane: Lane, offset: int) -> None:
        try:
            lane[2](lane[3], offset, 0, 0, 0.0, layout.KIND_VOID)
        except (struct.error, OSError):
            pass  # stays a hole; the reader will call it torn when this process is gone

    def _next_step(self, key: str) -> int:
        following = self._auto_steps.get(key)
        if following is None:
            following = self._auto_steps.setdefault(key, count().__next__)
        return following()

    def _intern(self, key: str, lane: Lane, readings: int = 1) -> bool:
        """
        Give a checked key its id in the lane's stream; False (and counted) where it cannot be.
        """
        name = key.removeprefix(PHASE_PREFIX)
        stream = lane[4].stream
        if stream is None:
            if self._make_room(layout.METRIC_LANE, lane):
                return True
            self.drop(self._no_room_reason, readings)
            return False
        key_id = self._key_ids()
        try:
            if key_id >= layout.KEY_ID_LIMIT:
                raise OverflowError("too many keys")
            stream.append(KeyDefined(timestamp_ns=now_ns(), key_id=key_id, name=name))
        except (OSError, OverflowError):
            self.drop("dropped.key_unwritten", readings)
            return False
        stream.keys.setdefault(key, layout.pack_word(layout.KIND_METRIC, key_id))
        return True

    def _ready_stream(self) -> StreamFiles | None:
        if self._stream is None and not self._is_closed:
            self._make_room(layout.METRIC_LANE, self._lane)
        return self._stream

    def _make_room(self, name: str, used: Lane) -> bool:
        """
        Put a fresh segment behind the lane that `used` was; whether there is one now.
        """
        me = threading.get_ident()
        is_mine = False
        try:
            if self._roll_owner != me:  # else a handler in the middle of our own roll: make another
                is_mine = self._roll_lock.acquire(timeout=ROLL_WAIT_S)
                if is_mine:
                    self._roll_owner = me
            present = self._lane if name == layout.METRIC_LANE else self._series_lane
            if present is not used:
                return True
            return self._roll(name)
        finally:
            if is_mine:
                self._roll_owner = 0
                self._roll_lock.release()

    def _roll(self, name: str) -> bool:
        if self._is_closed or self._run_folder is None or self._room is None:
            return False
        now_s = now_monotonic_s()
        if now_s < self._retry_at_s:
            return False
        try:
            if self._stream is None:
                self._stream = StreamFiles(
                    self._run_folder,
                    counters=self.counters,
                    segment_bytes=self._segment_bytes,
                    room=self._room,
                    role=self._role,
                )
            lane = self._stream.new_lane(name)
        except (NoRoomError, OSError) as exc:
            self._no_room_reason = exc.reason if isinstance(exc, NoRoomError) else reason_of(exc)
            self._retry_at_s = now_s + RETRY_S
            return False
        if name == layout.METRIC_LANE:
            size_bytes = self._lane[4].size_bytes
            self._full_slots += max(0, size_bytes - layout.HEADER_BYTES) // layout.RECORD_BYTES
            self._lane = lane
        else:
            self._series_lane = lane
        if self.on_slow is not None:
            self.on_slow()
        return True

    def _after_fork_in_child(self) -> None:
        stream = self._stream
        was_closed = self._is_closed
        self._start_afresh()
        self._is_closed = was_closed
        if stream is not None:
            stream.disown()


_writers: weakref.WeakSet[StreamWriter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for writer in list(_writers):
        writer._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
