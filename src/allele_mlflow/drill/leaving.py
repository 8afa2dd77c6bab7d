"""
Drills that leave the straight path: forks, pools, exits in odd places, garbage, loops.
"""

from __future__ import annotations

from functools import partial

from allele_mlflow.drill.place import Place
from allele_mlflow.drill.scripts import compare_said, run_script
from allele_mlflow.drill.trial import Drill, Trial

FORK_INSIDE_WITH = """
use_small_segments()
with start_logger("drill") as log:
    log_to(log, "before", 100)
    pid = os.fork()
    if pid == 0:
        log_to(log, "child", 1000)
        os._exit(0 if returned["child"] == 1000 else 1)
    log_to(log, "parent", 1000)
    assert os.waitpid(pid, 0)[1] == 0
    returned["child"] = 1000
tell(log)
"""
FORK_BESIDE_THREAD = """
use_small_segments()
is_over = threading.Event()

def work():
    while not is_over.is_set():
        log_to(log, "thread", 10)

with start_logger("drill") as log:
    thread = threading.Thread(target=work)
    thread.start()
    for fork in range(5):
        log_to(log, "parent", 200)
        pid = os.fork()
        if pid == 0:
            log_to(log, f"child/{fork}", 500)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        returned[f"child/{fork}"] = 500
    is_over.set()
    thread.join()
tell(log)
"""
POOL = """
import multiprocessing

def work(number):
    log_to(attach(), f"worker/{number}", 500)
    return number

if __name__ == "__main__":
    with start_logger("drill") as log:
        with multiprocessing.get_context("METHOD").Pool(8) as pool:
            for number in pool.map(work, range(8), chunksize=1):
                returned[f"worker/{number}"] = 500
            pool.close()
            pool.join()
        log_to(log, "parent", 100)
    tell(log)
"""
SUBPROCESS = """
import subprocess
if sys.argv[1:]:
    log_to(attach(), "child", 500)
    sys.exit()
with start_logger("drill") as log:
    log_to(log, "parent", 100)
    subprocess.run([sys.executable, __file__, "child"], check=True)
    returned["child"] = 500
tell(log)
"""
HARD_EXIT = """
log = start_logger("drill")
log_to(log, "before", 500)
until = time.monotonic() + 60
while log.status() is None and time.monotonic() < until:
    time.sleep(0.01)
time.sleep(0.3)
tell(log)
os._exit(CODE)
"""
EXIT_IN_THREAD = """
def work():
    log_to(log, "thread", 100)
    LEAVE

with start_logger("drill") as log:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    log_to(log, "parent", 100)
tell(log)
"""
GARBAGE = """
import gc
use_small_segments()

class Garbage:
    def __init__(self):
        self.itself = self

    def __del__(self):
        log_to(log, "garbage", 1)

with start_logger("drill") as log:
    gc.set_threshold(5, 2, 2)
    for _ in range(500):
        Garbage()
        log.metrics({f"many/{returned.get('garbage', 0) % 7}": 1.0})
        log_to(log, "main", 5)
    gc.collect()
    gc.disable()
assert returned["garbage"] == 500
tell(log)
"""
AT_EXIT = """
import atexit

class Late:
    def __del__(self):
        log.metric("late", 1.0, 0)

log = start_logger("drill")
late = Late()
sys.late_too = Late()

def at_exit():
    log_to(log, "exit", 100)
    tell(log)

atexit.register(at_exit)
log_to(log, "before", 100)
"""
ASYNC = """
import asyncio

async def work(number):
    for _ in range(50):
        log_to(log, f"task/{number}", 4)
        await asyncio.sleep(0)

async def main():
    global log
    async with start_logger("drill", worker="WORKER") as log:
        await asyncio.gather(*(work(number) for number in range(8)))

asyncio.run(main())
tell(log)
"""
RUNNING_LOOP = """
import asyncio

async def cell():
    with start_logger("drill", worker="WORKER") as log:
        log_to(log, "cell", 500)
        await asyncio.sleep(0.05)
        log_to(log, "cell", 500)
    return log

loop = asyncio.new_event_loop()
tell(loop.run_until_complete(cell()))
loop.close()
"""


