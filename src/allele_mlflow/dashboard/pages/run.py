"""
One run: what it was told, what it measured, and how it is just now where it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import read_alerts, read_phases, whole_histories
from allele_mlflow.dashboard.pages.executions import (
    milliseconds,
    seconds_between,
    tags_by_run,
)
from allele_mlflow.dashboard.pages.page import PAIR_COLUMNS, Ask, Column, Kind, Page, Params
from allele_mlflow.dashboard.pages.run_content import (
    AlertRow,
    Artifacts,
    ErrorRow,
    MetricRow,
    Pair,
    PhaseRow,
    alert_rows,
    artifacts_of,
    error_rows,
    metric_rows,
    pairs_of,
    phase_rows,
    usual_metric,
)
from allele_mlflow.dashboard.pages.run_phases import waiting_phases
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.errors import TrackingError
from allele_mlflow.reports.figures import convergence, run_timeline
from allele_mlflow.tracking.alert_reader import artifact_alerts
from allele_mlflow.tracking.artifact_listing import list_artifacts
from allele_mlflow.tracking.frames import HISTORY, RunFrames
from allele_mlflow.units import describe
from allele_mlflow.watching.run_document import document
from allele_mlflow.watching.run_look import RunLook, find_waiting, look_at

#: Readings of one metric that a figure is made of.
MOST_READINGS = 100_000
#: Runs that a static copy has pages of.
MOST_COPIED = 300
_ALERTS_TAG, _DELIVERY_TAG = "allele.alerts.active", "allele.delivery"
_ENDED_BY_TAG = "allele.ended_by"
_PARENT_TAG = "mlflow.parentRunId"
#: What a spool calls a run (`queue.spool.new_uid`).
_UID = re.compile("[0-9a-f]{16}")
_DRAWN_RESOURCES = ("system/process_cpu_percent", "system/process_rss_megabytes")
_GPU_END = "_utilization_percentage"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run. `live` is what `allele-mlflow watch --json` tells of it; None where it is delivered.
    """

    run_id: str
    run_uid: str | None
    name: str
    status: str
    is_stored: bool
    is_cell: bool = False
    experiment_id: str | None = None
    experiment: str = ""
    parent_run_id: str | None = None
    started_ms: int | None = None
    seconds: float | None = None
    ended_by: str | None = None
    errors: list[ErrorRow] = []
    metric: str = ""
    params: list[Pair] = []
    tags: list[Pair] = []
    metrics: Paged[MetricRow]
    phases: list[PhaseRow] = []
    alerts: list[AlertRow] = []
    artifacts: Artifacts = Artifacts()
    ledger: list[Pair] | None = None
    live: dict[str, Any] | None = None


METRIC_COLUMNS = (
    Column("key", "Metric", Kind.NAME, option="metric"),
    Column("value", "Value", Kind.NUMBER),
    Column("unit", "Unit"),
    Column("step", "Step", Kind.COUNT),
    Column("timestamp_ms", "Logged", Kind.TIME),
)
PHASE_COLUMNS = (
    Column("name", "Phase", Kind.NAME),
    Column("seconds", "Seconds", Kind.SECONDS),
    Column("count", "Times", Kind.COUNT),
    Column("cpu_percent_mean", "CPU, % of a core", Kind.NUMBER),
    Column("rss_mb_max", "Memory at most, MB", Kind.NUMBER),
    Column("gpu_percent_mean", "GPU, %", Kind.NUMBER),
)
ERROR_COLUMNS = (
    Column("category", "Category"),
    Column("error", "Error", Kind.NAME),
    Column("message", "Message"),
    Column("count", "Errors in all", Kind.COUNT),
)
ALERT_COLUMNS = (
    Column("time", "Time", Kind.TIME),
    Column("severity", "Severity", Kind.STATUS),
    Column("name", "Alert", Kind.NAME),
    Column("message", "What"),
    Column("metric", "Metric", Kind.NAME),
    Column("value", "Value", Kind.NUMBER),
    Column("phase", "Phase", Kind.NAME),
    Column("step", "Step", Kind.COUNT),
    Column("status", "State", Kind.STATUS),
)


