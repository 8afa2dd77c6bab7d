"""
The tree of exceptions: its shape, its kinds, and that it crosses processes.
"""

from __future__ import annotations

import copy
import pickle

import pytest

from allele_mlflow import errors
from allele_mlflow.errors import (
    AlleleMlflowError,
    AnalysisError,
    DeliveryError,
    ErrorKind,
    MatrixError,
    NotFoundError,
    PermanentTrackingError,
    PromotionRefusedError,
    QueueClosedError,
    QueueError,
    QueueFormatError,
    RecordError,
    RegistryError,
    SettingsError,
    SidecarError,
    SidecarStartError,
    TooFewPointsError,
    TrackingError,
    TransientTrackingError,
)

#: Every class with what it must also be.
TREE: dict[type[AlleleMlflowError], tuple[type[BaseException], ...]] = {
    AlleleMlflowError: (Exception,),
    SettingsError: (AlleleMlflowError, ValueError),
    RecordError: (AlleleMlflowError, ValueError),
    MatrixError: (AlleleMlflowError, ValueError),
    QueueError: (AlleleMlflowError,),
    QueueFormatError: (QueueError,),
    QueueClosedError: (QueueError,),
    SidecarError: (AlleleMlflowError,),
    SidecarStartError: (SidecarError,),
    TrackingError: (AlleleMlflowError,),
    TransientTrackingError: (TrackingError,),
    PermanentTrackingError: (TrackingError,),
    DeliveryError: (AlleleMlflowError,),
    AnalysisError: (AlleleMlflowError,),
    TooFewPointsError: (AnalysisError, ValueError),
    RegistryError: (AlleleMlflowError,),
    NotFoundError: (RegistryError, KeyError),
    PromotionRefusedError: (RegistryError,),
}

#: Kinds that programs match on. A new one goes to the end; none is ever renamed or removed.
KINDS = (
    "unknown_setting",
    "bad_setting",
    "bad_key",
    "bad_value",
    "bad_step",
    "bad_artifact",
    "queue_format",
    "queue_closed",
    "queue_unavailable",
    "sidecar_start",
    "sidecar_timeout",
    "store_unreachable",
    "store_busy",
    "unauthorised",
    "refused",
    "not_found",
    "undelivered",
    "bad_suite",
    "bad_benchmark",
    "bad_data",
    "too_few_points",
    "bad_registry",
    "bad_genome",
    "other_holder",
    "gate",
)


def test_tree_is_complete() -> None:
    """
    Every exception class of ours has a place in the tree that this file checks.
    """
    ours = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, AlleleMlflowError)
    }
    assert ours == set(TREE)


@pytest.mark.parametrize("error_class", TREE)
def test_handlers_catch_what_they_name(error_class: type[AlleleMlflowError]) -> None:
    """
    Each class is caught under its parents' names, built-in ones included, and by no other branch.
    """
    assert error_class.__bases__ == TREE[error_class]


@pytest.mark.parametrize("error_class", TREE)
def test_error_crosses_processes(error_class: type[AlleleMlflowError]) -> None:
    """
    Class, message, kind, facts and notes survive pickling and copying.
    """
    error = error_class("it broke", kind=ErrorKind.REFUSED, key="loss", status=400)
    error.add_note("while sending batch 3")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is error_class
        assert str(again) == "it broke"
        assert again.kind is ErrorKind.REFUSED
        assert again.facts == {"key": "loss", "status": 400}
        assert again.__notes__ == ["while sending batch 3"]


def test_kinds_are_append_only() -> None:
    """
    Programs match on kinds: the known ones keep their names and their order.
    """
    assert tuple(ErrorKind)[: len(KINDS)] == KINDS
    assert all(kind.value == kind.name.lower() for kind in ErrorKind)


@pytest.mark.parametrize(("facts", "wait_s"), [({}, None), ({"retry_after_s": "2.5"}, 2.5)])
def test_server_wish_to_wait(facts: dict[str, str], wait_s: float | None) -> None:
    """
    Seconds the server asked for, or None where it asked for nothing: never 0 for "unknown".
    """
    error = TransientTrackingError("busy", kind=ErrorKind.STORE_BUSY, **facts)
    assert error.retry_after_s == wait_s
