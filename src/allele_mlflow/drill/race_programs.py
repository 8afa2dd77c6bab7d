"""
Programs of many processes or many runs, for the drills of `races`.

Run as `python -m allele_mlflow.drill.race_programs RETURNED_FILE NAME [options]`; see `programs`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from allele_mlflow.clock import now_monotonic_s, now_ns, pause_s
from allele_mlflow.drill.programs import PATIENCE_S, ROUNDS, announce, log_rounds
from allele_mlflow.drill.workload import (
    METRICS_PER_ROUND,
    WORD,
    hold_sidecars,
    open_counts,
    use_small_segments,
    word_offset,
)
from allele_mlflow.logger import attach, start_logger
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar import launch
from allele_mlflow.sidecar.__main__ import main as sidecar_main
from allele_mlflow.sidecar.profile import lock_path
from allele_mlflow.sidecar.worker import SharedTracking

HOUR_NS = 3_600_000_000_000
#: How long a sidecar that is about to leave still holds its lock, for it takes but a moment.
LEAVING_S = 0.2
CROWD_ROUNDS = 2


def fork_each(rows: Sequence[int], work: Callable[[int], None]) -> list[int]:
    """
    A child for each row, which leaves by `os._exit`; their pids.
    """
    sys.stdout.flush()
    pids = []
    for row in rows:
        pids.append(os.fork())
        if not pids[-1]:
            code = 1
            try:
                work(row)
                code = 0
            finally:
                os._exit(code)
    return pids


def await_each(pids: Sequence[int]) -> int:
    """
    How many of them failed.
    """
    return sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)


def producers(counts: Path, options: Sequence[str]) -> None:
    """
    So many processes start a run each at one moment; the names of their runs end with their rows.
    """
    number, mapped = int(options[0]), open_counts(counts)
    reading, writing = os.pipe()

    def work(row: int) -> None:
        os.close(writing)
        os.read(reading, 1)  # the end of the pipe: all begin at once
        with start_logger("drill", run_uid=f"{options[1]}-{row}") as log:
            log_rounds(log, mapped, row, CROWD_ROUNDS)

    pids = fork_each(range(number), work)
    sys.stdout.write(f"{options[1]}-0\n")
    sys.stdout.flush()
    os.close(writing)
    sys.exit(await_each(pids))


def in_a_row(counts: Path, options: Sequence[str]) -> None:
    """
    Start runs one after another, each at about the moment when the sidecar of the last one leaves.
    """
    number, chance, mapped = int(options[0]), random.Random(options[2]), open_counts(counts)
    launch.ensure_sidecar = _ensure_slow_sidecar
    for row in range(number):
        log = start_logger("drill", run_uid=f"{options[1]}-{row}")
        if not row:
            announce(log)
        log_rounds(log, mapped, row, CROWD_ROUNDS)
        log.detach()  # from here on nobody starts a sidecar
        folder, deadline_s = Path(log.handle()), now_monotonic_s() + PATIENCE_S
        while folder.exists():
            if now_monotonic_s() > deadline_s:
                sys.exit(1)
            pause_s(0.005)
        pause_s(chance.uniform(0.0, 2 * LEAVING_S))


def _ensure_slow_sidecar(scope: Path, profile: str, settings: Settings) -> bool:
    if is_locked(lock_path(scope, profile)):
        return False
    program = ("-P", "-m", "allele_mlflow.drill.race_programs", "", "sidecar-that-lingers")
    subprocess.Popen(
        [sys.executable, *program, "--scope", str(scope), "--profile", profile],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True


def sidecar_that_lingers(counts: Path, options: Sequence[str]) -> None:
    """
    A sidecar that has looked for runs for the last time, and keeps its lock for a while.
    """
    close = SharedTracking.close

    def close_slowly(tracking: SharedTracking) -> None:
        close(tracking)
        pause_s(LEAVING_S)

    setattr(SharedTracking, "close", close_slowly)  # noqa: B010 - of another's class
    sys.argv[1:] = options
    sidecar_main()


def stepless(counts: Path, options: Sequence[str]) -> None:
    """
    Four processes log readings without steps under one key; no sidecar starts before the gate.
    """
    mapped, gate = open_counts(counts), Path(options[0])
    hold_sidecars(gate)
    with start_logger("drill") as log:
        announce(log)

        def work(row: int) -> None:
            with attach() as attached:
                for number in range(ROUNDS * METRICS_PER_ROUND):
                    attached.metric("stepless", float(row * 1_000_000 + number))
                    WORD.pack_into(mapped, word_offset(row, "metric"), number + 1)
                    pause_s(0.01)

        pids = fork_each(range(4), work)
        failed = await_each(pids)
    sys.exit(failed)


def sidecar_of_other_times(counts: Path, options: Sequence[str]) -> None:
    """
    A sidecar whose clock goes back by an hour, and forth again, every second.
    """

    def stepped_ns() -> int:
        return now_ns() - HOUR_NS * (int(2 * now_monotonic_s()) % 2)

    for name, module in list(sys.modules.items()):
        if name.startswith("allele_mlflow.") and getattr(module, "now_ns", None) is now_ns:
            setattr(module, "now_ns", stepped_ns)  # noqa: B010 - of modules that only import it
    sys.argv[1:] = options
    sidecar_main()


PROGRAMS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "producers": producers,
    "in-a-row": in_a_row,
    "stepless": stepless,
    "sidecar-that-lingers": sidecar_that_lingers,
    "sidecar-of-other-times": sidecar_of_other_times,
}

if __name__ == "__main__":
    use_small_segments()
    PROGRAMS[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:])
