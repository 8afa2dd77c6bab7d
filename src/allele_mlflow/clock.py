"""
The one place that reads clocks.

Units: `*_ns` are wall-clock nanoseconds since the epoch, `*_monotonic_s` are seconds of which only
differences mean anything, `process_cpu_s` is CPU time of all threads of this process.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from time import monotonic as now_monotonic_s
from time import perf_counter_ns as now_monotonic_ns
from time import process_time as process_cpu_s
from time import thread_time as thread_cpu_s
from time import time_ns as now_ns
from typing import Protocol

__all__ = [
    "Clock",
    "SystemClock",
    "now_boot_s",
    "now_monotonic_ns",
    "now_monotonic_s",
    "now_ns",
    "pause_s",
    "process_cpu_s",
    "read_iso",
    "thread_cpu_s",
    "utc_iso",
]


class Clock(Protocol):
    """
    What the sidecar's planners need of time; `allele_mlflow.testing.FakeClock` is the other one.
    """

    def now_ns(self) -> int:
        """
        Wall clock, nanoseconds since the epoch.
        """

    def monotonic_s(self) -> float:
        """
        Seconds; only differences mean anything.
        """


class SystemClock:
    """
    The machine's own clock.
    """

    def now_ns(self) -> int:
        """
        Wall clock, nanoseconds since the epoch.
        """
        return now_ns()

    def monotonic_s(self) -> float:
        """
        Seconds; only differences mean anything.
        """
        return now_monotonic_s()


def now_boot_s() -> float | None:
    """
    Seconds since boot with those that the machine slept, of which `now_monotonic_s` has none on
    Linux; None where the system has no such clock.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime(clock)


def pause_s(seconds: float) -> None:
    """
    Wait; a seam of its own so that whoever waits can be found.
    """
    time.sleep(seconds)


def utc_iso(timestamp_ns: int) -> str:
    """
    A wall-clock time as ISO 8601 in UTC with milliseconds; one that no calendar has, as the
    nearest that we write.
    """
    # 64 bits of nanoseconds end in the years 1677 and 2262, but a damaged file may say anything
    kept_ns = min(max(timestamp_ns, -(1 << 63)), (1 << 63) - 1)
    return datetime.fromtimestamp(kept_ns / 1e9, tz=UTC).isoformat(timespec="milliseconds")


def read_iso(text: str) -> datetime:
    """
    A time in ISO 8601, in UTC; one without an offset is UTC's, a date alone its first moment.

    A year, and a year with a month, are taken too.

    Raises:
        ValueError: it is none, or lies outside the years 1 to 9999.
    """
    given = text.strip().upper()
    given += {4: "-01-01", 7: "-01"}.get(len(given), "") if given[:4].isdigit() else ""
    try:
        found = datetime.fromisoformat(given)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError(
            f"{text!r} is no time: want ISO 8601, as 2026-11-28 or 2026-11-28T12:00:00+01:00"
        ) from exc
