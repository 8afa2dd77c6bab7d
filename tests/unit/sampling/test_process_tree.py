"""
What the process tree promises: its accounting on made-up processes, and the truth on real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from allele_mlflow.sampling.process_reader import (
    ChildrenLookup,
    LinuxReader,
    ProcessReader,
    ProcessReading,
    PsutilReader,
)
from allele_mlflow.sampling.process_tree import ProcessTree

MB = 1_000_000
CPU = "system/process_cpu_percent"
COUNT = "system/process_count"
RSS = "system/process_rss_megabytes"
PSS = "system/process_pss_megabytes"
FDS = "system/process_fds"
READ = "system/process_read_megabytes"
ROOT, CHILD, GRANDCHILD, SIDECAR = 10, 11, 12, 20


class FakeReader:
    """
    A table of processes in place of an operating system.
    """

    def __init__(self) -> None:
        self.table: dict[int, ProcessReading] = {}
        self.fds: dict[int, int | None] = {}
        self.io: dict[int, int | None] = {}
        self.pss: dict[int, int | None] = {}
        self.pss_cost_s = 0.0
        self.pss_taken = 0
        self.cpu_s = 0.0

    def put(self, pid: int, parent: int = 1, **changes: Any) -> None:
        """
        Make a process, or change what it shows.
        """
        blank = ProcessReading(pid, 1.0, parent, False, 0.0, 0.0, MB, 1)
        self.table[pid] = self.table.get(pid, blank)._replace(**changes)

    def cpu_clock(self) -> float:
        """
        CPU seconds that reading cost.
        """
        return self.cpu_s

    def read(self, pid: int) -> ProcessReading | None:
        return self.table.get(pid)

    def children_lookup(self) -> ChildrenLookup:
        return lambda pid: [one.pid for one in self.table.values() if one.parent_pid == pid]

    def fd_count(self, pid: int) -> int | None:
        return self.fds.get(pid, 3)

    def io_bytes(self, pid: int) -> tuple[int, int] | None:
        used = self.io.get(pid, 0)
        return None if used is None else (used, 2 * used)

    def pss_bytes(self, pid: int) -> int | None:
        self.pss_taken += 1
        self.cpu_s += self.pss_cost_s
        return self.pss.get(pid, MB)


def tree_of(reader: FakeReader, *roots: int) -> ProcessTree:
    """
    A tree over made-up processes, primed at 0 s.
    """
    tree = ProcessTree(roots, reader=reader, excluded_pids={SIDECAR}, cpu_clock=reader.cpu_clock)
    tree.prime(0.0)
    return tree


@pytest.fixture
def reader() -> FakeReader:
    """
    A root that has used 5 s, with one child that has used 2 s.
    """
    reader = FakeReader()
    reader.put(ROOT, cpu_s=5.0)
    reader.put(CHILD, ROOT, cpu_s=2.0)
    return reader


def test_cpu_is_that_of_the_interval_over_the_tree(reader: FakeReader) -> None:
    """
    What root and child spent since the last answer, in percent of one core; 200 is two cores.
    """
    tree = tree_of(reader, ROOT)
    reader.put(ROOT, cpu_s=6.0)
    reader.put(CHILD, cpu_s=5.0)
    assert tree.sample(2.0)[CPU] == pytest.approx(200.0)
    assert tree.sample(3.0)[CPU] == 0.0


def test_first_cpu_percentage_is_absent_not_zero(reader: FakeReader) -> None:
    """
    Without a baseline, or sooner than 50 ms after it, there is no percentage, and no time is lost.
    """
    tree = ProcessTree([ROOT], reader=reader)
    assert CPU not in tree.sample(0.0)
    reader.put(ROOT, cpu_s=5.02)
    assert CPU not in tree.sample(0.04)
    assert tree.sample(0.1)[CPU] == pytest.approx(20.0)


def test_child_born_in_the_interval_counts_from_birth(reader: FakeReader) -> None:
    """
    A child first seen now spent all its time since the last look, its grandchild's too.
    """
    tree = tree_of(reader, ROOT)
    reader.put(GRANDCHILD, CHILD, cpu_s=0.5)
    reader.put(13, GRANDCHILD, cpu_s=0.25)
    assert tree.sample(1.0)[CPU] == pytest.approx(75.0)


def test_attached_process_counts_from_now(reader: FakeReader) -> None:
    """
    What a process and its children used before they were followed is not the interval's.
    """
    reader.put(30, cpu_s=100.0)
    reader.put(31, 30, cpu_s=50.0)
    reader.io[30] = 70 * MB
    tree = tree_of(reader, ROOT)
    assert tree.follow(30)
    reader.put(31, cpu_s=50.5)
    reader.io[30] = 71 * MB
    values = tree.sample(1.0)
    assert values[CPU] == pytest.approx(50.0)
    assert values[COUNT] == 4.0
    assert values[READ] == 1.0


@pytest.mark.parametrize("was_waited_for", [True, False])
def test_ended_child_counts_once(reader: FakeReader, was_waited_for: bool) -> None:
    """
    A child that ended contributes what was last seen; where its parent waited for it, the rest too.
    """
    tree = tree_of(reader, ROOT)
    reader.put(CHILD, cpu_s=2.4)
    assert tree.sample(1.0)[CPU] == pytest.approx(40.0)
    del reader.table[CHILD]
    reader.put(ROOT, children_cpu_s=2.5 if was_waited_for else 0.0, cpu_s=5.3)
    assert tree.sample(2.0)[CPU] == pytest.approx(40.0 if was_waited_for else 30.0)


def test_child_that_no_look_saw_counts(reader: FakeReader) -> None:
    """
    A child that was born, worked and ended between two looks counts through its parent.
    """
    tree = tree_of(reader, ROOT)
    reader.put(ROOT, children_cpu_s=0.8)
    assert tree.sample(1.0)[CPU] == pytest.approx(80.0)


def test_generations_that_end_together_count_once(reader: FakeReader) -> None:
    """
    Where child and grandchild ended in one interval, the root inherits both, and what was counted
    before is not counted again.
    """
    reader.put(GRANDCHILD, CHILD, cpu_s=3.0)
    tree = tree_of(reader, ROOT)
    del reader.table[CHILD], reader.table[GRANDCHILD]
    reader.put(ROOT, children_cpu_s=2.0 + 3.0 + 0.25)
    assert tree.sample(1.0)[CPU] == pytest.approx(25.0)


def test_reused_pid_is_somebody_else(reader: FakeReader) -> None:
    """
    A pid that now belongs to a later process is not followed, whatever that process used.
    """
    tree = tree_of(reader, ROOT)
    reader.table[ROOT] = ProcessReading(ROOT, 99.0, 1, False, 500.0, 0.0, 900 * MB, 7)
    values = tree.sample(1.0)
    assert values[COUNT] == 1.0
    assert values[RSS] == 1.0
    assert tree.pids == {CHILD}


def test_reused_pid_inside_the_tree_counts_as_new(reader: FakeReader) -> None:
    """
    A child whose pid was given to another child of the tree: the new one counts from its birth.
    """
    tree = tree_of(reader, ROOT)
    reader.table[CHILD] = ProcessReading(CHILD, 99.0, ROOT, False, 0.3, 0.0, MB, 1)
    reader.put(ROOT, children_cpu_s=2.1)
    assert tree.sample(1.0)[CPU] == pytest.approx(40.0)


def test_follow_refuses_another_birth(reader: FakeReader) -> None:
    """
    Who knows when the process was born is not given another one; nobody is nobody.
    """
    tree = tree_of(reader)
    assert not tree.follow(ROOT, born=2.0)
    assert not tree.follow(999)
    assert tree.sample(1.0) == {}
    assert tree.follow(ROOT, born=1.0)


def test_sidecar_and_its_children_are_left_out(reader: FakeReader) -> None:
    """
    A sidecar below the benchmark is not the benchmark, nor is anything the sidecar starts.
    """
    reader.put(SIDECAR, ROOT, cpu_s=1.0)
    reader.put(21, SIDECAR, cpu_s=1.0)
    assert tree_of(reader, ROOT).sample(1.0)[COUNT] == 2.0
    # As a thread of the benchmark it has the benchmark's pid, and that one counts.
    assert tree_of(reader, SIDECAR).sample(1.0)[COUNT] == 2.0


def test_orphan_stays_followed(reader: FakeReader) -> None:
    """
    A child whose parent ended, and that belongs to init now, is still the benchmark's.
    """
    tree = tree_of(reader, ROOT)
    del reader.table[ROOT]
    reader.put(CHILD, parent_pid=1, cpu_s=2.5)
    values = tree.sample(1.0)
    assert values[COUNT] == 1.0
    assert values[CPU] == pytest.approx(50.0)


def test_dead_tree_gives_nothing(reader: FakeReader) -> None:
    """
    Nobody alive, zombies apart: no metrics, no error.
    """
    tree = tree_of(reader, ROOT)
    del reader.table[CHILD]
    reader.put(ROOT, is_zombie=True)
    assert tree.sample(1.0) == {}
    assert tree.pids == frozenset()
    reader.table.clear()
    assert tree.sample(2.0) == {}


@pytest.mark.parametrize(("source", "metric"), [("fds", FDS), ("io", READ), ("pss", PSS)])
def test_what_one_member_hides_is_absent(reader: FakeReader, source: str, metric: str) -> None:
    """
    A number that one process of the tree does not show is absent: a part is not the tree.
    """
    assert metric in tree_of(reader, ROOT).sample(1.0)
    getattr(reader, source)[CHILD] = None
    values = tree_of(reader, ROOT).sample(1.0)
    assert metric not in values
    assert values[RSS] == 2.0


def test_io_counts_from_the_start_and_never_falls(reader: FakeReader) -> None:
    """
    Bytes since sampling began; an ended child's stay, whether or not its parent inherited them.
    """
    reader.io = {ROOT: 100 * MB, CHILD: 50 * MB}
    tree = tree_of(reader, ROOT)
    assert tree.sample(1.0)[READ] == 0.0
    reader.io = {ROOT: 101 * MB, CHILD: 54 * MB}
    values = tree.sample(2.0)
    assert values[READ] == 5.0
    assert values["system/process_write_megabytes"] == 10.0
    reader.put(CHILD, is_zombie=True)
    reader.io[CHILD] = None
    assert tree.sample(3.0)[READ] == 5.0
    del reader.table[CHILD]
    reader.io[ROOT] = 155 * MB
    assert tree.sample(4.0)[READ] == 5.0
    reader.put(GRANDCHILD, ROOT)
    reader.io[GRANDCHILD] = 3 * MB
    assert tree.sample(5.0)[READ] == 8.0
    del reader.table[GRANDCHILD]
    assert tree.sample(6.0)[READ] == 8.0
    reader.io[ROOT] = 156 * MB
    assert tree.sample(7.0)[READ] == 9.0


def test_pss_is_taken_seldom(reader: FakeReader) -> None:
    """
    PSS walks the page tables of the benchmark: once in ten seconds, absent between.
    """
    tree = tree_of(reader, ROOT)
    taken = [second for second in range(1, 25) if PSS in tree.sample(float(second))]
    assert taken == [1, 11, 21]


def test_expensive_pss_is_not_taken(reader: FakeReader) -> None:
    """
    Where PSS is expected to take over 20 ms (by the size, or as the last one took) it is not taken.
    """
    tree = tree_of(reader, ROOT)
    reader.put(ROOT, rss_bytes=50_000 * MB)
    assert PSS not in tree.sample(1.0)
    assert reader.pss_taken == 0
    reader.put(ROOT, rss_bytes=100 * MB)
    reader.pss_cost_s = 0.015
    assert PSS in tree.sample(11.0)
    assert PSS not in tree.sample(21.0)


def test_dear_search_for_children_is_spaced_out(reader: FakeReader) -> None:
    """
    A search that costs 10 ms is repeated after two seconds at the earliest, and nothing is lost:
    the child it finds late still counts from its birth.
    """
    lookup = reader.children_lookup

    def dear_lookup() -> ChildrenLookup:
        reader.cpu_s += 0.010
        return lookup()

    reader.children_lookup = dear_lookup  # type: ignore[method-assign]
    tree = tree_of(reader, ROOT)
    reader.put(GRANDCHILD, CHILD, cpu_s=0.5)
    assert tree.sample(1.0)[COUNT] == 2.0
    values = tree.sample(2.1)
    assert values[COUNT] == 3.0
    assert values[CPU] == pytest.approx(100.0 * 0.5 / 1.1)


PARENT = """
import subprocess, sys
CHILD = '''
import sys, time
while time.process_time() < 0.25: pass
print("burnt", flush=True)
sys.stdin.readline()
'''
print("ready", flush=True)
for line in sys.stdin:
    if line == "spawn\\n":
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE)
    elif line == "end\\n":
        child.communicate(b"end\\n")
        print("ended", flush=True)
    elif line == "leave\\n":
        sys.stdout.flush()
        import os
        os._exit(0)
