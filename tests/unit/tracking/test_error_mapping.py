"""
What is retried, what is set aside: the table of foreign errors.

The exceptions here only look like MLflow's; `tests/integration/test_tracking_http.py` and
`test_tracking_sqlite.py` make the real ones.
"""

from __future__ import annotations

import json
import pickle

import pytest

from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.tracking.error_mapping import map_error, mapped_errors

BUSY, AWAY = ErrorKind.STORE_BUSY, ErrorKind.STORE_UNREACHABLE
CLOSED, REFUSED, MISSING = ErrorKind.UNAUTHORISED, ErrorKind.REFUSED, ErrorKind.NOT_FOUND

SIGN = "(Background on this error at: https://sqlalche.me/e/20/{})"
PAGE = (
    "API request to endpoint /api/2.0/x failed with error code {} != 200. Response body: '<html>'"
)


class MlflowException(Exception):
    """
    MLflow's, as far as the mapping looks at it.
    """

    def __init__(self, message: str, error_code: str = "INTERNAL_ERROR") -> None:
        super().__init__(message)
        self.error_code = error_code


class Answer:
    """
    An HTTP answer, requests' or urllib3's.
    """

    def __init__(self, status_code: int, headers: dict[str, str] | None = None) -> None:
        self.status_code = status_code
        self.headers = headers or {}


class HTTPError(OSError):
    """
    requests' error with the answer attached: how artifact uploads fail.
    """

    def __init__(self, status_code: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status_code} Error for url: http://host/x")
        self.response = Answer(status_code, headers)


class MaxRetryError(Exception):
    """
    urllib3's: it lacks the answer.
    """


def exhausted(status: int, retry_after: str | None = None) -> Exception:
    """
    The chain that stock MLflow raises when its HTTP tries are used up.
    """

    def urlopen() -> None:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        response = Answer(status, headers)
        raise MaxRetryError(f"too many {response.status_code} error responses")

    try:
        try:
            urlopen()
        except MaxRetryError as exc:
            text = f"API request to http://h failed with exception {exc}"
            raise MlflowException(text)  # noqa: B904 - without `from`, as MLflow does it
    except MlflowException as exc:
        return exc
    raise AssertionError("unreachable")


def caused(error: Exception, cause: Exception) -> Exception:
    """
    `error` as `raise error from cause` leaves it.
    """
    error.__cause__ = cause
    return error


TRANSIENT = [
    pytest.param(
        MlflowException("(sqlite3.OperationalError) database is locked", "TEMPORARILY_UNAVAILABLE"),
        BUSY,
        id="sqlite-locked",
    ),
    pytest.param(
        MlflowException("server closed the connection", "TEMPORARILY_UNAVAILABLE"),
        AWAY,
        id="connection-lost",
    ),
    pytest.param(
        MlflowException(
            f"QueuePool limit of size 5 overflow 10 reached {SIGN.format('3o7r')}", "BAD_REQUEST"
        ),
        BUSY,
        id="pool-full-as-400",
    ),
    pytest.param(
        MlflowException(f"(psycopg2.errors.UniqueViolation) {SIGN.format('gkpj')}", "BAD_REQUEST"),
        AWAY,
        id="insert-race-as-400",
    ),
    pytest.param(MlflowException("too fast", "REQUEST_LIMIT_EXCEEDED"), BUSY, id="rate-limit"),
    pytest.param(MlflowException("busy", "RESOURCE_CONFLICT"), BUSY, id="conflict"),
    pytest.param(MlflowException("oops"), AWAY, id="internal-error"),
    pytest.param(MlflowException("no such API", "ENDPOINT_NOT_FOUND"), AWAY, id="no-endpoint"),
    pytest.param(MlflowException("who are you", "UNAUTHENTICATED"), CLOSED, id="401"),
    pytest.param(MlflowException("not you", "PERMISSION_DENIED"), CLOSED, id="403"),
    pytest.param(MlflowException(PAGE.format(401), "UNAUTHENTICATED"), CLOSED, id="401-page"),
    pytest.param(MlflowException(PAGE.format(400), "BAD_REQUEST"), AWAY, id="400-page"),
    pytest.param(MlflowException(PAGE.format(404), "ENDPOINT_NOT_FOUND"), AWAY, id="404-page"),
    pytest.param(MlflowException(PAGE.format(409), "ALREADY_EXISTS"), BUSY, id="409-page"),
    pytest.param(
        MlflowException("API request to endpoint was successful but not in a valid JSON format"),
        AWAY,
        id="200-page",
    ),
    pytest.param(exhausted(500), AWAY, id="500"),
    pytest.param(exhausted(503), AWAY, id="503"),
    pytest.param(exhausted(429), BUSY, id="429"),
    pytest.param(HTTPError(404), AWAY, id="artifact-404"),
    pytest.param(HTTPError(403), CLOSED, id="artifact-403"),
    pytest.param(json.JSONDecodeError("Expecting value", "<html>", 0), AWAY, id="not-json"),
    pytest.param(
        caused(MlflowException("bad answer"), json.JSONDecodeError("Expecting value", "<", 0)),
        AWAY,
        id="not-json-inside",
    ),
    pytest.param(TimeoutError("timed out"), AWAY, id="time-out"),
    pytest.param(ConnectionRefusedError(111, "Connection refused"), AWAY, id="refused-connection"),
    pytest.param(OSError(28, "No space left on device"), AWAY, id="disk-full"),
    pytest.param(PermissionError(13, "Permission denied"), CLOSED, id="artifact-folder-closed"),
    pytest.param(
        RuntimeError("duplicate column name: lifecycle_stage"), BUSY, id="schema-race-column"
    ),
    pytest.param(RuntimeError("table experiments already exists"), BUSY, id="schema-race-table"),
    pytest.param(
        RuntimeError("UNIQUE constraint failed: alembic_version.version_num"),
        BUSY,
        id="schema-race-version",
    ),
    pytest.param(
        RuntimeError("Can't locate revision identified by 'abc'"), AWAY, id="newer-schema"
    ),
    pytest.param(ModuleNotFoundError("No module named 'mlflow'"), AWAY, id="no-mlflow"),
    pytest.param(
        caused(
            MlflowException("API request to http://h failed with exception"),
            UnicodeEncodeError("latin-1", "tökén", 0, 1, "no"),
        ),
        AWAY,
        id="token-not-encodable",
    ),
    pytest.param(ZeroDivisionError(), AWAY, id="unknown"),
]

