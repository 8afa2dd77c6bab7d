"""
Files of one JSON document a line, appended to and read back.

A line that was cut short (a kill, a full disk) is closed off before the next one, and passed over
by who reads, as is one that does not say what is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import spool

T = TypeVar("T")
#: How long a file rests that could not be written.
RETRY_S = 0.25


class LineFile:
    """
    One such file, which need not exist. Not thread-safe.

    Where the disk is full, lines are held in memory until it has room: they are read like the
    others, and are lost with the process, so no cursor may pass their records before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Lines appended by this object.
        self.appended_count = 0
        self._is_whole = False
        self._unwritten: list[bytes] = []
        self._retry_at_s = 0.0

    @property
    def has_unwritten(self) -> bool:
        """
        Whether a line is not on the disk, after another try.
        """
        if self._unwritten and now_monotonic_s() >= self._retry_at_s:
            self._write()
        return bool(self._unwritten)

    def append(self, line: Any) -> None:
        """
        Append one document: plain data or a msgspec struct.
        """
        self._unwritten.append(msgspec.json.encode(line) + b"\n")
        self.appended_count += 1
        if now_monotonic_s() >= self._retry_at_s:
            self._write()

    def read(self, line_type: type[T]) -> Iterator[T]:
        """
        Every line that is one of these.
        """
        decoder = msgspec.json.Decoder(line_type)
        for data in self._lines():
            try:
                yield decoder.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue

    def _lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                yield from file
        except FileNotFoundError:
            pass
        yield from tuple(self._unwritten)

    def _write(self) -> None:
        data = b"".join(self._unwritten)
        try:
            if not self._is_whole and not self._ends_in_a_line():
                data = b"\n" + data
            self._is_whole = False
            with open(self.path, "ab", buffering=0, opener=_private) as file:
                spool.write_all(file.fileno(), data)
        except OSError:
            self._retry_at_s = now_monotonic_s() + RETRY_S
            return  # the next line, or who asks, tries again; one cut short is closed off
        self._is_whole = True
        self._unwritten.clear()

    def _ends_in_a_line(self) -> bool:
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) == 0:
                    return True
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
        except FileNotFoundError:
            return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
