"""
Who is let in where the dashboard stands inside another server.
"""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from allele_mlflow.dashboard.mlflow_app import CURRENT_USER, ServerEntrance
from allele_mlflow.dashboard.rendering import render_refusal
from allele_mlflow.dashboard.security import Guard
from tests.dashboard_tools import BASE, send

USERS = {"Basic ada": {"username": "ada", "is_admin": True}, "Basic bob": {"username": "bob"}}


async def tell_user(request: Request) -> Response:
    """
    As MLflow's login answers.
    """
    user = USERS.get(request.headers.get("authorization", ""))
    if user is None:
        return PlainTextResponse("who?", 401, headers={"www-authenticate": 'Basic realm="mlflow"'})
    return JSONResponse({"user": user, "is_basic_auth": True})


async def show(request: Request) -> Response:
    """
    Says who asks, and the secret of the page.
    """
    visitor = request.state.visitor
    return JSONResponse([visitor.name, visitor.may_write, visitor.csrf, str(request.url.path)])


def server(*, has_login: bool, knows_users: bool = True) -> Starlette:
    """
    A server with a page of ours at /allele.
    """
    app = Starlette(routes=[Route(CURRENT_USER, tell_user)] if knows_users else [])
    inner = Starlette(routes=[Route("/page", show, methods=["GET", "POST"])])
    guard = Guard(
        inner,
        entrance=ServerEntrance(app, has_login=has_login),
        hosts=None,
        refuse=render_refusal,
    )
    app.router.routes.insert(0, Mount("/allele", app=guard))
    return app


def test_without_a_login_all_may_look_and_nobody_write() -> None:
    """
    A server that knows nobody shows the pages, and takes no form.
    """
    app = server(has_login=False)
    assert send(app, "/allele/page").json()[:2] == ["", False]
    sent = send(app, "/allele/page", method="POST", headers={"origin": BASE}, data={"csrf": ""})
    assert sent.status_code == 403


def test_whom_the_server_does_not_know_is_asked_for_a_password() -> None:
    """
    The server's own answer is passed on, with what makes a browser ask.
    """
    answer = send(server(has_login=True), "/allele/page")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="mlflow"'


def test_administrators_are_let_in_by_name() -> None:
    """
    An administrator sees the page and may write with its secret; anybody else's secret is none.
    """
    app = server(has_login=True)
    headers = {"authorization": "Basic ada", "origin": BASE}
    name, may_write, csrf, path = send(app, "/allele/page", headers=headers).json()
    assert (name, may_write, path) == ("ada", True, "/allele/page")
    for secret, status in ((csrf, 200), ("", 403), (csrf[::-1], 403)):
        form = {"csrf": secret, "reason": "better"}
        sent = send(app, "/allele/page", method="POST", headers=headers, data=form)
        assert sent.status_code == status


def test_others_are_not() -> None:
    """
    A user whom the server restricts to some experiments does not see all of them here.
    """
    answer = send(server(has_login=True), "/allele/page", headers={"authorization": "Basic bob"})
    assert answer.status_code == 403
    assert "administrators" in answer.text


def test_a_login_that_names_nobody_lets_nobody_in() -> None:
    """
    A server that is said to know its visitors, and does not answer who they are, has no dashboard.
    """
    app = server(has_login=True, knows_users=False)
    answer = send(app, "/allele/page", headers={"authorization": "Basic ada"})
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/allele/../api", "/allelex/page"])
def test_only_its_own_path_is_the_dashboards(path: str) -> None:
    """
    Other paths are the server's own.
    """
    assert send(server(has_login=False), path).status_code == 404