"""


class Program:
    """
    A running parent that starts and ends a child on command.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def tell(self, command: str, answer: str | None) -> None:
        """
        Give a command and wait for its answer.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        if answer is not None:
            assert self.process.stdout.readline().strip() == answer


@contextmanager
def running_program() -> Iterator[Program]:
    """
    The program, ready; it and all it left behind are gone afterwards.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    family = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield Program(process)
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        pass
    finally:
        for one in family:
            one.kill()
        process.kill()
        process.communicate()


def wait_until(is_true: Callable[[], bool]) -> None:
    """
    Look every 5 ms, for 5 s at most.
    """
    deadline = time.monotonic() + 5.0
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


READERS = [
    pytest.param(
        LinuxReader, marks=pytest.mark.skipif(sys.platform != "linux", reason="hardware: no /proc")
    ),
    PsutilReader,
]


@pytest.mark.process
@pytest.mark.parametrize("make_reader", READERS)
def test_child_that_burns_is_measured(make_reader: Callable[[], ProcessReader]) -> None:
    """
    A quarter of a second that a real child burns is found in the interval, and not again later.
    """
    with running_program() as program:
        # A search for children that seems to cost nothing is made at each look.
        tree = ProcessTree([program.pid], reader=make_reader(), cpu_clock=lambda: 0.0)
        started_s = time.monotonic()
        tree.prime(started_s)
        program.tell("spawn", "burnt")
        burnt_s = time.monotonic()
        values = tree.sample(burnt_s)
        spent_s = values[CPU] / 100.0 * (burnt_s - started_s)
        assert 0.2 <= spent_s <= 1.0
        assert values[COUNT] == 2.0
        assert values["system/process_threads"] >= 2.0
        assert values[FDS] >= 6.0
        assert 2.0 < values[RSS] < 1000.0
        program.tell("end", "ended")
        time.sleep(0.06)
        ended_s = time.monotonic()
        values = tree.sample(ended_s)
        # Linux adds the child's last moments to its parent; its quarter of a second was counted.
        assert values[CPU] / 100.0 * (ended_s - burnt_s) < 0.2
        assert values[COUNT] == 1.0


