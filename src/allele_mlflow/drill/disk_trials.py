"""
The trials on a small disk, each in a process of its own: `python -m allele_mlflow.drill.disk_trials
JSON`, so that what it mounts is seen by nobody else and goes with it. Prints the trial as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.accounts import account, count_made
from allele_mlflow.drill.faked_disk import FakedDisk
from allele_mlflow.drill.kills import with_problems
from allele_mlflow.drill.place import OverdueError, Place, Program, wait_for
from allele_mlflow.drill.small_disk import SmallDisk, opened_disk
from allele_mlflow.drill.trial import Trial
from allele_mlflow.drill.workload import METRICS_PER_ROUND
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.counters import read_counters
from allele_mlflow.queue.room import used_bytes
from allele_mlflow.records import Ledger

#: A benchmark that logs fewer rounds a second, in any thread, is held up by us.
ROUNDS_PER_S = 2.0
#: After what time at most a writer and a sidecar without room look again, with much to spare.
RECOVERY_S = 2.5
QUOTA_BYTES = 1_000_000
#: The logger looks for room in a hundredth of its time: with thousands of tiny segments, and a busy
#: disk, that is every few seconds.
RECOVERY_DEADLINE_S = 15.0
#: Reasons for which a spool without room may drop.
NO_ROOM = ("disk_full", "key_unwritten")
#: Readings that a run has logged before something happens to it.
FIRST_READINGS = 200


class DiskTask(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the parent wants to be tried.
    """

    trial: str
    folder: str
    tracking_uri: str
    seed: int
    minute_s: float
    kind: str
    size_bytes: int
    is_faked: bool = False


class SmallPlace(Place):
    """
    A place whose spool lies on a small disk.
    """

    def __init__(self, folder: Path, disk: SmallDisk, task: DiskTask) -> None:
        chance = random.Random(task.seed)
        super().__init__(folder, task.tracking_uri, chance=chance, scale=task.minute_s)
        self.disk = disk
        self.spool_dir = disk.path / "spool"
        #: Where a logger goes that cannot make its spool.
        self.state_spool = self.folder / "state" / "allele-mlflow" / "spool"
        self.earlier_scopes.append(self.state_spool / spool.scope_name())

    def environ(self, **settings: object) -> dict[str, str]:
        """
        See `Place.environ`; the quota is not what is tried, and a faked disk has wrapped calls.
        """
        environ = super().environ(**({"spool_quota_bytes": 1 << 30} | settings))
        if isinstance(self.disk, FakedDisk):
            path = [str(self.disk.module_path), environ["PYTHONPATH"]]
            environ["PYTHONPATH"] = os.pathsep.join(path)
        return environ

    def begin(
        self, *options: str, threads: int = 2, environ: Mapping[str, object] | None = None
    ) -> Program:
        """
        Start a workload that logs until `end`, and wait until it does.
        """
        pause = () if "--pause-s" in options else ("--pause-s", "0.04")
        options = ("--until", str(self.until), *pause, *options)
        program = self.start(*options, threads=threads, environ=environ)
        program.await_start()
        return program

    def sidecars(self) -> dict[int, Path]:
        """
        See `Place.sidecars`, of both spools.
        """
        found = super().sidecars()
        own, self.spool_dir = self.spool_dir, self.state_spool
        try:
            return found | super().sidecars()
        finally:
            self.spool_dir = own

    @property
    def until(self) -> Path:
        """
        The file at which the workloads end.
        """
        return self.folder / "end"

    def end(self, program: Program) -> list[str]:
        """
        Have a workload end, and what was wrong with how it did.
        """
        self.until.touch()
        code = program.await_end()
        return [] if code == 0 else [f"the benchmark ended with code {code}: want 0"]

    def await_readings(self, program: Program, number: int = FIRST_READINGS) -> None:
        """
        Wait until a workload has logged so many more.
        """
        wanted = program.returned_metrics() + number
        wait_for(lambda: program.returned_metrics() >= wanted, f"{number} more readings")

    @property
    def while_s(self) -> float:
        """
        How long something lasts.
        """
        return max(1.5, self.minute_s / 12)


