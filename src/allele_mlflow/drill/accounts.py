"""
The account of a run that had to drop records: what its calls made, what MLflow holds, and what the
ledger says of the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from allele_mlflow.drill.place import Place, Program
from allele_mlflow.drill.trial import Trial
from allele_mlflow.drill.workload import SERIES_VALUES
from allele_mlflow.records import Ledger
from allele_mlflow.tracking.stored_run import StoredRun, find_stored_runs, read_stored_run


@dataclass(frozen=True)
class Made:
    """
    Records that a workload's calls made. A phase is two edges, or where its begin was dropped, one.
    """

    records: int
    phases: int

    def fits(self, accepted: int) -> bool:
        """
        Whether a ledger may say that so many were accepted.
        """
        return self.records + self.phases <= accepted <= self.records + 2 * self.phases


@dataclass(frozen=True)
class Found:
    """
    What MLflow holds of them: rows that are as they were logged, those that are not or stand there
    twice, and the names of files.
    """

    rows: int
    wrong: int
    params: int
    tags: int


def count_made(programs: Sequence[Program]) -> Made:
    """
    What the calls of workloads that ended by themselves made.
    """
    returned = [p.returned(thread) for p in programs for thread in range(p.threads)]
    records = sum(
        one["metric"] + one["series"] * SERIES_VALUES + one["param"] + one["tag"] + one["artifact"]
        for one in returned
    )
    return Made(records, sum(one["phase"] for one in returned))


def count_found(programs: Sequence[Program], stored: StoredRun) -> Found:
    """
    What MLflow holds of what they logged.
    """
    rows = wrong = params = tags = 0
    for program in programs:
        for number in range(program.threads):
            returned, thread = program.returned(number), number + program.first_thread
            for key, end, values in (
                (f"thread/{thread}", returned["metric"], 1),
                (f"series/{thread}", returned["series"] * SERIES_VALUES, SERIES_VALUES),
            ):
                readings = stored.readings.get(key, [])
                right = {r.step for r in readings if r.value == r.step // values and r.step < end}
                rows += len(right)
                wrong += len(readings) - len(right)
            params += sum(f"param/{thread}/{n}" in stored.params for n in range(returned["param"]))
            tags += sum(f"tag/{thread}/{n}" in stored.tags for n in range(returned["tag"]))
    return Found(rows, wrong, params, tags)


def compare_ledger(
    made: Made, found: Found, ledger: Ledger, *, dropped: Collection[str]
) -> list[str]:
    """
    What is wrong with an account; nothing, where the ledger and MLflow say the same and every
    record is in it.

    Args:
        made: By the calls.
        found: In MLflow.
        ledger: The run's last.
        dropped: Reasons for which it may have dropped records.
    """
    problems = []
    if not made.fits(ledger.accepted):
        problems.append(
            f"the ledger accepted {ledger.accepted}: want {made.records} and 1 or 2 edges of "
            f"{made.phases} phases ({ledger})"
        )
    said = ledger.delivered
    for kind, number in (("metric", found.rows), ("param", found.params), ("tag", found.tags)):
        if said.get(kind, 0) != number:
            problems.append(f"{number} of kind {kind} in MLflow: the ledger says {said.get(kind)}")
    if ledger.pending or ledger.torn or ledger.rejected:
        problems.append(f"want nothing pending, torn or rejected: {ledger}")
    if not set(ledger.dropped) <= set(dropped):
        problems.append(f"dropped {ledger.dropped}: want only {', '.join(dropped) or 'nothing'}")
    return problems


def account(
    place: Place,
    programs: Sequence[Program],
    *,
    dropped: Collection[str] = (),
    must_drop: bool = False,
    status: str = "FINISHED",
    deadline_s: float = 120.0,
) -> Trial:
    """
    Wait until a run is delivered whose workloads ended by themselves, and check its account.

    `delivered` of the trial are records in MLflow and those that the ledger says were dropped.

    Args:
        place: Where it ran.
        programs: The workloads.
        dropped: Reasons for which it may have dropped records.
        must_drop: Whether it must have: else the drill has shown nothing.
        status: How the run must have ended.
        deadline_s: For the delivery.
    """
    run_uid = programs[0].run_uid
    state = place.await_done(run_uid, deadline_s=deadline_s)
    experiment = place.spec(run_uid).experiment
    runs = find_stored_runs(place.tracking_uri, experiment, run_uid)
    if len(runs) != 1:
        return Trial(problems=(f"run {run_uid} is {len(runs)} runs in MLflow",))
    stored = read_stored_run(place.tracking_uri, str(state.run_id or runs[0]))
    made, found, ledger = count_made(programs), count_found(programs, stored), state.ledger
    problems = compare_ledger(made, found, ledger, dropped=dropped)
    lost = sum(ledger.dropped.values())
    if must_drop and not lost:
        problems.append("nothing was dropped: the drill has shown nothing")
    if stored.status != status:
        problems.append(f"run {run_uid} is {stored.status}: want {status}")
    if state.damage:
        problems.append(f"damage: {state.damage}")
    held = found.rows + found.params + found.tags
    edges = min(ledger.delivered.get("phase", 0), 2 * made.phases)
    delivered = held + edges + ledger.delivered.get("artifact", 0) + lost
    accepted = max(ledger.accepted, made.records + made.phases)
    return Trial(
        accepted=accepted,
        delivered=min(delivered, accepted),
        lost=max(0, accepted - delivered),
        duplicated=found.wrong,
        statuses=(stored.status,),
        problems=tuple(problems),
    )
