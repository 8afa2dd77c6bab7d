"""
Lines that nobody can forge, and that say what they belong to.
"""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import queue
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import log_context
from allele_mlflow.errors import RecordError
from allele_mlflow.log_context import LogContext, correlation_context
from allele_mlflow.log_lines import (
    TEXT_LENGTH,
    CorrelationFilter,
    JsonLines,
    LogContextHandler,
    PlainLines,
)

FORGERIES = (
    "fine\n2026-01-01T00:00:00.000+00:00 INFO app [x x x] forged",
    "fine\r\nforged",
    "fine\x0b\x0c\x1c\x85\u2028\u2029forged",
    "fine\x1b[2K\x1b[1Gforged",
    "fine\u202edegrof",
    'fine", "level": "CRITICAL',
)


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """
    A logger of the test's own, and no open run.
    """
    monkeypatch.setattr(log_context, "_find_run", LogContext)
    logger = logging.getLogger("tests.log_lines")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def stream_of(logger: logging.Logger, **options: Any) -> io.StringIO:
    """
    Where a handler of this logger writes.
    """
    stream = io.StringIO()
    logger.addHandler(LogContextHandler(stream, **options))
    return stream


def test_json_line_has_all_fields(logger: logging.Logger) -> None:
    """
    One object a line, always with the same names; what is not known is null.
    """
    stream = stream_of(logger)
    with correlation_context("c-1", run_uid="r1", cell="rate=0.1"):
        logger.warning("%d of %s", 3, "four")
    logger.info("outside")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("time"))
    assert first == {
        "level": "WARNING",
        "logger": "tests.log_lines",
        "message": "3 of four",
        "correlation_id": "c-1",
        "run_uid": "r1",
        "cell": "rate=0.1",
        "exception": None,
    }
    assert second.keys() == {*first, "time"}
    assert [second[name] for name in ("correlation_id", "run_uid", "cell")] == [None] * 3


def test_plain_line(logger: logging.Logger) -> None:
    """
    The same for people, with a dash for what is not known.
    """
    stream = stream_of(logger, style="text")
    with correlation_context("c-1", run_uid="r1"):
        logger.info("saved")
    assert re.fullmatch(r"\S+ INFO tests\.log_lines \[c-1 r1 -\] saved\n", stream.getvalue())


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_no_message_makes_another_line(logger: logging.Logger, style: str, text: str) -> None:
    """
    Whatever a message, an id, a logger's name or a level holds, it is one line, and nothing in it
    moves a terminal's cursor.
    """
    stream = stream_of(logger, style=style)
    child = logger.getChild(text)
    with correlation_context(text, cell=text):
        child.info("%s", text)
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line.splitlines()) == 1
    if style == "json":
        assert json.loads(line)["message"] == text
    else:
        head = re.match(r"\S+ INFO \S+ \[(\S+) (\S+) (\S+)\] fine", line)
        assert head is not None


@pytest.mark.parametrize("style", ["json", "text"])
def test_traceback_is_told_and_forges_nothing(logger: logging.Logger, style: str) -> None:
    """
    An exception's own text may hold line breaks: each of its lines is marked as a part of it.
    """
    stream = stream_of(logger, style=style)
    try:
        raise ValueError(FORGERIES[0])
    except ValueError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    if style == "json":
        (line,) = lines
        assert "Traceback" in json.loads(line)["exception"]
        return
    assert lines[0].endswith("] failed")
    assert all(line.startswith("    | ") for line in lines[1:])
    assert any("forged" in line for line in lines[1:])


def test_long_messages_are_cut(logger: logging.Logger) -> None:
    """
    A line is bounded, and says how much of it is missing.
    """
    stream = stream_of(logger)
    logger.info("x" * (TEXT_LENGTH + 10))
    assert json.loads(stream.getvalue())["message"].endswith("x ... [10 characters cut]")


def test_lines_go_to_another_handler(logger: logging.Logger, tmp_path: Path) -> None:
    """
    A file handler gets finished lines, above its own level alone.
    """
    path = tmp_path / "app.log"
    file = logging.FileHandler(path, encoding="utf-8", delay=True)
    file.setLevel(logging.ERROR)
    handler = LogContextHandler(file)
    logger.addHandler(handler)
    logger.info("too low")
    with correlation_context("c-1"):
        logger.error("kept")
    handler.flush()
    file.close()
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["correlation_id"] == "c-1"


def test_filter_serves_other_formats(logger: logging.Logger) -> None:
    """
    Format strings of one's own find the three names, and what `extra=` says stays.
    """
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(CorrelationFilter())
    handler.setFormatter(logging.Formatter("%(correlation_id)s %(run_uid)s %(cell)s %(message)s"))
    logger.addHandler(handler)
    with correlation_context("c-1"):
        logger.info("a")
        logger.info("b", extra={"run_uid": "own"})
    assert stream.getvalue() == "c-1 - - a\nc-1 own - b\n"


def test_queue_keeps_the_context_of_who_logs(logger: logging.Logger) -> None:
    """
    With a filter on the QueueHandler, the listener's thread writes what held where it was logged.
    """
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(waiting)
    handler.addFilter(CorrelationFilter())
    logger.addHandler(handler)
    with correlation_context("of the logging thread"):
        logger.info("a")
    stream = io.StringIO()
    with correlation_context("of the listener"):
        LogContextHandler(stream).handle(waiting.get())
    found = json.loads(stream.getvalue())
    assert (found["correlation_id"], found["run_uid"]) == ("of the logging thread", None)


def test_standard_error_is_the_default(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where nothing is said, lines go where logging's own go.
    """
    logger.addHandler(LogContextHandler(style="text"))
    logger.info("hello")
    assert capsys.readouterr().err.endswith("] hello\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"style": "xml"}, "style='xml': want 'json' or 'text'"),
        ({"target": "app.log"}, "target='app.log': want a stream or a logging.Handler"),
        ({"target": 3}, "target='int': want a stream or a logging.Handler"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], text: str) -> None:
    """
    The error says what was got and what is wanted.
    """
    with pytest.raises(RecordError, match=re.escape(text)):
        LogContextHandler(**arguments)


def test_structlog_takes_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The real structlog, with the processor in its list.
    """
    structlog = pytest.importorskip("structlog")
    monkeypatch.setattr(log_context, "_find_run", LogContext)
    stream = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[log_context.structlog_processor, structlog.processors.JSONRenderer()],
    )
    with correlation_context("c-1", run_uid="r1"):
        log.info("saved", size=3)
    assert json.loads(stream.getvalue()) == {
        "event": "saved",
        "size": 3,
        "correlation_id": "c-1",
        "run_uid": "r1",
    }
    assert "structlog" in sys.modules


@pytest.mark.parametrize("lines", [JsonLines, PlainLines])
def test_half_a_character_is_escaped(lines: type[logging.Formatter]) -> None:
    """
    What no encoding can hold, as of a file name that is no UTF-8, does not stop a line.
    """
    # not through a logger: pytest catches what goes there, and cannot hand it on either
    record = logging.makeLogRecord({"msg": "half \udc80", "name": "\udc80", "cell": "\udc80"})
    line = lines().format(record)
    assert line.encode("ascii").count(b"udc80") == 3
