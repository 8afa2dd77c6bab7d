"""
The artifacts of one run that were read from its event lanes and are not in MLflow yet: a list on
disk, so that the cursors may pass them and no number waits behind a file.

`uploads.jsonl` holds a line for each artifact that came and one for what became of it. A line is
appended before a cursor says that the event is dealt with, so an artifact may be in the list and
ahead of its cursor too; it is known by its place in the event lane, and counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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


class UploadList:
    """
    Not thread-safe; one writer at a time (the lock of the run's folder sees to it).
    """

    def __init__(self, folder: Path) -> None:
        self._file = LineFile(folder / spool.UPLOADS_FILE)
        self._uploads: dict[int, Upload] = {}
        self._waiting: dict[int, Upload] = {}
        self._rejected: dict[int, str] = {}
        self._places: set[tuple[str, int]] = set()
        #: Number of the last artifact that came.
        self.last_number = 0
        for line in self._file.read(_Line):
            if line.artifact is not None:
                self._note(Upload(line.number, line.stream, line.end, line.artifact))
            else:
                self._settle(line.number, line.rejected)

    def add(self, artifact: ArtifactAdded, *, stream: str, end: int) -> None:
        """
        An artifact was read.

        Raises:
            OSError: it cannot be kept; read it again.
        """
        if (stream, end) in self._places:
            return
        number = self.last_number + 1
        self._file.append(_Line(number, stream, end, artifact))
        self._note(Upload(number, stream, end, artifact))

    def settle(self, upload: Upload, rejected: str | None = None) -> None:
        """
        It is in MLflow, or with a reason it never will be.

        Raises:
            OSError: that cannot be kept; the artifact is uploaded once more.
        """
        self._file.append(_Line(upload.number, rejected=rejected))
        self._settle(upload.number, rejected)

    def waiting(self) -> list[Upload]:
        """
        Those that are not in MLflow, in the order in which they came.
        """
        return list(self._waiting.values())

    def has_waiting(self, up_to: int | None = None) -> bool:
        """
        Whether any waits, or any of those up to a number.
        """
        if up_to is None:
            return bool(self._waiting)
        return any(number <= up_to for number in self._waiting)

    @property
    def settled_count(self) -> int:
        """
        How many do not wait any more.
        """
        return len(self._uploads) - len(self._waiting)

    def ledger(self, offsets: Mapping[str, int]) -> Ledger:
        """
        What became of the artifacts that came here.

        Args:
            offsets: How far each stream's event lane was read; what lies ahead is counted there.
        """
        ahead = {
            number
            for number, upload in self._uploads.items()
            if upload.end > offsets.get(upload.stream, 0)
        }
        rejected = Counter(why for number, why in self._rejected.items() if number not in ahead)
        pending = len(self._waiting.keys() - ahead)
        delivered = len(self._uploads) - len(ahead) - rejected.total() - pending
        return Ledger(
            delivered={"artifact": delivered} if delivered else {},
            rejected=dict(rejected),
            pending=pending,
        )

    def _note(self, upload: Upload) -> None:
        self.last_number = upload.number
        self._places.add((upload.stream, upload.end))
        self._uploads[upload.number] = self._waiting[upload.number] = upload

    def _settle(self, number: int, rejected: str | None) -> None:
        if self._waiting.pop(number, None) is not None and rejected is not None:
            self._rejected[number] = rejected
