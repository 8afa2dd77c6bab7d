"""
The files that the sidecar keeps beside a run's streams: phases, errors and dead letters, a line
each.

A line is appended before the cursor says that its record is dealt with, so a killed sidecar repeats
lines and loses none; whoever reads them counts each phase and error once. A line that was cut short
(a kill, a full disk) is closed off before the next one, and passed over by who reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.queue import spool
from allele_mlflow.queue.stream_reader import PhaseEdge
from allele_mlflow.records import ErrorLogged, RecordRejected
from allele_mlflow.sampling.phases import OpenPhase, PhaseRow, PhaseTracker

T = TypeVar("T")

ERRORS_FILE = "errors.jsonl"
MAX_DEAD_LETTERS = 100_000


class RunFiles:
    """
    Appends to and reads back the line files of one run. Not thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.phases = PhaseTracker()
        #: Lines appended so far.
        self.line_count = 0
        self._letters = 0
        self._is_closed_off: set[str] = set()
        self._restore_open_phases()

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
            self._append(spool.PHASES_FILE, {"begin": msgspec.to_builtins(phase)})
            return
        row = self.phases.end(
            edge.stream_id, edge.instance, timestamp_ns=edge.timestamp_ns, cpu_s=edge.cpu_s
        )
        if row is not None:
            self._append(spool.PHASES_FILE, {"row": msgspec.to_builtins(row)})

    def close_phases(self, end_ns: int) -> None:
        """
        The run is over: phases that are still open end here, as incomplete.
        """
        for row in self.phases.close_open(end_ns):
            self._append(spool.PHASES_FILE, {"row": msgspec.to_builtins(row)})

    def phase_rows(self) -> Iterator[PhaseRow]:
        """
        Every closed phase, perhaps some twice.
        """
        for line in self._lines(spool.PHASES_FILE):
            row = _converted(line.get("row"), PhaseRow)
            if row is not None:
                yield row

    def note_error(self, error: ErrorLogged) -> None:
        """
        Keep an error.
        """
        self._append(ERRORS_FILE, msgspec.to_builtins(error))

    def errors(self) -> list[dict[str, Any]]:
        """
        The errors in order, each once.
        """
        found: dict[str, dict[str, Any]] = {}
        for line in self._lines(ERRORS_FILE):
            error = _converted(line, ErrorLogged)
            if error is not None:
                line.pop("type", None)
                line["time"] = utc_iso(error.timestamp_ns)
                found.setdefault(json.dumps(line, sort_keys=True), line)
        return list(found.values())

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
                "record": msgspec.to_builtins(value),
                "wanted": words,
            }
        )

    @property
    def rejected_path(self) -> Path:
        """
        The dead letters; may not exist.
        """
        return self.folder / spool.REJECTED_FILE

    def _reject(self, line: dict[str, Any]) -> None:
        self._letters += 1
        if self._letters <= MAX_DEAD_LETTERS:
            self._append(spool.REJECTED_FILE, line)

    def _begin(self, phase: OpenPhase) -> None:
        self.phases.begin(
            phase.stream_id,
            phase.instance,
            name=phase.name,
            step=phase.step,
            timestamp_ns=phase.begin_ns,
            cpu_s=phase.cpu_s,
        )

    def _restore_open_phases(self) -> None:
        begun: dict[tuple[str, int], OpenPhase] = {}
        for line in self._lines(spool.PHASES_FILE):
            phase = _converted(line.get("begin"), OpenPhase)
            row = _converted(line.get("row"), PhaseRow)
            if phase is not None:
                begun[phase.stream_id, phase.instance] = phase
            if row is not None:
                begun.pop((row.span.stream_id, row.span.instance), None)
        for phase in begun.values():
            self._begin(phase)

    def _append(self, name: str, line: dict[str, Any]) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if name not in self._is_closed_off and not self._ends_in_a_line(name):
            data = b"\n" + data
        self._is_closed_off.discard(name)  # as long as it is not whole
        with open(self.folder / name, "ab", buffering=0, opener=_private) as file:
            spool.write_all(file.fileno(), data)
        self._is_closed_off.add(name)
        self.line_count += 1

    def _ends_in_a_line(self, name: str) -> bool:
        try:
            with (self.folder / name).open("rb") as file:
                return file.seek(0, os.SEEK_END) == 0 or (
                    file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n"
                )
        except FileNotFoundError:
            return True

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        try:
            file = (self.folder / name).open("rb")
        except OSError:
            return
        with file:
            for data in file:
                try:
                    line = msgspec.json.decode(data)
                except msgspec.DecodeError:
                    continue  # a line that was cut short
                if isinstance(line, dict):
                    yield line


def _converted(value: object, struct: type[T]) -> T | None:
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
