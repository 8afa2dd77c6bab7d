"""
`allele-mlflow alerts`: the alerts of runs, by alert or by phase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.targets import explain_left, find_target
from allele_mlflow.errors import TrackingError
from allele_mlflow.records import SEVERITIES
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.watching.run_alerts import Document, waiting_alerts, without_milder
from allele_mlflow.watching.spools import SpooledRun, find_spools, spooled_runs


@click.command()
@click.argument("name", metavar="[RUN|EXPERIMENT]", required=False)
@click.option("--by", type=click.Choice(["alert", "phase"]), default="alert", show_default=True)
@click.option("--severity", type=click.Choice(SEVERITIES), help="These and graver ones only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
@click.option("--spool-dir", type=click.Path(path_type=Path), help="The spool to look into.")
@click.option("--tracking-uri", help="The store to look into; by default the setting.")
def alerts(
    name: str | None,
    by: str,
    severity: str | None,
    as_json: bool,
    spool_dir: Path | None,
    tracking_uri: str | None,
) -> ExitCode:
    """
    List alerts with the phase, step and resources that they belong to, or phases with their alerts.

    RUN is MLflow's id of a run, its `run_uid` or its name; EXPERIMENT a name, with or without the
    prefix. A run that goes on or waits is read from the spool, one that is over from its artifacts
    in MLflow. Without an argument: all runs in the spool that are not over. Exit code 2: there is
    no such run or experiment; 6: the store was unreachable.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    spools = find_spools(spool_dir, settings.spool_dir)
    code = ExitCode.FINE
    if name is None:
        runs = [one for folder in spools for one in spooled_runs(folder, with_done=False)]
        documents = [found for run in runs if (found := waiting_alerts(run)) is not None]
    else:
        search = _Search(name, settings, spools, is_explicit=tracking_uri is not None)
        search.run()
        documents, code = search.documents, search.code
    documents = [without_milder(one, severity) for one in documents]
    if as_json:
        say(json_text({"runs": documents}))
    else:
        _show(documents, by=by)
    return code


class _Search:
    """
    Looks for the runs that a text means: in the spools, then in the store.

    Args:
        name: The text.
        settings: Where the store is, and what experiments begin with.
        spools: Where to look first.
        is_explicit: Whether the store was named on the command line.
    """

    def __init__(
        self, name: str, settings: Settings, spools: list[Path], *, is_explicit: bool
    ) -> None:
        self._name = name
        self._settings = settings
        self._spools = spools
        self._is_explicit = is_explicit
        self._seen: set[str] = set()
        self.documents: list[Document] = []
        self.code = ExitCode.FINE

    def run(self) -> None:
        """
        Fill in `documents` and `code`.

        Raises:
            click.BadParameter: there is no such run or experiment.
        """
        spooled = [run for one in self._spools for run in spooled_runs(one, with_done=True)]
        matching = [run for run in spooled if self._is_meant(run)]
        for run in matching:
            if run.is_waiting:
                self._take_waiting(run)
        try:
            for run in matching:
                if not run.is_waiting:
                    self._take_done(run)
            is_one_run = matching and not any(map(self._is_of_experiment, matching))
            if not is_one_run and not self._settings.is_offline:
                is_known = self._take_from_store()
                if not (is_known or matching):
                    raise self._unknown()
        except TrackingError as exc:
            complain(f"the store cannot be read: {shown(str(exc))}")
            self.code = ExitCode.UNREACHABLE
            return
        if not matching and self._settings.is_offline:
            raise self._unknown()

    def _is_meant(self, run: SpooledRun) -> bool:
        run_id = run.state.run_id if run.state is not None else None
        names = (run.spec.run_uid, run.spec.run_name, run_id)
        return self._name in names or self._is_of_experiment(run)

    def _is_of_experiment(self, run: SpooledRun) -> bool:
        prefixed = f"{self._settings.experiment_prefix}{self._name}"
        return run.spec.experiment in (self._name, prefixed)

    def _take_waiting(self, run: SpooledRun) -> None:
        found = waiting_alerts(run)
        self.documents += [] if found is None else [found]
        if run.state is not None and run.state.run_id:
            self._seen.add(run.state.run_id)

    def _take_done(self, run: SpooledRun) -> None:
        run_id = run.state.run_id if run.state is not None else None
        uri = self._settings.tracking_uri
        target = find_target(run.spec, uri, is_explicit=self._is_explicit)
        if target is None:
            complain(f"run {shown(run.name)}: {explain_left(run.spec)}")
            self.code = ExitCode.USAGE
        elif run_id is not None:
            self._take_artifacts(target, run_id)

    def _take_from_store(self) -> bool:
        """
        Whether the store knows such a run or experiment.
        """
        uri = self._settings.tracking_uri
        _arrange(uri)
        from allele_mlflow.tracking.alert_reader import find_alerted_runs

        prefix = self._settings.experiment_prefix
        run_ids = find_alerted_runs(uri, self._name, prefix=prefix)
        for run_id in run_ids or ():
            self._take_artifacts(uri, run_id)
        return run_ids is not None

    def _take_artifacts(self, tracking_uri: str, run_id: str) -> None:
        if run_id in self._seen:
            return
        self._seen.add(run_id)
        _arrange(tracking_uri)
        from allele_mlflow.tracking.alert_reader import artifact_alerts

        found = artifact_alerts(tracking_uri, run_id)
        self.documents += [one | {"run_id": run_id} for one in found]

    def _unknown(self) -> click.BadParameter:
        places = ", ".join(str(one) for one in self._spools)
        store = mask_secrets(self._settings.tracking_uri)
        return click.BadParameter(
            f"{shown(self._name)}: no such run or experiment in {places} or {store}"
        )


