"""
The program that logs while a drill attacks it.

Run as `python -m allele_mlflow.drill.workload RETURNED_FILE [options]`. After each call that
returned, its thread stores how many of that kind have returned into its word of a mapped file, so
that a kill at any instant leaves behind what must arrive. Prints the run's uid once it logs.
"""

from __future__ import annotations

import argparse
import mmap
import os
import struct
import sys
import threading
from pathlib import Path

from allele_mlflow.clock import pause_s
from allele_mlflow.drill.doomed import arm
from allele_mlflow.logger import attach, start_logger
from allele_mlflow.queue import layout
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar import launch

#: What a thread logs; each kind has a word of its own. Series and phases stand for calls: a call of
#: `series` is `SERIES_VALUES` readings.
KINDS = ("metric", "param", "tag", "series", "phase")
WORD = struct.Struct("<Q")
MAX_THREADS = 64
COUNTS_BYTES = MAX_THREADS * len(KINDS) * WORD.size
SERIES_VALUES = 20
#: Readings of a thread between its other calls, and between two of its pauses.
METRICS_PER_ROUND = 10
#: 64 slots: a roll every 64 records.
SMALL_SEGMENT_BYTES = layout.HEADER_BYTES + 64 * layout.RECORD_BYTES


def word_offset(thread: int, kind: str) -> int:
    """
    Where a thread's count of a kind stands in the file.
    """
    return (thread * len(KINDS) + KINDS.index(kind)) * WORD.size


def use_small_segments() -> None:
    """
    Have this process's streams roll every 64 records.
    """
    defaults = StreamWriter.__init__.__kwdefaults__
    assert defaults is not None
    defaults["segment_bytes"] = SMALL_SEGMENT_BYTES


def hold_sidecars(gate: Path) -> None:
    """
    Have this process start no sidecar until the gate is there: the drill brings one of its own.
    """
    original = launch.ensure_sidecar

    def gated(scope: Path, profile: str, settings: Settings) -> bool:
        return gate.exists() and original(scope, profile, settings)

    launch.ensure_sidecar = gated


class Hand:
    """
    One thread that logs: what it does in a round, and what has returned.
    """

    def __init__(self, log: RunLogger, counts: mmap.mmap, thread: int, *, is_mixed: bool) -> None:
        self._log = log
        self._counts = counts
        self._thread = thread
        self._is_mixed = is_mixed
        self._made = dict.fromkeys(KINDS, 0)

    def log_round(self) -> None:
        """
        Ten readings, and in a mixed round one of each other kind.
        """
        log, thread = self._log, self._thread
        key = f"thread/{thread}"
        for _ in range(METRICS_PER_ROUND):
            number = self._made["metric"]
            log.metric(key, float(number), number)
            self._note("metric")
        if not self._is_mixed:
            return
        number = self._made["series"]
        values = [float(number)] * SERIES_VALUES
        log.series(f"series/{thread}", values, first_step=number * SERIES_VALUES)
        self._note("series")
        if number % METRICS_PER_ROUND == 0:
            log.param(f"param/{thread}/{self._made['param']}", number)
            self._note("param")
            log.tag(f"tag/{thread}/{self._made['tag']}", number)
            self._note("tag")
            with log.phase(f"phase {thread}", step=number):
                pass
            self._note("phase")

    def _note(self, kind: str) -> None:
        self._made[kind] += 1
        WORD.pack_into(self._counts, word_offset(self._thread, kind), self._made[kind])


def open_counts(path: Path) -> mmap.mmap:
    """
    The mapped file of what has returned.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, COUNTS_BYTES)
    finally:
        os.close(descriptor)


def main() -> None:
    """
    Log until killed, or for so many rounds a thread; then close.
    """
    parser = argparse.ArgumentParser(prog="allele_mlflow.drill.workload")
    parser.add_argument("returned", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--first-thread", type=int, default=0, help="number of the first thread")
    parser.add_argument("--rounds", type=int, default=1 << 40)
    parser.add_argument("--pause-s", type=float, default=0.01, help="between two rounds")
    parser.add_argument("--mixed", action="store_true", help="params, tags, series, phases too")
    parser.add_argument("--large-segments", action="store_true")
    parser.add_argument("--attach", action="store_true", help="into the run of the environment")
    parser.add_argument("--run-uid")
    parser.add_argument("--kill-at", help="a step of `doomed`, with a number: die there")
    parser.add_argument("--gate", type=Path, help="start no sidecar before this file is there")
    given = parser.parse_args()
    if not given.large_segments:
        use_small_segments()
    if given.gate is not None:
        hold_sidecars(given.gate)
    counts = open_counts(given.returned)
    log = attach() if given.attach else start_logger("drill", run_uid=given.run_uid)
    hands = [
        Hand(log, counts, given.first_thread + thread, is_mixed=given.mixed)
        for thread in range(given.threads)
    ]

    is_ending = threading.Event()

    def work(hand: Hand) -> None:
        for _ in range(given.rounds):
            if is_ending.is_set():
                break
            hand.log_round()
            pause_s(given.pause_s)

    threads = [threading.Thread(target=work, args=(hand,)) for hand in hands[1:]]
    sys.stdout.write(f"{log.run_uid}\n")
    sys.stdout.flush()
    with log:
        if given.kill_at is not None:
            arm(given.kill_at)
        for thread in threads:
            thread.start()
        try:
            work(hands[0])
        except KeyboardInterrupt:
            is_ending.set()
            raise
        finally:
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main()
