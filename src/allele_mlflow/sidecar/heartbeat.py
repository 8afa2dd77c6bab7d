"""
The tag that tells a run that is served from one whose machine is gone.
"""

from __future__ import annotations

from functools import partial

from allele_mlflow.clock import now_monotonic_s, now_ns, utc_iso
from allele_mlflow.errors import TrackingError
from allele_mlflow.records import RunState
from allele_mlflow.sidecar.run_store import RunStore
from allele_mlflow.sidecar.run_summary import HEARTBEAT_TAG

HEARTBEAT_S = 60.0


class Heartbeat:
    """
    The heartbeat of one run, whose first value it is created with. Not thread-safe.
    """

    def __init__(self, store: RunStore, state: RunState) -> None:
        self._store = store
        self._state = state
        # of a run that a sidecar before us created, nobody knows for how long it was not served
        self._due_s = now_monotonic_s() + (HEARTBEAT_S if state.run_id is None else 0.0)

    async def beat(self) -> float:
        """
        Set the tag where it is time; CPU seconds that it took.

        One that fails is no error of the run, and is not tried again before the next is due.
        """
        now_s = now_monotonic_s()
        if self._state.run_id is None or now_s < self._due_s:
            return 0.0
        self._due_s = now_s + HEARTBEAT_S
        tags = {HEARTBEAT_TAG: utc_iso(now_ns())}
        try:
            cost = await self._store.call(partial(self._store.log_batch, tags=tags))
        except TrackingError:
            return 0.0
        return cost.cpu_s
