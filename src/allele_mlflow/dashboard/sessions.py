"""
The entrance of a dashboard that one person started: who has the token once has a cookie from then.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http.cookies import CookieError

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.security import Visitor

TOKEN = "token"
#: Browsers that are let in at a time; of more, the one that came first goes.
MOST_SESSIONS = 32
_SECRET_BYTES = 32


class TokenEntrance:
    """
    Lets in whoever has the token that is valid just now, and then their browser.
    """

    def __init__(
        self,
        *,
        user: str,
        may_write: bool,
        cookie: str = "allele_dashboard",
        on_used: Callable[[str], None] = lambda token: None,
    ) -> None:
        """
        Args:
            user: Who started the dashboard.
            may_write: Whether anything may be changed.
            cookie: The cookie's name; browsers do not keep the ports of one host apart.
            on_used: Called with the next token when one was used.
        """
        self._user = user
        self._may_write = may_write
        self._cookie = cookie
        self._on_used = on_used
        self._sessions: dict[str, Visitor] = {}
        self.token = _secret()

    async def admit(self, request: Request) -> Visitor | Response:
        """
        See `Entrance`.
        """
        given = request.query_params.get(TOKEN)
        visitor = self._visitor_of(request)
        if given is None:
            if visitor is None:
                raise RefusalError(
                    401,
                    "open the address that `allele-mlflow dashboard` wrote when it was started: it "
                    "has a token, which lets one browser in",
                )
            return visitor
        if request.method != "GET":
            raise RefusalError(405, "want GET with a token")
        rest = request.url.remove_query_params(TOKEN)
        path = "/" + rest.path.lstrip("/")  # two slashes would lead to another host
        answer = RedirectResponse(f"{path}?{rest.query}" if rest.query else path, 303)
        if visitor is None:
            self._let_in(given, answer)
        return answer

    def _visitor_of(self, request: Request) -> Visitor | None:
        try:
            return self._sessions.get(request.cookies.get(self._cookie, ""))
        except CookieError:
            return None

    def _let_in(self, given: str, answer: Response) -> None:
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise RefusalError(
                401, "this token was used, or is another dashboard's: each lets one browser in"
            )
        self.token = _secret()
        self._on_used(self.token)
        session = _secret()
        self._sessions[session] = Visitor(
            name=self._user, csrf=_secret(), may_write=self._may_write
        )
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        answer.set_cookie(self._cookie, session, path="/", httponly=True, samesite="strict")


def _secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)