PERMANENT = [
    pytest.param(
        MlflowException("Invalid value", "INVALID_PARAMETER_VALUE"), REFUSED, id="invalid"
    ),
    pytest.param(
        MlflowException("value 'database is locked' is too long", "INVALID_PARAMETER_VALUE"),
        REFUSED,
        id="invalid-quoting-a-lock",
    ),
    pytest.param(
        MlflowException("API request failed with error code 503 != 200", "INVALID_PARAMETER_VALUE"),
        REFUSED,
        id="invalid-quoting-a-status",
    ),
    pytest.param(MlflowException("missing field", "BAD_REQUEST"), REFUSED, id="bad-request"),
    pytest.param(
        MlflowException(
            f"(psycopg2.errors.NumericValueOutOfRange) {SIGN.format('9h9h')}", "BAD_REQUEST"
        ),
        REFUSED,
        id="value-out-of-range",
    ),
    pytest.param(MlflowException("exists", "RESOURCE_ALREADY_EXISTS"), REFUSED, id="exists"),
    pytest.param(MlflowException("Run not found", "RESOURCE_DOES_NOT_EXIST"), MISSING, id="no-run"),
    pytest.param(MlflowException(PAGE.format(413)), REFUSED, id="413-page"),
    pytest.param(HTTPError(413), REFUSED, id="artifact-413"),
    pytest.param(HTTPError(400), REFUSED, id="artifact-400"),
    pytest.param(
        caused(MlflowException("int too large"), OverflowError("int too large")),
        REFUSED,
        id="overflow",
    ),
    pytest.param(
        caused(MlflowException("surrogates"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")),
        REFUSED,
        id="surrogate",
    ),
    pytest.param(
        caused(MlflowException("NUL"), ValueError("A string literal cannot contain NUL")),
        REFUSED,
        id="nul",
    ),
]


@pytest.mark.parametrize(("foreign", "kind"), TRANSIENT)
def test_what_may_pass_later_is_retried(foreign: Exception, kind: ErrorKind) -> None:
    """
    Trouble of the environment, and everything unknown, never sets a record aside.
    """
    mapped = map_error(foreign, doing="log_batch")
    assert type(mapped) is TransientTrackingError
    assert mapped.kind is kind


@pytest.mark.parametrize(("foreign", "kind"), PERMANENT)
def test_what_the_store_refused_is_not_retried(foreign: Exception, kind: ErrorKind) -> None:
    """
    What the store refused by name is set aside, even where its text quotes words of trouble.
    """
    mapped = map_error(foreign, doing="log_batch")
    assert type(mapped) is PermanentTrackingError
    assert mapped.kind is kind


@pytest.mark.parametrize(("foreign", "kind"), PERMANENT)
def test_nothing_is_refused_while_opening(foreign: Exception, kind: ErrorKind) -> None:
    """
    A wrong URI or an odd database is no record's fault: records wait until it is put right.
    """
    del kind
    mapped = map_error(foreign, doing="open", can_refuse=False)
    assert type(mapped) is TransientTrackingError
    assert mapped.kind is ErrorKind.STORE_UNREACHABLE


@pytest.mark.parametrize(
    ("header", "wanted_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (None, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 99 Dec 1999 23:59:59 GMT", None),
        ("tomorrow", None),
        ("-1", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_the_servers_wish_to_wait_is_found(header: str | None, wanted_s: float | None) -> None:
    """
    Retry-After in seconds survives MLflow's client, which drops the answer it came with.
    """
    for foreign in (
        exhausted(429, header),
        HTTPError(503, None if header is None else {"Retry-After": header}),
    ):
        mapped = map_error(foreign, doing="log_batch")
        assert isinstance(mapped, TransientTrackingError)
        assert mapped.retry_after_s == wanted_s


def test_a_date_to_wait_for_is_read_by_the_servers_own_clock() -> None:
    """
    Retry-After as a date is so long after the answer's Date, whatever our own clock says.
    """
    headers = {
        "Date": "Fri, 31 Dec 1999 23:59:59 GMT",
        "Retry-After": "Sat, 01 Jan 2000 00:00:29 GMT",
    }
    mapped = map_error(HTTPError(429, headers), doing="log_batch")
    assert isinstance(mapped, TransientTrackingError)
    assert mapped.retry_after_s == 30.0


def test_facts_tell_what_happened_and_survive_pickling() -> None:
    """
    Programs read code and status as facts, also in another process.
    """
    mapped = map_error(exhausted(500), doing="log_batch of run 1")
    again = pickle.loads(pickle.dumps(mapped))
    assert again.facts == {
        "doing": "log_batch of run 1",
        "exception": "MlflowException",
        "error_code": "INTERNAL_ERROR",
        "http_status": 500,
        "retry_after_s": None,
        "blames": "item",
    }
    assert str(again).startswith("log_batch of run 1: MlflowException: API request")


class ReadTimeoutError(Exception):
    """
    urllib3's.
    """


@pytest.mark.parametrize(
    ("error", "blames"),
    [
        (exhausted(500), "item"),
        (exhausted(502), "size"),
        (exhausted(504), "size"),
        (MlflowException(PAGE.format(500)), "item"),
        (caused(MlflowException("API request failed"), ReadTimeoutError("30 s")), "size"),
        (exhausted(503), None),
        (exhausted(429), None),
        (MlflowException("connection refused"), None),
        (MlflowException("no", "INVALID_PARAMETER_VALUE"), None),
    ],
)
def test_answer_that_may_be_about_what_was_sent_says_so(
    error: Exception, blames: str | None
) -> None:
    """
    A 500 may be one item's fault, a time-out the size's; a refused connection is neither's.
    """
    assert map_error(error, doing="log_batch").facts.get("blames") == blames


def test_secrets_never_reach_the_message() -> None:
    """
    A password in a URI that the foreign text quotes is masked, and a long text is cut.
    """
    uri = "postgresql://me:hunter2@db/mlflow?sslpassword=hunter2"
    mapped = map_error(RuntimeError(f"cannot reach {uri}\n" + "x" * 5000), doing="open")
    assert "hunter2" not in str(mapped)
    assert "cannot reach postgresql://me:***@db" in str(mapped)
    assert len(str(mapped)) < 700
    assert "\n" not in str(mapped)


def test_mapped_errors_chain_their_cause() -> None:
    """
    The foreign exception stays readable behind ours; ours pass through untouched.
    """
    foreign = RuntimeError("boom")
    with pytest.raises(TransientTrackingError) as caught, mapped_errors("log_batch"):
        raise foreign
    assert caught.value.__cause__ is foreign

    ours = PermanentTrackingError("no", kind=ErrorKind.REFUSED)
    with pytest.raises(TrackingError) as passed, mapped_errors("log_batch"):
        raise ours
    assert passed.value is ours


def test_an_interrupt_is_not_swallowed() -> None:
    """
    KeyboardInterrupt is no error of the store.
    """
    with pytest.raises(KeyboardInterrupt), mapped_errors("log_batch"):
        raise KeyboardInterrupt
