"""
Damaged bytes in a spool: what is intact is delivered, the rest is reported, and nobody crashes or
loops.

Run as `python -m allele_mlflow.drill.damage SEED MUTATIONS`, it prints what it counted as JSON: a
program of its own can be ended where it hangs.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from allele_mlflow.drill.mutation import Mutated, mutate
from allele_mlflow.drill.place import OverdueError, Place
from allele_mlflow.drill.sample_run import (
    Item,
    SampleRun,
    deliver,
    frames_of,
    make_sample_run,
    write_sparse,
)
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.run_reader import count_ledger
from allele_mlflow.records import RunEnded, RunSpec, RunState, StreamEnded
from allele_mlflow.testing.memory_tracking import MemoryRun, MemoryTracking

#: Runs of one repetition of the drill, each with a mutation of its own.
BATCH = 100
BATCH_DEADLINE_S = 240.0


@dataclass(frozen=True)
class Damage:
    """
    One copy of the sample run and what was done to it.
    """

    run_uid: str
    file: str
    mutated: Mutated

    def __str__(self) -> str:
        spans = ", ".join(f"{a}-{b}" for a, b in self.mutated.touched[:4])
        return f"run {self.run_uid}: {self.mutated.kind} of {self.file} at {spans}"


class Verdict(msgspec.Struct):
    """
    What became of one damaged run.
    """

    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    status: str = ""
    problems: list[str] = []


def attack(folder: Path, sample: SampleRun, *, seed: int, count: int) -> list[Verdict]:
    """
    Damage so many copies of a run, deliver them side by side, and look at each.

    Args:
        folder: Scratch, made and removed.
        sample: The run.
        seed: Decides what is done to which file.
        count: Copies.
    """
    chance = random.Random(seed)
    scope = spool.open_scope(folder / "spool")
    tracking = MemoryTracking()
    damages = []
    try:
        for _ in range(count):
            run_uid = f"{chance.getrandbits(64):016x}"
            files = sample.copy_to(scope, run_uid, tracking)
            name = _choose_file(sample.mutable, chance)
            damage = Damage(run_uid, name, mutate(files[name], chance))
            write_sparse(scope / spool.RUNS / run_uid / name, damage.mutated.data)
            count_ledger(scope / spool.RUNS / run_uid)  # as `status` does, which must not raise
            damages.append(damage)
        failed, overdue = deliver(scope, tracking, deadline_s=BATCH_DEADLINE_S / 2)
        verdicts = []
        for damage in damages:
            verdict = judge(scope, sample, damage, tracking)
            if damage.run_uid in overdue:
                verdict.problems.append(f"{damage}: not delivered in time")
            if damage.run_uid in failed:
                verdict.problems.append(f"{damage}: {failed[damage.run_uid]}")
            verdicts.append(verdict)
        return verdicts
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def attack_everywhere(folder: Path, sample: SampleRun, *, seed: int, count: int) -> list[str]:
    """
    Damage several files of each copy; what went wrong besides losses, which nobody could tell then.
    """
    chance = random.Random(seed)
    scope = spool.open_scope(folder / "spool")
    tracking = MemoryTracking()
    try:
        for number in range(count):
            files = sample.copy_to(scope, f"run-{number}", tracking)
            several = [name for name in sample.mutable if name != spool.RUN_FILE]
            for name in chance.sample(several, chance.randint(2, 8)):
                data = mutate(files[name], chance).data
                write_sparse(scope / spool.RUNS / f"run-{number}" / name, data)
        failed, overdue = deliver(scope, tracking, deadline_s=BATCH_DEADLINE_S / 2)
        problems = [f"{name}: {text}" for name, text in failed.items()]
        problems += [f"{name}: not delivered in time" for name in sorted(overdue)]
        done = {path.name for path in (scope / spool.DONE).iterdir()}
        left = {f"run-{number}" for number in range(count)} - done
        return problems + [f"{name}: left behind" for name in sorted(left)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _choose_file(names: tuple[str, ...], chance: random.Random) -> str:
    """
    A file, each sort as often as any other.
    """
    sorts: dict[str, list[str]] = {}
    for name in names:
        last = name.rpartition("/")[2]
        sorts.setdefault(last[:2] if last.endswith(".seg") else last, []).append(name)
    return chance.choice(sorts[chance.choice(sorted(sorts))])


# --- looking ------------------------------------------------------------------------------------


def judge(scope: Path, sample: SampleRun, damage: Damage, tracking: MemoryTracking) -> Verdict:
    """
    Compare what MLflow holds of a damaged run with what it must.
    """
    verdict = Verdict(accepted=len(sample.items))
    folder = scope / spool.DONE / damage.run_uid
    state = spool.read_struct(folder / spool.STATE_FILE, RunState)
    if state is None:
        waiting = scope / spool.RUNS / damage.run_uid
        is_reported = damage.file == spool.RUN_FILE and (waiting / spool.STREAMS).is_dir()
        is_reported &= spool.read_struct(waiting / spool.RUN_FILE, RunSpec) is None
        if is_reported:  # `sync` says so, and delivers it when its description is back
            verdict.delivered = verdict.accepted
        else:
            verdict.problems.append(f"{damage}: left behind without a word")
        return verdict
    runs = [run for run in tracking.runs.values() if run.tags["allele.run_uid"] == damage.run_uid]
    if len(runs) != 1 or not state.done:
        verdict.problems.append(f"{damage}: {len(runs)} runs in the store, done={state.done}")
        return verdict
    (stored,) = runs
    verdict.status = stored.status
    if stored.status != "FINISHED":
        verdict.problems.append(f"{damage}: ended {stored.status}")
    _compare(sample, damage, stored, state, verdict)
    return verdict


def _compare(
    sample: SampleRun, damage: Damage, stored: MemoryRun, state: RunState, verdict: Verdict
) -> None:
    there = _Stored(stored)
    is_reported = bool(
        state.damage
        or state.ledger.lost > sample.ledger.lost
        or state.ledger.recounted_from is not None
    )
    missing = [item for item in sample.items if not there.has(item)]
    for item in missing:
        if not _is_touched(item, damage):
            verdict.lost += 1
            verdict.problems.append(
                f"{damage}: {item.kind} {item.identity} is intact and not there"
            )
    extra = there.extra(sample)
    if len(extra) > _room_for_extra(sample, damage):
        verdict.duplicated += len(extra)
        verdict.problems.append(f"{damage}: never logged and there: {list(extra)[:3]}")
    gone = [item for item in missing if _is_touched(item, damage)]
    # a slot whose kind has changed is an edge of a phase by now, and counted as one
    is_counted = damage.file.endswith(".seg") and state.ledger.accepted >= sample.ledger.accepted
    is_traceless = _is_traceless(sample, damage, gone, changed=len(extra))
    is_told = is_reported or is_counted or is_traceless
    if len(gone) > len(extra) and not is_told:
        verdict.problems.append(f"{damage}: {gone[0].kind} {gone[0].identity} gone without a word")
    if state.ledger.pending:
        verdict.problems.append(f"{damage}: {state.ledger.pending} pending at the end")
    if state.ledger.accepted != sample.ledger.accepted and not is_told:
        verdict.problems.append(
            f"{damage}: {state.ledger.accepted} accepted: want {sample.ledger.accepted}"
        )
    verdict.delivered = verdict.accepted - verdict.lost


class _Stored:
    """
    What a store holds of a run, to be asked for items.
    """

    def __init__(self, stored: MemoryRun) -> None:
        errors = msgspec.json.decode(stored.artifacts.get("allele/errors.json", b'{"errors":[]}'))
        phases = msgspec.json.decode(stored.artifacts.get("allele/phases.json", b'{"rows":[]}'))
        self._held: dict[str, set[object]] = {
            "metric": {row for row in stored.metrics if not row.key.startswith("phase/")},
            "param": set(stored.params.items()),
            "tag": {
                pair
                for pair in stored.tags.items()
                if not pair[0].startswith(("allele.", "mlflow."))
            },
            "artifact": {
                pair for pair in stored.artifacts.items() if not pair[0].startswith("allele/")
            },
            "error": {error["message"] for error in errors["errors"]},
            "phase": {(row["stream"], row["name"], row["step"]) for row in phases["rows"]},
        }

    def has(self, item: Item) -> bool:
        return item.identity in self._held[item.kind]

    def extra(self, sample: SampleRun) -> set[object]:
        wanted: dict[str, set[object]] = {kind: set() for kind in self._held}
        for item in sample.items:
            wanted[item.kind].add(item.identity)
        del wanted["artifact"], wanted["phase"]  # an edge may have another step
        return set().union(*(self._held[kind] - found for kind, found in wanted.items()))


def _is_touched(item: Item, damage: Damage) -> bool:
    return any(
        place.file == damage.file and any(place.span.meets(span) for span in damage.mutated.touched)
        for place in item.places
    )


def _room_for_extra(sample: SampleRun, damage: Damage) -> int:
    """
    How many readings may be others than were logged: those of touched slots, which have no
    checksum.
    """
    parsed = layout.parse_segment_name(damage.file.rpartition("/")[2])
    if parsed is None:
        return 0
    is_series = parsed[0] == layout.SERIES_LANE
    size = layout.PAGE_BYTES if is_series else layout.RECORD_BYTES
    slots: set[int] = set()
    for span in damage.mutated.touched:
        end = min(span.end, len(damage.mutated.data))
        slots.update(
            at // size for at in range(span.start - layout.HEADER_BYTES, end - layout.HEADER_BYTES)
        )
    slots = {slot for slot in slots if slot >= 0}
    return len(slots) * (layout.SERIES_PAGE_VALUES if is_series else 1)


def _is_traceless(sample: SampleRun, damage: Damage, gone: list[Item], *, changed: int) -> bool:
    """
    Whether what is gone looks as if it had never been: the documented limit. So many of those that
    are gone are there as `changed` readings.
    """
    before, after = sample.files.get(damage.file, b""), damage.mutated.data
    last = damage.file.rpartition("/")[2]
    if last.endswith(".jsonl"):
        # a line cut short is one that a kill cut short
        lines = before.split(b"\n")
        return all(any(line.startswith(piece) for line in lines) for piece in after.split(b"\n"))
    if last == layout.EVENT_LOG:
        return before.startswith(after) and any(
            span.start == len(after) for span, _ in frames_of(before)
        )
    parsed = layout.parse_segment_name(last)
    if last == layout.STREAM_PAGE:
        return True  # its counters, which have no check
    if parsed is None or last in _slots_of_farewell(sample, damage.file):
        return False
    # zeros behind the last slot that is written
    written = _end_of_written(after, is_series=parsed[0] == layout.SERIES_LANE)
    never_been = [
        item
        for item in gone
        if all(place.span.start >= written for place in item.places if place.file == damage.file)
    ]
    return len(after) == len(before) and len(gone) - changed <= len(never_been)


def _slots_of_farewell(sample: SampleRun, name: str) -> dict[str, int]:
    log = sample.files[f"{name.rpartition('/')[0]}/{layout.EVENT_LOG}"]
    for _, event in frames_of(log):
        if isinstance(event, (RunEnded, StreamEnded)):
            return event.slots
    return {}


def _end_of_written(data: bytes, *, is_series: bool) -> int:
    size = layout.PAGE_BYTES if is_series else layout.RECORD_BYTES
    end = layout.HEADER_BYTES
    for start in range(layout.HEADER_BYTES, len(data) - size + 1, size):
        if any(data[start + layout.WORD_OFFSET : start + layout.RECORD_BYTES]):
            end = start + size
    return end


# --- the drill ----------------------------------------------------------------------------------


def damaged_bytes(place: Place) -> Trial:
    """
    A batch of mutations in a program of its own.
    """
    seed = place.chance.getrandbits(32)
    with place.start_python("-m", "allele_mlflow.drill.damage", str(seed), str(BATCH)) as process:
        try:
            said, _ = process.communicate(timeout=BATCH_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise OverdueError(f"damage, seed {seed}: it hangs") from None
    if process.returncode:
        return Trial(problems=(f"damage, seed {seed}: it ended with code {process.returncode}",))
    return msgspec.json.decode(said, type=Trial)


def sum_up(verdicts: list[Verdict], *, seed: int) -> Trial:
    """
    One trial of many runs.
    """
    statuses = [v.status for v in verdicts if v.status]
    return Trial(
        accepted=sum(v.accepted for v in verdicts),
        delivered=sum(v.delivered for v in verdicts),
        lost=sum(v.lost for v in verdicts),
        duplicated=sum(v.duplicated for v in verdicts),
        statuses=tuple(statuses),
        problems=tuple(f"seed {seed}, {text}" for v in verdicts for text in v.problems),
    )


def main(arguments: list[str]) -> None:
    """
    The program.
    """
    seed, count = map(int, arguments)
    with tempfile.TemporaryDirectory(prefix="allele-damage-") as scratch:
        sample = make_sample_run(Path(scratch) / "sample")
        verdicts = attack(Path(scratch) / "attack", sample, seed=seed, count=count)
    sys.stdout.buffer.write(msgspec.json.encode(sum_up(verdicts, seed=seed)))


DRILLS = (
    Drill(
        name="damaged-bytes",
        promise=f"{BATCH} damaged spools: the intact is delivered, the rest reported, no crash",
        guarantee=4,
        run=damaged_bytes,
        short=1,
        full=20,
    ),
)

if __name__ == "__main__":
    main(sys.argv[1:])
