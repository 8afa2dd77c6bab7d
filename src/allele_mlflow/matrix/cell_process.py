"""
The process that cells come from: it has imported this package and nothing else, forks for each
cell, and tells its supervisor how that ended.

    python -m allele_mlflow.matrix.cell_process SUPERVISOR-PID    (started by `supervisor`)

A forked cell starts as clean as a fresh interpreter (one thread, no module of the benchmark's),
without the tenth of a second that the imports take. It ends like one, threads joined and `atexit`
callbacks called, but does not take its modules apart one by one: that alone would cost 40 ms of CPU
a cell, most of it for pages that it shares with this process. It dies with its supervisor: the
kernel sees to that on Linux; elsewhere this process looks. On Linux it also adopts what a cell
leaves behind, daemons too, and ends it with the cell.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import os
import signal
import struct
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from allele_mlflow.matrix.lifeline import (
    adopt_orphans,
    die_with_parent,
    end_children,
    end_group,
    wait_for,
)
from allele_mlflow.matrix.messages import (
    LOG_FILE,
    REPORT_FILE,
    CellJob,
    CellReport,
    decode,
    encode,
)
from allele_mlflow.matrix.trial import run_trial
from allele_mlflow.queue import spool

#: A frame of the pipe: its length, then the bytes.
LENGTH = struct.Struct("<I")
#: Answers: a cell was started (pid), it ended (wait status).
ANSWER = struct.Struct("<cq")
STARTED, ENDED = b"S", b"E"
#: A cell that gets it writes into its log where each thread is.
WHERE_SIGNAL = signal.SIGUSR2


class Channel(NamedTuple):
    """
    The pipes to the supervisor; not the cell's stdin and stdout.
    """

    jobs: BinaryIO
    answers: BinaryIO

    def close(self) -> None:
        """
        Close both; no answer is lost, for each is written at once.
        """
        self.jobs.close()
        self.answers.close()


def main() -> int:
    """
    Serve jobs until the supervisor closes the pipe.
    """
    # Ctrl-C of a terminal is the runner's: it ends its cells itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: _leave(running))
    adopt_orphans()
    die_with_parent(int(sys.argv[1]), by=signal.SIGTERM)
    channel = _open_channel()
    gc.freeze()  # a cell's collections leave alone what it shares with this process
    while (data := _read_frame(channel.jobs)) is not None:
        pid = os.fork()
        if pid == 0:
            _end(_run_cell(channel, data))
        running.append(pid)
        _answer(channel, STARTED, pid)
        status = wait_for(pid)
        running.clear()
        _answer(channel, ENDED, status)
    return 0


def _leave(running: list[int]) -> NoReturn:
    """
    The supervisor is gone: the cell goes, and what it has started.
    """
    for pid in running:
        end_group(pid)
    end_children()
    os._exit(1)


def _open_channel() -> Channel:
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return channel


def _read_frame(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


def _answer(channel: Channel, kind: bytes, number: int) -> None:
    try:
        channel.answers.write(ANSWER.pack(kind, number))
    except BrokenPipeError:  # the supervisor is gone
        sys.exit(1)


def _run_cell(channel: Channel, data: bytes) -> int:
    """
    In the forked child: become a process of its own, run the trial, report.
    """
    parent = os.getppid()
    os.setsid()
    die_with_parent(parent)
    channel.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    job = decode(data, CellJob)
    folder = Path(job.folder)
    _redirect(folder / LOG_FILE)
    faulthandler.enable()
    faulthandler.register(WHERE_SIGNAL, all_threads=True)
    sys.argv = [job.request.benchmark]
    report = run_trial(job)
    spool.write_whole(folder / REPORT_FILE, encode(report))
    return _exit_code(report)


def _exit_code(report: CellReport) -> int:
    return 0 if report.status == "finished" else 1


def _end(code: int) -> NoReturn:
    """
    End the forked cell as the interpreter would, as processes of `multiprocessing` do.
    """
    for work in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        try:
            work()
        except BaseException:  # noqa: BLE001 - the benchmark's own code: it is told, the rest goes on
            with contextlib.suppress(Exception):
                traceback.print_exc()
    os._exit(code)


def _redirect(log_file: Path) -> None:
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        # each line is there at once, should the cell be killed
        with contextlib.suppress(AttributeError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(main())
