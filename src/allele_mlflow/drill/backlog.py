"""
A large backlog, and how long a `sync` of it takes to its first send, in how much memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.place import OverdueError, Place
from allele_mlflow.queue import spool
from allele_mlflow.records import Ledger, RunState
from allele_mlflow.tracking.stored_run import find_stored_runs, read_stored_run

#: A sync that imports mlflow first and tells on its stdout when it begins, and when it first sends.
SYNC = """
import sys, time
from functools import wraps
import mlflow.store.tracking.sqlalchemy_store
from allele_mlflow.cli.main import main
from allele_mlflow.sidecar.run_store import RunStore
from allele_mlflow.sidecar.worker import Worker

def tell(owner, name, text):
    original = getattr(owner, name)
    @wraps(original)
    def told(self, *arguments, **options):
        setattr(owner, name, original)
        print(text, time.monotonic(), flush=True)
        return original(self, *arguments, **options)
    setattr(owner, name, told)

tell(Worker, "__init__", "begins")
tell(RunStore, "perform", "sends")
print("imported", time.monotonic(), flush=True)
sys.argv[0] = "allele-mlflow"
main()
"""
#: Half of the readings by `metric`, half by `series`.
PRODUCE = """
import sys
from allele_mlflow import start_logger
number = int(sys.argv[1])
log = start_logger("backlog", tracking_uri="offline", exit="detach", overhead_budget_percent=100)
for start in range(0, number // 2, 1000):
    size = min(1000, number // 2 - start)
    log.series(f"series/{start // 1000 % 10}", [0.5] * size, first_step=start)
    for step in range(start, start + size):
        log.metric(f"key/{step % 20}", 0.5, step)
print(log.run_uid)
log.close()
"""
POLL_S = 0.02
DEADLINE_S = 900.0


class Backlog(NamedTuple):
    """
    A run that waits, and how many records.
    """

    run_uid: str
    accepted: int


class Recovery(NamedTuple):
    """
    How a sync of it went.

    Units: `first_send_s` from the begin of the delivery, after mlflow is imported; `total_s` from
    there to the end of the process, and `cpu_s` its CPU in that time; `peak_bytes` resident memory
    of the process.
    """

    first_send_s: float
    total_s: float
    cpu_s: float
    peak_bytes: int
    accepted: int
    lost: int
    problems: tuple[str, ...]


def make_backlog(place: Place, records: int) -> Backlog:
    """
    Log so many readings offline.
    """
    environ = {"spool_quota_bytes": 1 << 32}
    with place.start_python("-c", PRODUCE, str(records), environ=environ) as process:
        said, _ = process.communicate(timeout=DEADLINE_S)
    if process.returncode != 0:
        raise OverdueError(f"the backlog's producer ended with code {process.returncode}")
    place.kill_sidecars()
    return Backlog(said.split()[-1], records)


def recover(place: Place, backlog: Backlog, *, stop_after_s: float | None) -> Recovery:
    """
    Sync it, to the end or for a while after the first send, and watch the process.
    """
    process = place.start_python(
        *("-c", SYNC, "sync", str(place.spool_dir), "--tracking-uri", place.tracking_uri)
    )
    peak, cpu_s, told = 0, 0.0, dict[str, float]()
    assert process.stdout is not None
    try:
        for name in ("imported", "begins", "sends"):
            words = process.stdout.readline().split()
            if words[:1] != [name]:
                raise OverdueError(f"sync said {words}: want {name!r}")
            told[name] = float(words[1])
            if name == "begins":
                before_s = cpu_time_s(process.pid)
        until_s = now_monotonic_s() + (stop_after_s or DEADLINE_S)
        while process.poll() is None and now_monotonic_s() < until_s:
            peak = max(peak, peak_memory_bytes(process.pid))
            cpu_s = max(cpu_s, cpu_time_s(process.pid) - before_s)
            pause_s(POLL_S)
        total_s = now_monotonic_s() - told["begins"]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
    problems, lost = _compare(place, backlog) if stop_after_s is None else ((), 0)
    return Recovery(
        first_send_s=told["sends"] - told["begins"],
        total_s=total_s,
        cpu_s=cpu_s,
        peak_bytes=peak,
        accepted=backlog.accepted,
        lost=lost,
        problems=problems,
    )


def peak_memory_bytes(pid: int) -> int:
    """
    Most resident memory that a process has had; 0 where it is gone.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) * 1024 for words in lines), 0)


def cpu_time_s(pid: int) -> float:
    """
    CPU time of a process so far, user and system; 0.0 where it is gone.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _compare(place: Place, backlog: Backlog) -> tuple[tuple[str, ...], int]:
    folder = place.scope / spool.DONE / backlog.run_uid
    state = spool.read_struct(folder / spool.STATE_FILE, RunState)
    if state is None:
        return (f"run {backlog.run_uid} was not delivered",), backlog.accepted
    runs = find_stored_runs(
        place.tracking_uri, place.spec(backlog.run_uid).experiment, backlog.run_uid
    )
    stored = read_stored_run(place.tracking_uri, runs[0])
    rows = sum(len(rows) for key, rows in stored.readings.items() if key[:3] in ("ser", "key"))
    wanted = Ledger(delivered={"metric": backlog.accepted}, sampled=state.ledger.sampled)
    problems = () if state.ledger == wanted else (f"the ledger is {state.ledger}",)
    return problems, max(0, backlog.accepted - rows)
