"""
The chained hooks for exceptions that nobody caught.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from allele_mlflow.uncaught import UncaughtHooks

Hook = Callable[..., object]


class Room:
    """
    Hooks in a process whose own are "first", and who heard what.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        sys.excepthook = self.noting("first")
        threading.excepthook = self.noting("first")
        self.hooks = UncaughtHooks(on_program=self._note("program"), on_thread=self._note("thread"))

    def noting(self, name: str, then: Hook = lambda *_: None) -> Hook:
        """A hook of somebody else's that notes its call and calls the one before it."""

        def hook(*arguments: Any) -> None:
            self.said.append(name)
            then(*arguments)

        return hook

    def fail(self, exc: BaseException) -> list[str]:
        """Who hears of an exception that ends the main thread."""
        self.said.clear()
        sys.excepthook(type(exc), exc, None)
        return list(self.said)

    def fail_in_thread(self, exc: BaseException) -> list[str]:
        """Who hears of an exception that ends another thread."""

        def work() -> None:
            raise exc

        self.said.clear()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return list(self.said)

    def _note(self, name: str) -> Callable[[BaseException], None]:
        return lambda exc: self.said.append(f"{name} {type(exc).__name__}")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Hooks that the test leaves as they were."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    return Room()


def test_both_kinds_are_heard_and_handed_on(room: Room) -> None:
    """While installed, ours hears and the one before is called; twice installed is once heard."""
    room.hooks.install()
    room.hooks.install()
    assert room.fail(KeyError()) == ["program KeyError", "first"]
    assert room.fail(KeyboardInterrupt()) == ["program KeyboardInterrupt", "first"]
    assert room.fail_in_thread(ValueError()) == ["thread ValueError", "first"]


def test_asking_to_leave_is_no_failure(room: Room) -> None:
    """`sys.exit` in a thread, or handed to the hook, is nobody's error."""
    room.hooks.install()
    assert room.fail(SystemExit(3)) == ["first"]
    assert room.fail_in_thread(SystemExit(3)) == ["first"]


def test_removed_hooks_leave_nothing_behind(room: Room) -> None:
    """On top, ours go and the former stand again; a second removal changes nothing."""
    before = sys.excepthook, threading.excepthook
    room.hooks.install()
    room.hooks.remove()
    room.hooks.remove()
    assert (sys.excepthook, threading.excepthook) == before
    assert room.fail(KeyError()) == ["first"]


def test_hook_set_after_ours_stays(room: Room) -> None:
    """Beneath a later hook ours stay, silent, and hand on; installed again, each is heard once."""
    room.hooks.install()
    later = room.noting("later", sys.excepthook)
    sys.excepthook = later
    assert room.fail(KeyError()) == ["later", "program KeyError", "first"]
    room.hooks.remove()
    assert sys.excepthook is later
    assert room.fail(KeyError()) == ["later", "first"]
    room.hooks.install()
    assert room.fail(KeyError()) == ["program KeyError", "later", "first"]
    room.hooks.remove()
    assert sys.excepthook is later


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyboardInterrupt()])
def test_failing_handler_hides_nothing(room: Room, error: BaseException) -> None:
    """Whatever goes wrong in ours, the hook before it is called, and nothing is raised."""

    def fail(exc: BaseException) -> None:
        raise error

    room.hooks = UncaughtHooks(on_program=fail, on_thread=fail)
    room.hooks.install()
    assert room.fail(KeyError()) == ["first"]
    assert room.fail_in_thread(KeyError()) == ["first"]


def test_hook_called_oddly_hides_nothing(room: Room) -> None:
    """Without an exception, or with other arguments, ours say nothing and hand on."""
    room.hooks.install()
    sys.excepthook(KeyError, None, None)  # type: ignore[arg-type]
    sys.excepthook(KeyError)  # type: ignore[call-arg]
    assert room.said == ["first", "first"]
