"""
Serving the dashboard to one person: a socket, a server, an end by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Collection
from types import FrameType

import uvicorn

from allele_mlflow.dashboard.app import make_app
from allele_mlflow.dashboard.security import LOOPBACK_HOSTS
from allele_mlflow.dashboard.sessions import TOKEN, TokenEntrance
from allele_mlflow.dashboard.source import Source
from allele_mlflow.errors import ErrorKind, SettingsError

#: Connections and requests at a time; a browser keeps six.
MOST_CONNECTIONS = 64
#: How long an answer may take once the server is to end.
LAST_ANSWERS_S = 2


def is_loopback(host: str) -> bool:
    """
    Whether only this machine reaches that address.
    """
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def open_socket(host: str, port: int) -> socket.socket:
    """
    A socket that listens.

    Raises:
        SettingsError: the address is not ours, or taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as exc:
        reason = exc.strerror or exc if isinstance(exc, OSError) else exc
        raise SettingsError(
            f"--host {host} --port {port}: {reason}; want an address of this machine and a port "
            "that is free (0 takes any)",
            kind=ErrorKind.BAD_SETTING,
            name="port",
        ) from exc


class DashboardServer:
    """
    A dashboard on a socket, for one person.
    """

    def __init__(
        self,
        source: Source,
        listening: socket.socket,
        *,
        user: str,
        may_write: bool,
        hosts: Collection[str] = (),
        on_token: Callable[[str], None],
    ) -> None:
        """
        Args:
            source: What it shows.
            listening: As of `open_socket`.
            user: Who starts it.
            may_write: Whether anything may be changed.
            hosts: Names by which it may be called, besides those of the loopback and its own.
            on_token: Called with an address that lets one browser in; again when it was used.
        """
        self._source = source
        self._socket = listening
        self._on_token = on_token
        host, self._port = listening.getsockname()[:2]
        self._host = "localhost" if host in ("0.0.0.0", "::") else host
        self._entrance = TokenEntrance(
            user=user,
            may_write=may_write,
            cookie=f"allele_dashboard_{self._port}",
            on_used=lambda token: on_token(self._address(token)),
        )
        app = make_app(source, self._entrance, hosts={*LOOPBACK_HOSTS, self._host, *hosts})
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=LAST_ANSWERS_S,
            ),
            source,
        )

    @property
    def address(self) -> str:
        """
        Where a browser is let in, once.
        """
        return self._address(self._entrance.token)

    def run(self) -> None:
        """
        Serve until a signal ends it.
        """
        # it tells of its start and end; errors are told
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        self._on_token(self.address)
        with contextlib.suppress(KeyboardInterrupt):
            self._source.warm_up()  # whoever asks meanwhile waits for it
            self._server.run(sockets=[self._socket])
        self._source.close()

    def stop(self) -> None:
        """
        Have `run` return; from any thread.
        """
        self._source.is_closing = True
        self._server.should_exit = True

    def _address(self, token: str) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/?{TOKEN}={token}"


class _Server(uvicorn.Server):
    """
    Has those who stream come to an end before it waits for them.
    """

    def __init__(self, config: uvicorn.Config, source: Source) -> None:
        super().__init__(config)
        self._source = source

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._source.is_closing = True
        super().handle_exit(sig, frame)
