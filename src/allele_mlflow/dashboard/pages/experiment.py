"""
One experiment: the executions of its suite.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from allele_mlflow.dashboard.pages.executions import (
    Execution,
    read_executions,
    with_counts,
)
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page, Params
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.views import Knobs, Paged, page_of, sorted_rows
from allele_mlflow.tracking.frames import Reader


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """
    An experiment and its executions.
    """

    experiment_id: str
    experiment: str
    executions: Paged[Execution]


COLUMNS = (
    Column("name", "Execution", Kind.NAME, path="/executions/{run_id}"),
    Column("health", "Health", Kind.STATUS),
    Column("started_ms", "Started", Kind.TIME),
    Column("seconds", "Took", Kind.SECONDS),
    Column("finished", "Finished", Kind.COUNT),
    Column("failed", "Failed", Kind.COUNT),
    Column("not_run", "Not run", Kind.COUNT),
    Column("active_alerts", "Alerts", Kind.COUNT),
    Column("commit", "Commit", Kind.CODE),
    Column("host", "Host", Kind.NAME),
)


def query(ask: Ask) -> Experiment:
    """
    The executions of an experiment.

    Raises:
        RefusalError: 404: there is no such experiment.
        TrackingError: the store does not answer.
    """
    experiment_id = ask.params["experiment_id"]
    with ask.source.reader() as reader:
        name = experiment_name(reader, experiment_id)
        found = read_executions(reader, [experiment_id])
        shown = page_of(sorted_rows(found, ask.view, getattr), ask.view)
        executions = msgspec.structs.replace(shown, rows=with_counts(reader, shown.rows))
    return Experiment(experiment_id=experiment_id, experiment=name, executions=executions)


def experiment_name(reader: Reader, experiment_id: str) -> str:
    """
    The name of an experiment that is not deleted.

    Raises:
        RefusalError: 404: there is no such experiment.
        TrackingError: the store does not answer.
    """
    experiments = reader.experiments()
    active = experiments[experiments["lifecycle"] == "active"]
    names = dict(zip(active["experiment_id"], active["name"], strict=True))
    if experiment_id not in names:
        raise RefusalError(404, f"there is no experiment {experiment_id}")
    return str(names[experiment_id])


def experiment_instances(source: Source) -> Iterator[Params]:
    """
    Every experiment, for a static copy.

    Raises:
        TrackingError: the store does not answer.
    """
    with source.reader() as reader:
        experiments = reader.experiments()
    active = experiments[experiments["lifecycle"] == "active"]
    for experiment_id in active["experiment_id"]:
        yield {"experiment_id": str(experiment_id)}


PAGE = Page(
    name="experiment",
    path="/experiments/{experiment_id}",
    summary="The executions of an experiment's suite.",
    query=query,
    content=Experiment,
    template="experiment.html",
    tab="Executions",
    columns={"executions": COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS),
        default_sort="-started_ms",
        has_pages=True,
    ),
    instances=experiment_instances,
)
