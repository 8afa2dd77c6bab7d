"""
The dashboard inside `mlflow server`, so that a team has one address:

    mlflow server --app-name allele-dashboard ...
    mlflow server --app-name allele-dashboard-basic-auth ...

The second stands behind MLflow's own login. Who is asked about a visitor is the server itself, with
the visitor's own headers: what it lets nobody see, the dashboard shows nobody. Without a login the
dashboard is read-only; with one, administrators may change things, and their name goes into the
journal.

Nothing of MLflow is imported at the top: it loads its plugins while it is half imported itself.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message

from allele_mlflow import settings as settings_module
from allele_mlflow.dashboard.app import make_app
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.security import Visitor
from allele_mlflow.dashboard.source import Source
from allele_mlflow.settings import variable
from allele_mlflow.tracking.server_store import open_app as open_bulk_app

PATH = "/allele"
#: Where MLflow's login says who somebody is; a server without one has no such path.
CURRENT_USER = "/api/2.0/mlflow/users/current"
MOST_ANSWER_BYTES = 1 << 20
_PASSED_HEADERS = (b"authorization", b"cookie", b"host", b"origin", b"x-mlflow-workspace")
_logger = logging.getLogger(__name__)


def open_app() -> Any:
    """
    MLflow's server as of `--app-name bulk`, with the dashboard at `/allele`.
    """
    return add_dashboard(open_bulk_app(), has_login=False)


def open_app_with_login() -> Any:
    """
    MLflow's server behind its own login (`--app-name basic-auth`), with the dashboard at `/allele`.
    """
    from mlflow.server.auth import create_app

    return add_dashboard(create_app(), has_login=True)


def add_dashboard(app: Any, *, has_login: bool) -> Any:
    """
    The same app with the dashboard before MLflow's own pages.

    Args:
        app: MLflow's, as uvicorn serves it.
        has_login: Whether it knows who its visitors are.
    """
    routes = getattr(getattr(app, "router", None), "routes", None)
    if routes is None:
        _logger.warning("no dashboard: it needs the server's uvicorn, not gunicorn or waitress")
        return app
    source = Source(_settings(), spools=[])
    entrance = ServerEntrance(app, has_login=has_login)
    # MLflow's own middleware looks at hosts, before any route
    routes.insert(0, Mount(PATH, app=make_app(source, entrance, hosts=None)))
    routes.insert(1, Route(PATH, _to_first_page))
    return app


async def _to_first_page(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{PATH}/")


def _settings() -> settings_module.Settings:
    """
    Those of the server: its stores are what `mlflow server` was told.
    """
    from mlflow.server import constants

    store = variable(getattr(constants, "BACKEND_STORE_URI_ENV_VAR", "_MLFLOW_SERVER_FILE_STORE"))
    registry = variable(
        getattr(constants, "REGISTRY_STORE_URI_ENV_VAR", "_MLFLOW_SERVER_REGISTRY_STORE")
    )
    return settings_module.load({"tracking_uri": store, "model_registry_uri": registry or store})


class _Answer(NamedTuple):
    """
    What the server itself answered.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class ServerEntrance:
    """
    Asks the server in which the dashboard is mounted who a visitor is.
    """

    def __init__(self, app: ASGIApp, *, has_login: bool) -> None:
        """
        Args:
            app: The server.
            has_login: Whether it knows its visitors. Where it does, and does not say who somebody
                is, nobody is let in.
        """
        self._app = app
        self._has_login = has_login
        self._secret = secrets.token_bytes(32)

    async def admit(self, request: Request) -> Visitor | Response:
        """
        See `Entrance`.

        Raises:
            RefusalError: 403: the visitor is no administrator, or the server does not say who it
                is.
        """
        if not self._has_login:
            return Visitor(name="", csrf="", may_write=False)
        answer = await self._ask(request)
        if answer.status != 200:
            return Response(answer.body, answer.status, headers=_challenge(answer))
        try:
            user = msgspec.json.decode(answer.body, type=_Told).user
        except msgspec.MsgspecError as exc:
            raise RefusalError(403, "the server does not say who you are") from exc
        if not user.is_admin:
            # MLflow's permissions are of single experiments; a page shows many at once
            raise RefusalError(403, "the dashboard is for administrators of this server")
        csrf = hmac.new(self._secret, user.username.encode(), hashlib.sha256).hexdigest()
        return Visitor(name=user.username, csrf=csrf, may_write=True)

    async def _ask(self, request: Request) -> _Answer:
        scope = {
            **{key: request.scope[key] for key in ("type", "asgi", "http_version", "scheme")},
            "method": "GET",
            "path": CURRENT_USER,
            "raw_path": CURRENT_USER.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [pair for pair in request.scope["headers"] if pair[0] in _PASSED_HEADERS],
            "client": request.scope.get("client"),
            "server": request.scope.get("server"),
            "state": {},
        }
        status, headers, body = 500, [], b""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", []))
            else:
                body += message.get("body", b"")[: MOST_ANSWER_BYTES - len(body)]

        await self._app(scope, receive, send)
        return _Answer(status, headers, body)


class _User(msgspec.Struct):
    username: str
    is_admin: bool = False


class _Told(msgspec.Struct):
    user: _User


def _challenge(answer: _Answer) -> dict[str, str]:
    """
    What a browser asks a person for a password by.
    """
    wanted = (b"www-authenticate", b"content-type")
    return {name.decode(): value.decode() for name, value in answer.headers if name in wanted}
