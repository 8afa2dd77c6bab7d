"""
A clock that moves when told to.
"""

from __future__ import annotations

import threading


class FakeClock:
    """
    A `Clock` that stands still until `advance`.

    Thread safety: yes.
    """

    def __init__(
        self, *, now_ns: int = 1_700_000_000_000_000_000, monotonic_s: float = 1000.0
    ) -> None:
        self._lock = threading.Lock()
        self._now_ns = now_ns
        self._monotonic_s = monotonic_s

    def now_ns(self) -> int:
        """
        Wall clock, nanoseconds since the epoch.
        """
        with self._lock:
            return self._now_ns

    def monotonic_s(self) -> float:
        """
        Seconds; only differences mean anything.
        """
        with self._lock:
            return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """
        Let time pass, on both clocks.

        Raises:
            ValueError: a negative number; the monotonic clock never goes back.
        """
        if seconds < 0:
            raise ValueError(f"advance({seconds}): want 0 or more")
        with self._lock:
            self._now_ns += round(seconds * 1e9)
            self._monotonic_s += seconds
