"""
Processes, signals and leaving: forks, pools, handlers, finalizers, event loops and all exits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from allele_mlflow.drill.kills import with_problems
from allele_mlflow.drill.place import Place, Program
from allele_mlflow.drill.programs import FORKS, POOL_SIZE, READINGS
from allele_mlflow.drill.readback import compare
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.drill.workload import COUNTS_BYTES

UNKNOWN = "unknown"
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
    code: int = 0,
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
        code: Its exit code.
        ended_by: How the run ended, and where the kernel does not tell that, unknown.
    """
    program = start_program(place, name, *options, rows=rows)
    program.await_start()
    found = program.await_end()
    problems = [] if found == code else [f"{name} ended with code {found}: want {code}"]
    status = "FINISHED" if code == 0 else "FAILED"
    end = place.await_done(program.run_uid).end
    if end is not None and end.ended_by == UNKNOWN and ended_by.startswith("exit code"):
        status, ended_by = "KILLED", UNKNOWN
    trial = compare(place, [program], status=status, ended_by=(ended_by,))
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
    guarantee: int = 1,
    rows: int,
    full_rows: Sequence[int],
    code: int = 0,
    ended_by: str = "close",
) -> Drill:
    def run(place: Place) -> Trial:
        return run_program(
            place, *options, rows=rows, full_rows=full_rows, code=code, ended_by=ended_by
        )

    return Drill(name=name, promise=promise, guarantee=guarantee, run=run, short=1, full=3)


DRILLS = (
    _drill(
        "fork-inside-with",
        "forked children leave the block by all ways: all there, and the run is its owner's",
        "fork-inside-with",
        rows=6,
        full_rows=(1, 2, 3, 4, 5),
    ),
    _drill(
        "fork-while-logging",
        "fork in the middle of another thread's calls: parent's and children's records are there",
        "fork-while-logging",
        rows=1 + FORKS,
        full_rows=range(1, 1 + FORKS),
    ),
    *(
        _drill(
            f"pool-{method}",
            f"a pool of {POOL_SIZE} by {method} logs into one run: all there",
            "pool",
            method,
            rows=POOL_SIZE,
            full_rows=range(POOL_SIZE),
        )
        for method in ("fork", "forkserver", "spawn")
    ),
    _drill(
        "subprocesses",
        "programs attach, one outlives the run's owner: all there",
        "subprocesses",
        rows=5,
        full_rows=range(5),
    ),
    *(
        _drill(
            f"exit-at-once-{code}",
            f"os._exit({code}): every returned call arrives, and the run ends by it",
            "leave-at-once",
            str(code),
            guarantee=6,
            rows=1,
            full_rows=(0,),
            code=code,
            ended_by=f"exit code {code}",
        )
        for code in (0, 3)
    ),
    _drill(
        "leave-in-threads",
        "sys.exit and an exception in threads: the run goes on, and is FINISHED",
        "leave-in-threads",
        guarantee=6,
        rows=3,
        full_rows=range(3),
    ),
    _drill(
        "signal-handler",
        "a handler logs every 0.3 ms over small segments: no slot shared, no record lost",
        "interrupted",
        "signal",
        rows=3,
        full_rows=(1, 2),
    ),
    _drill(
        "finalizer",
        "finalizers log during collections every 0.3 ms: no slot shared, no record lost",
        "interrupted",
        "finalizer",
        rows=3,
        full_rows=(1, 2),
    ),
    _drill(
        "asyncio",
        "tasks of one loop log side by side, one is cancelled: all there",
        "tasks",
        rows=6,
        full_rows=range(5),
    ),
    _drill(
        "notebook",
        "cells in a running loop, some fail: a failed cell ends neither the run nor a record",
        "notebook",
        guarantee=6,
        rows=5,
        full_rows=range(5),
        ended_by="exit",
    ),
    Drill(
        name="shut-down",
        promise="atexit, daemon threads, finalizers behind the end: all there, nothing raised",
        guarantee=1,
        run=shut_down,
        short=1,
        full=5,
    ),
    Drill(
        name="gil-held",
        promise="a call of C holds the GIL while a slot is open: the slot is not given up",
        guarantee=1,
        run=hold_a_slot,
        short=1,
        full=3,
    ),
)
