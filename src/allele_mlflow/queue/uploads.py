"""
The artifacts of one run that were read from its event lanes and are not in MLflow yet: a list on
disk, so that the cursors may pass them and no number waits behind a file.

`uploads.jsonl` holds a line for each artifact that came and one for what became of it. A line is
appended before a cursor says that the event is dealt with, so a killed sidecar may meet an artifact
again; it is known by its source and path.
"""

from __future__ import annotations

from collections import Counter
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
    artifact: ArtifactAdded | None = None
    rejected: str | None = None


class Upload(msgspec.Struct, frozen=True):
    """
    One artifact on its way. `number` grows in the order in which they came.
    """

    number: int
    artifact: ArtifactAdded


class UploadList:
    """
    Not thread-safe; one writer at a time (the lock of the run's folder sees to it).
    """

    def __init__(self, folder: Path) -> None:
        self._file = LineFile(folder / spool.UPLOADS_FILE)
        self._waiting: dict[int, Upload] = {}
        self._known: set[tuple[str, str]] = set()
        self._delivered = 0
        self._rejected: Counter[str] = Counter()
        #: Number of the last artifact that came.
        self.last_number = 0
        for line in self._file.read(_Line):
            if line.artifact is not None:
                self._note(Upload(line.number, line.artifact))
            else:
                self._settle(line.number, line.rejected)

    def add(self, artifact: ArtifactAdded) -> None:
        """
        An artifact was read.

        Raises:
            OSError: it cannot be kept; read it again.
        """
        if _identity(artifact) in self._known:
            return
        upload = Upload(self.last_number + 1, artifact)
        self._file.append(_Line(upload.number, artifact))
        self._note(upload)

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

    def ledger(self) -> Ledger:
        """
        What became of the artifacts that came here.
        """
        delivered = {"artifact": self._delivered} if self._delivered else {}
        return Ledger(
            delivered=delivered, rejected=dict(self._rejected), pending=len(self._waiting)
        )

    def _note(self, upload: Upload) -> None:
        self.last_number = max(self.last_number, upload.number)
        if _identity(upload.artifact) not in self._known:
            self._known.add(_identity(upload.artifact))
            self._waiting[upload.number] = upload

    def _settle(self, number: int, rejected: str | None) -> None:
        if self._waiting.pop(number, None) is None:
            return
        if rejected is None:
            self._delivered += 1
        else:
            self._rejected[rejected] += 1


def _identity(artifact: ArtifactAdded) -> tuple[str, str]:
    return artifact.source, artifact.artifact_path
