"""
What lies in the spools: how far each run is delivered, and what its sidecar is doing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.watching.spool_look import SpoolLook, look_into_spool, spools_document

WAITING, ALL = "waiting", "all"


class SpooledRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run of a spool. `accepted` records are delivered, pending or lost, always.
    """

    run_uid: str
    run_id: str | None
    name: str
    experiment: str
    status: str
    served: bool
    lag_s: float | None
    accepted: int
    delivered: int
    archived: int
    pending: int
    lost: int
    rejected: dict[str, int]
    dropped: dict[str, int]
    torn: int
    last_error: str | None
    spool: str

    @property
    def page_id(self) -> str:
        """
        By what its page is found.
        """
        return self.run_id or self.run_uid

    @property
    def sidecar(self) -> str:
        """
        Whether anybody delivers it.
        """
        return "served" if self.served else "not served"


class SpoolRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A spool. `problem`: why it cannot be looked into.
    """

    spool: str
    waiting_runs: int
    pending: int
    problem: str | None


class SidecarRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A sidecar of a spool.
    """

    spool: str
    scope: str
    pid: int | None
    health: str
    heartbeat_age_s: float | None
    runs: int
    cpu_s: float | None
    store: str | None
    last_error: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """
    Spools, sidecars and runs of this user on this machine.
    """

    spools: list[SpoolRow]
    sidecars: list[SidecarRow]
    runs: Paged[SpooledRow]


COLUMNS = (
    Column("name", "Run", Kind.NAME, path="/runs/{page_id}"),
    Column("experiment", "Experiment", Kind.NAME),
    Column("status", "Status", Kind.STATUS),
    Column("sidecar", "Sidecar", Kind.STATUS),
    Column("lag_s", "Lag", Kind.SECONDS),
    Column("accepted", "Accepted", Kind.COUNT),
    Column("delivered", "Delivered", Kind.COUNT),
    Column("archived", "Archived", Kind.COUNT),
    Column("pending", "Pending", Kind.COUNT),
    Column("lost", "Lost", Kind.COUNT),
    Column("last_error", "Last error"),
)
SPOOL_COLUMNS = (
    Column("spool", "Spool"),
    Column("waiting_runs", "Runs that wait", Kind.COUNT),
    Column("pending", "Records that wait", Kind.COUNT),
    Column("problem", "Problem"),
)
SIDECAR_COLUMNS = (
    Column("pid", "Process", Kind.CODE),
    Column("health", "Health", Kind.STATUS),
    Column("heartbeat_age_s", "Last heartbeat", Kind.SECONDS),
    Column("runs", "Runs", Kind.COUNT),
    Column("cpu_s", "CPU", Kind.SECONDS),
    Column("store", "Store"),
    Column("spool", "Spool"),
    Column("last_error", "Last error"),
)


def query(ask: Ask) -> Delivery:
    """
    The runs that wait, or all that the spools still know. Nothing is started or changed.
    """
    is_all = ask.view.options["state"] == ALL
    spools = []
    for folder in ask.source.spools():
        try:
            spools.append(look_into_spool(folder, with_done=is_all))
        except OSError as exc:
            spools.append(SpoolLook(folder, problem=str(exc.strerror or exc)))
    if not spools:
        return Delivery(spools=[], sidecars=[], runs=page_of([], ask.view))
    told = spools_document(spools)
    rows = [_run(one) for one in told["runs"]]
    return Delivery(
        spools=[msgspec.convert(one, SpoolRow) for one in told["spools"]],
        sidecars=[_sidecar(one) for one in told["sidecars"] if is_all or one["alive"]],
        runs=page_of(sorted_rows(rows, ask.view, getattr), ask.view),
    )


def _run(told: dict[str, Any]) -> SpooledRow:
    ledger = told["ledger"]
    rejected, dropped = ledger.get("rejected", {}), ledger.get("dropped", {})
    torn = ledger.get("torn", 0)
    return SpooledRow(
        run_uid=told["run_uid"],
        run_id=told["run_id"],
        name=told["run_name"] or told["run_uid"],
        experiment=told["experiment"],
        status=told["status"],
        served=told["served"],
        lag_s=told["lag_s"],
        accepted=told["accepted"],
        delivered=sum(ledger.get("delivered", {}).values()),
        archived=sum(ledger.get("archived", {}).values()),
        pending=ledger.get("pending", 0),
        lost=sum(rejected.values()) + sum(dropped.values()) + torn,
        rejected=rejected,
        dropped=dropped,
        torn=torn,
        last_error=told["last_error"],
        spool=told["spool"],
    )


def _sidecar(told: dict[str, Any]) -> SidecarRow:
    return msgspec.convert(told | {"runs": len(told["runs"])}, SidecarRow)


PAGE = Page(
    name="delivery",
    path="/delivery",
    title="Delivery",
    summary="What lies in the spools: how far each run is delivered, and by whom.",
    query=query,
    content=Delivery,
    template="delivery.html",
    instances=lambda source: [{}] if source.spools() else [],
    columns={"runs": COLUMNS, "spools": SPOOL_COLUMNS, "sidecars": SIDECAR_COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS),
        has_pages=True,
        options=(Option("state", "Runs", (WAITING, ALL), WAITING),),
    ),
)
