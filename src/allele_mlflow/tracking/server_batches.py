"""
`runs/log-batch` inside `mlflow server --app-name bulk`: from the request's bytes to `BulkStore`.

MLflow's server makes a protobuf message, an entity and a check of each reading, which takes three
times as long as writing it. Here a batch is decoded at once, behind the same middleware. Whatever
is not a plain batch that the store takes is left to MLflow's own handler, its answers of errors
included: nothing was written then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from allele_mlflow.records import Reading, RunId
from allele_mlflow.settings import variable
from allele_mlflow.tracking import limits
from allele_mlflow.tracking.bulk_store import BulkStore
from allele_mlflow.tracking.http_batches import ENDPOINT, Body

_logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

#: What MLflow's own handler might be told by, before it takes a request.
_KNOWN_HOOKS = frozenset({"mlflow.server.workspace_helpers"})
#: The largest body that is looked at: more than a full batch can have.
MOST_BYTES = 8 << 20


class BatchRoute:
    """
    An ASGI app for POSTs of batches, before MLflow's own, which gets what it does not take.
    """

    def __init__(self, inner: App, open_store: Callable[[], Any]) -> None:
        """
        Args:
            inner: MLflow's own app.
            open_store: Gives the server's tracking store; may block.
        """
        self._inner = inner
        self._open_store = open_store
        self._decoder = msgspec.json.Decoder(Body)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """
        One request.
        """
        from starlette.concurrency import run_in_threadpool

        messages: list[Message] = []
        size = 0
        while size <= MOST_BYTES:
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
                break
        is_whole = messages[-1]["type"] == "http.request" and not messages[-1].get("more_body")
        body = b"".join(message.get("body", b"") for message in messages)
        if is_whole and await run_in_threadpool(self._take, body):
            headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        replayed = iter(messages)

        async def receive_again() -> Message:
            return next(replayed, None) or await receive()

        await self._inner(scope, receive_again, send)

    def _take(self, body: bytes) -> bool:
        """
        Whether the batch is written.
        """
        try:
            batch = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        params = {param.key: param.value for param in batch.params}
        tags = {tag.key: tag.value for tag in batch.tags}
        counts = (len(batch.metrics), len(batch.params), len(batch.tags))
        if (
            any(n > most for n, most in zip(counts, _MOST, strict=True))
            or sum(counts) > limits.ITEMS_PER_CALL
            or (len(params), len(tags)) != counts[1:]
        ):
            return False
        try:
            bulk = getattr(self._open_store(), "bulk", None)
            if not isinstance(bulk, BulkStore):
                return False
            readings = [Reading(m.key, float(m.value), m.timestamp, m.step) for m in batch.metrics]
            return bulk.log_batch(RunId(batch.run_id), readings=readings, params=params, tags=tags)
        except Exception as exc:  # noqa: BLE001 - a border: MLflow's own handler tells what it is
            _logger.debug("left to MLflow's own handler: %r", exc)
            return False


_MOST = (limits.METRICS_PER_CALL, limits.PARAMS_PER_CALL, limits.TAGS_PER_CALL)


def has_workspaces() -> bool:
    """
    Whether MLflow's server keeps several teams apart, which those before 3.10 do not know.
    """
    from mlflow import environment_variables

    switch = getattr(environment_variables, "MLFLOW_ENABLE_WORKSPACES", None)
    return switch is not None and bool(switch.get())


def add_batch_route(app: Any, flask_app: Any, open_store: Callable[[], Any]) -> bool:
    """
    Put the route before MLflow's own in its FastAPI app; False where its requests are looked at by
    what we do not know, such as a login, or the server keeps no runs.
    """
    from starlette.routing import Mount, Route

    hooks = {f.__module__ for hooks in flask_app.before_request_funcs.values() for f in hooks}
    mounts = [route for route in app.router.routes if isinstance(route, Mount)]
    if (
        not hooks <= _KNOWN_HOOKS
        or has_workspaces()
        or variable("_MLFLOW_SERVER_ARTIFACTS_ONLY")
        or len(mounts) != 1
    ):
        return False
    route = Route(ENDPOINT, BatchRoute(mounts[0].app, open_store), methods=["POST"])
    app.router.routes.insert(0, route)
    return True
