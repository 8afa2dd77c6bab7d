"""
Runs one cell in a process of its own and never raises for what the cell does: what executors run.

    result = decode(run_cell(encode(request)), CellResult)

Bytes in, bytes out, so that any `concurrent.futures.Executor` can carry it. The supervisor waits,
ends the cell's whole process tree when it takes too long or too much memory, and says what became
of it where the cell itself no longer can.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.clock import now_monotonic_s, now_ns, pause_s
from allele_mlflow.errors import AlleleMlflowError
from allele_mlflow.logger import attach
from allele_mlflow.matrix import cell_process, cell_tree
from allele_mlflow.matrix.log_tail import read_tail
from allele_mlflow.matrix.messages import (
    HANDLE_FILE,
    LOG_FILE,
    REPORT_FILE,
    CellJob,
    CellReport,
    CellRequest,
    CellResult,
    Place,
    decode,
    encode,
    failure_of,
)
from allele_mlflow.matrix.trial import LOG_ARTIFACT, run_trial
from allele_mlflow.queue import spool

#: How often to look at memory, and whether the runner wants to stop.
LOOK_S = 0.1
#: How long a cell has to end by itself once it is asked to.
GRACE_S = 3.0
#: How long a cell has to write where it is, before it is ended for taking too long.
WHERE_S = 0.2

#: Set by the runner in its own process: every cell that it supervises is to end.
stopping = threading.Event()


class Ended(NamedTuple):
    """
    How a cell's process ended: its wait status, and why we ended it.
    """

    status: int
    verdict: BaseException | None = None


def run_cell(data: bytes) -> bytes:
    """
    Run one attempt in a process of its own; a `CellResult`, encoded.

    Args:
        data: A `CellRequest`, encoded.
    """
    with _job(data) as job:
        started_ns = now_ns()
        try:
            ended = _Supervision(job).run()
        except OSError as exc:
            return encode(_result(job, _report_of(exc, job), started_ns))
        report = _read_report(job)
        if report is None or (ended.verdict is not None and report.status == "failed"):
            reason = _reason(ended)
            if ended.verdict is None:
                tell_run(Path(job.folder), reason)
            report = _report_of(reason, job)
        return encode(_result(job, report, started_ns))


def run_inline(data: bytes) -> bytes:
    """
    Run one attempt in the calling process: no time-out, no memory limit, no isolation.
    """
    with _job(data) as job:
        started_ns = now_ns()
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the suite's results
            report = run_trial(job)
        return encode(_result(job, report, started_ns))


@contextlib.contextmanager
def _job(data: bytes) -> Iterator[CellJob]:
    request = decode(data, CellRequest)
    folder = tempfile.mkdtemp(prefix="allele-mlflow-cell-")
    try:
        yield CellJob(request=request, run_uid=spool.new_uid(), folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Supervision:
    """
    One cell's process, from its begin to its end.
    """

    def __init__(self, job: CellJob) -> None:
        self._job = job
        self._folder = Path(job.folder)
        self._begin_s = now_monotonic_s()
        self._is_interrupted = False

    def run(self) -> Ended:
        if stopping.is_set():
            return Ended(0, KeyboardInterrupt("the suite was interrupted before the cell began"))
        server = _server(_Origin(self._job.request.hash_seed, self._job.request.place))
        pid = server.start(self._job)
        try:
            return self._await_end(server, pid)
        except OSError:  # the process that would have ended the cell's tree is gone
            cell_tree.end_tree(pid, None, grace_s=0.0)
            raise

    def _await_end(self, server: _Server, pid: int) -> Ended:
        verdict = None
        while (status := server.wait(LOOK_S)) is None:
            verdict = verdict or self._judge(server)
            if verdict is not None and not self._is_interrupted:
                self._tell(pid, verdict)
                cell_tree.end_tree(pid, server.pid, grace_s=GRACE_S)
                self._is_interrupted = True
            elif stopping.is_set() and not self._is_interrupted:
                verdict = KeyboardInterrupt("the suite was interrupted")
                self._stop(server, pid)
                self._is_interrupted = True
        return Ended(status, verdict)

    def _judge(self, server: _Server) -> BaseException | None:
        request = self._job.request
        waited_s = now_monotonic_s() - self._begin_s
        if request.timeout_s is not None and waited_s > request.timeout_s:
            return TimeoutError(f"no end after {request.timeout_s:g} s (timeout_s)")
        if request.memory_limit_bytes is not None:
            used = cell_tree.resident_bytes(server.pid)
            if used > request.memory_limit_bytes:
                return MemoryError(
                    f"{used:,} bytes resident in its processes, memory_limit_bytes is "
                    f"{request.memory_limit_bytes:,}"
                )
        return None

    def _stop(self, server: _Server, pid: int) -> None:
        cell_tree.send(pid, signal.SIGINT)
        deadline_s = now_monotonic_s() + GRACE_S
        while now_monotonic_s() < deadline_s:
            if server.wait(LOOK_S) is not None:
                return
        cell_tree.end_tree(pid, server.pid, grace_s=0.0)

    def _tell(self, pid: int, verdict: BaseException) -> None:
        """
        Into the cell's own run: why it is ended, where it was, and what it wrote last.
        """
        cell_tree.send(pid, cell_process.WHERE_SIGNAL)
        pause_s(WHERE_S)
        tell_run(self._folder, verdict)


def tell_run(folder: Path, reason: BaseException) -> None:
    """
    Say in a cell's own run why it ended, for its process cannot; where there is no run, nothing.
    """
    handle = _read_text(folder / HANDLE_FILE)
    if not handle:
        return
    with contextlib.suppress(AlleleMlflowError, OSError):  # delivered and archived by now
        log = attach(handle)
        try:
            log._error(reason, ends_run=True)
            text = read_tail(folder / LOG_FILE)
            if text:
                log.text(text, LOG_ARTIFACT)
        finally:
            log.close()


class _Origin(NamedTuple):
    """
    What cells of one process have in common.
    """

    hash_seed: str
    place: Place | None


class _Server:
    """
    A process that cells are forked from, for one supervisor at a time.
    """

    def __init__(self, origin: _Origin) -> None:
        place = origin.place
        environment = environment_at(place)
        environment.setdefault("PYTHONHASHSEED", origin.hash_seed)
        # the cell's run is its own, and not one inside whatever run the runner is in
        environment.pop(settings_module.HANDLE_VARIABLE, None)
        self._process = subprocess.Popen(
            [
                sys.executable if place is None else place.python,
                "-m",
                cell_process.__name__,
                str(os.getpid()),
            ],
            cwd=None if place is None else place.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
            process_group=0,  # who kills the runner's whole group leaves it to end the cell
        )
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """
        Of the process; below it is nothing but the cell that runs.
        """
        return self._process.pid

    def start(self, job: CellJob) -> int:
        """
        Start a cell; its process id.

        Raises:
            OSError: the process is gone, or cannot fork.
        """
        self._status = None
        data = encode(job)
        assert self._process.stdin is not None
        _write_all(self._process.stdin.fileno(), cell_process.LENGTH.pack(len(data)) + data)
        kind, pid = self._answer()
        if kind != cell_process.STARTED:
            raise ChildProcessError(f"the process that cells come from answered {kind!r}")
        return pid

    def wait(self, seconds: float) -> int | None:
        """
        The wait status of the cell, None where it has not ended within `seconds`.

        Raises:
            OSError: the process that it comes from is gone, and so the cell is.
        """
        assert self._process.stdout is not None
        if self._status is None and select.select([self._process.stdout], [], [], seconds)[0]:
            self._status = self._answer()[1]
        return self._status

    def is_alive(self) -> bool:
        """
        Whether it can be used.
        """
        return self._process.poll() is None

    def close(self) -> None:
        """
        Let it go; it ends by itself.
        """
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _answer(self) -> tuple[bytes, int]:
        assert self._process.stdout is not None
        data = b""
        while len(data) < cell_process.ANSWER.size:
            more = self._process.stdout.read(cell_process.ANSWER.size - len(data))
            if not more:
                self.close()
                raise ChildProcessError("the process that the cell came from is gone")
            data += more
        kind, number = cell_process.ANSWER.unpack(data)
        return kind, number


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


_local = threading.local()
_servers: set[_Server] = set()


def _server(origin: _Origin) -> _Server:
    """
    This thread's own: the kernel ends it with the thread.
    """
    found: tuple[_Origin, _Server] | None = getattr(_local, "server", None)
    if found is not None and found[0] == origin and found[1].is_alive():
        return found[1]
    if found is not None:
        _servers.discard(found[1])
        found[1].close()
    server = _Server(origin)
    _local.server = origin, server
    _servers.add(server)
    return server


def environment_at(place: Place | None) -> dict[str, str]:
    """
    The environment of a process that is started at a place.
    """
    found = settings_module.environment()
    if place is not None and place.path:
        before = [one for one in (found.get("PYTHONPATH", ""),) if one]
        found["PYTHONPATH"] = os.pathsep.join([*place.path, *before])
    return found


def close_servers() -> None:
    """
    Let go of the processes that cells of this process come from.
    """
    while _servers:
        _servers.pop().close()


# --- what became of it --------------------------------------------------------------------------


def _read_report(job: CellJob) -> CellReport | None:
    try:
        return decode((Path(job.folder) / REPORT_FILE).read_bytes(), CellReport)
    except (OSError, msgspec.DecodeError):
        return None


def _report_of(reason: BaseException, job: CellJob) -> CellReport:
    log_tail = read_tail(Path(job.folder) / LOG_FILE)
    return CellReport(status="failed", failure=failure_of(reason, log_tail=log_tail))


class CellDiedError(RuntimeError):
    """
    A cell's process ended without a word.
    """


def _reason(ended: Ended) -> BaseException:
    if ended.verdict is not None:
        return ended.verdict
    code = os.waitstatus_to_exitcode(ended.status)
    if code >= 0:
        return CellDiedError(f"the cell's process ended with exit code {code} without a report")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return CellDiedError(
            "the cell's process was killed (SIGKILL), as the kernel does when memory runs short"
        )
    return CellDiedError(f"the cell's process was ended by {name}")


def _result(job: CellJob, report: CellReport, started_ns: int) -> CellResult:
    request = job.request
    return CellResult(
        cell_key=request.cell_key,
        repeat=request.repeat,
        attempt=request.attempt,
        run_uid=job.run_uid,
        host=os.uname().nodename,
        started_ns=started_ns,
        ended_ns=now_ns(),
        handle=_read_text(Path(job.folder) / HANDLE_FILE),
        **{name: getattr(report, name) for name in CellReport.__struct_fields__},
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