def _arrange(tracking_uri: str) -> None:
    """
    Arrange this process's environment for MLflow, before it is imported.
    """
    from allele_mlflow.tracking.client import prepare_environment

    changes = prepare_environment(settings_module.environment(), tracking_uri=tracking_uri)
    for name, value in changes.items():
        settings_module.publish_variable(name, value)


def _show(documents: list[Document], *, by: str) -> None:
    with_alerts = [one for one in documents if one["alerts"]]
    if not with_alerts:
        runs = f"{len(documents)} run{'' if len(documents) == 1 else 's'}"
        say(f"no alerts ({runs} with rules or alerts)")
        return
    for document in with_alerts:
        rows = _rows_by_phase(document) if by == "phase" else _rows_by_alert(document)
        columns = PHASE_COLUMNS if by == "phase" else ALERT_COLUMNS
        _say_table(_title(document), columns, rows)
        if document.get("left_out"):
            say(f"and {document['left_out']:,} more, which are only counted")


def _title(document: Document) -> str:
    name = document.get("run_name") or document.get("run_uid") or "?"
    cell = f", cell {document['cell']}" if document.get("cell") else ""
    where = f" on {document['host']}" if document.get("host") else ""
    return (
        f"run {name} of {document.get('experiment')}{cell}{where}: {document.get('active')} active"
    )


ALERT_COLUMNS = ("time", "severity", "alert", "metric", "value", "phase", "step", "status")
PHASE_COLUMNS = ("phase", "alerts", "severities", "names")


def _rows_by_alert(document: Document) -> Iterable[tuple[str, ...]]:
    for one in document["alerts"]:
        message = one.get("message") or ""
        name = f"{one['name']}: {message}" if message else one["name"]
        value = one.get("non_finite") if one.get("value") is None else f"{one['value']:g}"
        step = one.get("step")
        yield (
            str(one.get("time", "")),
            one["severity"],
            name,
            one.get("metric") or "",
            value or "",
            one.get("phase") or "",
            "" if step is None else str(step),
            str(one.get("status", "")),
        )


def _rows_by_phase(document: Document) -> Iterable[tuple[str, ...]]:
    by_phase: dict[str, list[Document]] = {}
    for one in document["alerts"]:
        by_phase.setdefault(one["phase"] or "(no phase)", []).append(one)
    for phase, found in by_phase.items():
        counts = Counter(one["severity"] for one in found)
        severities = [f"{counts[one]} {one}" for one in reversed(SEVERITIES) if counts[one]]
        names = Counter(one["name"] for one in found)
        told = [f"{name} ({n}x)" if n > 1 else name for name, n in names.most_common()]
        yield phase, str(len(found)), ", ".join(severities), "; ".join(told)


def _say_table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(shown(title), overflow="fold"), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    console = Console()
    with console.capture() as capture:
        console.print(table)
    say(capture.get(), nl=False)
