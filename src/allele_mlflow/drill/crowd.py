"""
Drills of many at once: processes of one run, tokens on one spool, clocks that go back.
"""

from __future__ import annotations

from pathlib import Path

from allele_mlflow.drill.kills import with_problems
from allele_mlflow.drill.place import DEADLINE_S, Place
from allele_mlflow.drill.scripts import (
    await_script,
    compare_said,
    run_script,
    start_script,
    sum_of,
)
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.queue import spool

#: A `minute_s` below this is the short set.
SHORT_MINUTE_S = 10.0
#: What a store takes at least, beside other drills.
SLOWEST_ROWS_PER_S = 1000.0

PRODUCER = """
with start_logger("drill") as log:
    log_to(log, "metric", 200)
tell(log)
"""
WITH_TOKEN = """
os.environ["MLFLOW_TRACKING_TOKEN"] = "SECRET"
with start_logger("drill") as log:
    log_to(log, "metric", 200)
tell(log)
"""
CLOCK_BACK = """
from allele_mlflow.queue import writer
real, shift_ns = writer.now_ns, 0
writer.now_ns = lambda: real() + shift_ns
with start_logger("drill") as log:
    log_to(log, "metric", 300)
    log_to(log, "other", 10)
    shift_ns = -3600 * 10**9
    log_to(log, "metric", 300)
    log_to(log, "later", 10)
tell(log)
"""
ONE_RUN = """
import subprocess
if sys.argv[1:]:
    log_to(attach(), f"process/{sys.argv[1]}", COUNT)
    sys.exit()
with start_logger("drill") as log:
    children = [subprocess.Popen([sys.executable, __file__, str(i)]) for i in range(8)]
    for i, child in enumerate(children):
        assert child.wait() == 0
        returned[f"process/{i}"] = COUNT
tell(log)
"""


def use_two_tokens(place: Place) -> Trial:
    """
    Two producers with tokens of their own: each has its own sidecar, no token is in the spool.
    """
    place.kill_sidecars()
    tokens = [f"token-{spool.new_uid()}" for _ in range(2)]
    processes = [start_script(place, WITH_TOKEN.replace("SECRET", token)) for token in tokens]
    said = [await_script(process) for process in processes]
    trial = sum_of([compare_said(place, each) for each in said])
    sidecars, problems = place.sidecars(), []
    for each in said:
        state, profile = place.state(each.run_uid), place.spec(each.run_uid).profile
        lock = sidecars.pop(state.sidecar_pid, None) if state is not None else None
        if lock is None or profile not in lock.name:
            problems.append(f"run {each.run_uid} was not delivered by a sidecar of its own")
    problems += [
        f"a token stands in {path.name}"
        for path in place.spool_dir.rglob("*")
        if path.is_file() and any(token in _content(path) for token in tokens)
    ]
    return with_problems(trial, problems)


def shadow_mlflow(place: Place) -> Trial:
    """
    A file mlflow.py in the working folder: the sidecar imports the real one.
    """
    place.kill_sidecars()
    shadow = place.folder / "mlflow.py"
    shadow.write_text("raise RuntimeError('a local mlflow.py was imported')\n", encoding="utf-8")
    try:
        return compare_said(place, run_script(place, PRODUCER))
    finally:
        shadow.unlink()


def set_clock_back(place: Place) -> Trial:
    """
    The clock goes back by an hour in the middle of a run: all arrives, nothing twice.
    """
    return compare_said(place, run_script(place, CLOCK_BACK))


def share_one_run(place: Place) -> Trial:
    """
    Eight processes log into one run: all arrives, and nobody says that a database was locked.
    """
    count = 2000 if place.minute_s < SHORT_MINUTE_S else 100_000
    said = run_script(place, ONE_RUN.replace("COUNT", str(count)))
    deadline_s = DEADLINE_S + 8 * count / SLOWEST_ROWS_PER_S
    trial = compare_said(place, said, deadline_s=deadline_s)
    logs = [place.folder / "stderr.log", *place.spool_dir.glob("*/sidecar-*.log")]
    problems = [f"{path.name} says 'locked'" for path in logs if "locked" in _content(path)]
    return with_problems(trial, problems)


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except FileNotFoundError:
        return ""  # archived meanwhile


DRILLS = tuple(
    Drill(
        name=f"crowd-{name}",
        promise=promise,
        guarantee=guarantee,
        run=run,
        short=1,
        full=full,
    )
    for name, run, guarantee, full, promise in (
        (
            "tokens",
            use_two_tokens,
            1,
            5,
            "two tokens on one spool: two sidecars, and no token in a file",
        ),
        (
            "local-mlflow",
            shadow_mlflow,
            7,
            3,
            "a local mlflow.py in the working folder disturbs nobody",
        ),
        ("clock-back", set_clock_back, 2, 5, "the clock goes back by an hour: nothing lost"),
        ("one-run", share_one_run, 1, 2, "eight processes log into one run: nothing is locked"),
    )
)
