"""
What observability tells of a run: alerts, anomalies, recommendations, predictions and readings, in
the shapes of others (`alerts.shapes`) or by name.

Whatever is handed over is copied before the call returns. What cannot be understood is a caller's
mistake like any other: counted, kept as a dead letter, warned of once; raised only when strict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

import msgspec

from allele_mlflow import snapshots
from allele_mlflow.alerts.shapes import (
    Place,
    Shape,
    ShapeError,
    alert_of,
    make_alert,
    readings_of,
    severity_of,
    shape_of,
    step_of,
)
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import RecordError
from allele_mlflow.queue import plain, spool
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import Advice, PredictionMade, RecommendationMade, TagSet
from allele_mlflow.run_phase import place_now

#: Largest recommendation or prediction, as JSON.
ADVICE_BYTES = 256 << 10
#: Correlation ids of fed metrics that the tag names; further ones are not.
MAX_CORRELATIONS = 50
CORRELATIONS_TAG = "allele.correlation_ids"
_WANTED = (
    "want a metric, measurement, alert, anomaly, recommendation or prediction of Allele's "
    "observability, or a mapping with its fields"
)


class Feed:
    """
    Takes in what observability tells, for one stream.

    Thread safety: share it; two threads may both name a new correlation id.
    """

    def __init__(self, stream: StreamWriter) -> None:
        self._stream = stream
        self._correlations: list[str] = []

    def alert(
        self,
        alert: object,
        *,
        severity: str,
        message: str,
        metric: str | None,
        value: object,
        threshold: object,
        step: SupportsIndex | None,
        context: Mapping[str, Any] | None,
    ) -> None:
        """
        See `RunLogger.alert`.
        """
        if not isinstance(alert, str):
            self._take("alert", alert, {Shape.ALERT, Shape.ANOMALY}, step)
            return
        name = str.__str__(alert).encode("utf-8", "replace").decode()
        try:
            if not name.strip():
                raise ShapeError("want a name, or an alert")
            more = {} if not context else snapshots.plain_fields(context)
            event = make_alert(
                name,
                alert_id=spool.new_uid(),
                place=self._place("alert", name, step),
                severity=severity_of(severity),
                message=str(message).encode("utf-8", "replace").decode(),
                metric=None if metric is None else str(metric).encode("utf-8", "replace").decode(),
                value=_number(value, "value"),
                threshold=_number(threshold, "threshold"),
                context=more,
            )
        except RecordError:  # strict has told already
            raise
        except Exception as exc:  # noqa: BLE001 - the log call's border: str() and mappings are the caller's code
            self._stream.reject("bad_value", "alert", name, value, plain.said(exc))
            return
        self._stream.event(event)

    def recommendation(self, thing: object) -> None:
        """
        See `RunLogger.recommendation`.
        """
        self._take("recommendation", thing, {Shape.RECOMMENDATION}, None, is_sure=True)

    def prediction(self, thing: object) -> None:
        """
        See `RunLogger.prediction`.
        """
        self._take("prediction", thing, {Shape.PREDICTION}, None, is_sure=True)

    def feed(self, things: object) -> None:
        """
        See `RunLogger.feed`.
        """
        for thing in self._each(things):
            self._take("feed", thing, set(Shape), None)

    def _each(self, things: object) -> Iterator[object]:
        if not _is_several(things):
            yield things
            return
        assert isinstance(things, Iterable)
        try:
            yield from things
        except Exception as exc:  # noqa: BLE001 - the log call's border: the iterable is the caller's code
            self._stream.reject("bad_value", "feed", "", things, plain.said(exc))

    def _take(
        self,
        call: str,
        thing: object,
        allowed: set[Shape],
        step: SupportsIndex | None,
        *,
        is_sure: bool = False,
    ) -> None:
        """
        Take in one thing of an allowed shape; `is_sure` where the call says which that is.
        """
        class_name = type(thing).__name__
        try:
            if isinstance(thing, (str, bytes, int, float)) or thing is None:
                raise ShapeError(_WANTED)
            fields = snapshots.plain_fields(thing)
            shape = next(iter(allowed)) if is_sure else shape_of(fields, class_name)
            if shape is None or shape not in allowed:
                raise ShapeError(_WANTED)
            self._keep(call, shape, fields, class_name, step)
        except RecordError:
            raise
        except Exception as exc:  # noqa: BLE001 - the log call's border: to_dict is the caller's code
            self._stream.reject("bad_value", call, class_name, thing, plain.said(exc))

    def _keep(
        self,
        call: str,
        shape: Shape,
        fields: dict[str, Any],
        class_name: str,
        step: SupportsIndex | None,
    ) -> None:
        if shape in (Shape.METRIC, Shape.MEASUREMENT):
            self._stream.metrics(readings_of(fields, class_name), step_of(fields))
            self._note_correlation(fields.get("correlation_id"))
            return
        place = self._place(call, class_name, step_of(fields) if step is None else step)
        if shape in (Shape.ALERT, Shape.ANOMALY):
            self._stream.event(alert_of(fields, alert_id=spool.new_uid(), place=place))
            return
        size = len(msgspec.json.encode(fields))
        if size > ADVICE_BYTES:
            raise ShapeError(f"want at most {ADVICE_BYTES} bytes, got {size}")
        kind: type[Advice] = RecommendationMade if shape is Shape.RECOMMENDATION else PredictionMade
        correlation = fields.get("correlation_id")
        self._stream.event(
            kind(
                timestamp_ns=place.timestamp_ns,
                advice_id=spool.new_uid(),
                document=fields,
                step=place.step,
                phase=place.phase,
                correlation_id=None if correlation is None else str(correlation),
            )
        )

    def _place(self, call: str, key: str, step: SupportsIndex | None) -> Place:
        phase, phase_step = place_now(self._stream)
        plain_step = phase_step if step is None else plain.step(step)
        if isinstance(plain_step, str):  # the alert itself is worth keeping
            self._stream.reject("bad_step", call, key, step, plain_step)
            plain_step = phase_step
        return Place(now_ns(), phase, plain_step)

    def _note_correlation(self, given: object) -> None:
        """
        Name a correlation id of a fed metric in a tag: a reading itself has no room for it.
        """
        known = self._correlations
        if not isinstance(given, str) or given[:100] in known or len(known) >= MAX_CORRELATIONS:
            return
        known.append(given[:100])
        told = TagSet(timestamp_ns=now_ns(), key=CORRELATIONS_TAG, value=", ".join(known))
        self._stream.event(told)


def _is_several(things: object) -> bool:
    """
    Whether it is a list, a generator or the like, and not one thing with fields.
    """
    if isinstance(things, (Mapping, str, bytes)) or hasattr(things, "to_dict"):
        return False
    is_one = hasattr(type(things), "__dataclass_fields__") or isinstance(things, msgspec.Struct)
    return not is_one and isinstance(things, Iterable)


def _number(given: object, name: str) -> float | None:
    if given is None:
        return None
    found = plain.number(given)
    if isinstance(found, str):
        raise ShapeError(f"{name}: {found}")
    return found
