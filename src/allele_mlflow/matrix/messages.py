"""
What travels between the runner and a cell: the request, and what became of it. As msgpack, which
any executor and any pipe can carry, and NaN too.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from allele_mlflow.failures import Category, describe_failure

CellStatus = Literal["finished", "failed"]
T = TypeVar("T", bound=msgspec.Struct)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where else than in the runner's own interpreter and working folder a cell's process is started.

    Attributes:
        python: The interpreter.
        folder: Its working folder, absolute.
        path: Entries of `PYTHONPATH` that go before those that are there.
    """

    python: str
    folder: str
    path: tuple[str, ...] = ()


class CellRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt at one trial.

    Attributes:
        suite, benchmark, folder: See `Suite`; `folder` is the suite's own, absolute.
        cell, cell_key, params: See `cells.Cell`.
        seed, repeat, attempt, warm_ups: Repeats and attempts count from 0.
        experiment: Of MLflow, without its prefix.
        settings: Overrides for `start_logger`; may hold an address with secrets, so a request is
            not to be written into a file.
        parent: Handle of the suite's own run, where it is on this machine.
        parent_run_id: Its id in MLflow, where that was known.
        tags: Of the run.
        is_tracked: Whether there is a run at all.
        objectives: Metrics without which the trial has failed.
        alerts: Rules, as of a suite.
        place: Where it runs, where that is not the runner's own.
    """

    suite: str
    benchmark: str
    folder: str
    cell: str
    cell_key: str
    params: dict[str, Any]
    seed: int
    repeat: int
    attempt: int
    warm_ups: int
    experiment: str
    settings: dict[str, Any]
    parent: str
    parent_run_id: str | None
    correlation_id: str
    tags: dict[str, str]
    is_tracked: bool
    objectives: list[str]
    artifacts: list[str]
    alerts: list[dict[str, Any]]
    timeout_s: float | None
    memory_limit_bytes: int | None
    hash_seed: str
    place: Place | None = None


class CellFailure(msgspec.Struct, frozen=True, kw_only=True):
    """
    Why a trial failed: see `failures.Failure`, with the last lines that the cell wrote.
    """

    category: Category
    error_type: str
    message: str
    fingerprint: str
    traceback: str = ""
    log_tail: str = ""

    @property
    def line(self) -> str:
        """
        The error's class, without its module, and what it said.
        """
        name = self.error_type.rpartition(".")[2]
        return f"{name}: {self.message}" if self.message else name


def failure_of(exc: BaseException, *, log_tail: str = "", note: str = "") -> CellFailure:
    """
    An exception as the failure of a cell.

    Args:
        exc: What was raised, or would have been.
        log_tail: The last lines that the cell wrote.
        note: Put before its message.
    """
    found = describe_failure(exc)
    return CellFailure(
        category=found.category,
        error_type=found.error_type,
        message=note + found.message,
        fingerprint=found.fingerprint,
        traceback=found.traceback if exc.__traceback__ is not None else "",
        log_tail=log_tail,
    )


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of one attempt.

    Units: `seconds` of the measured call alone, None where it did not end; `cpu_s` of the process
    meanwhile; `peak_rss_bytes` of the process since it began; `started_ns`, `ended_ns` wall clock.
    """

    cell_key: str
    repeat: int
    attempt: int
    run_uid: str
    status: CellStatus
    metrics: dict[str, float] = {}
    failure: CellFailure | None = None
    seconds: float | None = None
    warm_up_s: list[float] = []
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None
    host: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    #: Handle of its run, on the machine that it ran on.
    handle: str = ""


class CellJob(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request with what its supervisor adds: whenever an engine runs a request once more, that is a
    run of its own.

    Attributes:
        run_uid: Of its run.
        folder: The cell's own, with `REPORT_FILE`, `HANDLE_FILE`, `LOG_FILE` and `FILES_FOLDER`.
    """

    request: CellRequest
    run_uid: str
    folder: str


#: Of the cell's folder: what it reports, its run's handle, what it wrote, and its `folder`.
REPORT_FILE = "report.msgpack"
HANDLE_FILE = "handle"
LOG_FILE = "log.txt"
FILES_FOLDER = "files"


class CellReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the cell's own process says at its end; the rest its supervisor knows.
    """

    status: CellStatus
    metrics: dict[str, float] = {}
    failure: CellFailure | None = None
    seconds: float | None = None
    warm_up_s: list[float] = []
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None


def encode(message: msgspec.Struct) -> bytes:
    """
    A message as bytes.
    """
    return msgspec.msgpack.encode(message)


def decode(data: bytes, message_type: type[T]) -> T:
    """
    What `encode` was given.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return msgspec.msgpack.decode(data, type=message_type)
