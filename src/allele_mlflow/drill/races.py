"""
What meets at one moment: sidecars, producers, a start and a sidecar that leaves, creators of one
database; a process id that lives again, a sidecar whose clock goes back.
"""

from __future__ import annotations

import fcntl
import os
import signal
from functools import partial

import msgspec

from allele_mlflow.clock import pause_s
from allele_mlflow.drill.doomed import SIDECAR_STEPS
from allele_mlflow.drill.interrupts import start_program
from allele_mlflow.drill.kills import STEP_DEADLINE_S, with_problems
from allele_mlflow.drill.place import OverdueError, Place, Program, wait_for
from allele_mlflow.drill.programs import READINGS
from allele_mlflow.drill.race_programs import CROWD_ROUNDS
from allele_mlflow.drill.readback import compare
from allele_mlflow.drill.scripts import sum_of
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.drill.workload import METRICS_PER_ROUND
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.tracking.stored_run import read_stored_run

CROWD = 64
THEIR_CLIENT = """
import sys
from mlflow import MlflowClient
MlflowClient(sys.argv[1]).create_experiment("the user's own")
"""


def start(place: Place, name: str, *options: str, rows: int, **environ: object) -> Program:
    """
    Start one of `race_programs`.
    """
    return start_program(place, name, *options, rows=rows, module="race_programs", environ=environ)


def two_sidecars(place: Place) -> Trial:
    """
    Two sidecars start at once: one serves, the other leaves.
    """
    place.kill_sidecars()
    gate = place.folder / f"gate-{spool.new_uid()}"
    program = place.start("--mixed", "--gate", str(gate), "--pause-s", "0.02", threads=2)
    spec = place.spec(program.await_start())
    sidecar = ("-P", "-m", "allele_mlflow.sidecar", "--scope", str(place.scope))
    two = [place.start_python(*sidecar, "--profile", spec.profile) for _ in range(2)]
    try:
        wait_for(lambda: any(one.poll() is not None for one in two), "one of two sidecars leaves")
        pid = place.await_sidecar()
        problems = [] if pid in [one.pid for one in two] else ["a third sidecar serves"]
        problems += ["both left"] if all(one.poll() is not None for one in two) else []
        gate.touch()
        program.process.send_signal(signal.SIGINT)
        program.await_end()
        trial = compare(place, [program], status="KILLED", ended_by=("KeyboardInterrupt",))
        return with_problems(trial, problems)
    finally:
        for one in two:
            one.kill()
            one.communicate()


def many_producers(place: Place, *, number: int) -> Trial:
    """
    So many producers start within a second: so many runs.
    """
    name = f"crowd-{spool.new_uid()}"
    program = start(place, "producers", str(number), name, rows=number)
    program.await_start()
    code = program.await_end()
    problems = [] if code == 0 else [f"{code} of {number} producers failed"]
    return with_problems(sum_of(_runs(place, program, name, number)), problems)


def start_while_it_leaves(place: Place, *, runs: int) -> Trial:
    """
    Runs start at about the moment when the sidecar leaves: none is stranded.
    """
    name = f"row-{spool.new_uid()}"
    seed = str(place.chance.getrandbits(32))  # a run's uid is never from there: stores are kept
    program = start(place, "in-a-row", str(runs), name, seed, rows=runs, idle_timeout_s=0)
    program.await_start()
    code = program.await_end()
    if code:
        return Trial(problems=("a run was left without a sidecar",))
    return sum_of(_runs(place, program, name, runs))


def _runs(place: Place, program: Program, name: str, number: int) -> list[Trial]:
    trials = []
    for row in range(number):
        one = Program(program.process, program._counts, 1, row)
        one.run_uid = f"{name}-{row}"
        trial = compare(place, [one], status="FINISHED", ended_by=("close", "detach"))
        wanted = CROWD_ROUNDS * METRICS_PER_ROUND
        is_whole = trial.accepted == wanted
        missing = [] if is_whole else [f"{trial.accepted} calls of {one.run_uid}: want {wanted}"]
        trials.append(with_problems(trial, missing))
    return trials


def new_database(place: Place) -> Trial:
    """
    The user's own client makes the same new SQLite file at the same time.
    """
    place.kill_sidecars()
    usual, path = place.tracking_uri, place.folder / f"new-{spool.new_uid()}.db"
    place.tracking_uri = f"sqlite:///{path}"
    client = place.start_python("-c", THEIR_CLIENT, place.tracking_uri)
    try:
        pause_s(place.chance.uniform(0.0, 1.0))
        program = place.start("--rounds", "20", "--mixed")
        program.await_start()
        program.await_end()
        wait_for(lambda: client.poll() is not None, "the user's client")
        code = client.returncode
        problems = [] if code == 0 else [f"the user's client ended with code {code}"]
        trial = compare(place, [program], status="FINISHED", ended_by=("close",))
        return with_problems(trial, problems)
    finally:
        client.kill()
        client.communicate()
        place.kill_sidecars()
        place.tracking_uri = usual


