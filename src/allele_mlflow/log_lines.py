"""
Log lines that say which run they belong to: a handler, a filter, and two ways to write a line.

    logging.getLogger().addHandler(LogContextHandler(sys.stderr))  # a JSON object a line
    logging.getLogger().addHandler(LogContextHandler(sys.stderr, style="text"))

A line of either kind is one line, whatever a message holds: line breaks, control characters and
what turns the direction of text are written as escapes, so no message can look like another line.
The lines of a traceback follow in the plain kind, each behind `    | `.
"""

from __future__ import annotations

import json
import logging
from typing import Literal, TextIO, get_args

from allele_mlflow.clock import utc_iso
from allele_mlflow.errors import ErrorKind, RecordError
from allele_mlflow.log_context import LogContext, current_context

#: Longest message and traceback of one line. Units: characters.
TEXT_LENGTH = 64 * 1024
#: What stands where nothing is known, for format strings such as `%(correlation_id)s`.
UNKNOWN = "-"
LineStyle = Literal["json", "text"]


class CorrelationFilter(logging.Filter):
    """
    Gives each record `correlation_id`, `run_uid` and `cell`, for format strings of your own; lets
    every record pass.

    Put it on a handler, to see the records of all loggers. On a `QueueHandler` it notes the context
    of the thread that logs, which the listener's thread does not know.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """
        Note the context, where the record has none.
        """
        _stamp(record)
        return True


class LogContextHandler(logging.Handler):
    """
    Writes each record as one line with its context, as JSON or as plain text.

    Args:
        target: A stream, or a handler that lines are given to (a rotating file): its formatter is
            replaced. Standard error by default.
        style: "json", an object a line with time, level, logger, message, correlation_id, run_uid,
            cell and exception, null where there is none; or "text".
        level: As of any handler.
    Raises:
        RecordError: a target or a style that is none.

    Thread safety: as of any handler; the target's lock guards the line.
    """

    def __init__(
        self,
        target: TextIO | logging.Handler | None = None,
        *,
        style: LineStyle = "json",
        level: int | str = logging.NOTSET,
    ) -> None:
        if style not in get_args(LineStyle):
            raise _bad_argument("style", style, "'json' or 'text'")
        if not (target is None or isinstance(target, logging.Handler) or hasattr(target, "write")):
            raise _bad_argument("target", target, "a stream or a logging.Handler")
        super().__init__(level)
        self._target: logging.Handler = (
            target if isinstance(target, logging.Handler) else logging.StreamHandler(target)
        )
        self.setFormatter(JsonLines() if style == "json" else PlainLines())

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        """
        Write lines another way.
        """
        super().setFormatter(fmt)
        self._target.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        """
        Write one record.
        """
        _stamp(record)
        if record.levelno >= self._target.level:
            self._target.handle(record)

    def flush(self) -> None:
        """
        Have the target write what it holds.
        """
        self._target.flush()


class JsonLines(logging.Formatter):
    """
    A JSON object a line, in ASCII.
    """

    def format(self, record: logging.LogRecord) -> str:
        """
        The line, without its end.
        """
        line = {
            "time": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
            **_context_of(record)._asdict(),
            "exception": _cut(_trouble_of(self, record)) or None,
        }
        return json.dumps(line)


class PlainLines(logging.Formatter):
    """
    `time LEVEL logger [correlation_id run_uid cell] message`, with `-` for what is not known.
    """

    def format(self, record: logging.LogRecord) -> str:
        """
        The line, and those of a traceback, without the last end.
        """
        context = " ".join(_word(part or UNKNOWN) for part in _context_of(record))
        head = f"{_time_of(record)} {_word(record.levelname)} {_word(record.name)} [{context}]"
        trouble = _cut(_trouble_of(self, record)).splitlines()
        more = [f"    | {_plain(line)}" for line in trouble]
        return "\n".join([f"{head} {_plain(_cut(record.getMessage()))}", *more])


def _stamp(record: logging.LogRecord) -> None:
    if not all(hasattr(record, field) for field in LogContext._fields):
        for field, value in current_context()._asdict().items():
            if not hasattr(record, field):  # of `extra=`, or noted in another thread
                setattr(record, field, value or UNKNOWN)


def _context_of(record: logging.LogRecord) -> LogContext:
    _stamp(record)
    found = (str(getattr(record, field)) for field in LogContext._fields)
    return LogContext(*(None if text == UNKNOWN else text for text in found))


def _time_of(record: logging.LogRecord) -> str:
    return utc_iso(int(record.created * 1e9))


def _trouble_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """
    The record's traceback and stack, as far as it has them.
    """
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)  # once for all handlers
    parts = (record.exc_text, record.stack_info and formatter.formatStack(record.stack_info))
    return "\n".join(part for part in parts if part)


def _cut(text: str) -> str:
    if len(text) <= TEXT_LENGTH:
        return text
    return f"{text[:TEXT_LENGTH]} ... [{len(text) - TEXT_LENGTH} characters cut]"


def _plain(text: str) -> str:
    """
    The text with escapes for whatever is no printable character.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _word(text: str) -> str:
    """
    The same, and without what separates the parts of a line's head.
    """
    return "".join(_escaped(c) if c in " []" else c for c in _plain(text))


def _escaped(character: str) -> str:
    if character in " []":
        return f"\\x{ord(character):02x}"
    return character.encode("unicode_escape").decode("ascii")


def _bad_argument(name: str, value: object, wanted: str) -> RecordError:
    shown = value if isinstance(value, str) else type(value).__name__
    return RecordError(f"{name}={shown!r}: want {wanted}", kind=ErrorKind.BAD_VALUE, name=name)
