"""
What the kernel says of a process that has ended, in tables and of real processes.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.records import ProcessEnd
from allele_mlflow.sidecar.process_end import (
    INFO_EXIT,
    ProcessStat,
    ProcessWatch,
    decode_wait_status,
    parse_info,
    parse_stat,
)

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="no pidfd on this system: nothing is told"
)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, ProcessEnd(exit_code=0)),
        (3 << 8, ProcessEnd(exit_code=3)),
        (255 << 8, ProcessEnd(exit_code=255)),
        (signal.SIGKILL, ProcessEnd(signal=9)),
        (signal.SIGSEGV | 0x80, ProcessEnd(signal=11)),  # with a core dump
        (64, ProcessEnd(signal=64)),
    ],
)
def test_wait_status_is_read_as_wait_does(status: int, expected: ProcessEnd) -> None:
    """An exit code, or a signal, with its core dump or without."""
    assert decode_wait_status(status) == expected
    assert decode_wait_status(status).is_known


def stat_text(name: str, state: str, exit_status: int) -> str:
    """A line of /proc/<pid>/stat with start time 777."""
    numbers = ["0"] * 50
    numbers[0], numbers[19], numbers[49] = state, "777", str(exit_status)
    return f"42 ({name}) {' '.join(numbers)}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (stat_text("python", "S", 0), ProcessStat(777, is_zombie=False, wait_status=None)),
        (stat_text("python", "Z", 1280), ProcessStat(777, is_zombie=True, wait_status=1280)),
        (stat_text("a) Z (b", "R", 9), ProcessStat(777, is_zombie=False, wait_status=None)),
        ("42 (old) " + "Z " * 20, None),
        ("42 (old) Z" + " 7" * 20, ProcessStat(7, is_zombie=True, wait_status=None)),
        ("", None),
        ("no such thing", None),
    ],
)
def test_stat_tells_of_zombies_only(text: str, expected: ProcessStat | None) -> None:
    """Whatever the program is called: a living process has no status, and a short line is none."""
    assert parse_stat(text) == expected


@pytest.mark.parametrize(
    ("mask", "length", "expected"),
    [
        (INFO_EXIT | 4, 64, 9),
        (INFO_EXIT, 72, 9),
        (7, 64, None),
        (0, 64, None),
        (INFO_EXIT, 60, None),
        (INFO_EXIT, 0, None),
    ],
)
def test_info_tells_only_what_its_mask_says(mask: int, length: int, expected: int | None) -> None:
    """Without its bit the status, which is a 0 there, means nothing."""
    info = struct.pack("<Q52xi8x", mask, 9)[:length]
    assert parse_info(info) == expected


Child = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Child]:
    """A process that ends as it is told on its stdin."""
    body = "import os, sys; exec(sys.stdin.readline())"
    with subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def end(child: Child, how: str) -> None:
    """Have the child end, and wait until it is a zombie, which nobody reaps."""
    assert child.stdin is not None
    child.stdin.write(how.encode() + b"\n")
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


HOWS = [
    ("os._exit(0)", ProcessEnd(exit_code=0)),
    ("os._exit(5)", ProcessEnd(exit_code=5)),
    ("sys.exit(3)", ProcessEnd(exit_code=3)),
    ("os.kill(os.getpid(), 9)", ProcessEnd(signal=9)),
    ("os.kill(os.getpid(), 15)", ProcessEnd(signal=15)),
]


@pytest.mark.process
@needs_pidfd
@pytest.mark.parametrize(("how", "expected"), HOWS)
def test_end_is_told_before_and_after_reaping(child: Child, how: str, expected: ProcessEnd) -> None:
    """A zombie that nobody reaps tells its end, to who watched it and who comes late; reaped, it
    tells it to who watched it, where the kernel is new enough.
    """
    start = process_start_time(child.pid) or 0
    watch = ProcessWatch(child.pid, start)
    assert watch.is_open
    assert watch.was_alive
    assert watch.find_end() is None
    end(child, how)
    assert watch.find_end() == expected
    late = ProcessWatch(child.pid, start)
    assert late.find_end() == expected
    assert not late.was_alive
    late.close()
    child.wait()
    assert watch.find_end() == (expected if tells_reaped() else None)
    watch.close()
    assert watch.find_end() is None


def tells_reaped() -> bool:
    """Whether this kernel tells the end of a process that was reaped."""
    release = os.uname().release.split("-")[0].split(".")
    return (int(release[0]), int(release[1])) >= (6, 15)


@pytest.mark.process
def test_other_process_of_that_number_is_not_watched(child: Child) -> None:
    """Another start time is another process; one that is gone was not there to be watched."""
    start = process_start_time(child.pid) or 0
    assert not ProcessWatch(child.pid, start + 1).is_open
    end(child, "pass")
    child.wait()
    late = ProcessWatch(child.pid, start)
    assert not late.is_open
    assert late.find_end() is None


@pytest.mark.process
@needs_pidfd
def test_who_may_not_look_is_told_nothing(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel hides the status of a zombie behind a 0, that 0 is not believed."""
    watch = ProcessWatch(child.pid, process_start_time(child.pid) or 0)
    end(child, "os._exit(5)")

    def refuse(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    assert watch.find_end() is None
    watch.close()


@pytest.mark.process
def test_without_pidfd_nothing_is_told(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no pidfd, or forbids it, the end is unknown."""
    start = process_start_time(child.pid) or 0

    def refuse(pid: int) -> int:
        raise PermissionError(pid)

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    assert not ProcessWatch(child.pid, start).is_open
    monkeypatch.delattr(os, "pidfd_open")
    watch = ProcessWatch(child.pid, start)
    end(child, "os._exit(5)")
    assert watch.find_end() is None


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to count descriptors in")
def test_watching_leaves_no_descriptor(child: Child) -> None:
    """A watch that is closed, or never began, holds no descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    start = process_start_time(child.pid) or 0
    for start_time in (start, start + 1):
        watch = ProcessWatch(child.pid, start_time)
        watch.close()
        watch.close()
    assert len(os.listdir("/proc/self/fd")) <= before
