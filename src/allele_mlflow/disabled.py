"""
The logger of `ALLELE_MLFLOW_ENABLED=false`: every method exists and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, SupportsIndex

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.records import Ledger, RunState, RunStatus
from allele_mlflow.report import DeliveryReport
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.run_phase import Phase
from allele_mlflow.settings import Settings

#: Methods that give nothing; the rest are overridden below.
SILENCED = (
    "metric",
    "metrics",
    "series",
    "distribution",
    "param",
    "params",
    "tag",
    "tags",
    "error",
    "alert",
    "recommendation",
    "prediction",
    "feed",
    "artifact",
    "text",
    "json",
    "table",
    "figure",
    "genome",
    "uses",
)


def _nothing(*_: Any, **__: Any) -> None:
    pass


class _NoPhase(Phase):
    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        pass


_NO_PHASE = _NoPhase()


class DisabledRunLogger(RunLogger):
    """
    A RunLogger that costs an empty call and leaves no trace.
    """

    def __init__(
        self,
        settings: Settings,
        experiment: str,
        *,
        on_close: Callable[[RunLogger], None] = _nothing,
    ) -> None:
        self._on_close = on_close
        self.settings = settings
        self.experiment = experiment
        self.run_uid = self.correlation_id = ""
        self._started_s = now_monotonic_s()
        for name in SILENCED:
            setattr(self, name, _nothing)

    def phase(self, name: str, step: SupportsIndex | None = None) -> Phase:
        """
        A block that does nothing.
        """
        return _NO_PHASE

    def child(self, run_name: str | None = None, **_: Any) -> RunLogger:
        """
        This logger again.
        """
        return self

    def handle(self) -> str:
        """
        The empty text.
        """
        return ""

    @property
    def run_id(self) -> str | None:
        """
        None: there is no run.
        """
        return None

    def status(self) -> RunState | None:
        """
        None: there is no run.
        """
        return None

    def flush(self, timeout_s: float | None = None) -> bool:
        """
        True: nothing is waiting.
        """
        return True

    def close(self, status: Any = None) -> DeliveryReport:
        """
        An empty report.
        """
        self._on_close(self)
        return DeliveryReport(
            experiment=self.experiment,
            run_uid="",
            run_id=None,
            run_url=None,
            status="DISABLED",
            ledger=Ledger(),
            is_complete=True,
            elapsed_s=now_monotonic_s() - self._started_s,
            waited_s=0.0,
            overhead_ratio=None,
            spool=None,
        )

    def detach(self) -> DeliveryReport:
        """
        An empty report.
        """
        return self.close()

    def _leave(self, exc: BaseException | None) -> None:
        self._on_close(self)

    def _note_end(self, exc: BaseException | None) -> tuple[RunStatus, str]:
        return "FINISHED", "close"

    def _close(self, status: RunStatus, ended_by: str, *, waits: bool) -> DeliveryReport:
        return self.close()