def reused_pid(place: Place) -> Trial:
    """
    The process id of a dead benchmark is another process's, and its lock is held by a stranger.
    """
    place.kill_sidecars()
    gate = place.folder / f"gate-{spool.new_uid()}"
    program = place.start("--mixed", "--gate", str(gate), threads=2)
    run_uid = program.await_start()
    pause_s(place.chance.uniform(0.0, 0.4))
    program.kill()
    other, folder = os.getpid(), place.scope / spool.RUNS / run_uid
    spec = msgspec.structs.replace(place.spec(run_uid), owner_pid=other)
    assert spec.owner_start != process_start_time(other)
    spool.write_struct(folder / spool.RUN_FILE, spec)
    (page_path,) = folder.glob(f"{spool.STREAMS}/{spec.owner_stream}/{layout.STREAM_PAGE}")
    with page_path.open("r+b", buffering=0) as page_file:
        page = layout.decode_stream_page(page_file.read(), str(page_path))
        os.pwrite(page_file.fileno(), layout.encode_stream_page(page._replace(pid=other)), 0)
        fcntl.flock(page_file, fcntl.LOCK_EX)  # as a child would that Python did not fork
        following = place.start("--rounds", "1")
        following.await_start()
        following.await_end()
        return compare(place, [program], status="KILLED", ended_by=("unknown",))


def sidecar_clock_set_back(place: Place) -> Trial:
    """
    The sidecar's clock goes back by an hour, and forth again, every second.
    """
    place.kill_sidecars()
    gate = place.folder / f"gate-{spool.new_uid()}"
    program = place.start("--mixed", "--gate", str(gate), "--pause-s", "0.05", threads=2)
    spec = place.spec(program.await_start())
    arguments = ("-P", "-m", "allele_mlflow.drill.race_programs", "", "sidecar-of-other-times")
    named = ("--scope", str(place.scope), "--profile", spec.profile)
    with place.start_python(*arguments, *named) as sidecar:
        try:
            wait_for(lambda: sidecar.pid in place.sidecars(), "the sidecar")
            pause_s(place.chance.uniform(2.0, 4.0))
            program.process.send_signal(signal.SIGINT)
            program.await_end()
            return compare(place, [program], status="KILLED", ended_by=("KeyboardInterrupt",))
        finally:
            gate.touch()
            sidecar.kill()


def stepless_and_killed(place: Place, *, step: str) -> Trial:
    """
    Four streams number the readings of one key for themselves; a sidecar dies on the way.
    """
    place.kill_sidecars()
    place.settings["bulk_store"] = bulk_store = place.chance.choice(("auto", "off"))
    gate = place.folder / f"gate-{spool.new_uid()}"
    program = start(place, "stepless", str(gate), rows=4)
    run_uid = program.await_start()
    # the bulk store takes all of it in one call
    is_once = "create" in step or "archive" in step or bulk_store == "auto"
    nth = 1 if is_once else place.chance.randint(1, 3)
    with place.start_doomed_sidecar(run_uid, f"{step}:{nth}") as doomed:
        try:
            wait_for(lambda: doomed.poll() is not None, step, deadline_s=STEP_DEADLINE_S)
        except OverdueError:
            doomed.kill()
            return Trial(problems=(f"the sidecar never came to {step}",))
        finally:
            gate.touch()
    program.await_end()
    place.sync()  # after its last step nobody is there to start another
    state = place.await_done(run_uid)
    stored = read_stored_run(place.tracking_uri, str(state.run_id), keys=["stepless"])
    rows = stored.readings["stepless"]
    returned = [program.returned(row)["metric"] for row in range(4)]
    wanted = {(n, row * 1_000_000.0 + n) for row in range(4) for n in range(returned[row])}
    found = [(row.step, row.value) for row in rows]
    problems = [] if stored.status == "FINISHED" else [f"the run is {stored.status}"]
    problems += [] if sum(returned) == 4 * READINGS else [f"{returned} calls returned"]
    lost = len(wanted - set(found))
    return Trial(
        accepted=len(wanted),
        delivered=len(wanted) - lost,
        lost=lost,
        duplicated=len(found) - len(set(found) & wanted),
        statuses=(stored.status,),
        problems=tuple(problems),
    )


DRILLS = (
    Drill(
        name="race-two-sidecars",
        promise="two sidecars start at once: one serves, one leaves, each record once",
        guarantee=2,
        run=two_sidecars,
        short=1,
        full=5,
    ),
    Drill(
        name="race-many-producers",
        promise=f"{CROWD} producers start in one second: {CROWD} runs, all records, true ends",
        guarantee=1,
        run=partial(many_producers, number=CROWD),
        short=0,
        full=2,
    ),
    Drill(
        name="race-some-producers",
        promise="12 producers start in one moment: 12 runs, all records, true ends",
        guarantee=1,
        run=partial(many_producers, number=12),
        short=1,
        full=2,
    ),
    *(
        Drill(
            name=f"race-start-while-it-leaves-{runs}",
            promise="runs start while the sidecar leaves: none is stranded",
            guarantee=1,
            run=partial(start_while_it_leaves, runs=runs),
            short=short,
            full=1,
        )
        for runs, short in ((3, 1), (20, 0))
    ),
    Drill(
        name="race-new-database",
        promise="the user's client makes the same new SQLite file: both succeed",
        guarantee=7,
        run=new_database,
        short=1,
        full=5,
    ),
    Drill(
        name="race-reused-pid",
        promise="a dead benchmark's process id lives again: its run ends, all is there",
        guarantee=6,
        run=reused_pid,
        short=1,
        full=5,
    ),
    Drill(
        name="race-sidecar-clock",
        promise="the sidecar's clock goes back by an hour: nothing lost, nothing twice",
        guarantee=2,
        run=sidecar_clock_set_back,
        short=1,
        full=5,
    ),
    *(
        Drill(
            name=f"race-stepless-{step}",
            promise=f"four streams without steps, sidecar killed {step}: numbered 0, 1, 2, ...",
            guarantee=2,
            run=partial(stepless_and_killed, step=step),
            short=1 if step in ("after-send", "after-cursor") else 0,
            full=2,
        )
        for step in SIDECAR_STEPS
    ),
)
