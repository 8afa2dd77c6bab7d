"""
The artifacts of one run that were read from its event lanes and are not in MLflow yet: a list on
disk, so that the cursors may pass them and no number waits behind a file.

`uploads.jsonl` holds a line for each artifact that came and one for what became of it. A line is
appended before a cursor says that the event is dealt with, so an artifact may be in the list and
ahead of its cursor too; it is known by its place in the event lane, and counted once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from allele_mlflow.queue import spool
from allele_mlflow.queue.lines import LineFile
from allele_mlflow.records import ArtifactAdded, Ledger


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One line. Without an artifact it says what became of the one of that number.
    """

    number: int
    stream: str = ""
    end: int = 0
    artifact: ArtifactAdded | None = None
    rejected: str | None = None


class Upload(msgspec.Struct, frozen=True):
    """
    One artifact on its way. `number` grows in the order in which they came; `end` is where its
    event ends in the event lane of `stream`.
    """

    number: int
    stream: str
    end: int
    artifact: ArtifactAdded


@dataclass(slots=True)
class _Fate:
    """
    What became of one artifact.
    """

    is_settled: bool = False
    rejected: str | None = None


class UploadList:
    """
    Of artifacts that are dealt with only their number is kept. Not thread-safe; one writer at a
    time (the lock of the run's folder sees to it).
    """

    def __init__(self, folder: Path) -> None:
        self._file = LineFile(folder / spool.UPLOADS_FILE)
        self._waiting: dict[int, Upload] = {}
        #: By artifact path the numbers of those that wait, in order.
        self._paths: dict[str, deque[int]] = {}
        #: By their place, those that may be ahead of a cursor, and what became of them.
        self._ahead: dict[tuple[str, int], _Fate] = {}
        self._delivered = 0
        self._rejected: Counter[str] = Counter()
        #: Number of the last artifact that came.
        self.last_number = 0
        #: How many do not wait any more.
        self.settled_count = 0
        for line in self._file.read(_Line):
            if line.artifact is not None:
                self._note(Upload(line.number, line.stream, line.end, line.artifact))
            else:
                self._settle(line.number, line.rejected)

    @property
    def has_unwritten(self) -> bool:
        """
        Whether a full disk kept a line from being written; see `LineFile`.
        """
        return self._file.has_unwritten

    @property
    def damage(self) -> list[str]:
        """
        What of the list could not be read, in words.
        """
        return self._file.damage

    def add(self, artifact: ArtifactAdded, *, stream: str, end: int) -> None:
        """
        An artifact was read.
        """
        if (stream, end) in self._ahead:
            return
        number = self.last_number + 1
        self._file.append(_Line(number, stream, end, artifact))
        self._note(Upload(number, stream, end, artifact))

    def settle(self, upload: Upload, rejected: str | None = None) -> None:
        """
        It is in MLflow, or with a reason it never will be.
        """
        self._file.append(_Line(upload.number, rejected=rejected))
        self._settle(upload.number, rejected)

    def find(self, number: int) -> Upload | None:
        """
        One that waits.
        """
        return self._waiting.get(number)

    def first_of(self, artifact_path: str) -> Upload | None:
        """
        The oldest that waits for its turn at a path: the last one that came is to stand there.
        """
        numbers = self._paths.get(artifact_path)
        return self._waiting[numbers[0]] if numbers else None

    def waiting(self) -> list[Upload]:
        """
        Those that are not in MLflow, in the order in which they came.
        """
        return list(self._waiting.values())

    def has_waiting(self, up_to: int | None = None) -> bool:
        """
        Whether any waits, or any of those up to a number.
        """
        first = next(iter(self._waiting), None)
        return first is not None and (up_to is None or first <= up_to)

    def ledger(self, offsets: Mapping[str, int]) -> Ledger:
        """
        What became of the artifacts that came here.

        Args:
            offsets: How far each stream's event lane was read, never less than the last time; what
                lies ahead is counted there.
        """
        passed = [place for place in self._ahead if place[1] <= offsets.get(place[0], 0)]
        for place in passed:
            fate = self._ahead.pop(place)
            if fate.is_settled:
                self._count(fate.rejected)
        ahead_and_waiting = sum(not fate.is_settled for fate in self._ahead.values())
        return Ledger(
            delivered={"artifact": self._delivered} if self._delivered else {},
            rejected=dict(self._rejected),
            pending=len(self._waiting) - ahead_and_waiting,
        )

    def _note(self, upload: Upload) -> None:
        if upload.number in self._waiting:
            return  # damage: each has a number of its own
        self.last_number = max(self.last_number, upload.number)
        self._waiting[upload.number] = upload
        self._paths.setdefault(upload.artifact.artifact_path, deque()).append(upload.number)
        self._ahead[upload.stream, upload.end] = _Fate()

    def _settle(self, number: int, rejected: str | None) -> None:
        upload = self._waiting.pop(number, None)
        if upload is None:
            return
        self.settled_count += 1
        numbers = self._paths[upload.artifact.artifact_path]
        numbers.remove(number)
        if not numbers:
            del self._paths[upload.artifact.artifact_path]
        fate = self._ahead.get((upload.stream, upload.end))
        if fate is None:
            self._count(rejected)
        else:
            fate.is_settled, fate.rejected = True, rejected

    def _count(self, rejected: str | None) -> None:
        if rejected is None:
            self._delivered += 1
        else:
            self._rejected[rejected] += 1
