"""
Files of one JSON document a line, appended to and read back.

A line that was cut short (a kill, a full disk) is closed off before the next one, and passed over
by who reads: its record comes again. One that is damaged is passed over too, and told of. The last
pair of a line is the CRC-32 of everything before that number; one without is damaged.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import spool

T = TypeVar("T")
#: How long a file rests that could not be written.
RETRY_S = 0.25
CHECK_KEY = b'"check":'
#: Places of damage that are told one by one; the last one reaches to the end of the rest.
MAX_PLACES = 20
_checks = re.compile(rb'[{,]"check":(\d+)}')


class LineFile:
    """
    One such file, which need not exist. Not thread-safe.

    Where the disk is full, lines are held in memory until it has room: they are read like the
    others, and are lost with the process, so no cursor may pass their records before.
    """

    def __init__(self, path: Path, *, is_checked: bool = True) -> None:
        self.path = path
        self._is_checked = is_checked
        #: Bytes that were found to be no lines of ours, from where to where.
        self._damaged: dict[int, int] = {}
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

    def append(self, line: Any) -> bool:
        """
        Append one document, plain data or a msgspec struct; whether it is on the disk.
        """
        data = msgspec.json.encode(line)
        if self._is_checked and data.endswith(b"}"):
            data = data[:-1] + (b"" if data == b"{}" else b",") + CHECK_KEY
            data += b"%d}" % zlib.crc32(data)
        self._unwritten.append(data + b"\n")
        self.appended_count += 1
        if now_monotonic_s() >= self._retry_at_s:
            self._write()
        return not self._unwritten

    def read(self, line_type: type[T]) -> Iterator[T]:
        """
        Every line that is one of these.
        """
        decoder = msgspec.json.Decoder(line_type)
        start = 0
        for data in self._lines():
            for line in _split(data.rstrip(b"\n")) if self._is_checked else (data,):
                try:
                    document = decoder.decode(line)
                    if self._is_checked:
                        _verify(line)
                    yield document
                except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                    # of one that was cut short, JSON has nothing to say but that it ends too soon
                    is_whole = line.endswith(b"}") and b"check" in line[-20:]
                    is_begun = line[:1] in (b"", b"{", b"\n")
                    if is_whole or not is_begun or "truncated" not in str(exc):
                        self._damaged[start] = start + len(data)
            start += len(data)

    def cut(self, line_type: type[T], is_kept: Callable[[T], bool]) -> None:
        """
        Cut the file off before the first line of these that is not to be kept.

        Raises:
            OSError: it cannot be changed.
        """
        decoder = msgspec.json.Decoder(line_type)
        start = 0
        for data in self._lines():
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                _verify(data)
                if not is_kept(decoder.decode(data)):
                    os.truncate(self.path, start)
                    return
            start += len(data)

    @property
    def damage(self) -> list[str]:
        """
        What of the file could not be read so far, in words.
        """
        places = sorted(self._damaged.items())
        if len(places) > MAX_PLACES:
            places[MAX_PLACES - 1 :] = [(places[MAX_PLACES - 1][0], places[-1][1])]
        return [f"{self.path}: no lines of ours in bytes {a} to {b}" for a, b in places]

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
            with open(self.path, "ab", buffering=0, opener=private) as file:
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


def _split(line: bytes) -> Iterator[bytes]:
    """
    The documents of a line: more than one where the end of a line was damaged.
    """
    start = 0
    for found in _checks.finditer(line):
        first = _find_start(line, start, found)
        if first > start:
            yield line[start:first]
        yield line[first : found.end()]
        start = found.end()
    if start < len(line) or not start:
        yield line[start:]


def _find_start(line: bytes, start: int, found: re.Match[bytes]) -> int:
    """
    Where the document begins that a check belongs to; `start` where none checks.
    """
    first, crc = start, int(found[1])
    while 0 <= first <= found.start():
        if zlib.crc32(line[first : found.start(1)]) == crc:
            return first
        first = line.find(b'{"', first + 1)
    return start


def _verify(line: bytes) -> None:
    found = _checks.search(line)
    if found is None or zlib.crc32(line[: found.start(1)]) != int(found[1]):
        raise msgspec.DecodeError("the line does not check")


def private(path: str, flags: int) -> int:
    """
    An opener for `open`: new files are the owner's alone.
    """
    return os.open(path, flags, 0o600)
