"""
The program that logs while a drill attacks it.

Run as `python -m allele_mlflow.drill.workload RETURNED_FILE [options]`. After each call that
returned, its thread stores how many of that kind have returned into its word of a mapped file, so
that a kill at any instant leaves behind what must arrive. Prints the run's uid once it logs.
"""

from __future__ import annotations

import argparse
import errno
import mmap
import os
import resource
import signal
import struct
import sys
import threading
from pathlib import Path

import msgspec

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
KINDS = ("metric", "param", "tag", "series", "phase", "artifact")
WORD = struct.Struct("<Q")
MAX_THREADS = 64
COUNTS_BYTES = MAX_THREADS * len(KINDS) * WORD.size
SERIES_VALUES = 20
#: Readings of a thread between its other calls, and between two of its pauses.
METRICS_PER_ROUND = 10
#: How often somebody looks for a file that tells him what to do.
LOOK_EVERY_S = 0.02
#: 64 slots: a roll every 64 records.
SMALL_SEGMENT_BYTES = layout.HEADER_BYTES + 64 * layout.RECORD_BYTES


def word_offset(thread: int, kind: str) -> int:
    """
    Where a thread's count of a kind stands in the file.
    """
    return (thread * len(KINDS) + KINDS.index(kind)) * WORD.size


def use_small_segments(segment_bytes: int = SMALL_SEGMENT_BYTES) -> None:
    """
    Have this process's streams roll every 64 records, or as often as a size says.
    """
    defaults = StreamWriter.__init__.__kwdefaults__
    assert defaults is not None
    defaults["segment_bytes"] = segment_bytes


def hold_sidecars(gate: Path) -> None:
    """
    Have this process start no sidecar until the gate is there: the drill brings one of its own.
    """
    original = launch.ensure_sidecar

    def gated(scope: Path, profile: str, settings: Settings) -> bool:
        return gate.exists() and original(scope, profile, settings)

    launch.ensure_sidecar = gated


def limit_address_space(more_bytes: int) -> None:
    """
    Let this process map so many more bytes than now, and no more.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes, hard))


def use_up_descriptors(wanted: Path, taken: Path) -> None:
    """
    While `wanted` is there, hold all descriptors that this process may have; `taken` says so.
    """
    held: list[int] = []
    room = os.open(taken.with_suffix(".held"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        if wanted.exists():
            try:
                while True:
                    held.append(os.dup(room))
            except OSError as exc:
                if exc.errno != errno.EMFILE:
                    raise
            if not taken.exists():
                os.mkdir(taken)  # which takes no descriptor
        elif held:
            for descriptor in held:
                os.close(descriptor)
            held.clear()
            os.rmdir(taken)
        pause_s(LOOK_EVERY_S)


class Hand:
    """
    One thread that logs: what it does in a round, and what has returned.
    """

    def __init__(
        self,
        log: RunLogger,
        counts: mmap.mmap,
        thread: int,
        *,
        is_mixed: bool,
        artifact_bytes: int = 0,
    ) -> None:
        self._artifact_bytes = artifact_bytes
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
            if self._artifact_bytes:
                number = self._made["artifact"]
                text = f"{number} ".ljust(self._artifact_bytes, "x")
                log.text(text, f"files/{thread}/{number}.txt")
                self._note("artifact")

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
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a drill started with `&` or nohup
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
    parser.add_argument("--until", type=Path, help="end as it should when this file is there")
    parser.add_argument(
        "--artifact-bytes", type=int, default=0, help="of artifacts, in a mixed run"
    )
    parser.add_argument("--segment-bytes", type=int, default=SMALL_SEGMENT_BYTES)
    parser.add_argument("--report", type=Path, help="write the ledger at close into this file")
    parser.add_argument("--descriptors", type=int, help="how many this process may have")
    parser.add_argument("--use-up", type=Path, help="while it is there: use up all descriptors")
    parser.add_argument("--more-memory", type=int, help="bytes to be mapped yet, once it has begun")
    parser.add_argument("--is-early", action="store_true", help="... and before the run begins")
    given = parser.parse_args()
    if not given.large_segments:
        use_small_segments(given.segment_bytes)
    if given.descriptors is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (given.descriptors, hard))
    if given.more_memory is not None and given.is_early:
        limit_address_space(given.more_memory)
    if given.gate is not None:
        hold_sidecars(given.gate)
    counts = open_counts(given.returned)
    log = attach() if given.attach else start_logger("drill", run_uid=given.run_uid)
    hands = [
        Hand(
            log,
            counts,
            given.first_thread + thread,
            is_mixed=given.mixed,
            artifact_bytes=given.artifact_bytes,
        )
        for thread in range(given.threads)
    ]

    is_ending = threading.Event()

    def work(hand: Hand) -> None:
        for _ in range(given.rounds):
            if is_ending.is_set() or (given.until is not None and given.until.exists()):
                break
            hand.log_round()
            pause_s(given.pause_s)

    threads = [threading.Thread(target=work, args=(hand,)) for hand in hands[1:]]
    sys.stdout.write(f"{log.run_uid}\n")
    sys.stdout.flush()
    with log:
        if given.kill_at is not None:
            arm(given.kill_at)
        if given.use_up is not None:
            greedy = (given.use_up, given.use_up.with_suffix(".taken"))
            threading.Thread(target=use_up_descriptors, args=greedy, daemon=True).start()
        for thread in threads:
            thread.start()
        if given.more_memory is not None and not given.is_early:
            limit_address_space(given.more_memory)
        try:
            work(hands[0])
        except KeyboardInterrupt:
            is_ending.set()
            raise
        finally:
            for thread in threads:
                thread.join()
    if given.report is not None:
        given.report.write_bytes(msgspec.json.encode(log.close().ledger))


if __name__ == "__main__":
    main()
