"""
A call that returned is kept, whatever happens to the benchmark's process.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from allele_mlflow.clock import now_monotonic_s, pause_s
from tests.queue_tools import Collected, make_reader, make_run, read_all, read_some, read_to_end

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.process


class Hammer:
    """
    One running `hammer.py`, and what it said about returned calls.
    """

    def __init__(self, folder: Path, threads: int, mode: str, calls: int | None = None) -> None:
        self.run = make_run(folder / "spool")
        self.threads = threads
        self.mode = mode
        self.counts_path = folder / "counts"
        self.counts_path.write_bytes(bytes(4096))
        arguments = [str(self.run), str(self.counts_path), str(threads), mode]
        arguments += [str(calls)] if calls is not None else []
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "faults" / "hammer.py"), *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def returned(self, word: int) -> int:
        """
        Calls of a thread that have returned.
        """
        return int(struct.unpack_from("<Q", self.counts_path.read_bytes(), word * 8)[0])

    def assert_all_arrived(self, collected: Collected) -> None:
        """
        Every returned call of every thread is among the readings, once.
        """
        for thread in range(self.threads):
            steps = [r.step for r in collected.readings if r.key == f"thread/{thread}"]
            assert len(steps) == len(set(steps)), "a record came twice"
            missing = set(range(self.returned(thread))) - set(steps)
            assert not missing, f"{len(missing)} of {self.returned(thread)} calls of {thread} lost"
            assert all(r.value == r.step for r in collected.readings if r.key == f"thread/{thread}")
            if self.mode == "mixed":  # 20 readings of a series before every tenth call
                series = [r.step for r in collected.readings if r.key == f"series/{thread}"]
                assert len(series) == len(set(series)), "a reading of a series came twice"
                wanted = range(9, self.returned(thread), 10)
                given = {n * 20 + i for n in wanted for i in range(20)}
                assert given <= set(series), f"{len(given - set(series))} readings lost"


@contextmanager
def hammer(folder: Path, threads: int, mode: str, calls: int | None = None) -> Iterator[Hammer]:
    """
    A running hammer that is gone afterwards.
    """
    running = Hammer(folder, threads, mode, calls)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("mode", ["plain", "mixed"])
def test_call_that_returned_survives_sigkill(tmp_path: Path, threads: int, mode: str) -> None:
    """SIGKILL at a random instant, segments of 64 slots: every returned call is read, once."""
    chance = random.Random(f"{threads}{mode}")
    for round_number in range(3):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        with hammer(folder, threads, mode) as running:
            reader = make_reader(running.run)
            collected = Collected()
            deadline_s = now_monotonic_s() + chance.uniform(0.02, 0.25)
            while now_monotonic_s() < deadline_s:
                read_some(reader, collected)  # the sidecar reads, and unlinks, at the same time
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
            read_to_end(reader, collected)
            running.assert_all_arrived(collected)
            ledger = reader.ledger(is_exact=True)
            assert (ledger.pending, ledger.dropped) == (0, {})
            assert ledger.delivered["metric"] == len(collected.readings)
            assert ledger.torn <= threads * 20
            reader.close()


def test_signal_handler_that_logs_loses_nothing(tmp_path: Path) -> None:
    """A SIGALRM every 0.3 ms that logs, over 64-slot segments and new keys: nothing lost or
    swapped.
    """
    with hammer(tmp_path, 2, "alarm", calls=20_000) as running:
        reader = make_reader(running.run)
        collected = Collected()
        while running.process.poll() is None:
            read_some(reader, collected)
        read_all(reader, collected)
        assert running.process.returncode == 0
        running.assert_all_arrived(collected)
        handled = running.returned(63)
        assert handled > 100
        alarms = [r for r in collected.readings if r.key == "alarm"]
        assert sorted(r.step for r in alarms) == list(range(handled))
        assert all(r.value == r.step for r in alarms)
        numbered = [r for r in collected.readings if r.key.startswith("alarm/")]
        assert all(r.key == f"alarm/{r.step % 50}" for r in numbered), "a reading under a wrong key"
        ledger = reader.ledger(is_exact=True)
        assert (ledger.torn, ledger.pending, ledger.dropped) == (0, 0, {})


@pytest.mark.parametrize("threads", [4, 8])
def test_stopped_writer_keeps_its_open_slots(tmp_path: Path, threads: int) -> None:
    """SIGSTOP and SIGCONT at random instants: a hole of a living writer is waited for, never given
    up.
    """
    chance = random.Random(threads)
    with hammer(tmp_path, threads, "plain", calls=4_000) as running:
        reader = make_reader(running.run)
        collected = Collected()
        while running.process.poll() is None:
            running.process.send_signal(signal.SIGSTOP)
            read_some(reader, collected)
            if chance.random() < 0.3:  # the sidecar dies too, and another goes on from its cursor
                reader.close()
                reader = make_reader(running.run)
            running.process.send_signal(signal.SIGCONT)
            pause_s(chance.uniform(0.001, 0.02))
        read_all(reader, collected)
        assert running.process.returncode == 0
        running.assert_all_arrived(collected)
        ledger = reader.ledger(is_exact=True)
        assert (ledger.torn, ledger.pending) == (0, 0)
        assert ledger.delivered["metric"] == threads * 4_000
