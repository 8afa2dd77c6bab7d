"""
`log_batch` to a tracking server without MLflow's objects: one compact JSON body a call.

MLflow's client makes an object, a protobuf message, a text, a dictionary and another text of each
reading. This one writes the body at once, and leaves to MLflow what the body is sent with:
address, credentials, headers, certificates, time-outs and the connection, which stays open. It
reaches into MLflow's private parts, so it looks first whether they are what it knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.bulk_store import UnfitError

ENDPOINT = "/api/2.0/mlflow/runs/log-batch"
SHOWN_CHARACTERS = 200
#: Answers that are about us or the moment, and not about the body.
_NOT_OF_THE_BODY = frozenset({401, 403, 407, 408, 409, 425, 429})


class MetricOfBody(msgspec.Struct, forbid_unknown_fields=True):
    """
    One reading as proto3's JSON has it: what is no number is a text.
    """

    key: str
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    timestamp: int
    step: int = 0


class PairOfBody(msgspec.Struct, forbid_unknown_fields=True):
    """
    A param or tag.
    """

    key: str
    value: str


class Body(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """
    A batch as it is sent, and as our server reads it.
    """

    run_id: str
    metrics: list[MetricOfBody] = []
    params: list[PairOfBody] = []
    tags: list[PairOfBody] = []


class OddAnswerError(Exception):
    """
    The server did not answer as MLflow's does; the text says what it did.
    """


class HttpBatches:
    """
    Sends batches to the server of one of MLflow's REST stores. Any thread; not across a fork.
    """

    writes_by = "compact HTTP"
    readings_per_call = 0
    #: As of `BulkStore`; a server may be odd for a moment, as when its pool is empty.
    most_doubts = 3

    def __init__(self, store: Any) -> None:
        """
        The sender beside a store that MLflow opened.

        Raises:
            UnfitError: it is not MLflow's own REST store.
        """
        try:
            from mlflow.store.tracking.rest_store import RestStore
            from mlflow.utils.rest_utils import (  # noqa: F401 - they must be there
                http_request,
                verify_rest_response,
            )
        except ImportError as exc:
            raise UnfitError(f"this MLflow lacks {exc.name}") from exc
        if type(store) is not RestStore:
            raise UnfitError(f"{type(store).__name__}: want MLflow's own REST store")
        self._store = store
        self._encoder = msgspec.json.Encoder()

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """
        Send all of it in one call; True, as from `BulkStore`.

        Raises:
            OddAnswerError: the answer is odd, or about the body: MLflow's own call is to tell.
            MlflowException: as from MLflow's `log_batch`.
        """
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        body = Body(run_id, _metrics_of(readings), _pairs_of(params), _pairs_of(tags))
        answer = http_request(
            self._store.get_host_creds(),
            ENDPOINT,
            "POST",
            data=self._encoder.encode(body),
            extra_headers={"Content-Type": "application/json"},
        )
        status = answer.status_code
        is_odd = answer.text.strip() != "{}" if status == 200 else status < 500
        if is_odd and status not in _NOT_OF_THE_BODY:
            raise OddAnswerError(f"{status}: {answer.text[:SHOWN_CHARACTERS]!r}")
        verify_rest_response(answer, ENDPOINT)
        return True

    def is_doubtful(self, error: Exception) -> bool:
        """
        Whether an error may be ours, so that MLflow's own call is to tell.
        """
        return isinstance(error, OddAnswerError)


def _metrics_of(readings: Sequence[Reading]) -> list[MetricOfBody]:
    isfinite = math.isfinite
    return [
        MetricOfBody(
            key, value if isfinite(value) else _text_of(value), int(timestamp_ms), int(step)
        )
        for key, value, timestamp_ms, step in readings
    ]


def _text_of(value: float) -> Literal["NaN", "Infinity", "-Infinity"]:
    if value != value:
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _pairs_of(pairs: Mapping[str, str] | None) -> list[PairOfBody]:
    return [PairOfBody(key, value) for key, value in (pairs or {}).items()]
