"""
Exclusive suites in two processes at once: one machine, one cell at a time.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.integration.suites import Place, await_that

# two suites of real processes each
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(150)]

BENCHMARK = '''
import os
import time


def run(number, length_s, spans):
    """Write down when it began, and when it was over."""
    begin_ns = time.monotonic_ns()
    path = os.path.join(spans, f"{begin_ns}-{os.getpid()}")
    open(path, "x").close()
    time.sleep(length_s)
    with open(path, "w") as file:
        file.write(str(time.monotonic_ns()))
    return {"score": number}
'''


class Span(NamedTuple):
    """
    When a cell ran, by the machine's monotonic clock; `end_ns` is None where it never came to it.
    """

    begin_ns: int
    end_ns: int | None
    pid: int


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """
    A folder of its own, with one for the spans.
    """
    (tmp_path / "spans").mkdir()
    return Place(tmp_path)


def write_suite(place: Place, name: str, *, cells: int, length_s: float, more: str = "") -> Path:
    """
    A suite that would run two cells at once.
    """
    path = place.write(
        name,
        f'executor = "process:2"\n{more}\n'
        f'[params]\nlength_s = {length_s}\nspans = "{place.folder / "spans"}"\n'
        f"[matrix]\nnumber = {list(range(cells))}",
    )
    path.write_text(path.read_text().replace("bench:run", "spanning:run"))
    (place.folder / "spanning.py").write_text(BENCHMARK)
    return path


def spans_of(place: Place) -> list[Span]:
    """
    Those of all cells so far, in the order of their beginning.
    """
    found = []
    for path in (place.folder / "spans").iterdir():
        begin, pid = path.name.split("-")
        text = path.read_text()
        found.append(Span(int(begin), int(text) if text else None, int(pid)))
    return sorted(found)


def test_cells_of_two_exclusive_suites_never_overlap(place: Place) -> None:
    """
    One suite exclusive by its file, one by the option, both for two cells at once: neither two
    cells of one suite nor cells of both ever run at the same time, and the second one says that it
    waits.
    """
    by_file = write_suite(place, "file.toml", cells=4, length_s=0.4, more="exclusive = true")
    by_option = write_suite(place, "option.toml", cells=4, length_s=0.4)
    runners = [place.start("run", str(by_file)), place.start("run", str(by_option), "--exclusive")]
    outputs = [runner.communicate(timeout=100)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    spans = spans_of(place)
    assert len(spans) == 8
    for one, after in itertools.pairwise(spans):
        assert one.end_ns is not None
        assert one.end_ns <= after.begin_ns
    assert sum("another exclusive suite runs" in text for text in outputs) == 1


def test_killed_exclusive_suite_frees_the_machine(place: Place) -> None:
    """
    Kill -9 of the runner that holds the machine: the cell of then ends with it, and the suite that
    waited runs, its cells after that.
    """
    holder = place.start(
        "run", str(write_suite(place, "holder.toml", cells=1, length_s=60)), "--exclusive"
    )
    await_that(lambda: len(spans_of(place)) == 1)
    (held,) = spans_of(place)
    waiter = place.start(
        "run", str(write_suite(place, "waiter.toml", cells=2, length_s=0.2)), "--exclusive"
    )
    assert waiter.stdout is not None
    assert "another exclusive suite runs" in waiter.stdout.readline()
    assert spans_of(place) == [held]
    killed_ns = time.monotonic_ns()
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    output, _ = waiter.communicate(timeout=60)
    assert waiter.returncode == 0, output
    assert not psutil.pid_exists(held.pid)
    first, *others = spans_of(place)
    assert first == held, "it never came to its end"
    assert len(others) == 2
    assert all(one.begin_ns > killed_ns for one in others)