def query(ask: Ask) -> Run:
    """
    A run of the store, of a spool, or of both.

    Raises:
        RefusalError: 404: neither knows it.
        TrackingError: the store does not answer.
    """
    name = ask.params["run_id"]
    told = _stored(ask.source, name)
    own = next(iter(tags_by_run(told.tags).values()), {}) if told is not None else {}
    uid = own.get(tags.RUN_UID) if told is not None else name
    look = _look(ask.source, uid) if uid else None
    live = document(look) if look is not None else None
    if told is not None:
        found = _run_of(ask, told, own, live)
        rows = phase_rows(waiting_phases(look).metrics) if look is not None else []
        return msgspec.structs.replace(found, phases=rows) if rows else found
    if live is None:
        raise _unknown(name)
    run = live["run"]
    return Run(
        run_id=name,
        run_uid=uid,
        name=run["run_name"] or name,
        status=run["status"],
        is_stored=False,
        experiment=run["experiment"],
        seconds=run["elapsed_s"],
        metrics=page_of([], ask.view),
        live=live,
    )


def live_document(source: Source, run_uid: str) -> dict[str, Any] | None:
    """
    How a run is that no store has whole yet; None where there is none.
    """
    look = _look(source, run_uid)
    return None if look is None else document(look)


def uid_of(source: Source, run_id: str) -> str:
    """
    The uid of a run, which a spool knows it by; the id itself where the store does not know one.

    Raises:
        RefusalError: 404: neither the store nor a spool knows the run.
        TrackingError: the store does not answer.
    """
    if find_waiting(source.spools(), run_id) is not None:
        return run_id
    told = _stored(source, run_id)
    if told is None:
        raise _unknown(run_id)
    own = next(iter(tags_by_run(told.tags).values()), {})
    return own.get(tags.RUN_UID, run_id)


def _look(source: Source, run_uid: str) -> RunLook | None:
    folder = find_waiting(source.spools(), run_uid)
    return look_at(folder) if folder is not None else None


def _stored(source: Source, run_id: str) -> RunFrames | None:
    """
    A run by the store's id, or by the uid of its spool; None where the store has none.
    """
    if source.settings.is_offline:
        return None
    with source.reader() as reader:
        told = reader.runs(run_ids=[run_id])
        if not len(told.runs) and _UID.fullmatch(run_id):
            named = reader.runs(
                with_tags={tags.RUN_UID: run_id}, tag_keys=[], param_keys=[], metric_keys=[]
            ).runs["run_id"]
            told = reader.runs(run_ids=list(named[:1])) if len(named) else told
    return told if len(told.runs) else None


def _unknown(run_id: str) -> RefusalError:
    return RefusalError(404, f"there is no run {run_id} in the store or in a spool")


def _run_of(ask: Ask, told: RunFrames, own: dict[str, str], live: dict[str, Any] | None) -> Run:
    view = ask.view
    row = next(told.runs.itertuples())
    with ask.source.reader() as reader:
        experiments = reader.experiments()
    names = dict(zip(experiments["experiment_id"], experiments["name"], strict=True))
    rows = metric_rows(told.metrics)
    shown = [one for one in rows if view.find.casefold() in one.key.casefold()]
    return Run(
        run_id=row.run_id,
        run_uid=own.get(tags.RUN_UID),
        name=row.name or row.run_id,
        status=row.status,
        is_stored=True,
        experiment_id=row.experiment_id,
        experiment=names.get(row.experiment_id, ""),
        is_cell=own.get(tags.KIND) == tags.RunKind.CELL,
        parent_run_id=own.get(_PARENT_TAG),
        started_ms=milliseconds(row.start_time),
        seconds=seconds_between(row.start_time, row.end_time),
        ended_by=own.get(_ENDED_BY_TAG),
        errors=error_rows(own),
        metric=view.options["metric"] or usual_metric(rows),
        params=pairs_of(told.params),
        tags=pairs_of(told.tags),
        metrics=page_of(sorted_rows(shown, view, getattr), view),
        phases=phase_rows(told.metrics),
        alerts=_alerts(ask, row.run_id) if _ALERTS_TAG in own else [],
        artifacts=_artifacts(ask, row.run_id),
        ledger=_ledger(own.get(_DELIVERY_TAG)),
        live=live,
    )


def _alerts(ask: Ask, run_id: str) -> list[AlertRow]:
    try:
        return alert_rows(artifact_alerts(ask.source.tracking_uri, run_id))
    except TrackingError:
        return []  # that the files are away is said where they are listed


