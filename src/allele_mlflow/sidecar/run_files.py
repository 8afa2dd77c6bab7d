"""
The files that the sidecar keeps beside a run's streams: phases, errors and dead letters, a line
each.

A line is appended before the cursor says that its record is dealt with, so a killed sidecar repeats
lines and loses none; whoever reads them counts each phase and error once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.queue import spool
from allele_mlflow.queue.lines import LineFile
from allele_mlflow.queue.stream_reader import PhaseEdge
from allele_mlflow.records import ErrorLogged, RecordRejected
from allele_mlflow.sampling.phases import OpenPhase, PhaseRow, PhaseTracker
from allele_mlflow.sidecar.alert_files import AlertFiles
from allele_mlflow.sidecar.dead_letters import to_plain

MAX_DEAD_LETTERS = 100_000
#: Errors that are listed one by one; the others are counted.
MAX_ERRORS = 10_000
#: Closed phases that are remembered, for who watches.
LAST_CLOSED = 20


class _PhaseLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A phase began, or it is over.
    """

    begin: OpenPhase | None = None
    row: PhaseRow | None = None


@dataclass
class LoggedErrors:
    """
    The errors of a run: the first of them, and how many there are, in all and of each kind.
    """

    first: list[ErrorLogged] = field(default_factory=list)
    last: ErrorLogged | None = None
    #: Why somebody who watched the run ended it; None where nobody did.
    verdict: ErrorLogged | None = None
    count: int = 0
    by_fingerprint: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        """
        What `allele/errors.json` holds.
        """
        errors = []
        for error in self.first:
            line = msgspec.to_builtins(error)
            line.pop("type", None)
            errors.append(line | {"time": utc_iso(error.timestamp_ns)})
        return {
            "format": 1,
            "count": self.count,
            "by_fingerprint": dict(self.by_fingerprint),
            "errors": errors,
        }


class RunFiles:
    """
    Appends to and reads back the line files of one run. Not thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self.phases = PhaseTracker()
        self.alerts = AlertFiles(folder)
        #: The phases that were closed last, oldest first.
        self.last_closed: deque[PhaseRow] = deque(maxlen=LAST_CLOSED)
        self._phase_lines = LineFile(folder / spool.PHASES_FILE)
        self._error_lines = LineFile(folder / spool.ERRORS_FILE)
        self._letter_lines = LineFile(folder / spool.REJECTED_FILE, is_checked=False)
        self._letters = 0
        self._restore_open_phases()

    @property
    def line_count(self) -> int:
        """
        Lines appended so far, to see whether there is anything new.
        """
        files = (self._phase_lines, self._error_lines, self._letter_lines)
        return sum(file.appended_count for file in files) + self.alerts.line_count

    @property
    def has_unwritten(self) -> bool:
        """
        Whether a full disk kept a line from being written; see `LineFile`.
        """
        files = (self._phase_lines, self._error_lines, self._letter_lines)
        return any(file.has_unwritten for file in files) or self.alerts.has_unwritten

    @property
    def damage(self) -> list[str]:
        """
        What could not be read so far, in words.
        """
        return [*self._phase_lines.damage, *self._error_lines.damage, *self.alerts.damage]

    @property
    def rejected_path(self) -> Path:
        """
        The dead letters; may not exist.
        """
        return self._letter_lines.path

    def note_edge(self, edge: PhaseEdge) -> None:
        """
        Keep a phase edge; a phase that ends becomes a row.
        """
        if edge.is_begin:
            phase = OpenPhase(
                stream_id=edge.stream_id,
                instance=edge.instance,
                name=edge.name,
                step=edge.step,
                begin_ns=edge.timestamp_ns,
                cpu_s=edge.cpu_s,
            )
            self._begin(phase)
            self._phase_lines.append(_PhaseLine(begin=phase))
            return
        row = self.phases.end(
            edge.stream_id, edge.instance, timestamp_ns=edge.timestamp_ns, cpu_s=edge.cpu_s
        )
        if row is not None:
            self._note_closed(row)

    def close_phases(self, end_ns: int) -> None:
        """
        The run is over: phases that are still open end here, as incomplete.
        """
        for row in self.phases.close_open(end_ns):
            self._note_closed(row)

    def phase_rows(self) -> Iterator[PhaseRow]:
        """
        Every closed phase, perhaps some twice.
        """
        for line in self._phase_lines.read(_PhaseLine):
            if line.row is not None:
                yield line.row

    def note_error(self, error: ErrorLogged) -> None:
        """
        Keep an error.
        """
        self._error_lines.append(error)

    def has_error(self, timestamp_ns: int, fingerprint: str) -> bool:
        """
        Whether an error of that moment and fingerprint was kept.
        """
        return any(
            (error.timestamp_ns, error.fingerprint) == (timestamp_ns, fingerprint)
            for error in self._error_lines.read(ErrorLogged)
        )

    def has_verdict(self) -> bool:
        """
        Whether somebody who watched the run has said why it was ended.
        """
        return any(error.ends_run for error in self._error_lines.read(ErrorLogged))

    def errors(self) -> LoggedErrors:
        """
        The errors in order, each once.
        """
        found = LoggedErrors()
        seen: set[int] = set()
        for error in self._error_lines.read(ErrorLogged):
            identity = hash(error)
            if identity in seen:
                continue
            seen.add(identity)
            found.count += 1
            found.by_fingerprint[error.fingerprint] += 1
            found.last = error
            if error.ends_run:
                found.verdict = error
            if found.count <= MAX_ERRORS:
                found.first.append(error)
        return found

    def note_rejected(self, letter: RecordRejected) -> None:
        """
        Keep a record that the logger or the reader refused.
        """
        self._reject(msgspec.to_builtins(letter))

    def note_refused(self, kind: str, value: object, reason: str, words: str) -> None:
        """
        Keep a record that the store refused, with the store's words.
        """
        self._reject(
            {
                "timestamp_ns": now_ns(),
                "reason": reason,
                "call": kind,
                "record": to_plain(value),
                "wanted": words,
            }
        )

    def _reject(self, line: dict[str, Any]) -> None:
        self._letters += 1
        if self._letters <= MAX_DEAD_LETTERS:
            self._letter_lines.append(line)

    def _begin(self, phase: OpenPhase) -> None:
        self.phases.begin(
            phase.stream_id,
            phase.instance,
            name=phase.name,
            step=phase.step,
            timestamp_ns=phase.begin_ns,
            cpu_s=phase.cpu_s,
        )

    def _note_closed(self, row: PhaseRow) -> None:
        self._phase_lines.append(_PhaseLine(row=row))
        self.last_closed.append(row)

    def _restore_open_phases(self) -> None:
        begun: dict[tuple[str, int], OpenPhase] = {}
        for line in self._phase_lines.read(_PhaseLine):
            if line.begin is not None:
                begun[line.begin.stream_id, line.begin.instance] = line.begin
            if line.row is not None:
                self.last_closed.append(line.row)
                begun.pop((line.row.span.stream_id, line.row.span.instance), None)
        for phase in begun.values():
            self._begin(phase)
