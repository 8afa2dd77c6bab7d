"""
A dashboard without a socket, as a browser that was let in asks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from allele_mlflow import settings as settings_module
from allele_mlflow.dashboard.app import make_app
from allele_mlflow.dashboard.security import Visitor
from allele_mlflow.dashboard.source import Source

CSRF = "the page's secret"
BASE = "http://127.0.0.1:5055"


class OpenDoor:
    """
    Lets everybody in.
    """

    def __init__(self, *, may_write: bool = False, name: str = "ada") -> None:
        self.visitor = Visitor(name=name, csrf=CSRF, may_write=may_write)

    async def admit(self, request: Request) -> Visitor | Response:
        """
        See `Entrance`.
        """
        return self.visitor


def send(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    base: str = BASE,
) -> httpx.Response:
    """
    One request of a browser, and what it gets.
    """

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # raises what the app does
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, headers=headers, data=data)

    return asyncio.run(ask())


def dashboard_of(store: Path | str, spools: list[Path] | None = None, **entrance: Any) -> ASGIApp:
    """
    The dashboard of a store, and of these spools alone.
    """
    uri = f"sqlite:///{store}" if isinstance(store, Path) else store
    settings = settings_module.load({"tracking_uri": uri}, environ={})
    source = Source(settings, spools=spools or [])
    return make_app(source, OpenDoor(**entrance), hosts={"127.0.0.1", "localhost"})


def json_of(app: ASGIApp, path: str) -> Any:
    """
    What the API says, which must be fine.
    """
    answer = send(app, path)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content)
