"""
What an evaluation finds: alerts that are raised, and that are over.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from allele_mlflow.alerts.rules import AlertRule
from allele_mlflow.records import AlertRaised


class Mark(NamedTuple):
    """
    Which reading it was: the `nth` of its key since its stream was last committed, which then had
    `before` records. Who reads again from there knows by this how far an evaluation before it came.
    """

    before: int
    nth: int


NO_MARK = Mark(-1, 0)


class Raised(NamedTuple):
    """
    A rule began to hold; `stream_id` is that of the process, "" where it is of all.
    """

    alert: AlertRaised
    stream_id: str
    mark: Mark = NO_MARK


class Resolved(NamedTuple):
    """
    A rule that held does so no more.
    """

    alert_id: str
    timestamp_ns: int
    mark: Mark = NO_MARK


Finding = Raised | Resolved


class Episode(NamedTuple):
    """
    The last alert of a rule, key and process, as an evaluation before this one left it;
    `changed_ns` is when it was raised or resolved, by the reading of `mark`.
    """

    rule: str
    key: str
    stream_id: str
    alert_id: str
    raised_ns: int
    changed_ns: int
    is_active: bool
    mark: Mark = NO_MARK


def alert_id_of(rule: str, key: str, stream_id: str, timestamp_ms: int, step: int) -> str:
    """
    The id of the alert that a rule raises at a reading: 16 hex digits, the same each time.
    """
    text = "\0".join((rule, key, stream_id, str(timestamp_ms), str(step)))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def context_of(rule: AlertRule) -> dict[str, Any]:
    """
    What of a rule its alerts tell beside name, severity and limit.
    """
    context: dict[str, Any] = {"condition": rule.condition or "stalled"}
    if rule.rate_per_s is not None:
        context["compared"] = "rate_per_s"
    elif rule.rate_per_step is not None:
        context["compared"] = "rate_per_step"
    elif rule.threshold is not None:
        context["compared"] = rule.statistic
    if rule.window_s:
        context["window_s"] = rule.window_s
    if rule.description:
        context["description"] = rule.description
    return context
