"""
To which piece of work a log line belongs: a correlation id, a run, a cell.

    with correlation_context("request-17"):
        with start_logger("evolution") as log:     # tag `allele.correlation_id` = request-17
            logging.getLogger("app").info("...")   # and the same in the line, see `log_lines`

What `correlation_context` binds holds for the code inside, in threads and tasks as context
variables do: a task started inside has it, a thread started inside has not. Where nothing is bound,
the process's current run tells its own.

Standard library only, and little of it: the benchmark's process loads this. What writes lines is
apart in `log_lines`, because `logging` takes milliseconds to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

#: Longer ids are cut: they stand in every line.
ID_LENGTH = 250


class LogContext(NamedTuple):
    """
    What a log line is told to belong to; None: nothing known.
    """

    correlation_id: str | None = None
    run_uid: str | None = None
    cell: str | None = None


_NOTHING = LogContext()
_bound: ContextVar[LogContext] = ContextVar("allele_mlflow.log_context", default=_NOTHING)


def _no_run() -> LogContext:
    return _NOTHING


_find_run: Callable[[], LogContext] = _no_run


def follow_runs(find: Callable[[], LogContext]) -> None:
    """
    Have `find` name the process's current run, for lines to which nothing is bound.

    It is called in any thread, whenever a line is written, and must not log.
    """
    global _find_run
    _find_run = find


def new_correlation_id() -> str:
    """
    A fresh id from the kernel: 32 hex digits, as W3C's trace ids; never from a seeded generator.
    """
    return os.urandom(16).hex()


def correlation_id() -> str | None:
    """
    The id that a log line written here would carry; None where no run is open and none is bound.
    """
    return current_context().correlation_id


def bound_correlation_id() -> str | None:
    """
    The id that the code around has bound, whatever runs are open.
    """
    return _bound.get().correlation_id


def current_context() -> LogContext:
    """
    What is bound here, and for the rest what the process's current run says.
    """
    bound = _bound.get()
    if None not in bound:
        return bound
    run = _find_run()
    return LogContext(*(ours or theirs for ours, theirs in zip(bound, run, strict=True)))


@contextmanager
def correlation_context(
    correlation_id: str | None = None, *, run_uid: str | None = None, cell: str | None = None
) -> Iterator[str]:
    """
    A `with` block whose log lines, and runs that are started in it, carry an id; gives the id.

    Args:
        correlation_id: By default the one that holds already, else a fresh one.
        run_uid: The run that lines belong to, where several are open: `log.run_uid`.
        cell: The cell of a matrix.

    Thread and task safety: as context variables. Blocks may nest; what the inner one does not say
    stays as it is.
    """
    outer = _bound.get()
    inner = LogContext(
        _text(correlation_id) or current_context().correlation_id or new_correlation_id(),
        _text(run_uid) or outer.run_uid,
        _text(cell) or outer.cell,
    )
    token = _bound.set(inner)
    try:
        yield inner.correlation_id or ""
    finally:
        try:
            _bound.reset(token)
        except ValueError:
            pass  # left in another context than it was entered in, as fixtures of tests are


def structlog_processor(
    logger: Any, name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """
    For structlog's list of processors: adds what is known and not yet there.
    """
    for field, value in current_context()._asdict().items():
        if value is not None:
            event_dict.setdefault(field, value)
    return event_dict


def _text(value: object) -> str:
    """
    What was given as text that any store and stream can hold; empty where nothing was.
    """
    if value is None:
        return ""
    return str(value)[:ID_LENGTH].encode("utf-8", "replace").decode()
