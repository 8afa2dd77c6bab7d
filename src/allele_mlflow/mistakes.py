"""
Telling the user of a mistake once, or of the end, without ever reaching into the user's loop.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

#: Mistakes of so many keys are told of; the rest are only counted.
MOST_WARNINGS = 1000
_PACKAGE = os.path.dirname(__file__) + os.sep


class AlleleMlflowWarning(UserWarning):
    """
    Something about logging that the user should know; the benchmark goes on.
    """


class Mistakes:
    """
    Warns once for each key, and hands every mistake to the user's callback.

    Thread safety: share it; two threads may both warn of one key.
    """

    def __init__(self, on_error: Callable[[str], None] | None) -> None:
        self.on_error = on_error
        self._warned: set[str] = set()

    def warn_once(self, key: str, message: str) -> None:
        """
        Warn, unless there was a warning for this key already (or for very many).
        """
        if key in self._warned or len(self._warned) >= MOST_WARNINGS:
            return
        self._warned.add(key)
        if self.on_error is not None:
            with contextlib.suppress(
                Exception
            ):  # the user's callback must not reach the user's loop
                self.on_error(message)
        warn(message)


def warn(message: str) -> None:
    """
    Warn, at the line of the user's that called us.
    """
    # "error" filters must not make a log call raise, nor a stderr that somebody closed
    with contextlib.suppress(Exception):
        warnings.warn(message, AlleleMlflowWarning, stacklevel=_level_of_the_user())


def is_terminal(stream: Any) -> bool:
    """
    Whether somebody reads there; never raises, for a program may put anything in stderr's place.
    """
    try:
        return bool(stream.isatty())
    except Exception:  # noqa: BLE001 - the log call's border: the stream is the caller's code
        return False


def write(stream: Any, text: str) -> None:
    """
    Write to a terminal, as far as it takes it.
    """
    with contextlib.suppress(Exception):
        stream.write(text)
        stream.flush()


def _level_of_the_user() -> int:
    level, frame = 2, sys._getframe(2)  # `warn` is 1, whoever called it is 2
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
