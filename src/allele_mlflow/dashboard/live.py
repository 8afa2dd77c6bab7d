"""
A run while it goes on, as server-sent events: pieces of its page, and an end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.dashboard.pages.run import live_document, uid_of
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.rendering import render_live
from allele_mlflow.dashboard.source import Source

#: How often a spool is looked into; sidecars write each second.
INTERVAL_S = 0.5
#: So often something is said even where nothing is new, to notice who has left.
SIGN_INTERVAL_S = 10.0
#: Pages that are kept up to date at a time.
MOST_STREAMS = 16


class LiveRuns:
    """
    Streams of runs. For one event loop.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0

    async def answer(self, request: Request) -> Response:
        """
        The events `look` (HTML of the run as it is now) and, once, `end`.

        Raises:
            RefusalError: 503: too many are open; 404: there is no such run.
        """
        if self._count >= MOST_STREAMS:
            raise RefusalError(503, f"{MOST_STREAMS} pages are kept up to date already: close one")
        run_id = request.path_params["run_id"]
        uid = await self._source.ask(partial(uid_of, self._source, run_id))
        return StreamingResponse(
            self._events(uid),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    async def _events(self, run_uid: str) -> AsyncIterator[bytes]:
        self._count += 1
        try:
            last, said_s = b"", now_monotonic_s()
            while not self._source.is_closing:
                told, is_over = await self._source.look(partial(self._look, run_uid))
                if told != last:
                    last, said_s = told, now_monotonic_s()
                    yield b"event: look\ndata: " + told + b"\n\n"
                elif now_monotonic_s() - said_s >= SIGN_INTERVAL_S:
                    said_s = now_monotonic_s()
                    yield b": nothing new\n\n"
                if is_over:
                    yield b"event: end\ndata: \n\n"
                    return
                await anyio.sleep(INTERVAL_S)
        finally:
            self._count -= 1

    def _look(self, run_uid: str) -> tuple[bytes, bool]:
        """
        The run's HTML as a text of JSON, which has no line breaks, and whether that was the last.
        """
        told = live_document(self._source, run_uid)
        is_over = told is None or told["run"]["over"]
        return msgspec.json.encode(render_live(told)), is_over
