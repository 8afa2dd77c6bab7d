"""
Evaluating rules: readings and ticks in, alerts out. A state machine without a clock.

What is raised, and under which id, is a matter of the readings, their timestamps and their order in
each stream: whoever reads a stream again gets the same alerts. The exception is a stall, which
only a tick can see while it lasts; its id is that of the last sign of life.

Each key of each process is watched for itself. An alert is active from the reading at which its
rule begins to hold to the one at which it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from allele_mlflow.alerts.findings import (
    NO_MARK,
    Episode,
    Finding,
    Mark,
    Raised,
    Resolved,
    alert_id_of,
    context_of,
)
from allele_mlflow.alerts.rules import AlertRule, Condition
from allele_mlflow.alerts.stalls import ANYTHING, Stall
from allele_mlflow.alerts.window import Summary, Window, summary_of
from allele_mlflow.alerts.wording import describe_finding
from allele_mlflow.records import AlertRaised, Reading

#: Keys of processes that are watched at once, over all rules: some 20 MB of windows.
MAX_WATCHED = 2_000

_COMPARISONS: dict[Condition, Callable[[float, float], bool]] = {
    "gt": lambda value, limit: value > limit,
    "gte": lambda value, limit: value >= limit,
    "lt": lambda value, limit: value < limit,
    "lte": lambda value, limit: value <= limit,
    "eq": lambda value, limit: value == limit,
    "ne": lambda value, limit: value != limit,
}


class _Series:
    """
    One rule on one key of one process.
    """

    def __init__(self, rule: AlertRule, key: str, stream_id: str) -> None:
        self.rule = rule
        self.key = key
        self.stream_id = stream_id
        self.window = Window(rule.window_s) if rule.window_s else None
        self.seen = 0
        self.began_ms: int | None = None
        self.previous: Reading | None = None
        self.active_id: str | None = None
        self.raised_ms: int | None = None
        #: Which reading the last one was.
        self.mark = NO_MARK
        #: The reading up to which an evaluation before this one came: until it is read again,
        #: readings change nothing but the window.
        self.known_to: Mark | None = None
        #: The same by time, where the cursor was lost.
        self.known_to_ms: int | None = None

    def take(self, reading: Reading, before: int) -> Finding | None:
        """
        What the next reading changes; `before` as of `Mark`.
        """
        self.mark = Mark(before, self.mark.nth + 1 if before == self.mark.before else 1)
        self.seen += 1
        if self.began_ms is None or reading.timestamp_ms < self.began_ms:
            self.began_ms = reading.timestamp_ms
        if self.window is not None:
            summary = self.window.add(reading)
        else:
            summary = summary_of(reading)
            if self.previous is not None and summary.count:
                summary.first = self.previous
        if not math.isnan(reading.value):
            self.previous = reading
        if self._is_known(reading):
            return None
        measured = self._measure(summary, reading)
        if measured is None or math.isnan(measured):
            return None
        return self._turn(reading, measured, is_held=self._holds(measured))

    def _is_known(self, reading: Reading) -> bool:
        known_to, known_to_ms = self.known_to, self.known_to_ms
        if known_to is not None:
            if self.mark.before == known_to.before and self.mark.nth <= known_to.nth:
                return True
            self.known_to = None
        if known_to_ms is not None:
            if reading.timestamp_ms <= known_to_ms:
                return True
            self.known_to_ms = None
        return False

    def _measure(self, summary: Summary, reading: Reading) -> float | None:
        """
        The number that the rule is about; None where nothing can be said.
        """
        rule = self.rule
        samples = summary.readings if self.window is not None else self.seen
        if samples < rule.minimum_samples:
            return None
        if rule.condition == "nan":
            return float(summary.non_finite)
        if self.window is None and not summary.count:
            return None  # no number says nothing, but for `nan`
        if rule.threshold is None:
            return _rate(summary, is_per_step=rule.rate_per_step is not None)
        match rule.statistic:
            case "count":
                # of a window that has only begun, few says nothing
                assert self.began_ms is not None
                is_full = reading.timestamp_ms - self.began_ms >= rule.window_s * 1000
                says_all = is_full or rule.condition in ("gt", "gte")
                return float(summary.readings) if says_all else None
            case "last":
                return summary.last.value if summary.count else None
            case "min":
                return summary.low if summary.count else None
            case "max":
                return summary.high if summary.count else None
            case "mean":
                return summary.total / summary.count if summary.count else None

    def _holds(self, measured: float) -> bool:
        rule = self.rule
        if rule.condition == "nan":
            return measured > 0
        assert rule.condition is not None
        assert rule.limit is not None
        return _COMPARISONS[rule.condition](measured, rule.limit)

    def _turn(self, reading: Reading, measured: float, *, is_held: bool) -> Finding | None:
        if self.active_id is not None:
            if is_held:
                return None
            alert_id, self.active_id = self.active_id, None
            return Resolved(alert_id, reading.timestamp_ms * 1_000_000, self.mark)
        if not is_held or not self._is_cool(reading.timestamp_ms):
            return None
        self.raised_ms = reading.timestamp_ms
        alert = self._alert(reading, measured)
        self.active_id = alert.alert_id
        return Raised(alert, self.stream_id, self.mark)

    def _is_cool(self, now_ms: int) -> bool:
        if self.raised_ms is None:
            return True
        self.raised_ms = min(self.raised_ms, now_ms)  # or the clock was set back
        return now_ms - self.raised_ms >= self.rule.cooldown_s * 1000

    def _alert(self, reading: Reading, measured: float) -> AlertRaised:
        rule = self.rule
        value = reading.value if rule.condition == "nan" else measured
        is_finite = math.isfinite(value)
        identity = (rule.name, self.key, self.stream_id, reading.timestamp_ms, reading.step)
        return AlertRaised(
            timestamp_ns=reading.timestamp_ms * 1_000_000,
            alert_id=alert_id_of(*identity),
            name=rule.name,
            severity=rule.severity,
            message=describe_finding(rule, self.key, value),
            metric=self.key,
            value=value if is_finite else None,
            non_finite=None if is_finite else str(value),
            threshold=rule.limit,
            step=reading.step,
            rule=rule.name,
            source="rule",
            context=context_of(rule),
        )


class Evaluator:
    """
    The rules of one run at work. Not thread-safe.

    Args:
        rules: In order.
        started_ns: From when on a sign of life is missed.
        before: What an evaluator before this one has raised.
        committed: How many records of each stream are dealt with.
        now_ns: When this one began: nothing later was read before.

    Cost: of a reading that no rule is for, one look into a dict; memory bounded by `MAX_WATCHED`.
    """

    def __init__(
        self,
        rules: Sequence[AlertRule],
        *,
        started_ns: int,
        before: Iterable[Episode] = (),
        committed: Mapping[str, int] = MappingProxyType({}),
        now_ns: int = 0,
    ) -> None:
        self._rules = [rule for rule in rules if rule.stalled_s is None]
        started_ms = started_ns // 1_000_000
        self._stalls = [Stall(r, started_ms) for r in rules if r.stalled_s is not None]
        self._rules_by_key: dict[str, list[AlertRule]] = {}
        self._stalls_by_key: dict[tuple[str, bool], list[Stall]] = {}
        self._series: dict[tuple[str, str, str], _Series] = {}
        #: More keys than can be watched: the rest are not.
        self.is_short = False
        self._restore(before, committed, now_ns)

    @property
    def wants_readings(self) -> bool:
        """
        Whether readings can change anything but signs of life.
        """
        return bool(self._rules)

    @property
    def wants_signs(self) -> bool:
        """
        Whether signs of life and ticks can change anything.
        """
        return bool(self._stalls)

    @property
    def wants_newest(self) -> bool:
        """
        Whether a tick wants to know when the program logged last, read or not.
        """
        return any(stall.rule.metric == ANYTHING for stall in self._stalls)

    def take(
        self, stream_id: str, readings: Iterable[Reading], *, before: int = 0
    ) -> list[Finding]:
        """
        What the next readings of a stream change.

        Args:
            stream_id: Whose they are.
            readings: In the order of the stream.
            before: How many records of the stream are dealt with.
        """
        found: list[Finding] = []
        for reading in readings:
            for rule in self._rules_of(reading.key):
                series = self._find_series(rule, reading.key, stream_id)
                finding = series.take(reading, before) if series is not None else None
                if finding is not None:
                    found.append(finding)
        return found

    def take_signs(
        self,
        stream_id: str,
        readings: Iterable[Reading],
        *,
        is_resource: bool = False,
        others_ms: Sequence[int] = (),
    ) -> list[Finding]:
        """
        What signs of life change, read together.

        Args:
            stream_id: Whose they are.
            readings: In the order of the stream.
            is_resource: They are the sidecar's own samples.
            others_ms: When the program logged what is no reading.
        """
        if not self._stalls:
            return []
        signs: dict[int, list[int]] = {}
        for reading in readings:
            for stall in self._stalls_of(reading.key, is_resource):
                signs.setdefault(id(stall), []).append(reading.timestamp_ms)
        found: list[Finding] = []
        for stall in self._stalls:
            times = signs.get(id(stall), [])
            if stall.rule.metric == ANYTHING:
                times = sorted({*times, *others_ms})
            for timestamp_ms in times:
                found += stall.note(stream_id, timestamp_ms)
        return found

    def tick(self, now_ns: int, *, read_ns: int, newest_ns: int = 0) -> list[Finding]:
        """
        What time alone changes.

        Args:
            now_ns: The present.
            read_ns: Everything that was logged before then was taken.
            newest_ns: When the program logged last, taken or not; 0 where all was taken.
        """
        now_ms, read_ms, newest_ms = (one // 1_000_000 for one in (now_ns, read_ns, newest_ns))
        found: list[Finding] = []
        for stall in self._stalls:
            found += stall.tick(now_ms, read_ms=read_ms, newest_ms=newest_ms)
        return found

    def _rules_of(self, key: str) -> list[AlertRule]:
        rules = self._rules_by_key.get(key)
        if rules is None:
            rules = self._rules_by_key[key] = [rule for rule in self._rules if rule.is_for(key)]
        return rules

    def _stalls_of(self, key: str, is_resource: bool) -> list[Stall]:
        found = self._stalls_by_key.get((key, is_resource))
        if found is None:
            found = [one for one in self._stalls if one.is_for(key, is_resource=is_resource)]
            self._stalls_by_key[key, is_resource] = found
        return found

    def _find_series(self, rule: AlertRule, key: str, stream_id: str) -> _Series | None:
        identity = (rule.name, key, stream_id)
        series = self._series.get(identity)
        if series is None:
            if len(self._series) >= MAX_WATCHED:
                self.is_short = True
                return None
            series = self._series[identity] = _Series(rule, key, stream_id)
        return series

    def _restore(
        self, before: Iterable[Episode], committed: Mapping[str, int], now_ns: int
    ) -> None:
        rules = {rule.name: rule for rule in self._rules}
        stalls = {stall.rule.name: stall for stall in self._stalls}
        for episode in before:
            raised_ms = episode.raised_ns // 1_000_000
            active_id = episode.alert_id if episode.is_active else None
            if episode.rule in stalls:
                stall = stalls[episode.rule]
                stall.raised_ms, stall.active_id = raised_ms, active_id
            elif episode.rule in rules:
                series = self._find_series(rules[episode.rule], episode.key, episode.stream_id)
                if series is None:
                    continue
                series.raised_ms, series.active_id = raised_ms, active_id
                dealt_with = committed.get(episode.stream_id, 0)
                if episode.mark.before == dealt_with:
                    series.known_to = episode.mark
                elif episode.mark.before > dealt_with and episode.changed_ns <= now_ns:
                    # a cursor was lost. Later than now: the clock was set back, and tells nothing
                    series.known_to_ms = episode.changed_ns // 1_000_000


def _rate(summary: Summary, *, is_per_step: bool) -> float | None:
    first, last = summary.first, summary.last
    if summary.last is summary.first:
        return None
    span = last.step - first.step if is_per_step else (last.timestamp_ms - first.timestamp_ms) / 1e3
    return (last.value - first.value) / span if span > 0 else None
