"""
The entries of a large JSON object in a file, one after another: memory holds one of them.

Python's own reader of JSON, so NaN and Infinity, which it also writes, are understood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from allele_mlflow.errors import ErrorKind, RecordError

#: Longest entry that is read. Units: characters.
MOST_CHARACTERS = 64 << 20
_CHUNK = 1 << 16
_SPACE = " \t\n\r"
_SHOWN = 80
#: What may follow a part of a number; the empty text is the end of what was read.
_GOES_ON = frozenset(("", *"+-.eE0123456789"))


class _BrokenError(ValueError):
    """
    The text cannot be read on from here.
    """


class EntryReader:
    """
    Gives (key, value) of each entry, in the order of the file. Iterate once.

    Args:
        path: A file of one JSON object.
        most_characters: Longest entry.

    Attributes:
        problem: After the last entry: why there may be more that could not be read, else None. A
            file that was cut off in the middle gives all that stands before.
    """

    def __init__(self, path: Path, *, most_characters: int = MOST_CHARACTERS) -> None:
        self.problem: str | None = None
        self._path = path
        self._most = most_characters
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._is_over = False

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """
        Read the file.

        Raises:
            RecordError: it cannot be read, or holds no JSON object.
        """
        try:
            # an undecodable byte stands in some text, and spoils no more than that
            file = self._path.open(encoding="utf-8-sig", errors="replace")
        except OSError as exc:
            raise self._no_object(exc.strerror or str(exc)) from exc
        with file:
            if self._mark(file) != "{":
                raise self._no_object(f"it begins with {self._text[:_SHOWN]!r}")
            last = "the beginning"
            try:
                for key, value in self._entries(file):
                    yield key, value
                    last = f"entry {key[:_SHOWN]!r}"
            except (_BrokenError, OSError) as exc:
                self.problem = f"after {last}: {exc}"

    def _entries(self, file: TextIO) -> Iterator[tuple[str, Any]]:
        self._at += 1
        if self._mark(file) == "}":
            return
        while True:
            key = self._value(file)
            if not isinstance(key, str):
                raise _BrokenError(f"want a key, got {str(key)[:_SHOWN]}")
            self._expect(file, ":")
            yield key, self._value(file)
            if self._expect(file, ",}") == "}":
                return

    def _value(self, file: TextIO) -> Any:
        self._mark(file)
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise _BrokenError("an entry is nested too deeply") from None
            except ValueError as exc:  # a part of it, perhaps
                reason = getattr(exc, "msg", str(exc))
            else:
                if self._is_over or self._text[end : end + 1] not in _GOES_ON:
                    self._at = end
                    return value
                reason = "the file ends here"
            if self._is_over:
                raise _BrokenError(f"no JSON, or a part of it alone: {reason}")
            if len(self._text) - self._at > self._most:
                raise _BrokenError(f"no JSON, or longer than {self._most:,} characters: {reason}")
            self._read(file)

    def _expect(self, file: TextIO, marks: str) -> str:
        found = self._mark(file)
        if not found or found not in marks:
            shown = found or "the end of the file"
            raise _BrokenError(f"want {' or '.join(marks)}, got {shown}")
        self._at += 1
        return found

    def _mark(self, file: TextIO) -> str:
        """
        The next character that is no space, where it stands now; empty at the end of the file.
        """
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_over:
                return ""
            self._read(file)

    def _read(self, file: TextIO) -> None:
        # as much again as there is: a long entry is looked at a few times, and not at each chunk
        rest = self._text[self._at :]
        more = file.read(max(_CHUNK, len(rest)))
        self._is_over = not more
        self._text, self._at = rest + more, 0

    def _no_object(self, reason: str) -> RecordError:
        return RecordError(
            f"{self._path}: {reason}; want a JSON object of entries",
            kind=ErrorKind.BAD_VALUE,
            file=str(self._path),
        )
