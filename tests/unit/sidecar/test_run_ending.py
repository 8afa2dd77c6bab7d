"""
What a process's end means for its run.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from allele_mlflow.queue import spool
from allele_mlflow.records import OomBaseline, ProcessEnd, RunEnded, RunSpec, RunState
from allele_mlflow.sampling.phases import OpenPhase
from allele_mlflow.sidecar import owner_watch
from allele_mlflow.sidecar.owner_watch import OwnerWatch, note_error_of_end
from allele_mlflow.sidecar.run_ending import (
    corrected_end,
    describe_end,
    end_without_farewell,
    error_of_end,
    is_out_of_memory,
)
from allele_mlflow.sidecar.run_files import RunFiles

TREES = Path(__file__).parents[2] / "data" / "cgroup"
OOM = ProcessEnd(signal=9, is_out_of_memory=True)
FAREWELL = RunEnded(timestamp_ns=5, status="FINISHED", slots={"m": 3}, ended_by="exit")


@pytest.mark.parametrize(
    ("found", "status", "ended_by", "category"),
    [
        (ProcessEnd(exit_code=0), "FINISHED", "exit code 0", None),
        (ProcessEnd(exit_code=5), "FAILED", "exit code 5", "unknown"),
        (ProcessEnd(signal=9), "KILLED", "SIGKILL", "interrupted"),
        (ProcessEnd(signal=15), "KILLED", "SIGTERM", "interrupted"),
        (ProcessEnd(signal=2), "KILLED", "SIGINT", "interrupted"),
        (ProcessEnd(signal=1), "KILLED", "SIGHUP", "interrupted"),
        (ProcessEnd(signal=11), "KILLED", "SIGSEGV", "unknown"),
        (ProcessEnd(signal=40), "KILLED", "signal 40", "unknown"),
        (OOM, "KILLED", "SIGKILL, probably out of memory", "out_of_memory"),
        (ProcessEnd(), "KILLED", "unknown", None),
    ],
)
def test_end_without_farewell_says_what_is_known(
    found: ProcessEnd, status: str, ended_by: str, category: str | None
) -> None:
    """Exit code 0 is well, another one a failure, a signal a kill; what is not known stays so."""
    assert describe_end(found) == (status, ended_by)
    end = end_without_farewell(found, 7)
    assert (end.status, end.ended_by, end.timestamp_ns) == (status, ended_by, 7)
    error = error_of_end(end, [])
    assert (error.category if error is not None else None) == category
    if error is not None:
        assert ended_by.startswith(error.error_type)
        assert error.error_type in error.message
        assert ("memory" in error.message) == found.is_out_of_memory
        assert (error.phase, error.step) == (None, None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ProcessEnd(exit_code=0), None),
        (ProcessEnd(), None),
        (ProcessEnd(exit_code=3), ("FAILED", "exit code 3")),
        (ProcessEnd(signal=9), ("KILLED", "SIGKILL")),
    ],
)
def test_farewell_of_an_exit_stands_unless_the_kernel_says_other(
    found: ProcessEnd, expected: tuple[str, str] | None
) -> None:
    """A bad exit code or a signal after the farewell is the end; the rest of the farewell stays."""
    end = corrected_end(FAREWELL, found)
    assert ((end.status, end.ended_by) if end is not None else None) == expected
    if end is not None:
        assert (end.timestamp_ns, end.slots) == (5, {"m": 3})


@pytest.mark.parametrize("ended_by", ["close", "detach", "ValueError"])
def test_what_the_user_said_is_never_corrected(ended_by: str) -> None:
    """A run that the user closed has ended so, whatever the program does afterwards."""
    said = RunEnded(timestamp_ns=5, status="FINISHED", slots={}, ended_by=ended_by)
    assert corrected_end(said, ProcessEnd(signal=9)) is None


@pytest.mark.parametrize(
    ("found", "before", "after", "expected"),
    [
        (ProcessEnd(signal=9), 2, 3, True),
        (ProcessEnd(signal=9), 0, 2, True),
        (ProcessEnd(signal=9), 2, 2, False),
        (ProcessEnd(signal=9), None, 3, False),
        (ProcessEnd(signal=9), 2, None, False),
        (ProcessEnd(signal=15), 2, 3, False),
        (ProcessEnd(exit_code=1), 2, 3, False),
        (ProcessEnd(), 2, 3, False),
    ],
)
def test_out_of_memory_is_a_kill_and_a_count(
    found: ProcessEnd, before: int | None, after: int | None, expected: bool
) -> None:
    """Only SIGKILL, and only where the cgroup has killed since the run began."""
    assert is_out_of_memory(found, before, after) is expected


def make_phase(name: str, stream: str, step: int | None) -> OpenPhase:
    """A phase that is open."""
    return OpenPhase(stream_id=stream, instance=1, name=name, step=step, begin_ns=1, cpu_s=None)


def test_error_stands_in_the_innermost_phase_and_once(tmp_path: Path) -> None:
    """The owner's innermost open phase, not a worker's; a second sidecar, which finds the phase
    closed, adds nothing.
    """
    spec = make_spec()
    end = end_without_farewell(ProcessEnd(signal=9), 7)
    files = RunFiles(tmp_path)
    for number, phase in enumerate(
        [
            make_phase("outer", "owner", None),
            make_phase("inner", "owner", 3),
            make_phase("elsewhere", "worker", 9),
        ]
    ):
        files.phases.begin(
            phase.stream_id,
            number,
            name=phase.name,
            step=phase.step,
            timestamp_ns=number,
            cpu_s=None,
        )
    note_error_of_end(files, spec, end)
    files.close_phases(7)
    note_error_of_end(files, spec, end)
    note_error_of_end(RunFiles(tmp_path), spec, end)
    (error,) = RunFiles(tmp_path).errors().first
    assert (error.error_type, error.phase, error.step) == ("SIGKILL", "inner", 3)


# --- watching -------------------------------------------------------------------------------------


def make_spec(**more: object) -> RunSpec:
    """A run whose owner is process 4242 of the recorded trees."""
    values = {
        "run_uid": "run",
        "experiment": "e",
        "created_ns": 1,
        "profile": "p",
        "owner_stream": "owner",
        "owner_pid": 4242,
        "owner_start": 777,
    }
    return RunSpec(**(values | more))  # type: ignore[arg-type]


def run_folder(tmp_path: Path, scope: str | None = None) -> Path:
    """Where a run of this machine stands, or of another one."""
    return tmp_path / (scope or spool.scope_name()) / spool.RUNS / "run"


class FakeProcess:
    """A process whose end the test knows. None: nothing is told yet."""

    is_open = True
    was_alive = True
    end: ProcessEnd | None = None

    def __init__(self, pid: int, start_time: int) -> None:
        assert (pid, start_time) == (4242, 777)

    def find_end(self) -> ProcessEnd | None:
        """As `ProcessWatch`."""
        return self.end

    def close(self) -> None:
        """As `ProcessWatch`."""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    """What the watched process is like; a class of this test's own."""
    fake = type("Fake", (FakeProcess,), {})
    monkeypatch.setattr(owner_watch, "ProcessWatch", fake)
    return fake


