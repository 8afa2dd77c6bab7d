"""
What every probe of the sampler has in common, and how a growing counter becomes a percentage.
"""

from __future__ import annotations

from typing import Protocol

#: Shorter intervals say nothing: the kernel counts a process's CPU time in steps of 10 ms.
MIN_INTERVAL_S = 0.05


class ResourceProbe(Protocol):
    """
    One source of resource readings.
    """

    @property
    def name(self) -> str:
        """
        Short name, for the list of what is unavailable.
        """

    @property
    def unavailable(self) -> str | None:
        """
        Why this probe will never give anything here, or None. Known after the first `sample`.
        """

    def prime(self, monotonic_s: float) -> None:
        """
        Take the baselines that percentages and "since the start" counters need.
        """

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Readings by metric name; what is unknown is absent.
        """


class RateMeter:
    """
    Percent of one core from a counter of CPU seconds that only grows. Not thread safe.

    Percent of what passed since the last answer; a look that comes too early keeps its baseline, so
    that no CPU time is lost between two answers.
    """

    def __init__(self) -> None:
        self._base_s: float | None = None
        self._since_s = 0.0

    def prime(self, total_s: float, monotonic_s: float) -> None:
        """
        Measure from here on.
        """
        self._base_s, self._since_s = total_s, monotonic_s

    def percent(self, total_s: float, monotonic_s: float) -> float | None:
        """
        Percent since the last answer; None without a baseline, too early, or after a reset.
        """
        base_s, elapsed_s = self._base_s, monotonic_s - self._since_s
        if base_s is None or total_s < base_s:
            self.prime(total_s, monotonic_s)
            return None
        if elapsed_s < MIN_INTERVAL_S:
            return None
        self.prime(total_s, monotonic_s)
        return 100.0 * (total_s - base_s) / elapsed_s
