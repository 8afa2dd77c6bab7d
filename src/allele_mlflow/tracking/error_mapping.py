"""
Foreign exceptions become ours here and nowhere else: retry, or set aside.

A wrong "set aside" loses a record, a wrong "retry" only delays it, in plain sight. So what is
unknown is retried; set aside is what the store itself refused by name. MLflow is not imported:
its exceptions are known by their `error_code`, so that a failed `import mlflow` can be mapped as
well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from allele_mlflow.clock import now_ns
from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.settings import mask_secrets

# Names of mlflow/protos/databricks_pb2.py, ErrorCode.
_NOT_FOUND_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_UNAUTHORISED_CODES = frozenset({"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"})
_REFUSED_CODES = frozenset(
    {
        "INVALID_PARAMETER_VALUE",
        "MALFORMED_REQUEST",
        "ALREADY_EXISTS",
        "RESOURCE_ALREADY_EXISTS",
        "INVALID_STATE_TRANSITION",
        "MAX_BLOCK_SIZE_EXCEEDED",
        "SEARCH_QUERY_TOO_LONG",
    }
)
_BUSY_CODES = frozenset(
    {
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ABORTED",
        "RESOURCE_CONFLICT",
        "CANCELLED",
        "COULD_NOT_ACQUIRE_LOCK",
    }
)

_BUSY_TEXT = re.compile(
    r"database (?:schema |table )?is locked|QueuePool limit of size|deadlock|lock wait timeout"
    r"|too many connections|too many clients|connection slots",
    re.IGNORECASE,
)
# store/tracking/sqlalchemy_store.py, _check_run_is_active: at the start of the message, where no
# text of the user's can stand.
_RUN_DELETED = re.compile(r"(?:\w+: )?The run \S+ must be in the 'active' state", re.IGNORECASE)
# Two programs that create the tables of one new database at once (store/db/utils.py takes no lock).
_SCHEMA_RACE_TEXT = re.compile(
    r"duplicate column name|(?:table|index|relation) \S+ already exists"
    r"|UNIQUE constraint failed: alembic_version|no such table: _alembic_tmp",
    re.IGNORECASE,
)
# SQLAlchemy signs its errors; 9h9h is DataError, the database's "this value cannot be stored".
# The last one counts: the text before it may quote values of the user's.
_SQLALCHEMY_SIGN = re.compile(r"https?://sqlalche\.me/e/\w+/(\w+)")
_SQLALCHEMY_DATA_ERROR = "9h9h"

# utils/rest_utils.py, verify_rest_response: not JSON, so a proxy's page and not MLflow's word.
# Both are read where no text of the user's can stand: at the start of a message, and in urllib3's
# own error.
_PROXY_STATUS = re.compile(r"API request to endpoint \S+ failed with error code (\d{3})")
_EXHAUSTED_STATUS = re.compile(r"too many (\d{3}) error responses")
_HTTP_FAILURE = "API request to "
_REQUEST_TOO_LARGE = 413
# Answers that a smaller call, or one without a certain item, might not have got.
_PERHAPS_AN_ITEM = 500
_PERHAPS_TOO_LARGE = frozenset({502, 504})
_READ_TIMEOUTS = frozenset({"ReadTimeout", "ReadTimeoutError"})  # of requests, of urllib3
_ARTIFACT_REFUSALS = frozenset({400, 411, 414, 415, 422})

_SHOWN_LENGTH = 600
_CHAIN_LENGTH = 8


@dataclass(frozen=True)
class _Verdict:
    kind: ErrorKind
    is_permanent: bool = False


_UNREACHABLE = _Verdict(ErrorKind.STORE_UNREACHABLE)
_BUSY = _Verdict(ErrorKind.STORE_BUSY)
_UNAUTHORISED = _Verdict(ErrorKind.UNAUTHORISED)
_REFUSED = _Verdict(ErrorKind.REFUSED, is_permanent=True)
_MISSING = _Verdict(ErrorKind.NOT_FOUND, is_permanent=True)


@contextmanager
def mapped_errors(doing: str, *, can_refuse: bool = True) -> Iterator[None]:
    """
    Let only TrackingErrors out of the block; the arguments are those of `map_error`.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as exc:
        raise map_error(exc, doing=doing, can_refuse=can_refuse) from exc


def map_error(exc: Exception, *, doing: str, can_refuse: bool = True) -> TrackingError:
    """
    The TrackingError that says what to do about a foreign exception; raise it `from` that
    exception.

    Args:
        exc: What MLflow, SQLAlchemy, alembic, requests or the file system raised.
        doing: The call that failed, for the message.
        can_refuse: False while a store is opened: a wrong URI can be put right, and is no
            record's fault.
    Returns:
        Transient: 5xx, 408, 409, 429, time-outs, connections, locks, full pools, schema races,
            pages of a proxy, a missing import, 401 and 403 (kind UNAUTHORISED), and everything
            unknown.
        Permanent: a missing run (NOT_FOUND), what the store refused by name, 413, and values that
            the database's driver cannot store (REFUSED).
        Facts: `doing`, `exception`, `error_code`, `http_status`, `retry_after_s` (None where
            unknown); `reason` and `is_of_the_run` where it is the run that is refused (deleted in
            MLflow), and not a record; `blames` where it may be about what was sent, and not about
            the store: "size" (a time-out, 502, 504), "item" (500).

    A server's own words behind a 500 are lost in MLflow's client, so that a 500 for one bad
    record looks like any other: who repeats a batch and meets it each time should cut it up.
    """
    if isinstance(exc, TrackingError):
        return exc
    chain = _chain(exc)
    text = str(exc)
    status = _http_status(chain, text)
    code = getattr(exc, "error_code", None)
    code = code if isinstance(code, str) else None
    verdict = _judge(exc, chain=chain, text=text, code=code, status=status)
    if verdict.is_permanent and not can_refuse:
        verdict = _UNREACHABLE
    error_class = PermanentTrackingError if verdict.is_permanent else TransientTrackingError
    more: dict[str, object] = {}
    if verdict is _REFUSED and _RUN_DELETED.match(text):
        more = {"reason": "run_deleted", "is_of_the_run": True}
    elif status == _PERHAPS_AN_ITEM:
        more = {"blames": "item"}
    elif status in _PERHAPS_TOO_LARGE or any(type(c).__name__ in _READ_TIMEOUTS for c in chain):
        more = {"blames": "size"}
    return error_class(
        f"{doing}: {_shown(exc, text)}",
        kind=verdict.kind,
        doing=doing,
        exception=type(exc).__name__,
        error_code=code,
        http_status=status,
        retry_after_s=_retry_after_s(chain),
        **more,
    )


