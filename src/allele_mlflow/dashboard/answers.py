"""
A page's answers: HTML, JSON, and its figures, all from one query.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from allele_mlflow.dashboard.addresses import ServerAddresses, fill
from allele_mlflow.dashboard.figures import figure_document
from allele_mlflow.dashboard.pages.page import Action, Ask, Page, Params
from allele_mlflow.dashboard.pages.registry_rows import STAGE_NAMES
from allele_mlflow.dashboard.refusals import RefusalError, refusal_of
from allele_mlflow.dashboard.rendering import render_page, render_refusal_page
from allele_mlflow.dashboard.security import Visitor
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Option, View, parse_view, typed_view
from allele_mlflow.errors import AlleleMlflowError

Endpoint = Callable[[Request], Awaitable[Response]]
SCHEME = Option("scheme", "Colours", ("light", "dark"), "light")


class Answers:
    """
    The endpoints of pages over one source.
    """

    def __init__(self, source: Source, pages: Sequence[Page]) -> None:
        """
        Args:
            source: What the pages are made of.
            pages: All of them, for the bar at the top.
        """
        self._source = source
        self._pages = pages

    def html(self, page: Page) -> Endpoint:
        """
        The page for people.
        """

        async def answer(request: Request) -> Response:
            try:
                return await shown(request)
            except (RefusalError, AlleleMlflowError) as exc:
                refusal = exc if isinstance(exc, RefusalError) else refusal_of(exc)
                if not _is_of_form(request, page, refusal):
                    raise
                return self._refused(request, page, refusal)

        async def shown(request: Request) -> Response:
            ask = self._ask(request, page.knobs)
            visitor: Visitor = request.state.visitor
            addresses = ServerAddresses(request.scope.get("root_path", ""))

            def render() -> str:
                return render_page(
                    page,
                    page.query(ask),
                    params=ask.params,
                    view=ask.view,
                    visitor=visitor,
                    addresses=addresses,
                    pages=self._pages,
                )

            return HTMLResponse(await self._source.ask(render))

        return answer

    def json(self, page: Page) -> Endpoint:
        """
        The same for programs.
        """

        async def answer(request: Request) -> Response:
            ask = self._ask(request, page.knobs)
            return json_response(await self._source.ask(lambda: _encoded(page.query(ask))))

        return answer

    def figure(self, page: Page) -> Endpoint:
        """
        A figure of the page by the name in the path; 204 where there is nothing to draw.
        """
        knobs = replace(page.knobs, options=(*page.knobs.options, SCHEME))

        async def answer(request: Request) -> Response:
            ask = self._ask(request, knobs)
            make = page.figures.get(ask.params["figure"])
            if make is None:
                known = ", ".join(page.figures)
                raise RefusalError(404, f"this page has no such figure: want one of {known}")
            is_dark = ask.view.options["scheme"] == "dark"
            found = await self._source.ask(lambda: figure_document(make(ask, is_dark)))
            return Response(status_code=204) if found is None else json_response(found)

        return answer

    def action(self, action: Action) -> Endpoint:
        """
        What a form changes; then another page.
        """

        async def answer(request: Request) -> Response:
            visitor: Visitor = request.state.visitor
            form: dict[str, str] = request.state.form
            params = _params_of(request)
            try:
                path = await self._source.ask(
                    lambda: action.perform(self._source, params, form, visitor.name)
                )
            except (RefusalError, AlleleMlflowError) as exc:
                refusal = exc if isinstance(exc, RefusalError) else refusal_of(exc)
                if refusal.status >= 500:
                    raise
                raise _with_way_back(refusal, action, params, form) from exc
            return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303)

        return answer

    def _refused(self, request: Request, page: Page, refusal: RefusalError) -> Response:
        """
        Why the page is not shown, with its form as it was filled in.
        """
        text = render_refusal_page(
            refusal,
            ServerAddresses(request.scope.get("root_path", "")),
            page=page,
            params=_params_of(request),
            view=typed_view(request.query_params.multi_items(), page.knobs),
            pages=self._pages,
        )
        return HTMLResponse(text, refusal.status)

    def _ask(self, request: Request, knobs: Knobs) -> Ask:
        view: View = parse_view(request.query_params.multi_items(), knobs)
        return Ask(self._source, _params_of(request), view)


def json_response(body: bytes) -> Response:
    """
    JSON as it is.
    """
    return Response(body, media_type="application/json")


def _params_of(request: Request) -> Params:
    return {name: str(value) for name, value in request.path_params.items()}


def _is_of_form(request: Request, page: Page, refusal: RefusalError) -> bool:
    """
    Whether a page could be shown if its form was filled in otherwise.
    """
    if refusal.status == 404:
        return bool(request.query_params) and not page.param_names
    return refusal.status == 400


def _with_way_back(
    refusal: RefusalError, action: Action, params: Params, form: Mapping[str, str]
) -> RefusalError:
    """
    A refusal that leads back to the page of the form.
    """
    stage = form.get("stage", "")
    query = f"?{urlencode({'stage': stage})}" if stage in STAGE_NAMES else ""
    return RefusalError(refusal.status, refusal.text, back=f"{fill(action.page, params)}{query}")


def _encoded(content: Any) -> bytes:
    # what is no number is null: JSON knows no NaN
    return msgspec.json.encode(content)
