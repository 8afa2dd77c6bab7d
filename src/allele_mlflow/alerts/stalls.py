"""
Stalls: rules that want signs of life.

What is missed is seen by a tick while it lasts, and by the next sign where nobody looked.
"""

from __future__ import annotations

from allele_mlflow.alerts.findings import Finding, Raised, Resolved, alert_id_of, context_of
from allele_mlflow.alerts.rules import AlertRule
from allele_mlflow.alerts.wording import describe_stall
from allele_mlflow.records import AlertRaised

#: The metric of a rule that means any sign of life.
ANYTHING = "*"
RESOURCES = "system/"


class Stall:
    """
    One rule that wants signs of life.
    """

    def __init__(self, rule: AlertRule, started_ms: int) -> None:
        self.rule = rule
        #: The last sign of life, by stream.
        self._last_ms = {"": started_ms}
        self.active_id: str | None = None
        self.raised_ms: int | None = None

    def is_for(self, key: str, *, is_resource: bool) -> bool:
        """
        Whether a reading is a sign of life: what the sidecar samples says nothing of the program.
        """
        if is_resource and not self.rule.metric.startswith(RESOURCES):
            return False
        return self.rule.is_for(key)

    def note(self, stream_id: str, timestamp_ms: int) -> list[Finding]:
        """
        A sign of life. One that came too late tells of a stall that is over.
        """
        last_ms = max(self._last_ms.values())
        is_alone = len(self._last_ms.keys() - {""}) <= 1
        found: list[Finding] = []
        if self.active_id is None and is_alone and stream_id in self._last_ms:
            # with several processes the others' signs may not be read yet
            found += self.look(last_ms, timestamp_ms)
        self._last_ms[stream_id] = max(timestamp_ms, self._last_ms.get(stream_id, timestamp_ms))
        return found + (self._revive(timestamp_ms) if timestamp_ms > last_ms else [])

    def tick(self, now_ms: int, *, read_ms: int, newest_ms: int) -> list[Finding]:
        """
        It is now; what was logged before `read_ms` was taken. The program logged last at
        `newest_ms`, taken or not; 0: nothing of it is there any more, and all was taken.
        """
        for stream_id, last_ms in self._last_ms.items():
            self._last_ms[stream_id] = min(last_ms, now_ms)  # or the clock was set back
        last_ms = max(self._last_ms.values())
        if self.rule.metric != ANYTHING or newest_ms > now_ms:
            return self.look(last_ms, read_ms)
        if newest_ms > last_ms:
            # no gap from the last reading that was taken: others may wait to be read
            self._last_ms[""] = newest_ms
            return self._revive(newest_ms)
        return self.look(last_ms, now_ms)

    def look(self, last_ms: int, now_ms: int) -> list[Finding]:
        """
        Whether it has been too long.
        """
        rule = self.rule
        assert rule.stalled_s is not None
        due_ms = last_ms + round(rule.stalled_s * 1000)
        if self.active_id is not None or now_ms < due_ms or not self._is_cool(now_ms):
            return []
        self.raised_ms = due_ms
        alert = AlertRaised(
            timestamp_ns=due_ms * 1_000_000,
            alert_id=alert_id_of(rule.name, rule.metric, "", last_ms, 0),
            name=rule.name,
            severity=rule.severity,
            message=describe_stall(rule),
            metric=rule.metric,
            threshold=rule.stalled_s,
            rule=rule.name,
            source="rule",
            context=context_of(rule),
        )
        self.active_id = alert.alert_id
        return [Raised(alert, "")]

    def _revive(self, timestamp_ms: int) -> list[Finding]:
        alert_id, self.active_id = self.active_id, None
        return [] if alert_id is None else [Resolved(alert_id, timestamp_ms * 1_000_000)]

    def _is_cool(self, now_ms: int) -> bool:
        if self.raised_ms is None:
            return True
        self.raised_ms = min(self.raised_ms, now_ms)  # or the clock was set back
        return now_ms - self.raised_ms >= self.rule.cooldown_s * 1000