def make_state(**more: object) -> RunState:
    """A run that nobody has seen before."""
    return RunState(run_uid="run", updated_ns=1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tree", "folder", "before"),
    [
        ("container", "sys/fs/cgroup", 2),
        ("batch_job", "sys/fs/cgroup/system.slice/slurmstepd.scope/job_17/step_0", 2),
    ],
)
@pytest.mark.parametrize("kills", [0, 1])
@pytest.mark.parametrize("has_successor", [False, True])
def test_kill_for_memory_is_told_by_the_cgroup(
    tmp_path: Path,
    process: type[FakeProcess],
    tree: str,
    folder: str,
    before: int,
    kills: int,
    has_successor: bool,
) -> None:
    """A larger count than at the run's start says out of memory, also to a sidecar that took the
    run over after the count had grown.
    """
    root = tmp_path / "root"
    shutil.copytree(TREES / tree, root)
    state = make_state()
    watch = OwnerWatch(run_folder(tmp_path), make_spec(), state, root=root)
    assert state.oom_baseline == OomBaseline(owner_pid=4242, owner_start=777, kills=before)
    assert watch.find_end() is None
    events = root / folder / "memory.events"
    events.write_text(
        events.read_text().replace(f"oom_kill {before}", f"oom_kill {before + kills}")
    )
    if has_successor:
        spool.write_struct(tmp_path / "state", state)
        state = spool.read_struct(tmp_path / "state", RunState) or make_state()
        watch = OwnerWatch(run_folder(tmp_path), make_spec(), state, root=root)
    process.end = ProcessEnd(signal=signal.SIGKILL)
    found = watch.find_end()
    assert found == ProcessEnd(signal=signal.SIGKILL, is_out_of_memory=bool(kills))


