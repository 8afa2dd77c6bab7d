"""
Programs that fork, leave and interrupt themselves while they log, for the drills of `interrupts`.

Run as `python -m allele_mlflow.drill.programs RETURNED_FILE NAME [options]`. As in `workload`, each
hand that logs has a row of the mapped file, where it notes what has returned. Prints the run's uid.
"""

from __future__ import annotations

import ast
import asyncio
import atexit
import ctypes
import gc
import inspect
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.workload import (
    METRICS_PER_ROUND,
    WORD,
    Hand,
    open_counts,
    use_small_segments,
    word_offset,
)
from allele_mlflow.logger import start_logger
from allele_mlflow.run_logger import RunLogger

ROUNDS = 20
#: Calls of a hand that has logged all its rounds.
READINGS = ROUNDS * METRICS_PER_ROUND
INTERRUPT_S = 0.0003
#: A program that comes no further ends, and has then not logged what it must.
PATIENCE_S = 60.0


def announce(log: RunLogger) -> None:
    """
    Tell the drill which run it is.
    """
    sys.stdout.write(f"{log.run_uid}\n")
    sys.stdout.flush()


def log_rounds(log: RunLogger, counts: mmap.mmap, row: int, rounds: int = ROUNDS) -> None:
    """
    Log as the hand of that row.
    """
    hand = Hand(log, counts, row, is_mixed=False)
    for _ in range(rounds):
        hand.log_round()


class Interrupter:
    """
    Logs one reading a call, as the hand of a row; to be called from where one does not choose to.
    """

    def __init__(self, log: RunLogger, counts: mmap.mmap, row: int) -> None:
        self._log = log
        self._counts = counts
        self._row = row
        self._begun = count().__next__
        self._done = count(1).__next__

    def __call__(self) -> None:
        """
        Log, and note that it returned.
        """
        number = self._begun()
        self._log.metric(f"thread/{self._row}", float(number), number)
        WORD.pack_into(self._counts, word_offset(self._row, "metric"), self._done())


class Finalized:
    """
    Garbage in a cycle: logs when it is collected.
    """

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self._cycle = self

    def __del__(self) -> None:
        self._last_words()


def fork_inside_with(counts: Path, options: Sequence[str]) -> None:
    """
    Children go on with their parent's logger, and leave its block by all ways.
    """
    mapped = open_counts(counts)
    with start_logger("drill") as log:
        announce(log)
        log_rounds(log, mapped, 0, ROUNDS // 2)
        children = []
        for row in (1, 2, 3):
            children.append(os.fork())
            if not children[-1]:
                log_rounds(log, mapped, row)
                if row == 1:
                    os._exit(0)
                if row == 2:
                    raise RuntimeError("only the child's")
                return
        log_rounds(log, mapped, 4)
        for pid in children:
            os.waitpid(pid, 0)
        log_rounds(log, mapped, 5)


def subprocesses(counts: Path, options: Sequence[str]) -> None:
    """
    Four programs attach; the last of them outlives the one that started the run.
    """
    workload = [sys.executable, "-m", "allele_mlflow.drill.workload", str(counts), "--attach"]
    said = ["--rounds", str(ROUNDS), "--first-thread"]
    with start_logger("drill") as log:
        announce(log)
        children = [
            subprocess.Popen(
                [*workload, *said, str(row), "--pause-s", "0.05" if row == 3 else "0.001"],
                stdout=subprocess.DEVNULL,
            )
            for row in range(4)
        ]
        for child in children[:3]:
            child.wait(PATIENCE_S)
        log_rounds(log, open_counts(counts), 4)


def interrupted(counts: Path, options: Sequence[str]) -> None:
    """
    Every 0.3 ms a signal handler logs, or has the garbage collected, whose finalizers log.
    """
    mapped = open_counts(counts)
    with start_logger("drill") as log:
        announce(log)
        say = Interrupter(log, mapped, 1)

        def handle(*_: object) -> None:
            if options[0] == "signal":
                say()
            else:
                Finalized(say)
                gc.collect(0)
            signal.setitimer(signal.ITIMER_REAL, INTERRUPT_S)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_S)
        thread = threading.Thread(target=log_rounds, args=(log, mapped, 2, 20 * ROUNDS))
        thread.start()
        hand = Hand(log, mapped, 0, is_mixed=False)
        while WORD.unpack_from(mapped, word_offset(1, "metric"))[0] < READINGS:
            hand.log_round()
        thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        gc.collect()