def disk_full(place: SmallPlace, *, options: Sequence[str] = ("--mixed",)) -> Trial:
    """
    Another program takes all room while everything is logged, and gives it back.
    """
    program = place.begin(*options)
    place.await_readings(program)
    place.disk.fill()
    problems = watch(program, place.while_s)
    place.disk.make_room()
    problems += _log_again(place, program)
    return _ended(place, program, problems, must_drop=True)


def full_from_the_start(place: SmallPlace) -> Trial:
    """
    There is no room when the run begins, in a spool that is there or not; later there is.
    """
    place.spool_dir.mkdir()
    if place.chance.random() < 0.5:
        earlier = place.start("--rounds", "1")
        earlier.await_start()
        earlier.await_end()
        place.kill_sidecars()  # with it, where the next one starts; room for neither
    place.disk.fill()
    program = place.begin("--mixed")
    problems = watch(program, place.while_s)
    place.disk.make_room()
    problems += _log_again(place, program)
    return _ended(place, program, problems)


def disk_fills_and_empties(place: SmallPlace) -> Trial:
    """
    Benchmark, sidecar and another program take what there is, and the other one gives some back.
    """
    program = place.begin("--mixed", "--artifact-bytes", "20000")
    place.await_readings(program)
    problems = []
    until_s = now_monotonic_s() + 2 * place.while_s
    while now_monotonic_s() < until_s:
        place.disk.fill(place.chance.choice((0, 0, 4096, 40_000, 400_000)))
        problems += watch(program, place.chance.uniform(0.1, 0.8))[:1]
        place.disk.make_room()
        pause_s(place.chance.uniform(0.0, 0.5))
    problems += _log_again(place, program)
    return _ended(place, program, problems)


def quota_reached(place: SmallPlace) -> Trial:
    """
    Nobody delivers until the quota is reached; then somebody does, and logging goes on.
    """
    gate = place.folder / "gate"
    program = place.begin(
        "--mixed", "--gate", str(gate), environ={"spool_quota_bytes": QUOTA_BYTES}
    )
    wait_for(lambda: _dropped(place, program).get("quota"), "the quota to be reached")
    problems = watch(program, place.while_s)
    gate.touch()
    place.await_sidecar()
    wait_for(
        lambda: used_bytes(place.scope) < 500_000, "the backlog to be delivered", deadline_s=60
    )
    problems += _log_again(place, program)
    return _ended(place, program, problems, reasons=("quota", "key_unwritten"), must_drop=True)


def spool_deleted(place: SmallPlace) -> Trial:
    """
    The spool folder is deleted: the calls go on, and close says what is lost.
    """
    report = place.folder / "report.json"
    program = place.begin("--mixed", "--report", str(report))
    place.await_readings(program)
    shutil.rmtree(place.spool_dir, ignore_errors=True)
    problems = watch(program, place.while_s)
    if place.scope.exists():
        problems.append("the spool came back")
    begun_s = now_monotonic_s()
    problems += place.end(program)
    if now_monotonic_s() - begun_s > 20.0:
        problems.append(f"close took {now_monotonic_s() - begun_s:.0f} s")
    ledger = msgspec.json.decode(report.read_bytes(), type=Ledger)
    made = count_made([program])
    if not made.fits(ledger.accepted):
        problems.append(f"close says {ledger}: want {made}")
    if not ledger.dropped.get("spool_deleted"):
        problems.append(f"close does not say that the spool was deleted: {ledger}")
    accepted = ledger.accepted
    return Trial(accepted=accepted, delivered=accepted, problems=tuple(problems))


def spool_moved(place: SmallPlace) -> Trial:
    """
    The spool folder is moved away, and comes back.
    """
    program = place.begin("--mixed")
    place.await_readings(program)
    away = place.spool_dir.with_name("away")
    place.spool_dir.rename(away)
    problems = watch(program, place.while_s)
    away.rename(place.spool_dir)
    problems += _log_again(place, program)
    return _ended(place, program, problems, reasons=("no_spool", *NO_ROOM), must_drop=True)