@pytest.mark.process
@pytest.mark.skipif(
    sys.platform != "linux", reason="hardware: macOS does not count waited-for children"
)
def test_child_between_two_looks_is_measured() -> None:
    """
    A real child that lived only between two looks is found in its parent's children time.
    """
    with running_program() as program:
        tree = ProcessTree([program.pid])
        started_s = time.monotonic()
        tree.prime(started_s)
        program.tell("spawn", "burnt")
        program.tell("end", "ended")
        ended_s = time.monotonic()
        values = tree.sample(ended_s)
        assert values[COUNT] == 1.0
        assert 0.2 <= values[CPU] / 100.0 * (ended_s - started_s) <= 1.0


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="hardware: no PSS")
def test_pss_lies_below_rss() -> None:
    """
    Parent and child share libraries, so their proportional set size is less than the sum of theirs.
    """
    with running_program() as program:
        tree = ProcessTree([program.pid])
        program.tell("spawn", "burnt")
        values = tree.sample(1.0)
        assert 0.0 < values[PSS] < values[RSS]


@pytest.mark.process
def test_killed_root_leaves_a_followed_orphan() -> None:
    """
    When the root is gone, its real child is still followed; when that is gone, nothing is left.
    """
    with running_program() as program:
        tree = ProcessTree([program.pid])
        program.tell("spawn", "burnt")
        tree.sample(1.0)
        (orphan,) = tree.pids - {program.pid}
        os.kill(orphan, signal.SIGSTOP)  # or it would see its input end, and end too
        os.kill(program.pid, 9)
        program.process.wait()
        assert tree.sample(2.0)[COUNT] == 1.0
        assert tree.pids == {orphan}
        os.kill(orphan, 9)
        wait_until(lambda: tree.sample(3.0) == {})


