"""
What can go wrong, grouped by what a handler would do about it.

    AlleleMlflowError(message, *, kind, **facts)
    |-- SettingsError, RecordError, MatrixError (also ValueError)   fix the call or the file
    |-- QueueError - QueueFormatError, QueueClosedError   not our file / newer version / closed
    |-- SidecarError - SidecarStartError                  the host goes on; records wait
    |-- TrackingError
    |   |-- TransientTrackingError                        retry
    |   `-- PermanentTrackingError                        never retry, set aside
    |-- DeliveryError                                     only from a strict close; has the report
    |-- AnalysisError - TooFewPointsError (also ValueError)   fix the data or the call
    `-- RegistryError - NotFoundError (also KeyError), PromotionRefusedError   see what it says

Every class pickles, because executors carry exceptions across processes. `kind` is stable and
append-only, so programs may match on it; messages may change.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ErrorKind(StrEnum):
    """
    Stable names of what went wrong. Append only.
    """

    UNKNOWN_SETTING = "unknown_setting"
    BAD_SETTING = "bad_setting"
    BAD_KEY = "bad_key"
    BAD_VALUE = "bad_value"
    BAD_STEP = "bad_step"
    BAD_ARTIFACT = "bad_artifact"
    QUEUE_FORMAT = "queue_format"
    QUEUE_CLOSED = "queue_closed"
    QUEUE_UNAVAILABLE = "queue_unavailable"
    SIDECAR_START = "sidecar_start"
    SIDECAR_TIMEOUT = "sidecar_timeout"
    STORE_UNREACHABLE = "store_unreachable"
    STORE_BUSY = "store_busy"
    UNAUTHORISED = "unauthorised"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    UNDELIVERED = "undelivered"
    BAD_SUITE = "bad_suite"
    BAD_BENCHMARK = "bad_benchmark"
    BAD_DATA = "bad_data"
    TOO_FEW_POINTS = "too_few_points"
    BAD_REGISTRY = "bad_registry"
    BAD_GENOME = "bad_genome"
    OTHER_HOLDER = "other_holder"
    GATE = "gate"
    BAD_COMPONENT = "bad_component"
    TAMPERED = "tampered"
    #: What is asked for cannot be told from what there is, and would be done at a guess.
    UNCLEAR = "unclear"


class AlleleMlflowError(Exception):
    """
    The root. `kind` is stable, `facts` are what the message was made of.
    """

    def __init__(self, message: str, *, kind: ErrorKind, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.facts = facts

    def __reduce__(self) -> tuple[Any, ...]:
        # The state brings notes, and what a subclass or a handler hung on it.
        return _rebuild, (type(self), self.message, self.kind, self.facts), self.__dict__


def _rebuild(
    error_class: type[AlleleMlflowError], message: str, kind: ErrorKind, facts: dict[str, Any]
) -> AlleleMlflowError:
    return error_class(message, kind=kind, **facts)


class SettingsError(AlleleMlflowError, ValueError):
    """
    A setting is unknown or has a value that it cannot have.
    """


class RecordError(AlleleMlflowError, ValueError):
    """
    A caller handed over something that MLflow cannot hold; raised only with `strict=True`.
    """


class MatrixError(AlleleMlflowError, ValueError):
    """
    A suite or a benchmark is not one that can be run; a cell that fails raises nothing.
    """


class QueueError(AlleleMlflowError):
    """
    The spool cannot be used.
    """


class QueueFormatError(QueueError):
    """
    A spool file is not ours, damaged, or of a newer version.
    """


class QueueClosedError(QueueError):
    """
    The stream was closed.
    """


class SidecarError(AlleleMlflowError):
    """
    The sidecar is missing or silent; the host goes on and records wait in the spool.
    """


class SidecarStartError(SidecarError):
    """
    The sidecar's process could not be started.
    """


class TrackingError(AlleleMlflowError):
    """
    MLflow did not take something.
    """


class TransientTrackingError(TrackingError):
    """
    MLflow may take it later: retry. `retry_after_s` is the server's wish, or None.
    """

    @property
    def retry_after_s(self) -> float | None:
        """
        Seconds the server asked us to wait, or None where it did not say.
        """
        value = self.facts.get("retry_after_s")
        return None if value is None else float(value)


class PermanentTrackingError(TrackingError):
    """
    MLflow will never take it: set it aside in the dead letters.
    """


class DeliveryError(AlleleMlflowError):
    """
    A strict close could not deliver everything; `facts["report"]` is the DeliveryReport.
    """


class AnalysisError(AlleleMlflowError):
    """
    The data or the options are not what an analysis can work with.
    """


class TooFewPointsError(AnalysisError, ValueError):
    """
    There are fewer values than the answer needs.
    """


class RegistryError(AlleleMlflowError):
    """
    The registry, or what was given to it, is not as it should be.
    """


class NotFoundError(RegistryError, KeyError):
    """
    There is no such model, version or stage.
    """

    __str__ = Exception.__str__  # KeyError's shows the repr


class PromotionRefusedError(RegistryError):
    """
    A version may not go where it was to go: a rule of the gate failed, or another one holds the
    stage by now. `facts` say which and by how much.
    """
