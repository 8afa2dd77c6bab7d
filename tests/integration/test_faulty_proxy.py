"""
The faulty proxy itself, before a tiny server: what passes unharmed, and what each fault does.
"""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.testing import FaultyProxy, HttpFault
from tests.integration.runs import wait_for

DEADLINE_S = 20.0


class Upstream(http.server.ThreadingHTTPServer):
    """
    Answers with what it was sent, and remembers it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Echo)


class Echo(http.server.BaseHTTPRequestHandler):
    """
    The body back, with the path in a header.
    """

    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.bodies.append(body)
        self.send_response(200)
        self.send_header("X-Path", self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """
        Say nothing.
        """


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """
    A running server.
    """
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(DEADLINE_S)


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultyProxy]:
    """
    A proxy before it.
    """
    with FaultyProxy(f"http://127.0.0.1:{upstream.server_port}/base") as proxy:
        yield proxy


def connect(proxy: FaultyProxy, *, timeout_s: float = DEADLINE_S) -> http.client.HTTPConnection:
    """
    A client's connection.
    """
    return http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.url).port, timeout=timeout_s)


def ask(
    proxy: FaultyProxy, path: str = "/base/x", body: bytes = b"hello", *, timeout_s: float = 20.0
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """
    Status, body and headers of one request on a connection of its own.
    """
    connection = connect(proxy, timeout_s=timeout_s)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_requests_pass_unharmed(proxy: FaultyProxy) -> None:
    """Bodies of megabytes, chunked ones and several requests on one connection come through."""
    assert proxy.url.endswith("/base")
    large = bytes(range(256)) * 20_000
    assert ask(proxy, "/base/a?b=c", large)[1] == large
    connection = connect(proxy)
    for number in range(3):
        connection.request("PUT", f"/base/{number}", iter([b"in ", b"parts"]), encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.read(), answer.headers["X-Path"]) == (b"in parts", f"/base/{number}")
    connection.request("GET", "/base/none")
    assert connection.getresponse().read() == b""
    connection.close()
    assert [seen.method for seen in proxy.requests()] == ["POST", "PUT", "PUT", "PUT", "GET"]
    assert {seen.fault for seen in proxy.requests()} == {""}


def test_fault_meets_only_what_it_is_planned_for(proxy: FaultyProxy, upstream: Upstream) -> None:
    """A fault for a path, a body and a number of requests leaves all others alone."""
    proxy.plan(HttpFault.error(400), path="log-batch", body_holds=b"poison", times=2)
    assert ask(proxy, "/base/log-batch", b"good")[0] == 200
    assert ask(proxy, "/base/create", b"poison")[0] == 200
    assert [ask(proxy, "/base/log-batch", b"a poison b")[0] for _ in range(3)] == [400, 400, 200]
    assert len(proxy.requests("log-batch", fault="400")) == 2
    assert upstream.bodies == [b"good", b"poison", b"a poison b"]


def test_mended_proxy_has_no_fault(proxy: FaultyProxy) -> None:
    """After `mend` everything passes; pages come with the status that was asked for."""
    proxy.plan(HttpFault.page(502))
    status, body, headers = ask(proxy)
    assert (status, headers["Content-Type"]) == (502, "text/html")
    assert b"<html>" in body
    proxy.mend()
    assert ask(proxy)[0] == 200


def test_retry_after_in_both_forms(proxy: FaultyProxy) -> None:
    """Retry-After comes in seconds, or as a date that lies so far after the answer's own."""
    proxy.plan(HttpFault.too_many(7), times=1)
    proxy.plan(HttpFault.too_many(7, as_date=True), times=1)
    status, _, headers = ask(proxy)
    assert (status, headers["Retry-After"]) == (429, "7")
    headers = ask(proxy)[2]
    dates = [parsedate_to_datetime(headers[name]) for name in ("Date", "Retry-After")]
    assert (dates[1] - dates[0]).total_seconds() == 7


def test_refused_and_open_again(proxy: FaultyProxy) -> None:
    """A refusing proxy ends its connections, and comes back on the same port."""
    url, kept = proxy.url, connect(proxy)
    kept.request("POST", "/base/x", b"a")
    kept.getresponse().read()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)
    assert kept.sock.recv(1) == b""
    kept.close()
    proxy.open()
    assert proxy.url == url
    assert ask(proxy)[0] == 200


def test_hanging_request_ends_when_it_is_mended(proxy: FaultyProxy, upstream: Upstream) -> None:
    """A request that hangs never reaches the server, and is reset by `mend`."""
    proxy.plan(HttpFault.hang())
    with pytest.raises(TimeoutError):
        ask(proxy, timeout_s=0.1)
    connection = connect(proxy)
    connection.request("POST", "/base/x", b"a")
    wait_for(lambda: len(proxy.requests(fault="hang")) == 2, "the request")
    proxy.mend()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    connection.close()
    assert upstream.bodies == []


def test_slow_answer(proxy: FaultyProxy) -> None:
    """A slow answer is the server's own, later."""
    proxy.plan(HttpFault.slow(0.2))
    before_s = now_monotonic_s()
    assert ask(proxy)[:2] == (200, b"hello")
    assert now_monotonic_s() - before_s >= 0.2


@pytest.mark.parametrize(
    ("fault", "arrives"), [(HttpFault.reset_before(), 0), (HttpFault.reset_after_commit(), 1)]
)
def test_reset(proxy: FaultyProxy, upstream: Upstream, fault: HttpFault, arrives: int) -> None:
    """A reset connection is broken by RST, before the server saw the request or after it."""
    proxy.plan(fault, times=1)
    with pytest.raises(ConnectionResetError):
        ask(proxy)
    assert len(upstream.bodies) == arrives
    assert ask(proxy)[0] == 200


def test_server_that_is_gone(proxy: FaultyProxy, upstream: Upstream) -> None:
    """Where nobody is behind the proxy, the client's connection breaks."""
    upstream.server_close()
    with pytest.raises(ConnectionError):
        ask(proxy)