@pytest.mark.parametrize("tree", ["v1", "outside", "hybrid_root"])
def test_without_a_count_a_kill_is_a_kill(
    tmp_path: Path, process: type[FakeProcess], tree: str
) -> None:
    """Where no cgroup counts, nothing is said of memory."""
    state = make_state()
    watch = OwnerWatch(run_folder(tmp_path), make_spec(), state, root=TREES / tree)
    process.end = ProcessEnd(signal=signal.SIGKILL)
    assert state.oom_baseline is None
    assert watch.find_end() == ProcessEnd(signal=signal.SIGKILL)


def test_count_of_another_owner_is_none_of_ours(tmp_path: Path, process: type[FakeProcess]) -> None:
    """A run that another process goes on with has a count of its own; one taken after the end is
    none.
    """
    state = make_state(oom_baseline=OomBaseline(owner_pid=4242, owner_start=1, kills=0))
    OwnerWatch(run_folder(tmp_path), make_spec(), state, root=TREES / "container")
    assert state.oom_baseline == OomBaseline(owner_pid=4242, owner_start=777, kills=2)
    state = make_state(oom_baseline=OomBaseline(owner_pid=4242, owner_start=1, kills=0))
    process.was_alive = False
    process.end = ProcessEnd(signal=signal.SIGKILL)
    watch = OwnerWatch(run_folder(tmp_path), make_spec(), state, root=TREES / "container")
    assert watch.find_end() == ProcessEnd(signal=signal.SIGKILL)


def test_end_is_waited_for_a_bounded_moment(
    tmp_path: Path, process: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has let go of its lock is given a second to be told of; then it is unknown."""
    now_s = 100.0
    monkeypatch.setattr(owner_watch, "now_monotonic_s", lambda: now_s)
    watch = OwnerWatch(run_folder(tmp_path), make_spec(), make_state(), root=TREES / "v1")
    asked = [watch.is_asked]
    for passed_s, expected in ((0.0, None), (0.9, None), (0.2, ProcessEnd())):
        now_s += passed_s
        assert watch.find_end() == expected
        asked.append(watch.is_asked)
    assert asked == [False, True, True, False]
    process.end = ProcessEnd(exit_code=0)
    assert watch.find_end() == ProcessEnd()  # what was said is said


@pytest.mark.parametrize(
    ("scope", "more"),
    [
        ("another-boot", {}),
        (None, {"owner_start": 0}),
        (None, {"owner_pid": os.getpid()}),
    ],
    ids=["elsewhere", "no start time", "ourselves"],
)
def test_who_cannot_be_watched_is_unknown_at_once(
    tmp_path: Path, scope: str | None, more: dict[str, object]
) -> None:
    """A spool from another boot or host, no start time, we ourselves: nobody waits, or guesses."""
    watch = OwnerWatch(run_folder(tmp_path, scope), make_spec(**more), make_state())
    assert watch.find_end() == ProcessEnd()


def test_only_the_farewell_of_an_exit_is_checked(
    tmp_path: Path, process: type[FakeProcess]
) -> None:
    """A closed run is archived without a look at its process; one that ended by its exit waits."""
    closed = make_state(end=RunEnded(timestamp_ns=1, status="FINISHED", slots={}))
    assert OwnerWatch(run_folder(tmp_path), make_spec(), closed).is_farewell_settled()
    state = make_state(end=FAREWELL)
    watch = OwnerWatch(run_folder(tmp_path), make_spec(), state, root=TREES / "v1")
    assert not watch.is_farewell_settled()
    assert not watch.correct()
    process.end = ProcessEnd(exit_code=3)
    assert watch.is_farewell_settled()
    assert watch.correct()
    assert state.end is not None
    assert (state.end.status, state.end.ended_by) == ("FAILED", "exit code 3")
    assert not watch.correct()
