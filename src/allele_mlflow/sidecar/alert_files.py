"""
The files of what a run was told to look at: alerts, recommendations and predictions, a line each.

As in `run_files`, a line is appended before the cursor passes its record, so a killed sidecar
repeats lines and loses none; whoever reads them counts each once, by its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from allele_mlflow.alerts.findings import Episode, Mark, Resolved
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.events import EventReader
from allele_mlflow.queue.lines import LineFile
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.records import (
    AlertRaised,
    AlertStatus,
    PredictionMade,
    RecommendationMade,
    RunSpec,
)

#: Alerts that are listed one by one; the others are counted. The same of advice.
MAX_ALERTS = 10_000
FRAMES_PER_READ = 200


class NearbySample(msgspec.Struct, frozen=True):
    """
    A resource sample near an alert.
    """

    timestamp_ns: int
    values: dict[str, float]


class PlacedAlert(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    An alert with what was known of its surroundings when it was read.

    Attributes:
        alert: As it was told or found.
        stream_id: Of the process that it is about, "" where it is about all.
        phase: The innermost phase around it.
        step: Its own, else that of the phase, else of the last reading before it.
        sample: The nearest resource sample.
        is_sure: Which phase, or that there is none, is known by the order in which the process
            logged, and not by time alone.
        before: With `nth` the mark of the reading that a rule found it at; see `findings.Mark`.
    """

    alert: AlertRaised
    stream_id: str = ""
    phase: str | None = None
    step: int | None = None
    sample: NearbySample | None = None
    is_sure: bool = False
    before: int = -1
    nth: int = 0


class _Nearer(msgspec.Struct, frozen=True):
    """
    A sample that came after an alert and is nearer to it.
    """

    alert_id: str
    sample: NearbySample


class _Over(msgspec.Struct, frozen=True):
    """
    An alert of a rule is over.
    """

    alert_id: str
    timestamp_ns: int
    before: int = -1
    nth: int = 0


