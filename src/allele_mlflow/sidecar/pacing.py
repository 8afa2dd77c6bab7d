"""
How much CPU the sidecar may take from a benchmark that runs: a token bucket of CPU seconds.
"""

from __future__ import annotations

#: CPU seconds that may be spent at once; more only makes the sidecar late, not heavier.
BURST_CPU_S = 0.05


class CpuBudget:
    """
    Spent CPU seconds against an allowance that grows with the wall clock. Pure; not thread-safe.
    """

    def __init__(self, percent: float, now_s: float) -> None:
        self.percent = percent
        self._allowed_s = BURST_CPU_S
        self._since_s = now_s

    def spend(self, cpu_s: float, now_s: float) -> float:
        """
        Note CPU seconds that were spent; the seconds to wait before spending more.
        """
        earned_s = (now_s - self._since_s) * self.percent / 100.0
        self._since_s = now_s
        self._allowed_s = min(self._allowed_s + earned_s, BURST_CPU_S) - cpu_s
        return max(0.0, -self._allowed_s * 100.0 / self.percent)
