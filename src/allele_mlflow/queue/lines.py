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

from allele_mlflow.queue import spool

T = TypeVar("T")


class LineFile:
    """
    One such file, which need not exist. Not thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Lines appended by this object.
        self.appended_count = 0
        self._is_whole = False

    def append(self, line: Any) -> None:
        """
        Append one document: plain data or a msgspec struct.

        Raises:
            OSError: it was not written, or only in part; the next line begins anew.
        """
        data = msgspec.json.encode(line) + b"\n"
        if not self._is_whole and not self._ends_in_a_line():
            data = b"\n" + data
        self._is_whole = False
        with open(self.path, "ab", buffering=0, opener=_private) as file:
            spool.write_all(file.fileno(), data)
        self._is_whole = True
        self.appended_count += 1

    def read(self, line_type: type[T]) -> Iterator[T]:
        """
        Every line that is one of these.
        """
        decoder = msgspec.json.Decoder(line_type)
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for data in file:
                try:
                    yield decoder.decode(data)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue

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
