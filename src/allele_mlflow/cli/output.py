"""
Where the commands write: an encoding that lacks a character, a closed pipe and a full disk are no
tracebacks.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import threading
from typing import IO, Any, NoReturn, Self

import click
import msgspec

from allele_mlflow.cli.exit_codes import ExitCode


class OutputError(click.ClickException):
    """
    What a command has to say cannot be written.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"the output cannot be written: {cause.strerror or cause}")
        self._is_expected = isinstance(cause, BrokenPipeError)  # `| head` has seen enough

    def show(self, file: IO[Any] | None = None) -> None:
        """
        Say so on stderr, unless it was the reader who left.
        """
        if not self._is_expected:
            complain(self.message)


def prepare_streams() -> None:
    """
    Have stdout and stderr write as backslash escapes what their encoding lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, *, nl: bool = True) -> None:
    """
    Write to stdout, at once.

    Raises:
        OutputError: nobody takes it.
    """
    try:
        # named, for click would give an ASCII terminal UTF-8
        click.echo(text, file=sys.stdout, nl=nl)
    except OSError as exc:
        raise OutputError(exc) from exc


def complain(text: str) -> None:
    """
    Write a line to stderr, as far as it takes one.
    """
    with contextlib.suppress(OSError):
        click.echo(f"allele-mlflow: {text}", file=sys.stderr, err=True)


def shown(text: str) -> str:
    """
    The text as stdout shows it: in one line, with escapes for what its encoding lacks.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # a name may hold what moves a terminal's cursor
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def json_text(document: dict[str, Any]) -> str:
    """
    The document as stdout takes it: with JSON's own escapes for what its encoding lacks.
    """
    text = msgspec.json.format(msgspec.json.encode(document)).decode()
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(msgspec.json.decode(text), indent=2)
    return text


def leave(code: int) -> NoReturn:
    """
    End the process now, whatever still runs in a thread.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or ExitCode.FAILED
            # else the interpreter tries once more, and has the last word
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if any(not thread.daemon for thread in others):
        os._exit(code)  # the interpreter would wait for a call of MLflow's that may hang
    sys.exit(code)


class Progress(logging.Handler):
    """
    A line on a terminal's stderr that is written over, and gone when anything else is written.

    While it is entered, the logs of this package go to lines of their own.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger("allele_mlflow")
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._width = 0

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.show("")
        self._logger.removeHandler(self)

    def show(self, text: str) -> None:
        """
        Put the text in the place of the last one.
        """
        if self._is_terminal and (text or self._width):
            # back at its beginning each time: MLflow writes to a terminal too, and asks nobody
            line = f"{' ' * self._width}\r{text}\r"
            self._width = len(text)
            with contextlib.suppress(OSError):
                click.echo(line, file=sys.stderr, err=True, nl=False)

    def emit(self, record: logging.LogRecord) -> None:
        """
        Write a warning of the delivery's.
        """
        self.show("")
        complain(record.getMessage())  # one line: the traceback is the sidecar's log's