def spool_read_only(place: SmallPlace) -> Trial:
    """
    The spool folder is made read-only, and writable again.
    """
    program = place.begin("--mixed", "--artifact-bytes", "2000")
    place.await_readings(program)
    place.disk.forbid_writing(place.spool_dir)
    try:
        problems = watch(program, place.while_s)
    finally:
        place.disk.allow_writing(place.spool_dir)
    problems += _log_again(place, program)
    return _ended(place, program, problems, reasons=("no_spool", *NO_ROOM), must_drop=True)


def _log_again(place: SmallPlace, program: Program) -> list[str]:
    """
    After a trouble: what is logged, but for the time of a look or two, must be kept again.
    """
    problems = watch(program, RECOVERY_S)
    until_s = now_monotonic_s() + RECOVERY_DEADLINE_S
    while True:
        before = _dropped(place, program)
        problems += watch(program, 1.0)
        after = _dropped(place, program)
        if after == before or now_monotonic_s() > until_s:
            break
    if after != before:
        problems.append(f"with room again, it goes on dropping: {before}, then {after}")
    return problems


def _dropped(place: SmallPlace, program: Program) -> dict[str, int]:
    """
    What the benchmark has dropped so far, by its own count in the spool.
    """
    total = Ledger()
    for folder in place.run_folders(program.run_uid):
        for page in folder.glob(f"{spool.STREAMS}/*/{layout.STREAM_PAGE}"):
            with contextlib.suppress(OSError):
                total.add(read_counters(page.read_bytes()))
    return total.dropped


def _ended(
    place: SmallPlace,
    program: Program,
    problems: Sequence[str],
    *,
    reasons: Sequence[str] = NO_ROOM,
    must_drop: bool = False,
) -> Trial:
    problems = [*problems, *place.end(program)]
    trial = account(place, [program], dropped=reasons, must_drop=must_drop)
    return with_problems(trial, problems)


def watch(program: Program, seconds: float) -> list[str]:
    """
    Let a workload log for a while; which of its threads were held up meanwhile.
    """
    threads = range(program.threads)
    before, begun_s = [program.returned(n)["metric"] for n in threads], now_monotonic_s()
    pause_s(seconds)
    elapsed_s = now_monotonic_s() - begun_s
    made = [program.returned(n)["metric"] - before[n] for n in threads]
    if program.process.poll() is not None:
        return [f"the benchmark ended meanwhile, with code {program.process.returncode}"]
    least = ROUNDS_PER_S * METRICS_PER_ROUND * elapsed_s
    slow = [n for n in threads if made[n] < least]
    return [f"thread {n} logged {made[n]} readings in {elapsed_s:.1f} s" for n in slow]


TRIALS: dict[str, Callable[[SmallPlace], Trial]] = {
    "disk-full": disk_full,
    "disk-full-artifacts": partial(disk_full, options=("--mixed", "--artifact-bytes", "100000")),
    "disk-full-segments": partial(
        disk_full, options=("--mixed", "--segment-bytes", str((1 << 20) + 4096))
    ),
    "disk-full-from-start": full_from_the_start,
    "disk-fills-and-empties": disk_fills_and_empties,
    "quota": quota_reached,
    "spool-deleted": spool_deleted,
    "spool-moved": spool_moved,
    "spool-read-only": spool_read_only,
}


def run_task(task: DiskTask) -> Trial:
    """
    Make the disk and the place, and run a trial.
    """
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    is_faked = task.is_faked
    with opened_disk(folder / "disk", task.size_bytes, kind=task.kind, is_faked=is_faked) as disk:
        place = SmallPlace(folder / "place", disk, task)
        try:
            return TRIALS[task.trial](place)
        except (OverdueError, OSError) as exc:
            return Trial(problems=(f"{type(exc).__name__}: {exc}",))
        finally:
            place.close()


def main() -> None:
    """
    Run one trial and print it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    task = msgspec.json.decode(sys.argv[1], type=DiskTask)
    trial = run_task(task)
    sys.stdout.write(json.dumps(msgspec.to_builtins(trial)) + "\n")


if __name__ == "__main__":
    main()
