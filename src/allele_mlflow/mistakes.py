"""
Telling the user of a mistake once, without ever reaching into the user's loop.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable


class AlleleMlflowWarning(UserWarning):
    """
    Something about logging that the user should know; the benchmark goes on.
    """


class Mistakes:
    """
    Warns once for each key, and hands every mistake to the user's callback.
    """

    def __init__(self, on_error: Callable[[str], None] | None) -> None:
        self.on_error = on_error
        self._warned: set[str] = set()

    def __call__(self, key: str, message: str) -> None:
        """
        A key's first mistake.
        """
        self.warn_once(key, f"not logged: {message}")

    def warn_once(self, key: str, message: str) -> None:
        """
        Warn, unless there was a warning for this key already.
        """
        if key in self._warned:
            return
        self._warned.add(key)
        if self.on_error is not None:
            with contextlib.suppress(
                Exception
            ):  # the user's callback must not reach the user's loop
                self.on_error(message)
        with contextlib.suppress(Warning):  # "error" filters must not make a log call raise
            warnings.warn(message, AlleleMlflowWarning, stacklevel=2)
