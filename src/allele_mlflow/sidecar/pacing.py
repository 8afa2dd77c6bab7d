"""
How much CPU the sidecar may take from a benchmark that runs: a token bucket of CPU seconds, and
when the limit is lifted.
"""

from __future__ import annotations

from collections.abc import Callable

#: CPU seconds that may be spent at once; more only makes the sidecar late, not heavier.
BURST_CPU_S = 0.05
#: A shorter lag is none.
LEAST_LAG_S = 1.0
#: Of more runs than this, each is looked at less often.
RUNS_AT_FULL_PACE = 50


def stretch_of(runs: int) -> float:
    """
    How many times as long a run's pauses are among so many runs: looking at all of them at full
    pace would take the time to deliver any.
    """
    return max(1.0, runs / RUNS_AT_FULL_PACE)


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


class CpuLimit:
    """
    One run's limit. Delivery outranks it: it is lifted for good when delivery lags too far behind,
    or half of the quota is used. Not thread-safe.

    Args:
        percent: Of one core, shared with the other runs of this sidecar.
        max_lag_s: A longer lag lifts the limit.
        is_half_full: Whether half of the spool's quota is used.
    """

    def __init__(
        self,
        percent: float,
        *,
        max_lag_s: float,
        is_half_full: Callable[[], bool],
        now_s: float,
    ) -> None:
        self._percent = percent
        self._max_lag_s = max_lag_s
        self._is_half_full = is_half_full
        self._budget = CpuBudget(percent, now_s)
        self.is_lifted = False

    def relax(self, lag_s: float) -> str | None:
        """
        Lift the limit where it must be; then the reason, once.
        """
        if self.is_lifted or lag_s < LEAST_LAG_S:
            return None
        if lag_s > self._max_lag_s:
            reason = f"delivery is {lag_s:.0f} s behind (MAX_LAG_S={self._max_lag_s:g})"
        elif self._is_half_full():
            reason = "half of the spool's quota is used"
        else:
            return None
        self.is_lifted = True
        return reason

    def spend(self, cpu_s: float, now_s: float, *, runs: int) -> float:
        """
        Note CPU seconds that were spent; the seconds to wait before spending more.
        """
        self._budget.percent = self._percent / max(1, runs)
        return self._budget.spend(cpu_s, now_s)
