"""
The alerts of one run: those that its program tells, and those that its rules find in what is read.

Everything happens where the delivery takes in what it read: rules see every reading, thinned or
not, and what they raise is on the disk before the cursor passes the reading. What was raised before
a kill is known again by its id.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence

import msgspec

from allele_mlflow.alerts.evaluation import Evaluator
from allele_mlflow.alerts.findings import NO_MARK, Finding, Mark, Raised
from allele_mlflow.alerts.rules import decode_rules
from allele_mlflow.clock import now_monotonic_s, now_ns
from allele_mlflow.queue.run_reader import RunReader, StreamChunk
from allele_mlflow.queue.stream_reader import Chunk, StreamReader
from allele_mlflow.records import (
    AlertRaised,
    PredictionMade,
    Reading,
    RecommendationMade,
    RunSpec,
    RunState,
)
from allele_mlflow.sidecar.alert_document import describe_alert
from allele_mlflow.sidecar.alert_files import KeptAlert, NearbySample, PlacedAlert
from allele_mlflow.sidecar.alert_place import Moment, OrderedPhases, innermost, surest
from allele_mlflow.sidecar.hooks import Hooks
from allele_mlflow.sidecar.run_files import RunFiles

_logger = logging.getLogger(__name__)

TICK_EVERY_S = 0.5
#: Resource samples that are remembered, and alerts that wait for the next one.
SAMPLES = 8
MOST_WAITING = 100
#: Longest text of the last alert in the run's status.
TOLD_CHARACTERS = 300


class RunAlerts:
    """
    For the event loop; not thread-safe.

    Args:
        spec: What the logger wrote about the run.
        files: Where alerts are kept, and which phases are open.
        state: The run's status, which hooks are told of.
        reader: What is read from, as it is before the first read.
    """

    def __init__(self, spec: RunSpec, files: RunFiles, state: RunState, reader: RunReader) -> None:
        self._spec = spec
        self._files = files
        self._state = state
        self.hooks = Hooks(spec)
        rules, problems = decode_rules(spec.alert_rules)
        for problem in problems:
            _logger.warning("run %s: rule of alerts left out: %s", spec.run_uid, problem)
        kept = files.alerts.alerts()
        reader.discover()
        self._evaluator = Evaluator(
            rules,
            started_ns=now_ns(),
            before=files.alerts.episodes(),
            committed={one.stream_id: one.totals.accepted for one in reader.streams.values()},
            now_ns=now_ns(),
        )
        #: Those of before, which may be read again.
        self._known = files.alerts.known_ids()
        self._counts: Counter[str] = kept.by_severity
        #: Ids by which senders may say that an alert is over.
        self._sources = {one.placed.alert.source_id for one in kept.first}
        self._last = _told(kept.first[-1].placed.alert) if kept.first else None
        self._samples: deque[NearbySample] = deque(maxlen=SAMPLES)
        self._phases = OrderedPhases(files.phases.recent_spans())
        self._waiting: deque[PlacedAlert] = deque(maxlen=MOST_WAITING)
        self._ticked_s = now_monotonic_s()
        self._was_short = False

    def take_in(self, found: StreamChunk) -> None:
        """
        Evaluate the rules for what was read; its phases are noted already.
        """
        stream, chunk = found
        if stream.is_sampler:
            self._take_samples(chunk.readings)
        if self._evaluator.wants_readings:
            self._evaluate(stream, chunk)
        if self._evaluator.wants_signs:
            others = [edge.timestamp_ns for edge in chunk.edges]
            others += [frame.event.timestamp_ns for frame in chunk.events]
            findings = self._evaluator.take_signs(
                stream.stream_id,
                chunk.readings,
                is_resource=stream.is_sampler,
                others_ms=[] if stream.is_sampler else [one // 1_000_000 for one in others],
            )
            self._settle(findings)

    def _evaluate(self, stream: StreamReader, chunk: Chunk) -> None:
        """
        Evaluate the readings between one phase edge and the next: so it is known which phase each
        is in, where a millisecond has several.
        """
        before, done = stream.totals.accepted, 0
        for edge in (*chunk.edges, None):
            end = len(chunk.readings) if edge is None else edge.readings_before
            if end > done:
                part = chunk.readings[done:end] if done or edge else chunk.readings
                self._settle(self._evaluator.take(stream.stream_id, part, before=before))
                done = end
            if edge is not None:
                self._phases.note(edge)
        if self._evaluator.is_short and not self._was_short:
            self._was_short = True
            _logger.warning(
                "run %s: rules of alerts match more keys than are watched", self._spec.run_uid
            )

    def take_alert(self, stream_id: str, alert: AlertRaised) -> None:
        """
        Keep an alert of the program's.
        """
        self._keep(alert, stream_id)

    def take_advice(self, advice: RecommendationMade | PredictionMade) -> None:
        """
        Keep a recommendation or a prediction.
        """
        self._files.alerts.note_advice(advice)

    def tick(self, reader: RunReader, *, read_s: float) -> None:
        """
        Look for stalls, where it is time to; only while the program lives.

        Args:
            reader: Of the run.
            read_s: When everything was read last, on the monotonic clock.
        """
        now_s = now_monotonic_s()
        if not self._evaluator.wants_signs or now_s - self._ticked_s < TICK_EVERY_S:
            return
        self._ticked_s = now_s
        present_ns = now_ns()
        findings = self._evaluator.tick(
            present_ns,
            read_ns=present_ns - int((now_s - read_s) * 1e9),
            newest_ns=reader.newest_ns() if self._evaluator.wants_newest else 0,
        )
        self._settle(findings)

    def publish(self, state: RunState) -> None:
        """
        Say in the run's status how many alerts there are, and which was the last.
        """
        state.alert_counts = dict(self._counts)
        state.last_alert = self._last

    def _settle(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if isinstance(finding, Raised):
                self._keep(finding.alert, finding.stream_id, finding.mark)
            else:
                self._files.alerts.note_resolved(finding)

    def _keep(self, alert: AlertRaised, stream_id: str, mark: Mark = NO_MARK) -> None:
        if alert.alert_id in self._known:
            return
        placed = self._place(alert, stream_id, mark)
        self._files.alerts.note_raised(placed)
        if placed.sample is None or placed.sample.timestamp_ns < alert.timestamp_ns:
            self._waiting.append(placed)
        is_told_before = alert.source_id in self._sources and alert.status != "active"
        if alert.source_id is not None:
            self._sources.add(alert.source_id)
        if is_told_before:
            return  # the sender's word on what became of it
        self._counts[alert.severity] += 1
        self._last = _told(alert)
        if alert.status == "active":
            self.hooks.offer(alert, lambda left_out: self._payload(placed, left_out))

    def _place(self, alert: AlertRaised, stream_id: str, mark: Mark) -> PlacedAlert:
        phases = self._files.phases
        moment = Moment(alert.timestamp_ns, stream_id, alert.step)
        spans = phases.recent_spans()
        is_sure = mark != NO_MARK and self._phases.has_any(stream_id)
        if is_sure:
            span = surest(moment, self._phases.innermost(stream_id), spans)
        else:
            span = innermost(moment, spans)
        step = alert.step
        if step is None and span is not None:
            step = span.step
        if step is None:
            step = phases.step_for_sample(alert.timestamp_ns)
        return PlacedAlert(
            alert,
            stream_id=stream_id,
            phase=alert.phase or (span.name if span is not None else None),
            step=step,
            sample=self._nearest(alert.timestamp_ns),
            is_sure=is_sure,
            before=mark.before,
            nth=mark.nth,
        )

    def _nearest(self, timestamp_ns: int) -> NearbySample | None:
        return min(
            self._samples, key=lambda one: abs(one.timestamp_ns - timestamp_ns), default=None
        )

    def _take_samples(self, readings: Sequence[Reading]) -> None:
        """
        Remember resource samples, and give them to the alerts that they are nearer to.
        """
        for reading in readings:
            timestamp_ns = reading.timestamp_ms * 1_000_000
            last = self._samples[-1] if self._samples else None
            if last is None or last.timestamp_ns != timestamp_ns:
                last = NearbySample(timestamp_ns, {})
                self._samples.append(last)
            last.values[reading.key] = reading.value
        if not (readings and self._waiting):
            return
        newest_ns = self._samples[-1].timestamp_ns
        for placed in list(self._waiting):
            alert = placed.alert
            nearest = self._nearest(alert.timestamp_ns)
            if nearest is not None and nearest is not placed.sample:
                self._files.alerts.note_nearer(alert.alert_id, nearest)
            if newest_ns >= alert.timestamp_ns:
                self._waiting.remove(placed)

    def _payload(self, placed: PlacedAlert, left_out: int) -> bytes:
        spec, state, alert = self._spec, self._state, placed.alert
        text = _told(alert)
        told = {
            "text": text,  # what Slack shows
            "content": text,  # what Discord shows
            "alert": describe_alert(KeptAlert(placed, alert.status), None, spec),
            "run": {
                "run_uid": spec.run_uid,
                "experiment": spec.experiment,
                "run_name": spec.run_name,
                "run_id": state.run_id,
                "run_url": state.run_url,
            },
            "calls_left_out": left_out,
        }
        return msgspec.json.encode(told)


def _told(alert: AlertRaised) -> str:
    text = f"{alert.severity}: {alert.name}" + (f": {alert.message}" if alert.message else "")
    return text if len(text) <= TOLD_CHARACTERS else f"{text[: TOLD_CHARACTERS - 3]}..."
