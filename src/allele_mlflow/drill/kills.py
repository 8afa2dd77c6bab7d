"""
Kills: of the benchmark, of the sidecar, of both; at random instants and at named steps.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from functools import partial

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.doomed import ROLL_STEPS, SIDECAR_STEPS
from allele_mlflow.drill.place import OverdueError, Place, Program, is_gone, wait_for
from allele_mlflow.drill.readback import compare
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.queue import spool

#: What a kill may be called in `allele.ended_by`: kernels before 6.15 do not tell.
BY_SIGKILL = ("SIGKILL", "unknown")
LONGEST_LIFE_S = 0.4
#: A sidecar imports mlflow for two seconds before it delivers; kills are to meet both.
LONGEST_SIDECAR_LIFE_S = 4.0
KILLS_A_RUN = 10
#: How long a benchmark may take to notice that its sidecar is gone, and to start another.
STEP_DEADLINE_S = 30.0


def kill_benchmark(place: Place, *, threads: int) -> Trial:
    """
    SIGKILL the benchmark at a random instant, while it logs everything that can be logged.
    """
    program = place.start("--mixed", threads=threads)
    program.await_start()
    pause_s(place.chance.uniform(0.0, LONGEST_LIFE_S))
    program.kill()
    return compare(place, [program], status="KILLED", ended_by=BY_SIGKILL)


def kill_benchmark_at_a_step(place: Place, *, step: str) -> Trial:
    """
    SIGKILL the benchmark in the middle of a segment's roll.
    """
    nth = place.chance.randint(1, 4)
    program = place.start("--mixed", "--kill-at", f"{step}:{nth}", threads=2)
    program.await_start()
    try:
        program.await_end(STEP_DEADLINE_S)
    except OverdueError:
        program.kill()
        return Trial(problems=(f"it never came to {step}",))
    return compare(place, [program], status="KILLED", ended_by=BY_SIGKILL)


def kill_sidecar(place: Place) -> Trial:
    """
    SIGKILL the sidecar ten times at random instants of one run.
    """
    program = place.start("--mixed", "--pause-s", "0.05", threads=2)
    program.await_start()
    for _ in range(KILLS_A_RUN):
        pid = place.await_sidecar()
        pause_s(place.chance.uniform(0.0, LONGEST_SIDECAR_LIFE_S))
        _kill(pid)
    return _interrupt_and_compare(place, program)


def kill_sidecar_at_a_step(place: Place, *, step: str) -> Trial:
    """
    SIGKILL the sidecar at a named step of the delivery.
    """
    place.kill_sidecars()
    gate = place.folder / f"gate-{spool.new_uid()}"
    program = place.start("--mixed", "--pause-s", "0.05", "--gate", str(gate), threads=2)
    run_uid = program.await_start()
    is_last = step == "before-archive"  # which comes after the benchmark
    nth = 1 if is_last or "create" in step else place.chance.randint(1, 3)
    with place.start_doomed_sidecar(run_uid, f"{step}:{nth}") as doomed:
        if is_last:
            program.kill()
        try:
            wait_for(lambda: doomed.poll() is not None, step, deadline_s=STEP_DEADLINE_S)
        except OverdueError as exc:
            doomed.kill()
            return Trial(problems=(str(exc),))
    problems = [] if doomed.returncode == -signal.SIGKILL else [f"{step}: it was not killed"]
    gate.touch()
    if not is_last:
        return with_problems(_interrupt_and_compare(place, program), problems)
    code = place.sync()
    problems += [] if code == 0 else [f"sync ended with code {code}: want 0"]
    trial = compare(place, [program], status="KILLED", ended_by=BY_SIGKILL)
    return with_problems(trial, problems)


def kill_both(place: Place) -> Trial:
    """
    SIGKILL the benchmark and its sidecar at once: nobody is left but the spool.
    """
    program = place.start("--mixed", threads=2)
    program.await_start()
    pid = place.await_sidecar()
    pause_s(place.chance.uniform(0.0, LONGEST_LIFE_S))
    if place.chance.random() < 0.5:
        program.kill()
        _kill(pid)
    else:
        _kill(pid)
        program.kill()
    place.kill_sidecars()  # one that the benchmark has started meanwhile
    if place.chance.random() < 0.5:
        code = place.sync()
        problems = [] if code == 0 else [f"sync ended with code {code}: want 0"]
    else:  # the next start delivers the rest
        problems = []
        following = place.start("--rounds", "1")
        following.await_start()
        following.await_end()
    return with_problems(compare(place, [program], status="KILLED"), problems)


def reboot(place: Place) -> Trial:
    """
    All processes are gone and the boot is another one: sync, or the next start, delivers the rest.
    """
    program = place.start("--mixed", threads=2)
    program.await_start()
    pause_s(place.chance.uniform(0.0, LONGEST_LIFE_S))
    place.kill_sidecars()
    program.kill()
    place.kill_sidecars()
    earlier = place.spool_dir / f"drill-{spool.new_uid()[:12]}"
    place.scope.rename(earlier)  # what another boot id does
    place.earlier_scopes.append(earlier)
    problems = []
    if place.chance.random() < 0.5:
        code = place.sync()
        problems = [] if code == 0 else [f"sync ended with code {code}: want 0"]
    else:
        following = place.start("--rounds", "1")
        following.await_start()
        following.await_end()
    # how it was killed is nobody's to know in another boot
    trial = compare(place, [program], status="KILLED", ended_by=("unknown", *BY_SIGKILL))
    return with_problems(trial, problems)


def stop_sidecar(place: Place) -> Trial:
    """
    SIGSTOP the sidecar for half a minute: the benchmark goes on, and nothing is lost.
    """
    program = place.start("--mixed", "--pause-s", "0.02", threads=2)
    program.await_start()
    pid = place.await_sidecar()
    os.kill(pid, signal.SIGSTOP)
    try:
        before, start_s = program.returned_metrics(), now_monotonic_s()
        pause_s(place.minute_s / 2)
        rate = (program.returned_metrics() - before) / (now_monotonic_s() - start_s)
    finally:
        os.kill(pid, signal.SIGCONT)
    problems = [] if rate > 100 else [f"the benchmark logged {rate:.0f} readings/s meanwhile"]
    return with_problems(_interrupt_and_compare(place, program), problems)


def stop_benchmark(place: Place, *, threads: int) -> Trial:
    """
    SIGSTOP and SIGCONT the benchmark at random: a hole of a living writer is never given up.
    """
    rounds = 60
    program = place.start("--rounds", str(rounds), threads=threads)
    program.await_start()
    while program.process.poll() is None:
        program.process.send_signal(signal.SIGSTOP)
        pause_s(place.chance.uniform(0.0, 0.1))
        program.process.send_signal(signal.SIGCONT)
        pause_s(place.chance.uniform(0.001, 0.02))
    program.await_end()
    return compare(place, [program], status="FINISHED")


def with_problems(trial: Trial, problems: Sequence[str]) -> Trial:
    """
    The trial with more that went wrong.
    """
    return Trial(
        accepted=trial.accepted,
        delivered=trial.delivered,
        lost=trial.lost,
        duplicated=trial.duplicated,
        statuses=trial.statuses,
        problems=(*trial.problems, *problems),
    )


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_for(partial(is_gone, pid), f"the end of process {pid}")


def _interrupt_and_compare(place: Place, program: Program) -> Trial:
    """
    End a workload as Ctrl-C does, and compare: it closes its run itself.
    """
    program.process.send_signal(signal.SIGINT)
    program.await_end()
    return compare(place, [program], status="KILLED", ended_by=("KeyboardInterrupt",))


DRILLS = (
    *(
        Drill(
            name=f"kill-benchmark-{threads}",
            promise=f"SIGKILL at a random instant, {threads} logging: every returned call arrives",
            guarantee=1,
            run=partial(kill_benchmark, threads=threads),
            short=2,
            full=full,
        )
        for threads, full in ((1, 70), (2, 70), (8, 60))
    ),
    *(
        Drill(
            name=f"kill-roll-{step}",
            promise=f"SIGKILL {step.replace('-', ' ')} of a roll: every returned call arrives",
            guarantee=1,
            run=partial(kill_benchmark_at_a_step, step=step),
            short=1,
            full=5,
        )
        for step in ROLL_STEPS
    ),
    Drill(
        name="kill-sidecar",
        promise="SIGKILL of the sidecar, ten times in one run: nothing lost, nothing twice",
        guarantee=1,
        run=kill_sidecar,
        short=0,
        full=20,
    ),
    *(
        Drill(
            name=f"kill-sidecar-{step}",
            promise=f"SIGKILL of the sidecar {step.replace('-', ' ')}: nothing lost, nothing twice",
            guarantee=2,
            run=partial(kill_sidecar_at_a_step, step=step),
            short=1,
            full=5,
        )
        for step in SIDECAR_STEPS
    ),
    Drill(
        name="kill-both",
        promise="SIGKILL of benchmark and sidecar: sync, or the next start, delivers the rest",
        guarantee=1,
        run=kill_both,
        short=2,
        full=50,
    ),
    Drill(
        name="reboot",
        promise="all processes gone, another boot: sync, or the next start, delivers the rest",
        guarantee=7,
        run=reboot,
        short=3,
        full=10,
    ),
    Drill(
        name="stop-sidecar",
        promise="SIGSTOP of the sidecar for half a minute: the benchmark does not notice",
        guarantee=3,
        run=stop_sidecar,
        short=1,
        full=1,
    ),
    *(
        Drill(
            name=f"stop-benchmark-{threads}",
            promise=f"SIGSTOP and SIGCONT, {threads} logging: no slot of a living writer given up",
            guarantee=1,
            run=partial(stop_benchmark, threads=threads),
            short=1,
            full=5,
        )
        for threads in (4, 8)
    ),
)
