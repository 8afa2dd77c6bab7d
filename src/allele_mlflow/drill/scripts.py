"""
Small programs of a drill that say at their end what they logged, and the comparison with MLflow.

A script prints one line of JSON: `run_uid`, and `returned`, how many calls of each key returned.
The n-th call of a key, from 0 on, logged the value n at step n.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from allele_mlflow.drill.place import DEADLINE_S, OverdueError, Place
from allele_mlflow.drill.trial import Trial
from allele_mlflow.queue import spool
from allele_mlflow.tracking.stored_run import find_stored_runs, read_stored_run

#: What every script begins with: `log_to(log, key, count)` logs, `tell(log)` says what returned.
HEAD = """
import json, os, sys, threading, time
from allele_mlflow import attach, start_logger
from allele_mlflow.drill.workload import use_small_segments

returned = {}

def log_to(log, key, count):
    for _ in range(count):
        number = returned.get(key, 0)
        log.metric(key, float(number), number)
        returned[key] = number + 1

def tell(log):
    print(json.dumps({"run_uid": log.run_uid, "returned": returned}), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Said:
    """
    What one script said, and the code with which it ended.
    """

    run_uid: str
    returned: Mapping[str, int]
    code: int


def start_script(
    place: Place, text: str, *, environ: Mapping[str, object] | None = None
) -> subprocess.Popen[str]:
    """
    Start a script in the place: as a file, so that processes that it spawns can import it.
    """
    path = place.folder / f"script-{spool.new_uid()[:12]}.py"
    path.write_text(HEAD + text, encoding="utf-8")
    return place.start_python(str(path), environ=environ)


def await_script(process: subprocess.Popen[str]) -> Said:
    """
    What the script said, once it has ended.

    Raises:
        OverdueError: it runs on, or it has said nothing.
    """
    try:
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise OverdueError(f"the script: not ended within {DEADLINE_S:g} s") from None
    try:
        said = json.loads(stdout.splitlines()[-1])
        return Said(run_uid=said["run_uid"], returned=said["returned"], code=process.returncode)
    except (IndexError, KeyError, ValueError):
        raise OverdueError(f"the script ended with code {process.returncode}, silently") from None


def run_script(place: Place, text: str, *, environ: Mapping[str, object] | None = None) -> Said:
    """
    What a script said, from its start to its end.
    """
    return await_script(start_script(place, text, environ=environ))


def compare_said(
    place: Place,
    said: Said,
    *,
    code: int = 0,
    status: str = "FINISHED",
    ended_by: Sequence[str] = (),
    errors: int = 0,
    tracking_uri: str | None = None,
    deadline_s: float = DEADLINE_S,
) -> Trial:
    """
    Wait until a script's run is delivered, and count what of it is in MLflow.

    Args:
        place: Where it ran.
        said: What the script said.
        code: With which it must have ended.
        status: How the run must have ended.
        ended_by: What its tag `allele.ended_by` may say; empty: anything.
        errors: That the run must have.
        tracking_uri: Where the run is, where that is not the place's store.
        deadline_s: For the delivery.
    """
    uri = tracking_uri or place.tracking_uri
    state = place.await_done(said.run_uid, deadline_s=deadline_s)
    runs = find_stored_runs(uri, place.spec(said.run_uid).experiment, said.run_uid)
    if len(runs) != 1:
        return Trial(problems=(f"run {said.run_uid} is {len(runs)} runs in MLflow",))
    stored = read_stored_run(uri, runs[0])
    accepted = delivered = duplicated = 0
    for key, count in said.returned.items():
        rows = stored.readings.get(key, [])
        right = {row.step for row in rows if row.value == row.step}
        accepted += count
        delivered += len(right & set(range(count)))
        duplicated += len(rows) - len(right)
    by = stored.tags.get("allele.ended_by", "")
    error_count = int(stored.tags.get("allele.error.count", "0"))
    ledger = state.ledger
    checks = (
        (said.code == code, f"exit code {said.code}: want {code}"),
        (stored.status == status, f"{stored.status} by {by!r}: want {status}"),
        (not ended_by or by in ended_by, f"ended by {by!r}: want {' or '.join(ended_by)}"),
        (error_count == errors, f"{error_count} errors: want {errors}"),
        (not ledger.pending, f"{ledger.pending} pending after its end"),
        (not ledger.dropped, f"dropped {ledger.dropped}"),
        (not ledger.rejected, f"rejected {ledger.rejected}"),
    )
    return Trial(
        accepted=accepted,
        delivered=delivered,
        lost=accepted - delivered,
        duplicated=duplicated,
        statuses=(stored.status,),
        problems=tuple(f"run {said.run_uid}: {text}" for is_well, text in checks if not is_well),
    )


def sum_of(trials: Sequence[Trial]) -> Trial:
    """
    One trial of several runs.
    """
    return Trial(
        accepted=sum(trial.accepted for trial in trials),
        delivered=sum(trial.delivered for trial in trials),
        lost=sum(trial.lost for trial in trials),
        duplicated=sum(trial.duplicated for trial in trials),
        statuses=tuple(status for trial in trials for status in trial.statuses),
        problems=tuple(text for trial in trials for text in trial.problems),
    )
