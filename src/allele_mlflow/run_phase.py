"""
Phases: `with log.phase(...)` blocks, and which of them the running code is in.

What is open belongs to the context (`contextvars`): threads and asyncio tasks have their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple, Self

from allele_mlflow.queue import plain
from allele_mlflow.queue.writer import StreamWriter


class OpenBlock(NamedTuple):
    """
    A phase that the running code is in; `stream` tells whose it is.
    """

    stream: int
    name: str
    step: int | None


_open_blocks: ContextVar[tuple[OpenBlock, ...]] = ContextVar("allele_mlflow_phases", default=())
#: Where an exception keeps the innermost block of each stream that it has left: by the time that it
#: is recorded, the blocks are closed.
_LEFT = "_allele_mlflow_phases"


class Phase:
    """
    One `with log.phase(...)` block. Each is used once.
    """

    __slots__ = ("_begun", "_block", "_on_slow", "_stream")

    def __init__(
        self, stream: StreamWriter, name: str, step: int | None, *, on_slow: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._block = OpenBlock(id(stream), name, step)
        self._on_slow = on_slow
        self._begun = 0

    def __enter__(self) -> Self:
        _, name, step = self._block
        self._begun = self._stream.phase_edge(name, step)
        _open_blocks.set((*_open_blocks.get(), self._block))
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        stream, name, step = self._block
        self._stream.phase_edge(name, step, self._begun)
        # its own, and not what stood before it: generators may interleave
        _open_blocks.set(tuple(b for b in _open_blocks.get() if b is not self._block))
        if exc is not None:
            with contextlib.suppress(Exception):  # no room for it: an exception with slots
                exc.__dict__.setdefault(_LEFT, {}).setdefault(stream, (name, step))
        self._on_slow()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: object, exc: BaseException | None, traceback: object
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def place_of(exc: BaseException, stream: StreamWriter) -> tuple[str | None, int | None]:
    """
    Name and step of the innermost phase that an exception has left, else of the one that the caller
    is in; None where there is none.
    """
    with contextlib.suppress(Exception):  # the exception is the caller's code
        left = exc.__dict__[_LEFT][id(stream)]
        return left[0], left[1]
    return place_now(stream)


def place_now(stream: StreamWriter) -> tuple[str | None, int | None]:
    """
    Name and step of the innermost phase that the running code is in; None where it is in none.
    """
    inside = (block for block in reversed(_open_blocks.get()) if block.stream == id(stream))
    block = next(inside, None)
    return (None, None) if block is None else (block.name, block.step)


def phase_name(name: object) -> str:
    """
    A phase's name as plain text; never raises.
    """
    if type(name) is str and name.isascii():
        return name
    try:
        text = str.__str__(name) if isinstance(name, str) else str(name)
    except Exception:  # noqa: BLE001 - the log call's border: __str__ is the caller's code
        text = plain.shown(name)
    return text.encode("utf-8", "backslashreplace").decode()
