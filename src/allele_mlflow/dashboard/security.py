"""
Nothing reaches a page that was not let in: hosts, sessions, forms, and what a browser may do.

    host      only names that were allowed: else a page elsewhere could have its own name lead here
    session   a token that is used once becomes a cookie that no other site's page can send
    writing   only where it was allowed, from our own pages (Origin), with their secret (CSRF)
    browser   no script but ours, no frame, no other address (Content-Security-Policy)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from secrets import compare_digest
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allele_mlflow.dashboard.refusals import RefusalError

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
STATIC = "/static/"
MOST_BODY_BYTES = 64 * 1024
MOST_FIELDS = 50
LONGEST_ADDRESS = 8000
CSRF_FIELD = "csrf"
FORM_TYPE = "application/x-www-form-urlencoded"
#: plotly sets styles on the elements that it draws; scripts are ours alone, and none is inline.
CONTENT_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # not no-referrer: browsers then hide the origin of a form too
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who asks. `name` goes into the journal with what they change; `csrf` is what forms must say.
    """

    name: str
    csrf: str
    may_write: bool


class Entrance(Protocol):
    """
    Decides who is let in.
    """

    async def admit(self, request: Request) -> Visitor | Response:
        """
        Who asks, or the answer to those who stay outside.

        Raises:
            RefusalError: nobody is let in like that.
        """


class Guard:
    """
    An ASGI app before another one. Requests that it lets through have a `visitor` in their state,
    and those that write a `form`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        entrance: Entrance,
        hosts: Collection[str] | None,
        refuse: Callable[[Request, RefusalError], Response],
    ) -> None:
        """
        Args:
            app: What is guarded.
            entrance: Who decides about visitors.
            hosts: The names by which we may be called; None where somebody else looks at them.
            refuse: Writes an answer for what is refused.
        """
        self._app = app
        self._entrance = entrance
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        One request.
        """
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        send = _with_headers(send)
        try:
            answer = await self._admit(request)
        except RefusalError as refusal:
            answer = self._refuse(request, refusal)
        except ClientDisconnect:
            return
        await (answer or self._app)(scope, receive, send)

    async def _admit(self, request: Request) -> Response | None:
        check_host(request, self._hosts)
        if len(str(request.url)) > LONGEST_ADDRESS:
            raise RefusalError(400, f"an address has at most {LONGEST_ADDRESS:,} characters here")
        if request.method not in ("GET", "HEAD", "POST"):
            raise RefusalError(405, f"{request.method}: want GET or POST")
        if _path_of(request).startswith(STATIC) and request.method != "POST":
            return None  # nobody's secret
        visitor = await self._entrance.admit(request)
        if isinstance(visitor, Response):
            return visitor
        request.state.visitor = visitor
        if request.method == "POST":
            request.state.form = await checked_form(request, visitor)
        return None


def check_host(request: Request, hosts: Collection[str] | None) -> None:
    """
    Refuse a request that was meant for somebody else's name.

    Raises:
        RefusalError: 400: its Host header is none of ours.
    """
    if hosts is None:
        return
    told = request.headers.getlist("host")
    if len(told) != 1 or host_name(told[0]) not in hosts:
        raise RefusalError(
            400,
            f"this dashboard is not called {', '.join(told) or 'nothing'}: start it with "
            "--allow-host NAME where that is its name",
        )


def host_name(netloc: str) -> str | None:
    """
    The host in `host:port`, in lower case; None where there is none.
    """
    try:
        return urlsplit(f"//{netloc}").hostname
    except ValueError:
        return None


async def checked_form(request: Request, visitor: Visitor) -> dict[str, str]:
    """
    The fields of a form that one of our own pages sent.

    Raises:
        RefusalError: 403: nothing may be written, it came from elsewhere, or does not have the
            page's secret; 400: no form; 413: it is too large.
    """
    if not visitor.may_write:
        raise RefusalError(
            403, "read only: start the dashboard with --allow-writes to change things"
        )
    origin = urlsplit(request.headers.get("origin", ""))
    is_same_site = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    if not origin.netloc or origin.netloc != request.headers.get("host") or not is_same_site:
        raise RefusalError(403, "only pages of this dashboard may change things")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise RefusalError(400, f"want a form ({FORM_TYPE})")
    fields = _fields_of(await _body_of(request))
    if not compare_digest(fields.pop(CSRF_FIELD, "").encode(), visitor.csrf.encode()):
        raise RefusalError(403, "the page is too old: load it again, and send it then")
    return fields


async def _body_of(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise RefusalError(413, f"a form has at most {MOST_BODY_BYTES:,} bytes here")
    return body


def _fields_of(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError as exc:
        raise RefusalError(400, f"no form that can be read: {exc}") from exc
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RefusalError(400, "a field stands in the form twice: want it once")
    return fields


def _path_of(request: Request) -> str:
    """
    The path below where we are mounted.
    """
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_more
