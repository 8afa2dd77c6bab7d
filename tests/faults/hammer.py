"""
A benchmark that logs as fast as it can until it is killed, for the fault tests.

Run as a program: `hammer.py RUN_FOLDER COUNTS_FILE THREADS MODE`. After each call that returned,
the thread stores how many calls of its own have returned into its word of the counts file (a mapped
file, so a kill loses nothing). MODE: plain, alarm (a SIGALRM handler logs too, every 0.3 ms), mixed
(series and phases too).
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import threading
from itertools import count
from pathlib import Path

from tests.queue_tools import make_writer

WORD = struct.Struct("<Q")
ALARM_S = 0.0003
#: The word of the alarm handler.
ALARM_WORD = 63
MAX_DEPTH = 4


def main() -> None:
    """
    Log until killed, or for the number of calls in HAMMER_CALLS.
    """
    run, counts_path, threads, mode = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    calls = int(sys.argv[5]) if len(sys.argv) > 5 else 1 << 62
    descriptor = os.open(counts_path, os.O_RDWR)
    counts = mmap.mmap(descriptor, 4096)
    writer = make_writer(run)

    def log(thread: int) -> None:
        key = f"thread/{thread}"
        for number in range(calls):
            if mode == "mixed" and number % 10 == 9:
                writer.series(f"series/{thread}", [float(number)] * 20, first_step=number * 20)
                with_phase = writer.phase_edge("phase", number)
                writer.phase_edge("phase", number, with_phase)
            writer.metric(key, float(number), number)
            WORD.pack_into(counts, thread * 8, number + 1)

    handled = count()
    done = count(1)
    depth = 0

    def handle(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth < MAX_DEPTH:  # the handler may be interrupted by itself, but not without end
            signal.setitimer(signal.ITIMER_REAL, ALARM_S)
        number = next(handled)
        writer.metric("alarm", float(number), number)
        writer.metric(f"alarm/{number % 50}", float(number), number)
        WORD.pack_into(counts, ALARM_WORD * 8, next(done))
        depth -= 1
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)

    if mode == "alarm":
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    workers = [threading.Thread(target=log, args=(n,)) for n in range(1, threads)]
    for worker in workers:
        worker.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    log(0)
    for worker in workers:
        worker.join()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    writer.close()


if __name__ == "__main__":
    main()
