"""
What MLflow holds of a workload's run, compared with what its calls had returned.
"""

from __future__ import annotations

from collections.abc import Sequence

from allele_mlflow.drill.place import Place, Program
from allele_mlflow.drill.trial import Trial
from allele_mlflow.drill.workload import SERIES_VALUES
from allele_mlflow.records import Ledger
from allele_mlflow.tracking.stored_run import StoredRun, find_stored_runs, read_stored_run


def compare(
    place: Place,
    programs: Sequence[Program],
    *,
    status: str,
    ended_by: Sequence[str] = (),
    deadline_s: float = 120.0,
) -> Trial:
    """
    Wait until the run is delivered, and count what of it is in MLflow.

    Args:
        place: Where it ran.
        programs: The workloads that logged into one run, each thread's number once.
        status: How the run must have ended.
        ended_by: What its tag `allele.ended_by` may say; empty: anything.
        deadline_s: For the delivery.
    """
    run_uid = programs[0].run_uid
    state = place.await_done(run_uid, deadline_s=deadline_s)
    runs = find_stored_runs(place.tracking_uri, place.spec(run_uid).experiment, run_uid)
    problems = []
    if len(runs) != 1:
        problems.append(f"run {run_uid} is {len(runs)} runs in MLflow")
    if not runs:
        return Trial(problems=tuple(problems))
    stored = read_stored_run(place.tracking_uri, str(state.run_id or runs[0]))
    counted = _Count()
    for program in programs:
        for thread in range(program.threads):
            counted.take(program.returned(thread), thread + program.first_thread, stored)
    phases = sum(p.returned(t)["phase"] for p in programs for t in range(p.threads))
    edges = state.ledger.delivered.get("phase", 0)
    counted.expect(2 * phases, min(edges, 2 * phases))
    problems += _ledger_problems(run_uid, state.ledger)
    said_by = stored.tags.get("allele.ended_by", "")
    if stored.status != status:
        problems.append(f"run {run_uid} is {stored.status} by {said_by!r}: want {status}")
    elif ended_by and said_by not in ended_by:
        problems.append(f"run {run_uid} ended by {said_by!r}: want {' or '.join(ended_by)}")
    return Trial(
        accepted=counted.accepted,
        delivered=counted.delivered,
        lost=counted.accepted - counted.delivered,
        duplicated=counted.duplicated,
        statuses=(stored.status,),
        problems=tuple(problems),
    )


class _Count:
    """
    Records of one run: returned, found, found twice.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.delivered = 0
        self.duplicated = 0

    def expect(self, accepted: int, delivered: int) -> None:
        """
        Count records of which so many came.
        """
        self.accepted += accepted
        self.delivered += delivered

    def take(self, returned: dict[str, int], thread: int, stored: StoredRun) -> None:
        """
        Count what one thread logged.
        """
        self._rows(f"thread/{thread}", range(returned["metric"]), stored)
        self._rows(f"series/{thread}", range(returned["series"] * SERIES_VALUES), stored)
        for kind, found in (("param", stored.params), ("tag", stored.tags)):
            wanted = [f"{kind}/{thread}/{number}" for number in range(returned[kind])]
            self.expect(len(wanted), sum(key in found for key in wanted))

    def _rows(self, key: str, wanted: range, stored: StoredRun) -> None:
        rows = stored.readings.get(key, [])
        is_series = key.startswith("series/")
        right = [
            row.step
            for row in rows
            if row.value == (row.step // SERIES_VALUES if is_series else row.step)
        ]
        self.expect(len(wanted), len(set(right) & set(wanted)))
        # a wrong value is one that stands in another's place
        self.duplicated += len(rows) - len(set(right))


def _ledger_problems(run_uid: str, ledger: Ledger) -> list[str]:
    problems = []
    if ledger.pending:
        problems.append(f"run {run_uid}: {ledger.pending} pending after its end")
    for name, parts in (("dropped", ledger.dropped), ("rejected", ledger.rejected)):
        if parts:
            problems.append(f"run {run_uid}: {name} {parts}")
    return problems
