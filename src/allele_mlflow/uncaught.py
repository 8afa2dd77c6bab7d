"""
Seeing exceptions that nobody caught: `sys.excepthook` and `threading.excepthook`, chained.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

Handler = Callable[[BaseException], None]


class _Link:
    """
    One hook in a chain. Switched off it only hands on: somebody may have kept it.
    """

    def __init__(
        self,
        previous: Callable[..., object],
        handler: Handler,
        find: Callable[..., BaseException | None],
    ) -> None:
        self.previous = previous
        self.is_on = True
        self._handler = handler
        self._find = find

    def __call__(self, *arguments: object) -> None:
        try:
            exc = self._find(*arguments)
            # asked to leave, nothing failed
            if self.is_on and exc is not None and not isinstance(exc, (SystemExit, GeneratorExit)):
                self._handler(exc)
        except BaseException:  # noqa: BLE001 - a hook's border: the program's own failure is the one to see
            pass
        self.previous(*arguments)


class UncaughtHooks:
    """
    The two hooks, in place from `install` to `remove`. What stood there before is called always.

    Args:
        on_program: Gets what ends the main thread, and with it the program. May raise.
        on_thread: Gets what ends another thread. May raise.
    Thread safety: hooks are called in the thread that failed.
    """

    def __init__(self, *, on_program: Handler, on_thread: Handler) -> None:
        self._on_program = on_program
        self._on_thread = on_thread
        self._links: tuple[_Link, _Link] | None = None

    def install(self) -> None:
        """
        Put the hooks on top, where they are not in place.
        """
        if self._links is not None:
            return
        program = _Link(sys.excepthook, self._on_program, lambda _type, exc, _traceback: exc)
        thread = _Link(threading.excepthook, self._on_thread, lambda args: args.exc_value)
        self._links = program, thread
        sys.excepthook, threading.excepthook = program, thread

    def remove(self) -> None:
        """
        Take the hooks away, each only where it is still on top; beneath others' it only hands on.
        """
        if self._links is None:
            return
        (program, thread), self._links = self._links, None
        program.is_on = thread.is_on = False
        if sys.excepthook is program:
            sys.excepthook = program.previous
        if threading.excepthook is thread:
            threading.excepthook = thread.previous