def _artifacts(ask: Ask, run_id: str) -> Artifacts:
    try:
        return artifacts_of(list_artifacts(ask.source.tracking_uri, run_id))
    except TrackingError as exc:
        return Artifacts(problem=str(exc))  # no reason to keep the rest of the page back


def _ledger(text: str | None) -> list[Pair] | None:
    """
    What the run said became of its records.
    """
    if text is None:
        return None
    try:
        told = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    found = []
    for name, value in told.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        found += [
            Pair(f"{name} {part}".strip(), f"{count:,}" if isinstance(count, int) else str(count))
            for part, count in parts
            if count is not None
        ]
    return found


def _metric_figure(ask: Ask, is_dark: bool) -> Any:
    """
    The history of one metric.
    """
    told = _stored(ask.source, ask.params["run_id"])
    if told is None:
        return None
    run_id = str(told.runs["run_id"].iloc[0])
    rows = metric_rows(told.metrics)
    metric = ask.view.options["metric"] or usual_metric(rows)
    pages, count = [], 0
    with ask.source.reader() as reader:
        for page in reader.history([run_id], [metric] if metric else []):
            pages.append(page)
            count += len(page)
            if count >= MOST_READINGS:
                break
    if count < 2:
        return None
    name = told.runs["name"].iloc[0] or run_id
    history = pd.concat(pages, ignore_index=True)[list(HISTORY)]
    history = history.assign(cell=name, cell_key=run_id, repeat=0)
    unit = describe(metric)
    return convergence(
        history, objective=metric, unit=unit.unit if unit is not None else "", is_dark=is_dark
    )


def _timeline_figure(ask: Ask, is_dark: bool) -> Any:
    """
    Phases, alerts and resources on one axis of time.
    """
    told = _stored(ask.source, ask.params["run_id"])
    if told is None:
        return None
    run_id = str(told.runs["run_id"].iloc[0])
    keys = [
        key
        for key in map(str, told.metrics["key"])
        if key in _DRAWN_RESOURCES or key.endswith(_GPU_END)
    ]
    with ask.source.reader() as reader:
        samples = whole_histories(reader, [run_id], keys)
    uri = ask.source.tracking_uri
    own = tags_by_run(told.tags).get(run_id, {})
    look = _look(ask.source, own[tags.RUN_UID]) if tags.RUN_UID in own else None
    phases = waiting_phases(look).rows if look is not None else None
    if phases is None or not len(phases):
        phases = read_phases(uri, [run_id])
    alerts = read_alerts(uri, [run_id] if _ALERTS_TAG in own else [])
    if not (len(phases) or len(samples)):
        return None
    began_ms = milliseconds(told.runs["start_time"].iloc[0])
    figure = run_timeline(phases, samples, alerts, began_ms=began_ms, is_dark=is_dark)
    seconds = seconds_between(told.runs["start_time"].iloc[0], told.runs["end_time"].iloc[0])
    if began_ms is not None and seconds is not None:
        # not a fixed range: what was logged outside of the run's time is drawn too
        figure.update_xaxes(autorangeoptions={"include": [0, seconds]})
    return figure


def _instances(source: Source) -> Iterator[Params]:
    """
    For a static copy: the newest runs.
    """
    with source.reader() as reader:
        runs = reader.runs(tag_keys=[], param_keys=[], metric_keys=[]).runs
    for run_id in runs["run_id"][:MOST_COPIED]:
        yield {"run_id": str(run_id)}


PAGE = Page(
    name="run",
    path="/runs/{run_id}",
    summary="One run: params, metrics, phases, alerts, files, delivery; live where it goes on.",
    query=query,
    content=Run,
    template="run.html",
    columns={
        "metrics": METRIC_COLUMNS,
        "errors": ERROR_COLUMNS,
        "phases": PHASE_COLUMNS,
        "alerts": ALERT_COLUMNS,
        "pairs": PAIR_COLUMNS,
    },
    knobs=Knobs(
        sorts=tuple(column.name for column in METRIC_COLUMNS),
        has_find=True,
        has_pages=True,
        options=(Option("metric", "Metric"),),
    ),
    figures={"timeline": _timeline_figure, "metric": _metric_figure},
    instances=_instances,
)