class _AlertLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One of these.
    """

    raised: PlacedAlert | None = None
    over: _Over | None = None
    nearer: _Nearer | None = None


class _AdviceLine(msgspec.Struct, frozen=True):
    """
    A recommendation or a prediction.
    """

    advice: RecommendationMade | PredictionMade


@dataclass
class KeptAlert:
    """
    One alert, and what became of it.
    """

    placed: PlacedAlert
    status: AlertStatus
    resolved_ns: int | None = None


@dataclass
class KeptAlerts:
    """
    The alerts of a run, each once: the first of them, how many of each severity, how many active.
    """

    first: list[KeptAlert] = field(default_factory=list)
    by_severity: Counter[str] = field(default_factory=Counter)
    active: int = 0

    @property
    def count(self) -> int:
        """
        How many there are.
        """
        return sum(self.by_severity.values())


class AlertFiles:
    """
    Appends to and reads back these files of one run. Not thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self._alert_lines = LineFile(folder / spool.ALERTS_FILE)
        self._advice_lines = LineFile(folder / spool.ADVICE_FILE)

    @property
    def line_count(self) -> int:
        """
        Lines appended so far.
        """
        return self._alert_lines.appended_count + self._advice_lines.appended_count

    @property
    def has_unwritten(self) -> bool:
        """
        Whether a full disk kept a line from being written; see `LineFile`.
        """
        return any(file.has_unwritten for file in (self._alert_lines, self._advice_lines))

    @property
    def damage(self) -> list[str]:
        """
        What could not be read so far, in words.
        """
        return [*self._alert_lines.damage, *self._advice_lines.damage]

    def note_raised(self, placed: PlacedAlert) -> None:
        """
        Keep an alert.
        """
        self._alert_lines.append(_AlertLine(raised=placed))

    def note_resolved(self, resolved: Resolved) -> None:
        """
        Keep that an alert of a rule is over.
        """
        over = _Over(resolved.alert_id, resolved.timestamp_ns, *resolved.mark)
        self._alert_lines.append(_AlertLine(over=over))

    def note_nearer(self, alert_id: str, sample: NearbySample) -> None:
        """
        Keep a sample that is nearer to an alert than the one that it was kept with.
        """
        self._alert_lines.append(_AlertLine(nearer=_Nearer(alert_id, sample)))

    def note_advice(self, advice: RecommendationMade | PredictionMade) -> None:
        """
        Keep a recommendation or a prediction.
        """
        self._advice_lines.append(_AdviceLine(advice))

    def alerts(self, more: Iterable[PlacedAlert] = ()) -> KeptAlerts:
        """
        The alerts in order, with `more` behind them.
        """
        found = KeptAlerts()
        known: dict[str, KeptAlert] = {}
        by_source: dict[str, KeptAlert] = {}
        for line in self._alert_lines.read(_AlertLine):
            if line.raised is not None:
                _take_in(line.raised, found, known, by_source)
            elif line.over is not None and line.over.alert_id in known:
                kept = known[line.over.alert_id]
                if kept.resolved_ns is None:
                    kept.status, kept.resolved_ns = "resolved", line.over.timestamp_ns
            elif line.nearer is not None and line.nearer.alert_id in known:
                kept = known[line.nearer.alert_id]
                kept.placed = msgspec.structs.replace(kept.placed, sample=line.nearer.sample)
        for placed in more:
            _take_in(placed, found, known, by_source)
        found.active = len({id(one) for one in known.values() if one.status != "resolved"})
        return found

    def known_ids(self) -> frozenset[str]:
        """
        The ids of all alerts that were kept.
        """
        lines = self._alert_lines.read(_AlertLine)
        return frozenset(one.raised.alert.alert_id for one in lines if one.raised is not None)

    def recommendations(self) -> Iterator[RecommendationMade]:
        """
        The recommendations in order, each once.
        """
        for advice in self._advice():
            if isinstance(advice, RecommendationMade):
                yield advice

    def predictions(self) -> Iterator[PredictionMade]:
        """
        The predictions in order, each once.
        """
        for advice in self._advice():
            if isinstance(advice, PredictionMade):
                yield advice

    def episodes(self) -> list[Episode]:
        """
        The last alert of each rule, key and process, for an evaluation that begins again.
        """
        last: dict[tuple[str, str, str], Episode] = {}
        places: dict[str, tuple[str, str, str]] = {}
        for line in self._alert_lines.read(_AlertLine):
            placed, over = line.raised, line.over
            if placed is not None and placed.alert.source == "rule":
                alert = placed.alert
                place = (alert.rule or "", alert.metric or "", placed.stream_id)
                if alert.alert_id not in places:
                    places[alert.alert_id] = place
                    time_ns = alert.timestamp_ns
                    mark = Mark(placed.before, placed.nth)
                    last[place] = Episode(*place, alert.alert_id, time_ns, time_ns, True, mark)
            elif over is not None and over.alert_id in places:
                place = places[over.alert_id]
                if last[place].alert_id == over.alert_id:
                    last[place] = last[place]._replace(
                        changed_ns=over.timestamp_ns,
                        is_active=False,
                        mark=Mark(over.before, over.nth),
                    )
        return list(last.values())

    def _advice(self) -> Iterator[RecommendationMade | PredictionMade]:
        seen: set[str] = set()
        for line in self._advice_lines.read(_AdviceLine):
            if line.advice.advice_id not in seen:
                seen.add(line.advice.advice_id)
                yield line.advice


def _take_in(
    placed: PlacedAlert,
    found: KeptAlerts,
    known: dict[str, KeptAlert],
    by_source: dict[str, KeptAlert],
) -> None:
    alert = placed.alert
    if alert.alert_id in known:
        return
    earlier = by_source.get(alert.source_id) if alert.source_id is not None else None
    if earlier is not None and alert.status != "active":
        known[alert.alert_id] = earlier  # the sender's word on one that it told before
        earlier.status = alert.status
        if alert.status == "resolved":
            earlier.resolved_ns = alert.timestamp_ns
        return
    is_listed = len(found.first) < MAX_ALERTS
    if not is_listed:  # it is counted, and may be over one day
        placed = PlacedAlert(msgspec.structs.replace(alert, message="", context={}))
    kept = KeptAlert(placed, alert.status)
    known[alert.alert_id] = kept
    if alert.source_id is not None:
        by_source[alert.source_id] = kept
    found.by_severity[alert.severity] += 1
    if is_listed:
        found.first.append(kept)


def unread_alerts(folder: Path, spec: RunSpec) -> Iterator[PlacedAlert]:
    """
    Alerts of the program's that no sidecar has read from the run's streams yet; changes nothing.
    """
    reader = RunReader(folder, spec)
    try:
        reader.discover()
        for stream in reader.streams.values():
            log = EventReader(stream.folder / layout.EVENT_LOG, stream.events_offset)
            while frames := log.read(limit=FRAMES_PER_READ):
                for event, _ in frames:
                    if isinstance(event, AlertRaised):
                        yield PlacedAlert(
                            event, stream_id=stream.stream_id, phase=event.phase, step=event.step
                        )
    finally:
        reader.close()
