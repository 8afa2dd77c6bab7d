"""
Errors of servers and proxies, through the real MLflow client: what reaches the sidecar.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.records import Reading, RunId
from allele_mlflow.tracking.client import MlflowTracking

RUN_ID = RunId("a" * 32)
DEADLINE_S = 30.0


@dataclass
class Proxy:
    """
    A server that gives one answer to everything, or none.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    silence: threading.Event | None = None
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    #: Through `HttpBatches`, or MLflow's own call.
    is_compact: bool = False

    def says_json(self, status: int, code: str, message: str) -> None:
        """
        Answer as MLflow's server does.
        """
        self.status = status
        self.body = json.dumps({"error_code": code, "message": message}).encode()

    def says_page(self, status: int) -> None:
        """
        Answer as something between us and MLflow's server does.
        """
        self.status, self.body = status, b"<html><body>Bad Gateway</body></html>"


def handler_of(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:
    """
    A request handler bound to one proxy.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            """
            Count a connection.
            """
            proxy.connections += 1
            super().setup()

        def do_POST(self) -> None:
            proxy.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            proxy.requests.append(self.path)
            proxy.authorizations.append(self.headers.get("Authorization", ""))
            if proxy.silence is not None:
                proxy.silence.wait(DEADLINE_S)
                self.close_connection = True
                return
            self.send_response(proxy.status)
            for name, value in proxy.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(proxy.body)))
            self.end_headers()
            self.wfile.write(proxy.body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """
            Say nothing.
            """

    return Handler


@pytest.fixture(params=["MLflow", "compact"])
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """
    A proxy on a free port; batches are sent by MLflow's own call, then by ours.
    """
    proxy = Proxy(is_compact=request.param == "compact")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield proxy
    if proxy.silence is not None:
        proxy.silence.set()
    server.shutdown()
    server.server_close()
    thread.join(DEADLINE_S)


def error_of(proxy: Proxy) -> TrackingError:
    """
    What one `log_batch` through the proxy raises.
    """
    with pytest.raises(TrackingError) as caught:
        _send_one(proxy)
    return caught.value


def _send_one(proxy: Proxy) -> MlflowTracking:
    tracking = MlflowTracking(proxy.url, is_bulk=proxy.is_compact)
    tracking.log_batch(RUN_ID, readings=[Reading("loss", 1.0, 1, 1)])
    return tracking


def test_compact_body(proxy: Proxy) -> None:
    """
    A batch is one request with one JSON body, whoever writes it, and numbers are numbers.
    """
    tracking = _send_one(proxy)
    assert proxy.requests == ["/api/2.0/mlflow/runs/log-batch"]
    body = json.loads(proxy.bodies[0])
    assert body["run_id"] == RUN_ID
    assert body["metrics"] == [{"key": "loss", "value": 1.0, "timestamp": 1, "step": 1}]
    assert tracking.writes_by == ("compact HTTP" if proxy.is_compact else "MLflow")


def test_mlflows_credentials_are_sent(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The token that MLflow would send is sent.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t")
    _send_one(proxy)
    assert proxy.authorizations == ["Bearer s3cr3t"]


def test_odd_answers_are_left_to_mlflows_own_call(proxy: Proxy) -> None:
    """
    A server that answers 200 and not what MLflow's does: its own call is made each time, and after
    three of them at once.
    """
    proxy.body = b'{"accepted": 1}'
    tracking = _send_one(proxy)
    for step in range(2):
        assert tracking.writes_by == ("compact HTTP" if proxy.is_compact else "MLflow")
        tracking.log_batch(RUN_ID, readings=[Reading("loss", 2.0, 2, step)])
    assert len(proxy.requests) == (6 if proxy.is_compact else 3)
    tracking.log_batch(RUN_ID, readings=[Reading("loss", 2.0, 2, 5)])
    assert len(proxy.requests) == (7 if proxy.is_compact else 4)
    assert tracking.writes_by.startswith("MLflow")
    if proxy.is_compact:
        assert "accepted" in tracking.writes_by


def test_one_odd_answer_is_no_habit(proxy: Proxy) -> None:
    """
    A server that is odd now and then, as when its pool is empty for a moment, is trusted again.
    """
    for step in range(8):
        if step == 0:
            tracking = _send_one(proxy)
        proxy.body = b'{"accepted": 1}' if step % 2 else b"{}"
        tracking.log_batch(RUN_ID, readings=[Reading("loss", 2.0, 2, step)])
    assert tracking.writes_by == ("compact HTTP" if proxy.is_compact else "MLflow")


def test_connection_stays_open(proxy: Proxy) -> None:
    """
    Many batches go through one connection.
    """
    tracking = _send_one(proxy)
    for step in range(5):
        tracking.log_batch(RUN_ID, readings=[Reading("loss", 1.0, 1, step)])
    assert proxy.connections == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, ErrorKind.STORE_UNREACHABLE),
        (429, ErrorKind.STORE_BUSY),
        (500, ErrorKind.STORE_UNREACHABLE),
        (502, ErrorKind.STORE_UNREACHABLE),
        (503, ErrorKind.STORE_UNREACHABLE),
        (504, ErrorKind.STORE_UNREACHABLE),
        (301, ErrorKind.STORE_UNREACHABLE),
        (400, ErrorKind.STORE_UNREACHABLE),
        (401, ErrorKind.UNAUTHORISED),
        (403, ErrorKind.UNAUTHORISED),
        (404, ErrorKind.STORE_UNREACHABLE),
        (409, ErrorKind.STORE_BUSY),
        (200, ErrorKind.STORE_UNREACHABLE),
    ],
)
def test_a_proxys_page_never_sets_records_aside(proxy: Proxy, status: int, kind: ErrorKind) -> None:
    """
    HTML instead of MLflow's JSON says nothing about the records, whatever its status.
    """
    proxy.says_page(status)
    error = error_of(proxy)
    assert type(error) is TransientTrackingError
    assert error.kind is kind
    assert error.facts["http_status"] == (None if status == 200 else status)


@pytest.mark.parametrize("status", [429, 503])
def test_the_wish_to_wait_comes_through(proxy: Proxy, status: int) -> None:
    """
    Retry-After reaches whoever plans the retry, at once: nobody sleeps in the call.
    """
    proxy.says_page(status)
    proxy.headers["Retry-After"] = "17"
    began_s = now_monotonic_s()
    error = error_of(proxy)
    assert isinstance(error, TransientTrackingError)
    assert error.retry_after_s == 17.0
    assert now_monotonic_s() - began_s < 10.0


def test_one_call_is_one_request(proxy: Proxy) -> None:
    """
    MLflow repeats nothing behind our back: a repeated create_run would be a second run.
    """
    proxy.says_page(503)
    with pytest.raises(TransientTrackingError):
        MlflowTracking(proxy.url).create_run("1", run_name="r", start_ms=1, tags={})
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INVALID_PARAMETER_VALUE", ErrorKind.REFUSED),
        (400, "BAD_REQUEST", ErrorKind.REFUSED),
        (404, "RESOURCE_DOES_NOT_EXIST", ErrorKind.NOT_FOUND),
    ],
)
def test_mlflows_own_refusal_is_final(
    proxy: Proxy, status: int, code: str, kind: ErrorKind
) -> None:
    """
    The server's own words set a record aside, and stand in the error.
    """
    proxy.says_json(status, code, "failed with error code 503: database is locked")
    error = error_of(proxy)
    assert type(error) is PermanentTrackingError
    assert error.kind is kind
    assert error.facts["error_code"] == code
    assert "database is locked" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "UNAUTHENTICATED", ErrorKind.UNAUTHORISED),
        (403, "PERMISSION_DENIED", ErrorKind.UNAUTHORISED),
        (404, "ENDPOINT_NOT_FOUND", ErrorKind.STORE_UNREACHABLE),
        (400, "SOMETHING_NEW", ErrorKind.STORE_UNREACHABLE),
    ],
)
def test_mlflows_other_errors_are_retried(
    proxy: Proxy, status: int, code: str, kind: ErrorKind
) -> None:
    """
    Credentials and routes can be put right; a code we never heard of is no reason to give up.
    """
    proxy.says_json(status, code, "no")
    error = error_of(proxy)
    assert type(error) is TransientTrackingError
    assert error.kind is kind


def test_a_full_pool_is_no_bad_request(proxy: Proxy) -> None:
    """
    MLflow's server reports its exhausted connection pool as 400; the batch waits and is kept.
    """
    proxy.says_json(
        400,
        "BAD_REQUEST",
        "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00 "
        "(Background on this error at: https://sqlalche.me/e/20/3o7r)",
    )
    error = error_of(proxy)
    assert type(error) is TransientTrackingError
    assert error.kind is ErrorKind.STORE_BUSY


def test_a_request_too_large_is_to_be_cut_up(proxy: Proxy) -> None:
    """
    A proxy's 413 is final for this request: a smaller one may pass, the same never will.
    """
    proxy.says_page(413)
    error = error_of(proxy)
    assert type(error) is PermanentTrackingError
    assert error.kind is ErrorKind.REFUSED


def test_a_silent_server_ends_in_a_time_out(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A server that accepts and never answers costs the HTTP time-out, once.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.silence = threading.Event()
    began_s = now_monotonic_s()
    error = error_of(proxy)
    assert type(error) is TransientTrackingError
    assert error.kind is ErrorKind.STORE_UNREACHABLE
    assert 0.9 < now_monotonic_s() - began_s < 10.0
    assert len(proxy.requests) == 1


def test_nobody_listens() -> None:
    """
    A server that is down is a matter of waiting, and its password stays out of the message.
    """
    with pytest.raises(TransientTrackingError) as caught:
        MlflowTracking("http://me:hunter2@127.0.0.1:9").log_batch(RUN_ID, tags={"a": "b"})
    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["a#b.txt", "100%25.txt", "tab\t.txt"])
def test_a_name_that_the_server_would_alter_is_refused(
    proxy: Proxy, tmp_path: Path, name: str
) -> None:
    """
    Stored under another name is lost: such an artifact is set aside before it is sent.
    """
    info = {
        "run_id": RUN_ID,
        "run_uuid": RUN_ID,
        "experiment_id": "1",
        "status": "RUNNING",
        "artifact_uri": "mlflow-artifacts:/1/a/artifacts",
        "lifecycle_stage": "active",
        "start_time": 1,
        "user_id": "me",
    }
    proxy.body = json.dumps({"run": {"info": info, "data": {}}}).encode()
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(PermanentTrackingError) as caught:
        MlflowTracking(proxy.url).log_artifact(RUN_ID, file, name)
    assert caught.value.kind is ErrorKind.BAD_ARTIFACT
    assert all("/runs/get" in request for request in proxy.requests)
