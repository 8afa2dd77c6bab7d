"""
Reading back the dead letters of a run: what was refused, by whom, and whether it can be sent again.

A letter of the logger's (or reader's) holds key and value as text; one of the store's holds the
whole record.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.events import EventReader
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.records import ArtifactAdded, Reading, RecordRejected, RunSpec

FRAMES_PER_READ = 512

Record = Reading | tuple[str, str] | ArtifactAdded


class _Line(msgspec.Struct, frozen=True):
    """
    A line of `rejected.jsonl`.
    """

    reason: str
    call: str
    timestamp_ns: int = 0
    key: str = ""
    value: str = ""
    wanted: str = ""
    record: Any = None


@dataclass(frozen=True)
class DeadLetter:
    """
    One refused record. `wanted`: the rule it broke, or the store's words.
    """

    line: _Line
    #: As it stands in the file; None where it is still in an event lane.
    raw: bytes | None
    #: The whole of it, where the letter holds it.
    record: Record | None

    @property
    def is_of_the_store(self) -> bool:
        """
        Whether the store refused it, and not the logger.
        """
        return self.line.record is not None

    @property
    def key(self) -> str:
        """
        The record's key, or an artifact's path in the run.
        """
        match self.record:
            case Reading(key=key):
                return key
            case ArtifactAdded(artifact_path=path):
                return path
            case (str(key), _):
                return key
        return self.line.key

    @property
    def value(self) -> str:
        """
        The record's value as text, of an artifact the file.
        """
        match self.record:
            case Reading(value=value):
                return repr(value)
            case ArtifactAdded(source=source):
                return source
            case (_, str(value)):
                return value
        return self.line.value if self.line.record is None else repr(self.line.record)

    @property
    def step(self) -> int | None:
        """
        A reading's step.
        """
        return self.record.step if isinstance(self.record, Reading) else None


class DeadLetters:
    """
    The letters of one run's folder as they are now.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / spool.REJECTED_FILE
        self.letters: list[DeadLetter] = []
        #: Lines that are none.
        self._unreadable: list[bytes] = []
        seen: set[bytes] = set()
        for raw in self._lines():
            letter = _parse(raw)
            if letter is None:
                self._unreadable.append(raw)
            elif letter.is_of_the_store or raw not in seen:  # a killed sidecar repeats lines
                seen.add(raw)
                self.letters.append(letter)

    def add_unread(self, folder: Path, spec: RunSpec) -> None:
        """
        Take in those that no sidecar has read from the run's streams yet.
        """
        known = {letter.line for letter in self.letters if not letter.is_of_the_store}
        reader = RunReader(folder, spec)
        try:
            reader.discover()
            for stream in reader.streams.values():
                log = EventReader(stream.folder / layout.EVENT_LOG, stream.events_offset)
                while frames := log.read(limit=FRAMES_PER_READ):
                    events = [f.event for f in frames if isinstance(f.event, RecordRejected)]
                    lines = [msgspec.convert(msgspec.to_builtins(e), _Line) for e in events]
                    new = [line for line in lines if line not in known]
                    self.letters += [DeadLetter(line, None, None) for line in new]
        finally:
            reader.close()

    def drop_repeats(self, rejected: Mapping[str, int]) -> None:
        """
        Leave out letters of the store's that repeat another and are more than the ledger counts: a
        killed sidecar wrote them twice.
        """
        counts = Counter(letter.line.reason for letter in self.letters if letter.is_of_the_store)
        excess = {reason: counts[reason] - rejected.get(reason, 0) for reason in counts}
        seen: set[bytes] = set()
        kept = []
        for letter in self.letters:
            line = letter.line
            if letter.is_of_the_store and excess[line.reason] > 0:
                identity = msgspec.json.encode((line.reason, line.call, line.record))
                if identity in seen:
                    excess[line.reason] -= 1
                    continue
                seen.add(identity)
            kept.append(letter)
        self.letters = kept

    def keep(self, letters: Iterable[DeadLetter]) -> None:
        """
        Rewrite the file with these letters alone, whole or not at all.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        self.letters = list(letters)
        raws = [letter.raw for letter in self.letters if letter.raw is not None]
        spool.write_whole(self.path, b"".join(raw + b"\n" for raw in [*raws, *self._unreadable]))

    def remove_if_empty(self) -> None:
        """
        A run without dead letters has no file of them.
        """
        with contextlib.suppress(OSError):
            if not self.path.stat().st_size:
                self.path.unlink()

    def _lines(self) -> Iterable[bytes]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if raw := line.rstrip(b"\n"):
                        yield raw
        except FileNotFoundError:
            return


_decoder = msgspec.json.Decoder(_Line)


def _parse(raw: bytes) -> DeadLetter | None:
    try:
        line = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return DeadLetter(line, raw, _record_of(line))


def _record_of(line: _Line) -> Record | None:
    try:
        match line.call, line.record:
            case "metric", [
                str(key),
                int() | float() | str() as value,
                int(timestamp_ms),
                int(step),
            ]:
                return Reading(key, float(value), timestamp_ms, step)
            case (("param" | "tag"), [str(key), str(value)]):
                return key, value
            case "artifact", dict():
                return msgspec.convert(line.record, ArtifactAdded)
    except (ValueError, msgspec.ValidationError):
        pass
    return None


def to_plain(value: object) -> Any:
    """
    A refused record as a letter holds it: JSON has no number for what is not finite.
    """
    if isinstance(value, Reading) and not math.isfinite(value.value):
        return [value.key, repr(value.value), value.timestamp_ms, value.step]
    return msgspec.to_builtins(value)
