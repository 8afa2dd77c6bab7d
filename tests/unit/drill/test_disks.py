"""
The pure parts of the drills of disks, and the faked disk.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from allele_mlflow.drill.accounts import Found, Made, compare_ledger
from allele_mlflow.drill.faked_disk import FakedDisk
from allele_mlflow.records import Ledger

MADE = Made(records=100, phases=2)
FOUND = Found(rows=80, wrong=0, params=5, tags=5)


def ledger(**more: object) -> Ledger:
    """
    One that fits to `MADE` and `FOUND`.
    """
    values = {
        "delivered": {"metric": 80, "param": 5, "tag": 5, "phase": 3},
        "dropped": {"disk_full": 10},
    }
    return Ledger(**(values | more))  # type: ignore[arg-type] # a table of fields


def test_whole_account_has_no_problem() -> None:
    """What was delivered and what was dropped add up to the calls."""
    assert compare_ledger(MADE, FOUND, ledger(), dropped=["disk_full"]) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (ledger(dropped={"disk_full": 8}), "accepted 101"),
        (ledger(dropped={"disk_full": 12}), "accepted 105"),
        (ledger(dropped={"quota": 10}), "want only disk_full"),
        (ledger(delivered={"metric": 81, "param": 5, "tag": 4, "phase": 3}), "80 of kind metric"),
        (ledger(dropped={"disk_full": 9}, torn=1), "nothing pending, torn"),
    ],
)
def test_wrong_account_is_told(wrong: Ledger, words: str) -> None:
    """A record too few or too many, another reason, or a count that MLflow does not hold."""
    problems = compare_ledger(MADE, FOUND, wrong, dropped=["disk_full"])
    assert any(words in problem for problem in problems), problems


@pytest.mark.process
def test_faked_disk_is_full_for_our_calls(tmp_path: Path) -> None:
    """The calls that take room fail with ENOSPC on the disk, nowhere else, and later do not."""
    disk = FakedDisk(tmp_path / "disk", 100_000)
    program = """
import errno, os, sys
from pathlib import Path
disk, beside = Path(sys.argv[1]), Path(sys.argv[2])
def attempt(work):
    try:
        work()
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return "taken"
def write(path):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, 60_000)
    os.pwrite(descriptor, b"x" * 60_000, 0)  # it has its room
    os.close(descriptor)
print(*(attempt(lambda n=n: write(n)) for n in (disk / "a", disk / "b", beside / "c")))
print(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 45_000)
"""

    def run() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(disk.path), str(tmp_path)],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(disk.module_path), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert run() == ["taken", errno.errorcode[errno.ENOSPC], "taken", "True"]
    (disk.path / "a").unlink()
    (disk.path / "b").unlink()
    disk.fill()
    assert run()[:2] == ["ENOSPC", "ENOSPC"]
    disk.make_room()
    assert run()[:2] == ["taken", "ENOSPC"]
    disk.close()
