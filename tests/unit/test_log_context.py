"""
Which id holds where: nested blocks, tasks, threads, and runs that are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Iterator

import pytest

from allele_mlflow import log_context
from allele_mlflow.log_context import (
    LogContext,
    bound_correlation_id,
    correlation_context,
    correlation_id,
    current_context,
    structlog_processor,
)


@pytest.fixture(autouse=True)
def no_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    No run of another test is open.
    """
    monkeypatch.setattr(log_context, "_find_run", LogContext)
    yield
    assert bound_correlation_id() is None


def test_blocks_nest() -> None:
    """
    The inner block holds inside, the outer one again after it, also past an exception; what the
    inner one leaves unsaid stays.
    """
    assert correlation_id() is None
    with correlation_context("outer", cell="rate=0.1") as given:
        assert given == correlation_id() == "outer"
        with contextlib.suppress(KeyError), correlation_context("inner", run_uid="r1"):
            assert current_context() == LogContext("inner", "r1", "rate=0.1")
            raise KeyError
        with correlation_context(run_uid="r2"):
            assert current_context() == LogContext("outer", "r2", "rate=0.1")
        assert current_context() == LogContext("outer", None, "rate=0.1")
    assert current_context() == LogContext()


def test_id_is_minted_where_none_is_given() -> None:
    """
    Each block without an id has a fresh one, of 32 hex digits.
    """
    with correlation_context() as first:
        pass
    with correlation_context("") as second:
        pass
    assert first != second
    assert len(bytes.fromhex(first)) == len(bytes.fromhex(second)) == 16


@pytest.mark.parametrize(
    ("given", "kept"),
    [(18, "18"), ("a\nb", "a\nb"), ("x" * 999, "x" * 250), ("\udc80", "?")],
    ids=["number", "broken", "long", "half"],
)
def test_any_id_becomes_text_that_can_be_kept(given: object, kept: str) -> None:
    """
    Numbers, long texts and half characters: whoever gives an id does not fail for it.
    """
    with correlation_context(given) as held:  # type: ignore[arg-type] # the point
        assert held == kept


async def test_tasks_have_their_own() -> None:
    """
    Tasks side by side do not see each other's id; a task inherits that of where it was made.
    """
    barrier = asyncio.Barrier(3)

    async def work(name: str) -> str | None:
        with correlation_context(name):
            await barrier.wait()  # all are inside
            return await asyncio.create_task(inner())

    async def inner() -> str | None:
        return correlation_id()

    names = ["a", "b", "c"]
    assert await asyncio.gather(*map(work, names)) == names


def test_a_thread_starts_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As context variables do: a thread takes a context along only where it is given one. What the
    process's run says holds there too.
    """
    seen: list[LogContext] = []

    def run(context: contextvars.Context) -> None:
        thread = threading.Thread(target=context.run, args=(look,))
        thread.start()
        thread.join()

    def look() -> None:
        seen.append(current_context())

    monkeypatch.setattr(log_context, "_find_run", lambda: LogContext("of the run", "r1"))
    with correlation_context("here"):
        run(contextvars.Context())
        run(contextvars.copy_context())
    assert seen == [LogContext("of the run", "r1"), LogContext("here", "r1")]


def test_bound_wins_over_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the code around says is nearer; a block without an id keeps that of the run.
    """
    monkeypatch.setattr(log_context, "_find_run", lambda: LogContext("of the run", "r1"))
    assert correlation_id() == "of the run"
    assert bound_correlation_id() is None
    with correlation_context(cell="c"):
        assert current_context() == LogContext("of the run", "r1", "c")
    with correlation_context("mine", run_uid="r2"):
        assert current_context() == LogContext("mine", "r2")


def test_left_in_another_context_than_entered() -> None:
    """
    A block whose end runs elsewhere, as that of an asynchronous fixture, breaks nothing.
    """
    block = correlation_context("a")
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert correlation_id() is None


def test_structlog_processor_adds_what_is_missing() -> None:
    """
    What is known is added, and what the event has already stays.
    """
    with correlation_context("c-1", run_uid="r1"):
        event = structlog_processor(None, "info", {"event": "saved", "run_uid": "own"})
    assert event == {"event": "saved", "run_uid": "own", "correlation_id": "c-1"}
    assert structlog_processor(None, "info", {"event": "x"}) == {"event": "x"}