#: Looked at when the module's other names are gone already.
_leftover: list[object] = []


def shut_down(counts: Path, options: Sequence[str]) -> None:
    """
    Log from atexit, from a daemon thread until the end, and from a finalizer behind the end.
    """
    mapped = open_counts(counts)
    log = start_logger("drill")
    announce(log)
    log_rounds(log, mapped, 0)
    atexit.register(log_rounds, log, mapped, 1)
    _leftover.append(Finalized(lambda: log.metric("late", 1.0, 1)))

    def work() -> None:
        for number in count():
            log.metric("thread/2", float(number), number)
            if not log._stream.is_closed:  # else it may have come too late
                WORD.pack_into(mapped, word_offset(2, "metric"), number + 1)
            pause_s(0.0001)

    threading.Thread(target=work, daemon=True).start()
    pause_s(0.05)


CELLS = (
    "log = start_logger('drill'); announce(log)",
    "log_rounds(log, counts, 0)",
    "await asyncio.sleep(0); log_rounds(log, counts, 1)",
    "with log.phase('cell'):\n    log_rounds(log, counts, 2)\n    raise ValueError('this cell')",
    "1 / 0",
    "async def work():\n    log_rounds(log, counts, 3)\nawait asyncio.gather(work())",
    "log_rounds(log, counts, 4)",
)


async def _kernel(counts: Path) -> None:
    names: dict[str, Any] = globals() | {"counts": open_counts(counts)}
    for cell in CELLS:
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        try:
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
        except Exception as exc:  # noqa: BLE001 - as a notebook does: it ends the cell alone
            sys.last_value = exc


def notebook(counts: Path, options: Sequence[str]) -> None:
    """
    Cells in a loop that runs, some of which fail; nobody closes the run.
    """
    sys.ps1 = "In : "  # as IPython has it
    asyncio.run(_kernel(counts))


def _await_sidecar(log: RunLogger, delivered: int = 0) -> None:
    deadline_s = now_monotonic_s() + PATIENCE_S
    while now_monotonic_s() < deadline_s:
        state = log.status()
        if state is not None and state.ledger.delivered.get("metric", 0) >= delivered:
            return
        pause_s(0.01)
    raise TimeoutError("no sidecar delivers")


def held(counts: Path, options: Sequence[str]) -> None:
    """
    A thread has taken a slot; before it packs, the others fill many segments, and then one of them
    holds the GIL for so many seconds.
    """
    mapped = open_counts(counts)
    is_taken, may_pack = threading.Event(), threading.Event()
    with start_logger("drill") as log:
        announce(log)
        log_rounds(log, mapped, 0, 1)
        log_rounds(log, mapped, 1, 1)
        keys, offsets, pack, target, segment = log._stream._lane

        def held_pack(*arguments: Any) -> None:
            if not is_taken.is_set():
                is_taken.set()
                may_pack.wait(PATIENCE_S)
            pack(*arguments)

        thread = threading.Thread(target=log_rounds, args=(log, mapped, 2))
        log._stream._lane = (keys, offsets, held_pack, target, segment)
        thread.start()
        is_taken.wait(PATIENCE_S)
        log_rounds(log, mapped, 3)
        _await_sidecar(log, READINGS)
        may_pack.set()
        ctypes.PyDLL(None).usleep(int(float(options[0]) * 1e6))
        thread.join()


PROGRAMS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "fork-inside-with": fork_inside_with,
    "subprocesses": subprocesses,
    "interrupted": interrupted,
    "shut-down": shut_down,
    "notebook": notebook,
    "held": held,
}

if __name__ == "__main__":
    use_small_segments()
    PROGRAMS[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:])
