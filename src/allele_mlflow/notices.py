"""
Telling the program of its delivery, at slow points and in its own thread: the store's last words,
and how far delivery is behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from allele_mlflow.records import RunState

#: How often another of the store's errors is told.
ERROR_EVERY_S = 60.0


class DeliveryNotices:
    """
    The two callbacks of `start_logger` that speak of delivery. Pure but for them; not thread-safe:
    two threads at a slow point may both be told.

    Args:
        on_error: Called with the store's words when it begins to refuse or fail; at most once a
            minute, and once for the same words until something was delivered.
        on_lag: Called with the seconds that delivery is behind, at each look while that is more
            than `max_lag_s`.
        max_lag_s: See the setting.
        started_s: When the run began, on the monotonic clock.
    """

    def __init__(
        self,
        on_error: Callable[[str], None] | None,
        on_lag: Callable[[float], None] | None,
        *,
        max_lag_s: float,
        started_s: float,
    ) -> None:
        self.on_lag = on_lag
        self._on_error = on_error
        self._max_lag_s = max_lag_s
        self._updated_ns = 0
        self._seen_s = started_s
        self._told: str | None = None
        self._told_s = float("-inf")

    @property
    def is_wanted(self) -> bool:
        """
        Whether anybody listens.
        """
        return self._on_error is not None or self.on_lag is not None

    def look(self, state: RunState | None, now_s: float) -> None:
        """
        Tell what is new in what the sidecar published; None: it has published nothing yet.

        What a callback raises stays there: it must not reach the program's loop.
        """
        if state is not None and state.updated_ns != self._updated_ns:
            self._updated_ns, self._seen_s = state.updated_ns, now_s
        lag_s = (state.lag_s if state is not None else 0.0) + now_s - self._seen_s
        error = state.last_error if state is not None else None
        with contextlib.suppress(Exception):
            self._tell_error(error, now_s)
        if self.on_lag is not None and lag_s > self._max_lag_s:
            with contextlib.suppress(Exception):
                self.on_lag(lag_s)

    def _tell_error(self, error: str | None, now_s: float) -> None:
        if error is None:
            self._told = None
        elif error != self._told and now_s - self._told_s >= ERROR_EVERY_S:
            self._told, self._told_s = error, now_s
            if self._on_error is not None:
                self._on_error(error)
