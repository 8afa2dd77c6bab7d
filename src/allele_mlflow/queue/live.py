"""
What is shown of a run that runs: the last readings of its keys, and its phases; `live.msgpack`.

The sidecar alone writes it, about once a second, into a file of its own: `close` reads the state
every few milliseconds, and this is larger. It is a view and no ledger: a killed sidecar leaves it a
second old, and what it reads again is counted again.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import msgspec

from allele_mlflow.queue import spool

#: Readings kept of a key.
KEPT_READINGS = 120
#: Keys kept of a run.
KEPT_KEYS = 500
#: A reading: step, time in ms, value; NaN and infinities are as they were.
RECORD = struct.Struct("<qqd")
WINDOW_BYTES = KEPT_READINGS * RECORD.size


class Point(NamedTuple):
    """
    One reading of a key. `timestamp_ms` is the producer's wall clock.
    """

    step: int
    timestamp_ms: int
    value: float


class LivePhase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One phase of one process. `end_ns` is None while it is open; not `complete`: its end was never
    seen.
    """

    stream_id: str
    instance: int
    name: str
    begin_ns: int
    step: int | None = None
    end_ns: int | None = None
    complete: bool = True

    @property
    def identity(self) -> tuple[str, int]:
        """
        What no other phase of the run has.
        """
        return self.stream_id, self.instance

    def age_s(self, now_ns: int) -> float:
        """
        How long it took, or has taken by now.
        """
        end_ns = now_ns if self.end_ns is None else self.end_ns
        return max(0, end_ns - self.begin_ns) / 1e9


class LiveKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One key: `RECORD`s of the last readings in the order in which they were read, and of `ahead`,
    which wait and were read past all that waits before them, ordered by time.
    """

    #: Readings read so far, and some seconds ago (`LiveView.earlier_ns`).
    count: int = 0
    earlier_count: int = 0
    readings: bytes = b""
    ahead: bytes = b""
    #: The sidecar's own resource sample, and not the user's.
    is_resource: bool = False

    def window(self) -> list[Point]:
        """
        The last readings, oldest first, each once; what is ahead stands where its time is.
        """
        data, size = self.readings + self.ahead, RECORD.size
        # equal ones are one to MLflow too; a sidecar that was killed reads some again
        records = dict.fromkeys(data[at : at + size] for at in range(0, len(data), size))
        points = [Point(*RECORD.unpack(record)) for record in records]
        if self.ahead:
            points.sort(key=lambda point: point.timestamp_ms)
        return points[-KEPT_READINGS:]


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """
    One run as it was at `updated_ns`. Keys stand in the order in which they came.

    Append fields only, with defaults. Units: `*_ns` wall clock.
    """

    run_uid: str
    updated_ns: int
    keys: dict[str, LiveKey] = {}
    #: Keys that were left out, for there were more than `KEPT_KEYS`.
    left_out: int = 0
    #: Some readings or phases are shown ahead of those before them, which wait: windows may have
    #: gaps, and counts are of what was read.
    is_ahead: bool = False
    #: The phases begun last that are open, and how many there are in all.
    open_phases: list[LivePhase] = []
    open_count: int = 0
    #: The last that were closed, oldest first.
    closed_phases: list[LivePhase] = []
    #: Records accepted then, and some seconds before, at the time of the `earlier_count`s.
    accepted: int = 0
    earlier_ns: int = 0
    earlier_accepted: int = 0

    def window(self, key: str) -> list[Point]:
        """
        The last readings of a key, oldest first; empty where there is no such key.
        """
        kept = self.keys.get(key)
        return kept.window() if kept is not None else []

    def last(self, key: str) -> float | None:
        """
        The newest value of a key, which may be NaN; None where there is none.
        """
        window = self.window(key)
        return window[-1].value if window else None

    def rate_per_s(self, key: str, now_ns: int) -> float | None:
        """
        Readings of a key a second over the last 10 to 20 seconds (less at the beginning); None
        where it is not known: while reading lags, only the sidecar's speed could be told.
        """
        kept = self.keys.get(key)
        if kept is None or self.is_ahead:
            return None
        return self._per_s(kept.count - kept.earlier_count, now_ns)

    def records_per_s(self, accepted: int, now_ns: int) -> float | None:
        """
        Records a second over the same time, by a ledger of `now_ns`; reading may lag.
        """
        return self._per_s(accepted - self.earlier_accepted, now_ns)

    def _per_s(self, count: int, now_ns: int) -> float | None:
        passed_ns = now_ns - self.earlier_ns
        return max(0, count) * 1e9 / passed_ns if passed_ns > 0 else None


def read_live(run: Path) -> LiveView | None:
    """
    The view of a run by its folder in `runs/` or `done/`, whichever it is in by now; None where
    there is none, or it cannot be read.

    Cost: up to 1.5 MB are read and decoded; windows only when asked for.
    """
    scope = run.parent.parent
    for place in (spool.RUNS, spool.DONE):
        view = spool.read_struct(scope / place / run.name / spool.LIVE_FILE, LiveView)
        if view is not None:
            return view
    return None