def leave(
    place: Place,
    *,
    script: str,
    code: int = 0,
    status: str = "FINISHED",
    ended_by: tuple[str, ...] = (),
    errors: int = 0,
) -> Trial:
    """
    Run a script to its end: all that returned is in MLflow once, and the run ended truly.
    """
    said = run_script(place, script)
    return compare_said(place, said, code=code, status=status, ended_by=ended_by, errors=errors)


DRILLS = (
    Drill(
        name="leave-fork-inside-with",
        promise="fork inside a with: what either side logged arrives once",
        guarantee=1,
        run=partial(leave, script=FORK_INSIDE_WITH, ended_by=("close",)),
        short=1,
        full=20,
    ),
    Drill(
        name="leave-fork-beside-thread",
        promise="fork while another thread logs: what each side logged arrives once",
        guarantee=1,
        run=partial(leave, script=FORK_BESIDE_THREAD, ended_by=("close",)),
        short=1,
        full=10,
    ),
    *(
        Drill(
            name=f"leave-pool-{method}",
            promise=f"a pool of eight by {method} logs into one run: all arrives once",
            guarantee=1,
            run=partial(leave, script=POOL.replace("METHOD", method), ended_by=("close",)),
            short=1,
            full=5,
        )
        for method in ("fork", "forkserver", "spawn")
    ),
    Drill(
        name="leave-subprocess",
        promise="a subprocess that attaches: what it logged arrives in the run",
        guarantee=1,
        run=partial(leave, script=SUBPROCESS, ended_by=("close",)),
        short=1,
        full=5,
    ),
    *(
        Drill(
            name=f"leave-hard-exit-{code}",
            promise=f"os._exit({code}): all returned calls arrive, the run is {status}",
            guarantee=6,
            run=partial(
                leave,
                script=HARD_EXIT.replace("CODE", str(code)),
                code=code,
                status=status,
                ended_by=(f"exit code {code}",),
                errors=int(code != 0),
            ),
            short=1,
            full=10,
        )
        for code, status in ((0, "FINISHED"), (3, "FAILED"))
    ),
    Drill(
        name="leave-exit-in-thread",
        promise="sys.exit in a thread ends that thread alone: the run is FINISHED",
        guarantee=6,
        run=partial(
            leave, script=EXIT_IN_THREAD.replace("LEAVE", "sys.exit(3)"), ended_by=("close",)
        ),
        short=1,
        full=5,
    ),
    Drill(
        name="leave-error-in-thread",
        promise="an exception that nobody caught in a thread: one error kept, the run FINISHED",
        guarantee=6,
        run=partial(
            leave, script=EXIT_IN_THREAD.replace("LEAVE", "1 / 0"), ended_by=("close",), errors=1
        ),
        short=1,
        full=5,
    ),
    Drill(
        name="leave-garbage",
        promise="objects that log while they are collected, within log calls: nothing lost",
        guarantee=3,
        run=partial(leave, script=GARBAGE, ended_by=("close",)),
        short=1,
        full=10,
    ),
    Drill(
        name="leave-at-exit",
        promise="what atexit logs arrives; what logs later, at shutdown, harms nothing",
        guarantee=1,
        run=partial(leave, script=AT_EXIT, ended_by=("exit",)),
        short=1,
        full=5,
    ),
    *(
        Drill(
            name=f"leave-{name}{where}",
            promise=f"{promise}{how}: all arrives once",
            guarantee=1,
            run=partial(leave, script=script.replace("WORKER", worker), ended_by=("close",)),
            short=1,
            full=5,
        )
        for name, script, promise in (
            ("async", ASYNC, "async with, and eight tasks that log"),
            ("running-loop", RUNNING_LOOP, "with inside a loop that runs already, as in Jupyter"),
        )
        for worker, where, how in (
            ("process", "", ""),
            ("thread", "-thread", ", delivered by a thread"),
        )
    ),
)