@pytest.mark.process
def test_zombie_root_is_dead() -> None:
    """
    A root that nobody has waited for yet counts as dead.
    """
    with running_program() as program:
        tree = ProcessTree([program.pid])
        assert tree.sample(1.0)[COUNT] == 1.0
        program.tell("leave", None)
        wait_until(lambda: tree.sample(2.0) == {})


@pytest.mark.parametrize("make_reader", READERS)
def test_reader_agrees_with_psutil(make_reader: Callable[[], ProcessReader]) -> None:
    """
    Our reading of this very process is what psutil says.
    """
    reader, own = make_reader(), psutil.Process()
    # A second thread, so that a count of one is not right by chance.
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        reading = reader.read(own.pid)
        assert reading is not None
        times = own.cpu_times()
        assert reading.threads == own.num_threads() >= 2
    finally:
        done.set()
        thread.join()
    assert reading.parent_pid == own.ppid()
    assert reading.cpu_s == pytest.approx(times.user + times.system, abs=0.2)
    assert reading.rss_bytes == pytest.approx(own.memory_info().rss, rel=0.2)
    assert own.pid in reader.children_lookup()(own.ppid())


@pytest.mark.process
@pytest.mark.parametrize("make_reader", READERS)
def test_reader_counts_descriptors_as_psutil_does(
    make_reader: Callable[[], ProcessReader],
) -> None:
    """
    The open descriptors of another process are as many as psutil finds.
    """
    with running_program() as program:
        assert make_reader().fd_count(program.pid) == psutil.Process(program.pid).num_fds()


@pytest.mark.parametrize("make_reader", READERS)
def test_reader_gives_none_for_nobody(make_reader: Callable[[], ProcessReader]) -> None:
    """
    A pid that nobody has is no error, whatever is asked about it.
    """
    reader, nobody = make_reader(), 2**22 + 1
    assert reader.read(nobody) is None
    assert reader.fd_count(nobody) is None
    assert reader.io_bytes(nobody) is None
    assert reader.pss_bytes(nobody) is None
    assert list(reader.children_lookup()(nobody)) == []
