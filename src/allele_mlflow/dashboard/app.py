"""
The dashboard's routes, behind its guard.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from allele_mlflow.dashboard import artifacts
from allele_mlflow.dashboard.addresses import api_path, figure_path
from allele_mlflow.dashboard.answers import Answers, json_response
from allele_mlflow.dashboard.api import DESCRIPTION_PATH, description
from allele_mlflow.dashboard.catalogue import ACTIONS, PAGES
from allele_mlflow.dashboard.live import LiveRuns
from allele_mlflow.dashboard.refusals import RefusalError, refusal_of
from allele_mlflow.dashboard.rendering import render_refusal
from allele_mlflow.dashboard.security import Entrance, Guard
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.static_files import PLOTLY, static_file
from allele_mlflow.errors import AlleleMlflowError

_logger = logging.getLogger(__name__)
_FOR_GOOD = "public, max-age=31536000, immutable"


def make_app(source: Source, entrance: Entrance, *, hosts: Collection[str] | None) -> Guard:
    """
    The dashboard as an ASGI app.

    Args:
        source: What it shows.
        entrance: Who is let in.
        hosts: The names by which it may be called; None where somebody else looks at them.
    """
    answers, live = Answers(source, PAGES), LiveRuns(source)
    routes = [
        Route("/static/{name}", _send_static),
        Route(DESCRIPTION_PATH, _send_description),
        Route(artifacts.PATH, partial(artifacts.send_artifact, source)),
        Route("/runs/{run_id}/live", live.answer),
    ]
    for page in PAGES:
        routes.append(Route(page.path, answers.html(page)))
        routes.append(Route(api_path(page.path), answers.json(page)))
        if page.figures:
            routes.append(Route(figure_path(page.path), answers.figure(page)))
    routes += [Route(action.path, answers.action(action), methods=["POST"]) for action in ACTIONS]
    app = Starlette(
        routes=routes,
        exception_handlers={
            RefusalError: partial(_tell_refusal, source),
            AlleleMlflowError: partial(_tell_error, source),
            HTTPException: _tell_missing,
            Exception: _tell_mistake,
        },
    )
    return Guard(app, entrance=entrance, hosts=hosts, refuse=render_refusal)


async def _send_static(request: Request) -> Response:
    found = static_file(request.path_params["name"])
    if found is None:
        raise RefusalError(404, "there is no such file")
    keep = _FOR_GOOD if request.path_params["name"] == PLOTLY else "no-cache"
    headers = {"etag": found.tag, "cache-control": keep, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(found.zipped, media_type=found.media_type, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)


async def _send_description(request: Request) -> Response:
    return json_response(description(PAGES, request.scope.get("root_path", "")))


async def _tell_refusal(source: Source, request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RefusalError)
    problem = source.problem() if exc.status == 503 else None
    return render_refusal(request, RefusalError(503, problem) if problem is not None else exc)


async def _tell_error(source: Source, request: Request, exc: Exception) -> Response:
    assert isinstance(exc, AlleleMlflowError)
    refusal = refusal_of(exc)
    if refusal.status == 500:
        _logger.error("%s: %s", request.url.path, exc)
    return await _tell_refusal(source, request, refusal)


async def _tell_missing(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    text = "there is no such page" if status == 404 else f"HTTP {status}"
    return render_refusal(request, RefusalError(status, text))


async def _tell_mistake(request: Request, exc: Exception) -> Response:
    # what went wrong is logged by whoever runs us; it is none of the browser's business
    text = "something went wrong here that should not have; the terminal says what"
    return render_refusal(request, RefusalError(500, text))
