"""
Who gets past the guard, and what browsers are told.
"""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from allele_mlflow.dashboard.rendering import render_refusal
from allele_mlflow.dashboard.security import (
    CONTENT_POLICY,
    MOST_BODY_BYTES,
    Entrance,
    Guard,
    host_name,
)
from allele_mlflow.dashboard.sessions import MOST_SESSIONS, TokenEntrance
from tests.dashboard_tools import BASE, CSRF, OpenDoor, send

FORM = {"csrf": CSRF, "reason": "better"}
OURS = {"origin": BASE}


async def show(request: Request) -> Response:
    """
    Says who asked, and with what form.
    """
    form = getattr(request.state, "form", {})
    visitor = getattr(request.state, "visitor", None)
    return PlainTextResponse(f"{visitor.name if visitor else 'nobody'} {sorted(form.items())}")


def guarded(entrance: Entrance, hosts: set[str] | None = None) -> Guard:
    """
    An app of two pages behind a guard.
    """
    routes = [
        Route("/", show, methods=["GET", "POST"]),
        Route("/static/a.css", show),
        Route("/api/a.json", show),
    ]
    return Guard(
        Starlette(routes=routes),
        entrance=entrance,
        hosts=hosts or {"127.0.0.1", "::1", "lab.example"},
        refuse=render_refusal,
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:5055", 200),
        ("127.0.0.1", 200),
        ("[::1]:5055", 200),
        ("LAB.example:80", 200),
        ("evil.example:5055", 400),
        ("127.0.0.1.evil.example", 400),
        ("evil.example@127.0.0.1.evil", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_only_known_hosts_are_answered(host: str, status: int) -> None:
    """
    A request for another name, which a page elsewhere may have led here, gets no page and no file.
    """
    app = guarded(OpenDoor())
    for path in ("/", "/static/a.css", "/api/a.json"):
        assert send(app, path, headers={"host": host}).status_code == status


def test_two_hosts_are_none() -> None:
    """
    A request with two Host headers is refused, whatever they say.
    """
    app = guarded(OpenDoor())
    headers = [("host", "127.0.0.1"), ("host", "127.0.0.1")]
    assert send(app, "/", headers=headers).status_code == 400  # type: ignore[arg-type]


def test_browsers_are_told_what_they_may() -> None:
    """
    Every answer, errors among them, has the policy: scripts of our own alone, no frame, nothing
    sniffed, nothing kept.
    """
    app = guarded(OpenDoor())
    for path in ("/", "/static/a.css", "/nowhere"):
        told = send(app, path).headers
        assert told["content-security-policy"] == CONTENT_POLICY
        assert told["x-frame-options"] == "DENY"
        assert told["x-content-type-options"] == "nosniff"
        assert told["cache-control"] == "no-store"
    scripts = next(part for part in CONTENT_POLICY.split("; ") if part.startswith("script-src"))
    assert scripts == "script-src 'self'"
    assert "unsafe-eval" not in CONTENT_POLICY


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    """
    Nothing but GET, HEAD and POST is answered.
    """
    assert send(guarded(OpenDoor(may_write=True)), "/", method=method).status_code == 405


def test_form_of_our_own_page_is_taken() -> None:
    """
    With the page's secret, from our own address, where writing is allowed: the form arrives
    without the secret.
    """
    app = guarded(OpenDoor(may_write=True))
    answer = send(app, "/", method="POST", headers=OURS, data=FORM)
    assert (answer.status_code, answer.text) == (200, "ada [('reason', 'better')]")


@pytest.mark.parametrize(
    ("may_write", "headers", "form", "status"),
    [
        (False, OURS, FORM, 403),
        (True, {}, FORM, 403),
        (True, {"origin": "null"}, FORM, 403),
        (True, {"origin": "http://evil.example"}, FORM, 403),
        (True, {"origin": "http://127.0.0.1:9999"}, FORM, 403),
        (True, OURS | {"sec-fetch-site": "cross-site"}, FORM, 403),
        (True, OURS | {"sec-fetch-site": "same-site"}, FORM, 403),
        (True, OURS, {"reason": "better"}, 403),
        (True, OURS, FORM | {"csrf": "guessed"}, 403),
        (True, OURS, FORM | {"reason": "x" * MOST_BODY_BYTES}, 413),
        (True, OURS | {"content-type": "text/plain"}, FORM, 400),
        (True, OURS, {f"field{number}": "x" for number in range(60)}, 400),
    ],
)
def test_other_forms_are_refused(
    may_write: bool, headers: dict[str, str], form: dict[str, str], status: int
) -> None:
    """
    Read-only, from another site or none, without the secret, too large, or no form: refused.
    """
    app = guarded(OpenDoor(may_write=may_write))
    assert send(app, "/", method="POST", headers=headers, data=form).status_code == status


def test_token_lets_one_browser_in() -> None:
    """
    The first who has the token gets a cookie that other sites' pages cannot send, and the address
    without it; the second with the same token gets nothing, and the next token is told.
    """
    told: list[str] = []
    entrance = TokenEntrance(user="ada", may_write=False, on_used=told.append)
    app, token = guarded(entrance), entrance.token
    assert send(app, "/").status_code == 401
    answer = send(app, f"/?page=2&token={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?page=2")
    cookie = answer.headers["set-cookie"]
    for word in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    inside = {"cookie": cookie.partition(";")[0]}
    assert send(app, "/", headers=inside).text == "ada []"
    assert send(app, f"/?token={token}").status_code == 401
    assert told == [entrance.token] != [token]
    assert send(app, f"/?token={told[0]}").status_code == 303


def test_token_of_somebody_inside_is_not_used_up() -> None:
    """
    Who is inside and follows the address again gets the page, and the token stays.
    """
    entrance = TokenEntrance(user="ada", may_write=False)
    app = guarded(entrance)
    cookie = send(app, f"/?token={entrance.token}").headers["set-cookie"].partition(";")[0]
    token = entrance.token
    assert send(app, f"/?token={token}", headers={"cookie": cookie}).status_code == 303
    assert entrance.token == token


def test_token_leads_to_no_other_host() -> None:
    """
    An address whose path looks like another host's leads to a path of ours.
    """
    entrance = TokenEntrance(user="ada", may_write=False)
    answer = send(guarded(entrance), f"{BASE}//evil.example/?token={entrance.token}")
    assert answer.headers["location"] == "/evil.example/"


def test_sessions_are_bounded() -> None:
    """
    Of more browsers than are kept, the first one is out again.
    """
    entrance = TokenEntrance(user="ada", may_write=False)
    app = guarded(entrance)
    cookies = [
        send(app, f"/?token={entrance.token}").headers["set-cookie"].partition(";")[0]
        for _ in range(MOST_SESSIONS + 1)
    ]
    assert send(app, "/", headers={"cookie": cookies[0]}).status_code == 401
    assert send(app, "/", headers={"cookie": cookies[-1]}).status_code == 200


@pytest.mark.parametrize("cookie", ["allele_dashboard=", "allele_dashboard=x", '=";;a', "\x7f"])
def test_bad_cookies_are_nobodys(cookie: str) -> None:
    """
    A cookie that is none of ours, or none at all, lets nobody in.
    """
    app = guarded(TokenEntrance(user="ada", may_write=False))
    assert send(app, "/", headers={"cookie": cookie}).status_code == 401


def test_style_is_for_everybody() -> None:
    """
    The page that refuses may look like one.
    """
    app = guarded(TokenEntrance(user="ada", may_write=False))
    assert send(app, "/static/a.css").text == "nobody []"


def test_api_is_refused_as_json() -> None:
    """
    A program is told in JSON.
    """
    answer = send(guarded(TokenEntrance(user="ada", may_write=False)), "/api/a.json")
    assert answer.status_code == 401
    assert set(answer.json()) == {"error", "detail"}


def test_host_of_an_address() -> None:
    """
    Ports, brackets and case are no part of a name.
    """
    assert host_name("LocalHost:80") == "localhost"
    assert host_name("[::1]:80") == "::1"
    assert host_name("[::1") is None