def _judge(
    exc: Exception, *, chain: list[BaseException], text: str, code: str | None, status: int | None
) -> _Verdict:
    if isinstance(exc, ImportError):
        return _UNREACHABLE
    # A status that MLflow read from a page that was not JSON outranks the code it guessed from it.
    if status is not None:
        return _judge_status(status, is_artifact_answer=getattr(exc, "response", None) is not None)
    # The store's own word before any text: the text may quote what the user logged.
    if code in _REFUSED_CODES:
        return _REFUSED
    if code in _NOT_FOUND_CODES:
        return _MISSING
    if code in _UNAUTHORISED_CODES:
        return _UNAUTHORISED
    if code in _BUSY_CODES:
        return _BUSY
    if _is_unstorable(chain, text):
        return _REFUSED
    if code == "BAD_REQUEST" and not _SQLALCHEMY_SIGN.search(text):
        return _REFUSED
    # BAD_REQUEST with the sign: store/db/utils.py gives this code to every SQLAlchemyError but one,
    # so to time-outs of the pool, to races and to lost tables.
    if _BUSY_TEXT.search(text) or _SCHEMA_RACE_TEXT.search(text):
        return _BUSY
    if any(isinstance(link, PermissionError) for link in chain):
        return _UNAUTHORISED
    return _UNREACHABLE


def _judge_status(status: int, *, is_artifact_answer: bool) -> _Verdict:
    if status in {401, 403}:
        return _UNAUTHORISED
    if status in {409, 429}:
        return _BUSY
    # A smaller batch may pass, so it must be cut up, not repeated.
    if status == _REQUEST_TOO_LARGE or (is_artifact_answer and status in _ARTIFACT_REFUSALS):
        return _REFUSED
    return _UNREACHABLE


def _is_unstorable(chain: list[BaseException], text: str) -> bool:
    signs = _SQLALCHEMY_SIGN.findall(text)
    if signs and signs[-1] == _SQLALCHEMY_DATA_ERROR:
        return True
    # What a database driver raises for a value it has no bytes for: an integer beyond 64 bits,
    # half a surrogate pair, a NUL in PostgreSQL. `type()`: JSON and URL errors are ValueErrors too.
    # Not below an HTTP request: there it was a header, so a token, that could not be encoded.
    is_drivers = len(chain) > 1 and not text.startswith(_HTTP_FAILURE)
    return is_drivers and type(chain[1]) in {OverflowError, UnicodeEncodeError, ValueError}


def _chain(exc: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in links and len(links) < _CHAIN_LENGTH:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def _http_status(chain: list[BaseException], text: str) -> int | None:
    for link in chain:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        if type(link).__name__ == "MaxRetryError":
            found = _EXHAUSTED_STATUS.search(str(link))
            if found:
                return int(found.group(1))
    found = _PROXY_STATUS.match(text)
    return int(found.group(1)) if found else None


def _retry_after_s(chain: list[BaseException]) -> float | None:
    for link in chain:
        for answer in (getattr(link, "response", None), _dropped_answer(link)):
            seconds = _seconds(getattr(answer, "headers", None))
            if seconds is not None:
                return seconds
    return None


def _dropped_answer(exc: BaseException) -> object | None:
    # When its tries are used up, urllib3 raises MaxRetryError without the answer it is about, and
    # with it goes the Retry-After header. The answer is still a local variable of the frame that
    # raised; should urllib3 rename it, the wish of the server is unknown again, nothing else.
    if type(exc).__name__ != "MaxRetryError":
        return None
    trace = exc.__traceback__
    while trace is not None:
        answer: object = trace.tb_frame.f_locals.get("response")
        if answer is not None:
            return answer
        trace = trace.tb_next
    return None


def _seconds(headers: object) -> float | None:
    read = getattr(headers, "get", None)
    value = read("Retry-After") if callable(read) else None
    if not (callable(read) and isinstance(value, str)):
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, read("Date"))
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(moment: str, answered_at: object) -> float:
    """
    Seconds from an answer to an HTTP date; NaN where it is none.

    Both are of the server's clock, which need not agree with ours; ours is for a server that does
    not say when it answered.
    """
    try:
        until_s = parsedate_to_datetime(moment).timestamp()
        from_s = (
            parsedate_to_datetime(answered_at).timestamp()
            if isinstance(answered_at, str)
            else now_ns() / 1e9
        )
    except (ValueError, TypeError, OverflowError):
        return float("nan")
    return max(0.0, until_s - from_s)


def _shown(exc: Exception, text: str) -> str:
    line = mask_secrets(" ".join(text.split()))
    if len(line) > _SHOWN_LENGTH:
        line = line[: _SHOWN_LENGTH - 3] + "..."
    return f"{type(exc).__name__}: {line}" if line else type(exc).__name__
