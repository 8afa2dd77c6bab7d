"""
A store that fails by plan.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.records import Reading, RunId, RunStatus
from allele_mlflow.tracking.protocol import RunGlance, Tracking

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Fault:
    """
    What goes wrong in one call of a `FlakyTracking`.

    Attributes:
        error: Raised; None to let the call succeed after all (useful with `hold`).
        is_answer_lost: The inner call is made first, then `error` is raised: the store has it,
            and the caller does not know.
        hold: The call hangs until this event is set, before anything else.
        entered: Set when the call arrives, so that a test can wait for it.
    """

    error: TrackingError | None = None
    is_answer_lost: bool = False
    hold: threading.Event | None = None
    entered: threading.Event | None = None

    @classmethod
    def transient(
        cls, kind: ErrorKind = ErrorKind.STORE_UNREACHABLE, *, retry_after_s: float | None = None
    ) -> Fault:
        """
        The call fails, and the next one may not.
        """
        return cls(TransientTrackingError("made by a test", kind=kind, retry_after_s=retry_after_s))

    @classmethod
    def permanent(cls, kind: ErrorKind = ErrorKind.REFUSED) -> Fault:
        """
        The call fails for good.
        """
        return cls(PermanentTrackingError("made by a test", kind=kind))

    @classmethod
    def answer_lost(cls) -> Fault:
        """
        The call succeeds in the store, and the caller is told of a broken connection.
        """
        return cls(
            TransientTrackingError("answer lost by a test", kind=ErrorKind.STORE_UNREACHABLE),
            is_answer_lost=True,
        )


#: By method name the faults of its first calls, in order (None: no fault); or a function of the
#: method's name and the number of its call, counted from 0.
FaultPlan = Mapping[str, Sequence[Fault | None]] | Callable[[str, int], Fault | None]


class FlakyTracking:
    """
    Another `Tracking` with faults in it.

    Attributes:
        calls: How often each method was called.

    With a mapping, calls beyond its sequences have no fault. `run_url`, `is_idempotent` and `close`
    never fail.
    Thread safety: as the inner one; the numbering of calls is safe.
    """

    def __init__(self, inner: Tracking, plan: FaultPlan) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self._plan = plan
        self._lock = threading.Lock()

    @property
    def writes_by(self) -> str:
        """
        As the wrapped one's.
        """
        return self.inner.writes_by

    @property
    def readings_per_call(self) -> int:
        """
        As the wrapped one's.
        """
        return self.inner.readings_per_call

    @property
    def is_idempotent(self) -> bool:
        """
        As the inner one.
        """
        return self.inner.is_idempotent

    def ensure_experiment(self, name: str, *, artifact_location: str | None) -> str:
        """
        As the inner one, with a fault if planned.
        """
        return self._call(
            "ensure_experiment",
            lambda: self.inner.ensure_experiment(name, artifact_location=artifact_location),
        )

    def find_run(self, experiment_id: str, run_uid: str) -> RunId | None:
        """
        As the inner one, with a fault if planned.
        """
        return self._call("find_run", lambda: self.inner.find_run(experiment_id, run_uid))

    def create_run(
        self, experiment_id: str, *, run_name: str | None, start_ms: int, tags: Mapping[str, str]
    ) -> RunId:
        """
        As the inner one, with a fault if planned.
        """
        return self._call(
            "create_run",
            lambda: self.inner.create_run(
                experiment_id, run_name=run_name, start_ms=start_ms, tags=tags
            ),
        )

    def look_at_run(self, run_id: RunId) -> RunGlance:
        """
        As the inner one, with a fault if planned.
        """
        return self._call("look_at_run", lambda: self.inner.look_at_run(run_id))

    def reopen_run(self, run_id: RunId) -> str:
        """
        As the inner one, with a fault if planned.
        """
        return self._call("reopen_run", lambda: self.inner.reopen_run(run_id))

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        As the inner one, with a fault if planned.
        """
        return self._call(
            "log_batch",
            lambda: self.inner.log_batch(run_id, readings=readings, params=params, tags=tags),
        )

    def log_artifact(self, run_id: RunId, file: Path, artifact_path: str) -> None:
        """
        As the inner one, with a fault if planned.
        """
        return self._call(
            "log_artifact", lambda: self.inner.log_artifact(run_id, file, artifact_path)
        )

    def end_run(self, run_id: RunId, status: RunStatus, end_ms: int) -> None:
        """
        As the inner one, with a fault if planned.
        """
        return self._call("end_run", lambda: self.inner.end_run(run_id, status, end_ms))

    def run_url(self, experiment_id: str, run_id: RunId) -> str:
        """
        As the inner one.
        """
        return self.inner.run_url(experiment_id, run_id)

    def close(self) -> None:
        """
        As the inner one.
        """
        self.inner.close()

    def _call(self, method: str, call: Callable[[], Answer]) -> Answer:
        fault = self._next_fault(method)
        if fault is None:
            return call()
        if fault.entered is not None:
            fault.entered.set()
        if fault.hold is not None:
            fault.hold.wait()
        if fault.error is None:
            return call()
        if fault.is_answer_lost:
            call()
        raise fault.error

    def _next_fault(self, method: str) -> Fault | None:
        with self._lock:
            number = self.calls[method]
            self.calls[method] += 1
        if callable(self._plan):
            return self._plan(method, number)
        planned = self._plan.get(method, ())
        return planned[number] if number < len(planned) else None
