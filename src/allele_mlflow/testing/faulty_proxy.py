"""
An HTTP proxy before a real tracking server, with faults that are switched while it runs.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from allele_mlflow.clock import now_monotonic_s, now_ns

#: Longer than any client waits.
UPSTREAM_TIMEOUT_S = 120.0
BLOCK_BYTES = 1 << 16
PAGE = b"<!DOCTYPE html><html><body><h1>Something is between you and MLflow</h1></body></html>"
#: Closing sends RST and not FIN.
LINGER_NOT = struct.pack("ii", 1, 0)
#: Of one connection only (RFC 9110, 7.6.1); the bodies' lengths are written anew.
HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "content-length", "expect"),
    }
)


@dataclass(frozen=True, kw_only=True)
class HttpFault:
    """
    What happens to a request; made by the class methods.

    Attributes:
        name: Which fault, for the list of requests.
        reset: When the client's connection is broken by RST: before the request was passed on, or
            after the server has answered, so that the server has it and the client does not know.
        status: Answered instead of the server; None: the server answers.
        headers: Of that answer.
        body: Of that answer.
        retry_after_date_s: So many seconds from now is the answer's Retry-After, as a date.
        delay_s: The answer comes so late; infinite: never, until the fault is mended.
    """

    name: str
    reset: Literal["before", "after"] | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    retry_after_date_s: float | None = None
    delay_s: float = 0.0

    @classmethod
    def error(cls, status: int, code: str = "INTERNAL_ERROR", message: str = "by plan") -> Self:
        """
        An error as MLflow's server words it.
        """
        body = json.dumps({"error_code": code, "message": message}).encode()
        return cls(
            name=str(status),
            status=status,
            headers={"Content-Type": "application/json"},
            body=body,
        )

    @classmethod
    def page(cls, status: int) -> Self:
        """
        An HTML page of something between us and the server.
        """
        return cls(
            name=f"page {status}", status=status, headers={"Content-Type": "text/html"}, body=PAGE
        )

    @classmethod
    def too_many(cls, retry_after_s: float, *, as_date: bool = False) -> Self:
        """
        429 with Retry-After, in whole seconds or as an HTTP date.
        """
        return cls(
            name="429",
            status=429,
            headers={} if as_date else {"Retry-After": f"{retry_after_s:.0f}"},
            body=b"slow down",
            retry_after_date_s=retry_after_s if as_date else None,
        )

    @classmethod
    def hang(cls) -> Self:
        """
        The request is taken, and never answered nor passed on.
        """
        return cls(name="hang", reset="before", delay_s=float("inf"))

    @classmethod
    def slow(cls, delay_s: float) -> Self:
        """
        The server's answer comes so late.
        """
        return cls(name="slow", delay_s=delay_s)

    @classmethod
    def reset_before(cls) -> Self:
        """
        The connection breaks before the server has seen the request.
        """
        return cls(name="reset before", reset="before")

    @classmethod
    def reset_after_commit(cls) -> Self:
        """
        The server has done what was asked, and the connection breaks before its answer.
        """
        return cls(name="reset after commit", reset="after")


class SeenRequest(NamedTuple):
    """
    One request. `fault` is the name of what happened to it, "" where nothing did.
    """

    method: str
    path: str
    at_monotonic_s: float
    fault: str


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class _Planned:
    fault: HttpFault
    path: str
    body_holds: bytes
    times: int | None
    #: Set when it is mended: who waits goes on.
    mended: threading.Event = field(default_factory=threading.Event)

    def concerns(self, path: str, body: bytes) -> bool:
        return self.path in path and self.body_holds in body and self.times != 0


class FaultyProxy:
    """
    A server on a free local port that passes everything on, but for the faults that are planned.

    Args:
        upstream: Address of the real server, e.g. "http://127.0.0.1:5000".

    Use it as a context manager; `url` is what clients are given. It passes any method on, keeps
    connections alive, and reads a body whole before it passes it on.
    Thread safety: every method may be called from any thread while it runs. One thread a
    connection.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts
        self._lock = threading.Lock()
        self._plan: list[_Planned] = []
        self._requests: list[SeenRequest] = []
        self._connections: set[socket.socket] = set()
        self._server: http.server.ThreadingHTTPServer | None = None
        self._port = 0
        self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """
        Where clients find it.
        """
        credentials, mark, _ = self._upstream.netloc.rpartition("@")
        return f"http://{credentials}{mark}127.0.0.1:{self._port}{self._upstream.path.rstrip('/')}"

    # --- faults ---------------------------------------------------------------------------------

    def plan(
        self,
        fault: HttpFault,
        *,
        path: str = "",
        body_holds: bytes = b"",
        times: int | None = None,
    ) -> None:
        """
        From now on this happens to requests, in the order of planning, the first that fits.

        Args:
            fault: What happens.
            path: Only where this is in the path, e.g. "runs/log-batch".
            body_holds: Only where this is in the body.
            times: To so many of them; None: until `mend`.
        """
        with self._lock:
            self._plan.append(_Planned(fault, path, body_holds, times))

    def mend(self) -> None:
        """
        No fault any more; requests that hang are reset, and the port is open again.
        """
        with self._lock:
            planned, self._plan = self._plan, []
        for one in planned:
            one.mended.set()
        self.open()

    def refuse(self) -> None:
        """
        Close the port, and every connection: who comes now is refused, until `open` or `mend`.
        """
        with self._lock:
            server, self._server = self._server, None
            connections = list(self._connections)
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """
        Listen on the same port as ever; nothing where it is open.
        """
        with self._lock:
            if self._server is not None:
                return
            server = _Server(("127.0.0.1", self._port), self._handler())
            self._port, self._server = server.server_port, server
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        """
        End it, and every connection.
        """
        self.mend()
        self.refuse()

    # --- what came ------------------------------------------------------------------------------

    def requests(self, path: str = "", *, fault: str | None = None) -> list[SeenRequest]:
        """
        What came so far, oldest first.

        Args:
            path: Only where this is in the path.
            fault: Only those to which this happened; "" for those that were passed on unharmed.
        """
        with self._lock:
            return [
                seen
                for seen in self._requests
                if path in seen.path and (fault is None or seen.fault == fault)
            ]

    # --- in a connection's thread ---------------------------------------------------------------

    def _take_fault(self, method: str, path: str, body: bytes) -> _Planned | None:
        with self._lock:
            found = next((one for one in self._plan if one.concerns(path, body)), None)
            if found is not None and found.times is not None:
                found.times -= 1
            name = found.fault.name if found is not None else ""
            self._requests.append(SeenRequest(method, path, now_monotonic_s(), name))
        return found

    def _answer(self, method: str, path: str, headers: Any, body: bytes) -> _Answer | None:
        """
        What the client gets; None for a broken connection.
        """
        planned = self._take_fault(method, path, body)
        if planned is None:
            return self._ask(method, path, headers, body)
        fault = planned.fault
        answer = None
        if fault.status is not None:
            answer = _planned_answer(fault)
        elif fault.reset != "before":
            answer = self._ask(method, path, headers, body)
        if fault.delay_s:
            planned.mended.wait(None if fault.delay_s == float("inf") else fault.delay_s)
        return None if fault.reset is not None else answer

    def _ask(self, method: str, path: str, headers: Any, body: bytes) -> _Answer | None:
        host, port = str(self._upstream.hostname), self._upstream.port
        is_safe = self._upstream.scheme == "https"
        kind = http.client.HTTPSConnection if is_safe else http.client.HTTPConnection
        connection = kind(host, port, timeout=UPSTREAM_TIMEOUT_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", self._upstream.netloc.rpartition("@")[2])
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP | {"host"}:
                    connection.putheader(name, value)
            if body or method in {"POST", "PUT", "PATCH"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in HOP_BY_HOP]
            return _Answer(answer.status, kept, answer.read())
        except (OSError, http.client.HTTPException):
            return None  # what the server did to us, the client gets
        finally:
            connection.close()

    def _note_connection(self, connection: socket.socket, *, is_open: bool) -> None:
        with self._lock:
            (self._connections.add if is_open else self._connections.discard)(connection)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                proxy._note_connection(self.connection, is_open=True)

            def finish(self) -> None:
                proxy._note_connection(self.connection, is_open=False)
                with contextlib.suppress(OSError):
                    super().finish()

            def _pass_on(self) -> None:
                body = b"".join(_body_of(self.headers, self.rfile))
                answer = proxy._answer(self.command, self.path, self.headers, body)
                if answer is None:
                    _break(self.connection)
                    self.close_connection = True
                    return
                self.send_response_only(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                has_body = self.command != "HEAD" and answer.status not in {204, 304}
                if has_body:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if has_body:
                    self.wfile.write(answer.body)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the client is gone, or we broke its connection
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _pass_on

            def log_message(self, format: str, *args: object) -> None:
                """
                Say nothing.
                """

        return Handler


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # refused is the port's state, not a full queue's
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Say nothing: clients break off as they like.
        """

    def shutdown_request(self, request: Any) -> None:
        """
        Without a FIN where the connection is to break.
        """
        linger = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(LINGER_NOT))
        if linger == LINGER_NOT:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def server_bind(self) -> None:
        """
        Without asking for the machine's name, which may take seconds.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])


def _planned_answer(fault: HttpFault) -> _Answer:
    assert fault.status is not None
    now_s = now_ns() / 1e9
    headers = [*fault.headers.items(), ("Date", formatdate(now_s, usegmt=True))]
    if fault.retry_after_date_s is not None:
        moment = formatdate(now_s + fault.retry_after_date_s, usegmt=True)
        headers.append(("Retry-After", moment))
    return _Answer(fault.status, headers, fault.body)


def _body_of(headers: Any, source: Any) -> Iterator[bytes]:
    if headers.get("Transfer-Encoding", "").lower() != "chunked":
        left = int(headers.get("Content-Length") or 0)
        while left:
            block = source.read(min(left, BLOCK_BYTES))
            if not block:
                raise ConnectionResetError("the client went away in the middle of its request")
            left -= len(block)
            yield block
        return
    while size := int(source.readline().split(b";")[0] or b"0", 16):
        yield source.read(size)
        source.readline()
    while source.readline().strip():  # trailers
        pass


def _break(connection: socket.socket) -> None:
    """
    Have a connection end by RST, as that of a server that dies.
    """
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
