"""
The loggers of this process that are open: the current one, and what ends them with the program.
"""

from __future__ import annotations

import atexit
import contextlib
import sys

from allele_mlflow import log_context
from allele_mlflow import settings as settings_module
from allele_mlflow.errors import AlleleMlflowError
from allele_mlflow.log_context import LogContext
from allele_mlflow.records import ENDED_BY_EXIT, RunStatus
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import HANDLE_VARIABLE
from allele_mlflow.uncaught import UncaughtHooks

_open_loggers: list[RunLogger] = []
#: For each open logger that published its handle, the handle that stood in the environment before.
_outer_handles: dict[RunLogger, str | None] = {}
#: How those ended that were open when an exception ended the program.
_uncaught_ends: dict[RunLogger, tuple[RunStatus, str]] = {}


def current_logger() -> RunLogger | None:
    """
    The logger that this process started or attached last and has not closed; None without one.
    """
    return next(reversed(_open_loggers), None)  # another thread may close it just now


def _current_run() -> LogContext:
    log = current_logger()
    if log is None or not log.run_uid:  # none, or a disabled one
        return LogContext()
    return LogContext(log.correlation_id, log.run_uid)


log_context.follow_runs(_current_run)


def remember_logger(log: RunLogger, *, is_published: bool) -> None:
    """
    Note a logger that was opened; published, child processes find its run by `attach()`.
    """
    _open_loggers.append(log)
    _uncaught_hooks.install()
    if is_published and log.handle():
        _outer_handles[log] = settings_module.variable(HANDLE_VARIABLE)
        settings_module.publish_variable(HANDLE_VARIABLE, log.handle())


def forget_logger(log: RunLogger) -> None:
    """
    Note that it was closed.
    """
    if log in _open_loggers:
        _open_loggers.remove(log)
    _uncaught_ends.pop(log, None)
    if not _open_loggers:
        _uncaught_hooks.remove()
    if log not in _outer_handles:  # attached: the handle stays for the next one
        return
    outer = _outer_handles.pop(log)
    for inner, before in _outer_handles.items():
        if before == log.handle():  # closed before the run that was started inside it
            _outer_handles[inner] = outer
    if settings_module.variable(HANDLE_VARIABLE) == log.handle():
        settings_module.publish_variable(HANDLE_VARIABLE, outer)


def _note_uncaught(exc: BaseException) -> None:
    if hasattr(sys, "ps1") or sys.flags.inspect:
        return  # at a prompt an exception ends one line, and not the program
    for log in reversed(list(_open_loggers)):
        _uncaught_ends[log] = log._note_end(exc)


def _note_of_thread(exc: BaseException) -> None:
    log = current_logger()
    if log is not None:
        log.error(exc)


_uncaught_hooks = UncaughtHooks(on_program=_note_uncaught, on_thread=_note_of_thread)


@atexit.register
def _close_at_exit() -> None:
    was_interrupted = False
    for log in reversed(list(_open_loggers)):
        status, ended_by = _uncaught_ends.get(log, ("FINISHED", ENDED_BY_EXIT))
        was_interrupted |= ended_by == "KeyboardInterrupt"
        with contextlib.suppress(AlleleMlflowError, KeyboardInterrupt):  # the others close too
            log._close(status, ended_by, waits=log.settings.exit == "drain")
    if was_interrupted:
        # CPython forgets that Ctrl-C ended it when code from a text runs after it, as an import of
        # a module with a namedtuple does; the shell would then go on with its loop
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")
