"""
Interrupted in the middle of a call, or left behind: handlers, finalizers, cells, the interpreter's
end, and a slot that stays open behind a call that holds the GIL.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from allele_mlflow.drill.kills import with_problems
from allele_mlflow.drill.place import Place, Program
from allele_mlflow.drill.programs import READINGS
from allele_mlflow.drill.readback import compare
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.drill.workload import COUNTS_BYTES

_numbers = itertools.count()


def start_program(
    place: Place,
    name: str,
    *options: str,
    rows: int,
    module: str = "programs",
    environ: Mapping[str, object] | None = None,
) -> Program:
    """
    Start one of `programs` (or of another module), which logs in so many rows.
    """
    counts = place.folder / f"returned-{name}-{next(_numbers)}"
    counts.write_bytes(bytes(COUNTS_BYTES))
    arguments = ("-m", f"allele_mlflow.drill.{module}", str(counts), name, *options)
    program = Program(place.start_python(*arguments, environ=environ), counts, rows)
    place.programs.append(program)
    return program


def run_program(
    place: Place,
    name: str,
    *options: str,
    rows: int,
    full_rows: Sequence[int],
    ended_by: str = "close",
) -> Trial:
    """
    Run one of `programs` to its end, and compare.

    Args:
        place: Where.
        name: Of the program.
        options: Its options.
        rows: In which it logs.
        full_rows: Those of them in which all calls must have returned.
        ended_by: How the run ended.
    """
    program = start_program(place, name, *options, rows=rows)
    program.await_start()
    code = program.await_end()
    problems = [] if code == 0 else [f"{name} ended with code {code}: want 0"]
    trial = compare(place, [program], status="FINISHED", ended_by=(ended_by,))
    for row in full_rows:
        returned = program.returned(row)["metric"]
        if returned < READINGS:
            problems.append(f"{name}: {returned} calls of row {row} returned: want {READINGS}")
    return with_problems(trial, problems)


def hold_a_slot(place: Place) -> Trial:
    """
    A call of C holds the GIL, and with it a thread that has taken a slot.
    """
    seconds = f"{max(0.5, place.minute_s / 20):g}"
    return run_program(place, "held", seconds, rows=4, full_rows=(3,))


def shut_down(place: Place) -> Trial:
    """
    Log until the interpreter is gone: what returned before the run was closed arrives.
    """
    errors = place.folder / "stderr.log"
    before = errors.stat().st_size if errors.exists() else 0
    trial = run_program(place, "shut-down", rows=3, full_rows=(0, 1), ended_by="exit")
    said = errors.read_bytes()[before:].decode(errors="replace")
    problems = [f"it said: {said[:300]}"] if "Traceback" in said or "ignored" in said else []
    # what came behind the close is dropped, and counted as long as the run is there
    kept = tuple(p for p in trial.problems if "dropped {'closed'" not in p)
    return with_problems(
        Trial(
            accepted=trial.accepted,
            delivered=trial.delivered,
            lost=trial.lost,
            duplicated=trial.duplicated,
            statuses=trial.statuses,
            problems=kept,
        ),
        problems,
    )


def _drill(
    name: str,
    promise: str,
    *options: str,
    rows: int,
    full_rows: Sequence[int],
    ended_by: str = "close",
) -> Drill:
    def run(place: Place) -> Trial:
        return run_program(place, *options, rows=rows, full_rows=full_rows, ended_by=ended_by)

    return Drill(name=name, promise=promise, guarantee=1, run=run, short=1, full=5)


DRILLS = (
    _drill(
        "interrupt-signal",
        "a handler logs every 0.3 ms over small segments: no slot shared, no record lost",
        "interrupted",
        "signal",
        rows=3,
        full_rows=(1, 2),
    ),
    _drill(
        "interrupt-finalizer",
        "finalizers log during collections every 0.3 ms: no slot shared, no record lost",
        "interrupted",
        "finalizer",
        rows=3,
        full_rows=(1, 2),
    ),
    _drill(
        "interrupt-fork",
        "forked children leave the block by all ways: all there, and the run is its owner's",
        "fork-inside-with",
        rows=6,
        full_rows=(1, 2, 3, 4, 5),
    ),
    _drill(
        "interrupt-orphan",
        "programs attach, one outlives the run's owner: all there",
        "subprocesses",
        rows=5,
        full_rows=range(5),
    ),
    _drill(
        "interrupt-cells",
        "cells in a running loop, some fail: a failed cell ends neither the run nor a record",
        "notebook",
        rows=5,
        full_rows=range(5),
        ended_by="exit",
    ),
    Drill(
        name="interrupt-shutdown",
        promise="atexit, daemon threads, finalizers behind the end: all there, nothing raised",
        guarantee=1,
        run=shut_down,
        short=1,
        full=10,
    ),
    Drill(
        name="interrupt-gil-held",
        promise="a call of C holds the GIL while a slot is open: the slot is not given up",
        guarantee=1,
        run=hold_a_slot,
        short=1,
        full=5,
    ),
)
