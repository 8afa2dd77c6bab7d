"""
Disks and spools: full, over their quota, gone, read-only; no descriptors, no memory; a backlog.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.drill.accounts import account
from allele_mlflow.drill.backlog import make_backlog, recover
from allele_mlflow.drill.disk_trials import TRIALS, DiskTask, watch
from allele_mlflow.drill.kills import with_problems
from allele_mlflow.drill.place import OverdueError, Place, Program, wait_for
from allele_mlflow.drill.trial import Drill, NotHereError, Trial
from allele_mlflow.queue import spool
from allele_mlflow.tracking.stored_run import find_stored_runs, read_stored_run

DISK_BYTES = 16_000_000
#: What Docker gives a container.
SHM_BYTES = 64 << 20
#: For a trial of its own process, which has deadlines of its own.
TRIAL_S = 400.0
#: How long it may take to clean up when it is to end early.
CLEAN_UP_S = 30.0
#: What a benchmark may have open in these drills; its sidecar in the other.
DESCRIPTORS = 150
SIDECAR_DESCRIPTORS = 128
#: A segment that cannot be mapped by one who may map so many more bytes.
LARGE_SEGMENT_BYTES = (64 << 20) + 4096
MORE_MEMORY_BYTES = 40 << 20
#: Generous, for a drill on a machine that has other work; the numbers are `make bench-recovery`'s.
FIRST_SEND_S = 10.0
MORE_PEAK_BYTES = 60 << 20
FEW_PENDING = 5_000


def on_small_disk(
    place: Place,
    *,
    trial: str,
    kind: str = "tmpfs",
    size_bytes: int = DISK_BYTES,
    is_faked: bool = False,
) -> Trial:
    """
    A trial of `disk_trials` in a process of its own.
    """
    folder = place.folder / f"disk-{spool.new_uid()}"
    task = DiskTask(
        trial=trial,
        folder=str(folder),
        tracking_uri=place.tracking_uri,
        seed=place.chance.getrandbits(32),
        minute_s=place.minute_s,
        kind=kind,
        size_bytes=size_bytes,
        is_faked=is_faked,
    )
    argument = msgspec.json.encode(task).decode()
    process = place.start_python("-m", "allele_mlflow.drill.disk_trials", argument)
    try:
        said, _ = process.communicate(timeout=TRIAL_S)
    except subprocess.TimeoutExpired:
        raise OverdueError(f"{trial}: not ended within {TRIAL_S:g} s") from None
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)
    if process.returncode != 0 or not said:
        return Trial(problems=(f"{trial}: its process ended with code {process.returncode}",))
    return msgspec.json.decode(said.splitlines()[-1], type=Trial)


def descriptors_of_the_benchmark(place: Place) -> Trial:
    """
    The user's program uses up all descriptors, and later gives some back.
    """
    until, use_up = place.folder / f"end-{spool.new_uid()}", place.folder / "use-up"
    limits = ("--descriptors", str(DESCRIPTORS), "--use-up", str(use_up))
    program = place.start("--mixed", "--until", str(until), *limits, "--pause-s", "0.04", threads=2)
    run_uid = program.await_start()
    wait_for(lambda: _has_metrics(place, run_uid), "the first readings in MLflow")
    use_up.touch()
    taken = use_up.with_suffix(".taken")
    try:
        wait_for(taken.exists, "all descriptors to be used up")
        problems = watch(program, max(1.5, place.minute_s / 12))
    finally:
        use_up.unlink(missing_ok=True)
    wait_for(lambda: not taken.exists(), "descriptors to be there again")
    problems += watch(program, 2.0)
    until.touch()
    problems += _code_problems(program)
    return with_problems(account(place, [program], dropped=("no_spool",)), problems)


def descriptors_of_the_sidecar(place: Place) -> Trial:
    """
    A sidecar that may open few files serves a hundred runs at once.
    """
    runs, readings = (100, 200) if place.minute_s >= 30 else (40, 100)
    tag = spool.new_uid()
    until, gate = place.folder / f"end-{tag}", place.folder / f"gate-{tag}"
    arguments = (str(until), str(gate), str(runs), str(readings))
    place.kill_sidecars()
    process = place.start_python("-m", "allele_mlflow.drill.many_runs", *arguments)
    sidecar = None
    try:
        assert process.stdout is not None
        uids = process.stdout.readline().split()
        if len(uids) != runs:
            return Trial(problems=(f"{len(uids)} runs were started: want {runs}",))
        sidecar = _start_limited_sidecar(place, place.spec(uids[0]).profile)
        wait_for(
            lambda: any(_has_metrics(place, uid) for uid in uids), "the first readings in MLflow"
        )
        until.touch()
        code = process.wait(timeout=120)
        problems = [] if code == 0 else [f"the benchmark ended with code {code}: want 0"]
        return with_problems(_compare_runs(place, uids, readings), problems)
    finally:
        gate.touch()
        _end(process)
        if sidecar is not None:
            _end(sidecar)


def no_memory_to_map(place: Place) -> Trial:
    """
    The benchmark may not map a segment: the same bytes are written.
    """
    until = place.folder / f"end-{spool.new_uid()}"
    program = place.start(
        *("--mixed", "--until", str(until), "--pause-s", "0.02"),
        *("--segment-bytes", str(LARGE_SEGMENT_BYTES)),
        *("--more-memory", str(MORE_MEMORY_BYTES), "--is-early"),
        environ={"spool_quota_bytes": 1 << 30},
    )
    program.await_start()
    problems = watch(program, 2.0)
    maps = Path(f"/proc/{program.process.pid}/maps")
    if maps.exists() and ".seg" in maps.read_text(encoding="utf-8", errors="replace"):
        problems.append("a segment is mapped: the drill has shown nothing")
    until.touch()
    problems += _code_problems(program)
    return with_problems(account(place, [program]), problems)


def large_backlog(place: Place) -> Trial:
    """
    `sync` begins to deliver a large backlog at once, in no more memory than a small one.
    """
    if not sys.platform.startswith("linux"):
        raise NotHereError("a process's peak memory is told by Linux alone")
    many = 1_000_000 if place.minute_s >= 30 else 20_000
    problems = list[str]()
    peaks = list[int]()
    accepted = delivered = 0
    for pending in (FEW_PENDING, many):
        backlog = make_backlog(place, pending)
        # a million take minutes: the start and the memory show in the first part of them
        found = recover(place, backlog, stop_after_s=30.0 if pending > 100_000 else None)
        peaks.append(found.peak_bytes)
        accepted += found.accepted
        delivered += found.accepted - found.lost
        problems += found.problems
        if found.first_send_s > FIRST_SEND_S:
            problems.append(f"{pending} pending: the first send after {found.first_send_s:.1f} s")
    if peaks[1] - peaks[0] > MORE_PEAK_BYTES:
        problems.append(f"peak memory grew from {peaks[0]} to {peaks[1]} bytes")
    return Trial(
        accepted=accepted,
        delivered=delivered,
        lost=accepted - delivered,
        problems=tuple(problems),
    )


def _start_limited_sidecar(place: Place, profile: str) -> subprocess.Popen[str]:
    begin = (
        "import resource, runpy, sys; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({SIDECAR_DESCRIPTORS},) * 2); "
        "runpy.run_module('allele_mlflow.sidecar', run_name='__main__', alter_sys=True)"
    )
    return place.start_python("-c", begin, "--scope", str(place.scope), "--profile", profile)


def _has_metrics(place: Place, run_uid: str) -> bool:
    state = place.state(run_uid)
    return state is not None and state.ledger.delivered.get("metric", 0) > 0


def _compare_runs(place: Place, uids: list[str], readings: int) -> Trial:
    accepted = delivered = duplicated = 0
    statuses = list[str]()
    problems = list[str]()
    for uid in uids:
        state = place.await_done(uid)
        runs = find_stored_runs(place.tracking_uri, place.spec(uid).experiment, uid)
        if len(runs) != 1:
            problems.append(f"run {uid} is {len(runs)} runs in MLflow")
            continue
        stored = read_stored_run(place.tracking_uri, str(state.run_id or runs[0]))
        steps = [r.step for r in stored.readings.get("reading", []) if r.value == r.step]
        accepted += readings
        delivered += len(set(steps))
        duplicated += len(steps) - len(set(steps))
        statuses.append(stored.status)
        if stored.status != "FINISHED":
            problems.append(f"run {uid} is {stored.status}: want FINISHED")
        if state.damage or state.ledger.lost or state.ledger.pending:
            problems.append(f"run {uid}: {state.ledger}, {state.damage}")
    return Trial(
        accepted=accepted,
        delivered=delivered,
        lost=accepted - delivered,
        duplicated=duplicated,
        statuses=tuple(statuses),
        problems=tuple(problems[:5]),
    )


def _code_problems(program: Program) -> list[str]:
    code = program.await_end()
    return [] if code == 0 else [f"the benchmark ended with code {code}: want 0"]


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(CLEAN_UP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


#: Name, trial, promise, and what `on_small_disk` is to make for it.
_ON_A_DISK: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("disk-full", "disk-full", "a full disk: dropped and counted, then logging goes on", {}),
    (
        "disk-full-ext4",
        "disk-full-segments",
        "the same on ext4 (a loop mount where that is allowed), with large segments",
        {"kind": "ext4", "size_bytes": 2 * DISK_BYTES},
    ),
    (
        "disk-full-faked",
        "disk-full",
        "the same where each system call is refused and nothing is mounted",
        {"is_faked": True},
    ),
    ("disk-full-artifacts", "disk-full-artifacts", "artifacts onto a full disk", {}),
    ("disk-full-from-start", "disk-full-from-start", "a disk that is full when a run begins", {}),
    (
        "disk-fills-and-empties",
        "disk-fills-and-empties",
        "a disk that fills up under benchmark and sidecar at once, again and again",
        {},
    ),
    (
        "shm-full",
        "disk-full-segments",
        "/dev/shm of 64 MB full under the spool",
        {"size_bytes": SHM_BYTES},
    ),
    ("quota", "quota", "quota reached: dropped and counted, then logging goes on", {}),
    ("spool-deleted", "spool-deleted", "spool deleted: calls go on, close names the loss", {}),
    ("spool-moved", "spool-moved", "spool moved away and back: what was accepted arrives", {}),
    ("spool-read-only", "spool-read-only", "spool read-only for a while: logging goes on", {}),
)

DRILLS = (
    *(
        Drill(
            name=name,
            promise=promise,
            guarantee=4 if name in ("quota", "spool-deleted") else 7,
            run=partial(on_small_disk, trial=trial, **options),
            short=1,
            full=3,
        )
        for name, trial, promise, options in _ON_A_DISK
    ),
    Drill(
        name="descriptors-benchmark",
        promise="no descriptor left in the benchmark: nothing raises, what is dropped is counted",
        guarantee=7,
        run=descriptors_of_the_benchmark,
        short=1,
        full=5,
    ),
    Drill(
        name="descriptors-sidecar",
        promise="a sidecar of few descriptors, a hundred runs: all arrive, none is called dead",
        guarantee=1,
        run=descriptors_of_the_sidecar,
        short=1,
        full=2,
    ),
    Drill(
        name="no-memory-to-map",
        promise="no memory to map a segment: the same bytes are written, nothing is lost",
        guarantee=3,
        run=no_memory_to_map,
        short=1,
        full=3,
    ),
    Drill(
        name="large-backlog",
        promise="a million pending records: sync sends at once, and its memory stays flat",
        guarantee=7,
        run=large_backlog,
        short=1,
        full=1,
    ),
)

assert {trial for _, trial, _, _ in _ON_A_DISK} <= set(TRIALS)
