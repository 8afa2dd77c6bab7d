"""
The alerts of all runs: those that go on, from the spools, then those of the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from allele_mlflow.dashboard.pages.executions import milliseconds, tags_by_run
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.pages.run_content import AlertRow, alert_rows
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.errors import TrackingError
from allele_mlflow.numerals import whole_number
from allele_mlflow.records import SEVERITIES
from allele_mlflow.tracking.alert_reader import artifact_alerts
from allele_mlflow.watching.run_alerts import waiting_alerts, without_milder
from allele_mlflow.watching.spools import spooled_runs

#: Runs of a page whose alerts are looked up by name, and names that are told of each.
MOST_NAMED = 25
MOST_NAMES = 4
MOST_WAITING = 200
_TAG = "allele.alerts."
_ACTIVE = f"{_TAG}active"


class AlertedRun(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run of the store that has alerts, by severity. `names`: what they are, where the page looked.
    """

    run_id: str
    name: str
    experiment_id: str
    experiment: str
    status: str
    started_ms: int | None
    active: int | None
    counts: dict[str, int]
    names: list[str] = []

    @property
    def told(self) -> str:
        """
        The counts in words, the gravest first.
        """
        return ", ".join(f"{self.counts[one]} {one}" for one in _gravest() if one in self.counts)

    @property
    def what(self) -> str:
        """
        The names in words.
        """
        return "; ".join(self.names)


class WaitingAlert(AlertRow, frozen=True, kw_only=True):
    """
    An alert of a run that is not over.
    """

    run_id: str
    run: str


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """
    Alerts now, and runs that had some.
    """

    waiting: list[WaitingAlert]
    runs: Paged[AlertedRun]
    problem: str | None = None


COLUMNS = (
    Column("name", "Run", Kind.NAME, path="/runs/{run_id}"),
    Column("experiment", "Experiment", Kind.NAME, path="/experiments/{experiment_id}"),
    Column("started_ms", "Started", Kind.TIME),
    Column("status", "Status", Kind.STATUS),
    Column("active", "Active", Kind.COUNT),
    Column("told", "Alerts"),
    Column("what", "What", can_sort=False),
)
WAITING_COLUMNS = (
    Column("time", "Time", Kind.TIME),
    Column("severity", "Severity", Kind.STATUS),
    Column("run", "Run", Kind.NAME, path="/runs/{run_id}"),
    Column("name", "Alert", Kind.NAME),
    Column("message", "What"),
    Column("phase", "Phase", Kind.NAME),
    Column("step", "Step", Kind.COUNT),
    Column("status", "State", Kind.STATUS),
)


def query(ask: Ask) -> Alerts:
    """
    The alerts of a severity and graver ones; of the store the view's page.

    Raises:
        TrackingError: the store does not answer.
    """
    severity = ask.view.options["severity"]
    waiting = _waiting(ask, severity)
    if ask.source.settings.is_offline:
        return Alerts(waiting=waiting, runs=page_of([], ask.view))
    found = [one for one in _alerted(ask) if not severity or _is_as_grave(one, severity)]
    shown = page_of(sorted_rows(found, ask.view, getattr), ask.view)
    rows = [_named(ask, one) if place < MOST_NAMED else one for place, one in enumerate(shown.rows)]
    return Alerts(waiting=waiting, runs=msgspec.structs.replace(shown, rows=rows))


def _alerted(ask: Ask) -> list[AlertedRun]:
    with ask.source.reader() as reader:
        experiments = reader.experiments()
        told = reader.runs(
            tag_keys=[_ACTIVE, *(f"{_TAG}{one}" for one in SEVERITIES)],
            param_keys=[],
            metric_keys=[],
        )
    names = dict(zip(experiments["experiment_id"], experiments["name"], strict=True))
    by_run = tags_by_run(told.tags)
    runs = told.runs[told.runs["run_id"].isin(by_run)]
    found = []
    for row in runs.itertuples():
        own = by_run[row.run_id]
        counts = {one: whole_number(own.get(f"{_TAG}{one}")) or 0 for one in SEVERITIES}
        if any(counts.values()):
            found.append(
                AlertedRun(
                    run_id=row.run_id,
                    name=row.name or row.run_id,
                    experiment_id=row.experiment_id,
                    experiment=names.get(row.experiment_id, ""),
                    status=row.status,
                    started_ms=milliseconds(row.start_time),
                    active=whole_number(own.get(_ACTIVE)),
                    counts={one: count for one, count in counts.items() if count},
                )
            )
    return found


def _named(ask: Ask, run: AlertedRun) -> AlertedRun:
    try:
        documents = artifact_alerts(ask.source.tracking_uri, run.run_id)
    except TrackingError:
        return run  # its counts are known all the same
    counts = Counter(one.name for one in alert_rows(documents))
    told = [f"{name} ({n}x)" if n > 1 else name for name, n in counts.most_common(MOST_NAMES)]
    return msgspec.structs.replace(run, names=told)


def _waiting(ask: Ask, severity: str) -> list[WaitingAlert]:
    found: list[WaitingAlert] = []
    for folder in ask.source.spools():
        try:
            for run in spooled_runs(folder, with_done=False):
                told = waiting_alerts(run) if run.is_described else None
                if told is not None:
                    run_id = run.state.run_id if run.state is not None else None
                    rows = alert_rows([without_milder(told, severity or None)])
                    found += _of_run(rows, run_id or run.spec.run_uid, run.name)
        except OSError:  # closed to us: the page of delivery says so
            continue
    return sorted(found, key=lambda one: one.time, reverse=True)[:MOST_WAITING]


def _of_run(rows: Iterable[AlertRow], run_id: str, name: str) -> list[WaitingAlert]:
    return [
        WaitingAlert(**fields, run_id=run_id, run=name)
        for fields in map(msgspec.structs.asdict, rows)
    ]


def _gravest() -> list[str]:
    return list(reversed(SEVERITIES))


def _is_as_grave(run: AlertedRun, severity: str) -> bool:
    order: list[str] = list(SEVERITIES)
    return any(one in run.counts for one in order[order.index(severity) :])


PAGE = Page(
    name="alerts",
    path="/alerts",
    title="Alerts",
    summary="The alerts of runs that go on, and all runs that had some.",
    query=query,
    content=Alerts,
    template="alerts.html",
    columns={"runs": COLUMNS, "waiting": WAITING_COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS if column.can_sort),
        default_sort="-started_ms",
        has_pages=True,
        options=(Option("severity", "Severity at least", ("", *SEVERITIES)),),
    ),
)
