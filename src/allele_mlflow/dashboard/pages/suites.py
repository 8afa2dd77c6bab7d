"""
The first page: every experiment, and how its newest execution did.
"""

from __future__ import annotations

import msgspec

from allele_mlflow.dashboard.pages.executions import (
    Execution,
    Health,
    read_executions,
    with_counts,
)
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.views import Knobs, Paged, page_of, sorted_rows


class SuiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    An experiment. What follows `executions` is of the newest one; None where it has none.
    """

    experiment_id: str
    experiment: str
    executions: int
    run_id: str | None = None
    health: Health | None = None
    started_ms: int | None = None
    seconds: float | None = None
    finished: int | None = None
    failed: int | None = None
    not_run: int | None = None


class Suites(msgspec.Struct, frozen=True, kw_only=True):
    """
    The experiments of a store.
    """

    suites: Paged[SuiteRow]


COLUMNS = (
    Column("experiment", "Experiment", Kind.NAME, path="/experiments/{experiment_id}"),
    Column("health", "Newest execution", Kind.STATUS, path="/executions/{run_id}"),
    Column("started_ms", "Started", Kind.TIME),
    Column("seconds", "Took", Kind.SECONDS),
    Column("finished", "Finished", Kind.COUNT),
    Column("failed", "Failed", Kind.COUNT),
    Column("not_run", "Not run", Kind.COUNT),
    Column("executions", "Executions", Kind.COUNT),
)


def query(ask: Ask) -> Suites:
    """
    Every experiment that is not deleted; those with the newest execution first.

    Raises:
        TrackingError: the store does not answer.
    """
    with ask.source.reader() as reader:
        experiments = reader.experiments()
        executions = read_executions(reader)
        active = experiments[experiments["lifecycle"] == "active"]
        by_experiment: dict[str, list[Execution]] = {}
        for one in executions:
            by_experiment.setdefault(one.experiment_id, []).append(one)
        wanted = ask.view.find.casefold()
        rows = [
            _row(experiment_id, name, by_experiment.get(experiment_id, []))
            for experiment_id, name in zip(active["experiment_id"], active["name"], strict=True)
            if wanted in name.casefold()
        ]
        shown = page_of(sorted_rows(rows, ask.view, getattr), ask.view)
        newest = [by_experiment.get(row.experiment_id, [])[:1] for row in shown.rows]
        counted = {
            one.experiment_id: one
            for one in with_counts(reader, (one for some in newest for one in some))
        }
    rows = [_with_newest(row, counted.get(row.experiment_id)) for row in shown.rows]
    return Suites(suites=msgspec.structs.replace(shown, rows=rows))


def _row(experiment_id: str, name: str, executions: list[Execution]) -> SuiteRow:
    return _with_newest(
        SuiteRow(experiment_id=experiment_id, experiment=name, executions=len(executions)),
        executions[0] if executions else None,
    )


def _with_newest(row: SuiteRow, newest: Execution | None) -> SuiteRow:
    if newest is None:
        return row
    return msgspec.structs.replace(
        row,
        run_id=newest.run_id,
        health=newest.health,
        started_ms=newest.started_ms,
        seconds=newest.seconds,
        finished=newest.finished,
        failed=newest.failed,
        not_run=newest.not_run,
    )


PAGE = Page(
    name="suites",
    path="/",
    title="Suites",
    summary="Every experiment, and how the newest execution of its suite did.",
    query=query,
    content=Suites,
    template="suites.html",
    columns={"suites": COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS),
        default_sort="-started_ms",
        has_find=True,
        has_pages=True,
    ),
)
