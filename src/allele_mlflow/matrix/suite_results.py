"""
What a suite leaves in its own run: results, errors, environment, figures, a report.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import TrackingError
from allele_mlflow.matrix.history import await_spooled
from allele_mlflow.matrix.prepared import ENVIRONMENT_FILE, Prepared
from allele_mlflow.matrix.results import (
    Outcome,
    errors_document,
    group_failures,
    results_frame,
)
from allele_mlflow.matrix.superseded import mark_superseded
from allele_mlflow.reports.figures import convergence, objective_by_cell
from allele_mlflow.reports.html import suite_report
from allele_mlflow.reports.markdown import suite_markdown
from allele_mlflow.reports.summary import FailureGroup, Objective, SuiteSummary
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings
from allele_mlflow.units import Direction

_logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
#: Runs of an execution in which anomalies are looked for at its end.
MOST_RUNS = 500


@dataclass
class Published:
    """
    Where a suite's results are.

    Attributes:
        experiment: Its full name; empty where nothing was tracked.
        run_uid: Of the suite's own run; None where nothing was tracked.
        run_url, report: Where a person finds the suite's run and its report.
        is_complete: All is in MLflow.
        pending: Records that wait, of the suite and of its cells, and where.
    """

    experiment: str = ""
    run_uid: str | None = None
    run_id: str | None = None
    run_url: str | None = None
    report: str | None = None
    is_complete: bool = True
    waiting_runs: int = 0
    lost_count: int = 0
    spool: Path | None = None
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """
        What a person is told at the end.
        """
        if not self.experiment:
            return ["not tracked: nothing of this is in MLflow (--track)"]
        found = [f"experiment {self.experiment}, run {self.run_url or self.run_id or '-'}"]
        if self.report is not None:
            found.append(f"report: {self.report}")
        if not self.is_complete:
            found.append(
                f"not all is in MLflow yet: it waits in {self.spool}; "
                f"allele-mlflow sync {self.spool}"
            )
        if self.lost_count:
            found.append(f"{self.lost_count:,} records were lost: allele-mlflow rejected")
        return found + self.notes


class SuiteResults:
    """
    Publishes the outcome of one execution. `publish` is for `SuiteRunner(finish=)`.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        *,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepared = prepared
        self._tick = tick
        self._settings = settings
        self._log: RunLogger | None = None
        self._waiting = 0
        self._notes: list[str] = []
        self._started_ns = now_ns()

    def publish(self, outcome: Outcome, log: RunLogger) -> None:
        """
        Log everything that the trials add up to.
        """
        if not log.handle():
            return
        self._log = log
        frame = results_frame(outcome.rows)
        log.table(frame, "results.csv")
        if outcome.failures:
            log.json(errors_document(outcome.failures), "errors.json")
        self._log_summary(outcome, log)
        self._waiting = await_spooled(
            Path(log.handle()).parent.parent,
            {tags.EXECUTION: log.run_uid},
            timeout_s=log.settings.exit_timeout_s,
            tick=self._tick,
        )
        if not outcome.is_local:
            self._mark_superseded(outcome, log)
        self._log_anomalies(log)
        try:
            self._log_report(outcome, frame, log)
        except Exception as exc:
            _logger.exception("suite %s: no report", self._prepared.suite.name)
            self._notes.append(f"no report: {type(exc).__name__}: {exc}")

    def published(self) -> Published:
        """
        Where everything is, once the suite's logger is closed.
        """
        if self._log is None:
            return Published()
        report = self._log.close()
        found = Published(
            experiment=report.experiment,
            run_uid=self._log.run_uid,
            run_id=report.run_id,
            run_url=report.run_url,
            is_complete=report.is_complete and not self._waiting,
            waiting_runs=self._waiting,
            lost_count=report.ledger.lost,
            spool=report.spool,
            notes=[*self._notes],
        )
        if report.is_complete and report.run_id is not None:
            found.report = self._find_report(report.run_id)
        return found

    def document(self, outcome: Outcome, published: Published) -> dict[str, Any]:
        """
        The results as `--json` shows them.
        """
        frame = results_frame(outcome.rows)
        return {
            "suite": self._prepared.suite.name,
            "experiment": published.experiment,
            "run_id": published.run_id,
            "run_url": published.run_url,
            "report": published.report,
            "is_complete": published.is_complete,
            "notes": published.notes,
            "finished": outcome.finished_count,
            "failed": outcome.failed_count,
            "not_run": outcome.left_count,
            "interrupted": outcome.is_interrupted,
            "seconds": outcome.seconds,
            "errors": errors_document(outcome.failures),
            "results": [_plain(row) for row in frame.to_dict("records")],
        }

    # --- inner -----------------------------------------------------------------------------------

    def _mark_superseded(self, outcome: Outcome, log: RunLogger) -> None:
        counted = {row.run_uid for row in outcome.rows}
        try:
            marked = mark_superseded(self._settings, log.run_uid, counted)
        except TrackingError as exc:
            _logger.warning("suite %s: runs not looked through: %s", log.experiment, exc)
            return
        if marked:
            self._notes.append(f"{len(marked)} finished runs too many: {tags.KIND}=superseded")

    def _log_summary(self, outcome: Outcome, log: RunLogger) -> None:
        numbers = {
            "suite/finished": outcome.finished_count,
            "suite/failed": outcome.failed_count,
            "suite/seconds": outcome.seconds,
        }
        finished = [row for row in outcome.rows if row.failure is None]
        for name in self._prepared.suite.objectives:
            values = [row.metrics[name] for row in finished if name in row.metrics]
            values = [value for value in values if math.isfinite(value)]
            if values:
                numbers[f"objective/{name}/median"] = statistics.median(values)
                numbers[f"objective/{name}/min"] = min(values)
                numbers[f"objective/{name}/max"] = max(values)
        log.metrics(numbers)
        log.tags(
            {
                tags.FINISHED_COUNT: outcome.finished_count,
                tags.FAILED_COUNT: outcome.failed_count,
                tags.NOT_RUN_COUNT: outcome.left_count,
            }
        )

    def _log_report(self, outcome: Outcome, frame: pd.DataFrame, log: RunLogger) -> None:
        summary = self._summary(outcome, frame, log)
        for objective in summary.objectives:
            file = objective.name.replace("/", "_")
            figure = objective_by_cell(
                frame, objective.name, direction=objective.direction, unit=objective.unit
            )
            log.figure(figure, f"figures/{file}_by_cell.html")
            if len(summary.history):
                readings = summary.history[summary.history["key"] == objective.name]
                if len(readings):
                    figure = convergence(readings, objective=objective.name, unit=objective.unit)
                    log.figure(figure, f"figures/{file}_convergence.html")
                    _log_curves(readings, objective, log, file)
        log.text(suite_report(summary), REPORT_FILE)
        log.text(suite_markdown(summary), "report.md")

    def _log_anomalies(self, log: RunLogger) -> None:
        """
        What is wrong within the runs, where they are in MLflow.
        """
        # not above: SciPy brings a BLAS of its own, which the environment would tell of
        from allele_mlflow.analysis.frames import read_experiments
        from allele_mlflow.analysis.suite_anomalies import (
            FILE,
            anomalies_document,
            find_in_runs,
        )
        from allele_mlflow.tracking.reader import open_reader

        if self._settings.is_offline or self._waiting:
            return
        try:
            with contextlib.closing(open_reader(self._settings.tracking_uri)) as reader:
                experiment_id = reader.experiment_id_of(log.experiment)
                frames = read_experiments(
                    reader,
                    [experiment_id] if experiment_id is not None else [],
                    with_tags={tags.EXECUTION: log.run_uid},
                )
                runs = frames.runs
                if len(runs) > MOST_RUNS:
                    self._notes.append(
                        f"anomalies were not looked for in {len(runs):,} runs: "
                        "allele-mlflow anomalies does it"
                    )
                    return
                found = find_in_runs(reader, frames, objectives=self._searched())
        except TrackingError as exc:
            _logger.warning("suite %s: no anomalies: %s", self._prepared.suite.name, exc)
            return
        log.json(anomalies_document(found, runs=len(runs)), FILE)
        if len(found):
            count = f"{len(found)} anomal{'y' if len(found) == 1 else 'ies'}"
            self._notes.append(f"{count} within runs: {FILE}")

    def _searched(self) -> dict[str, Direction]:
        objectives = self._prepared.suite.objectives.items()
        return {name: facts.direction for name, facts in objectives}

    def _summary(self, outcome: Outcome, frame: pd.DataFrame, log: RunLogger) -> SuiteSummary:
        from allele_mlflow.summaries.execution import environment_lines

        suite = self._prepared.suite
        environment = self._prepared.environment
        log.json(msgspec.to_builtins(environment), ENVIRONMENT_FILE)
        gathered = self._from_store(frame)
        notes = [*self._notes]
        if outcome.is_interrupted:
            notes.append("The execution was interrupted: some trials are missing.")
        return SuiteSummary(
            suite=suite.name,
            execution=log.run_uid,
            started_at=datetime.fromtimestamp(self._started_ns / 1e9, tz=UTC),
            ended_at=datetime.fromtimestamp(now_ns() / 1e9, tz=UTC),
            where=", ".join(dict.fromkeys(row.host for row in outcome.rows if row.host)),
            objectives=tuple(
                Objective(name, facts.unit, facts.direction)
                for name, facts in suite.objectives.items()
            ),
            results=frame,
            failures=tuple(
                FailureGroup(
                    group.category.value,
                    group.fingerprint,
                    group.count,
                    f"{group.error_type}: {group.message}",
                    tuple(group.cells),
                )
                for group in group_failures(outcome.failures)
            ),
            planned_count=len(outcome.rows) + outcome.left_count,
            settings={
                "benchmark": suite.benchmark,
                "repeats": suite.repeats,
                "warm-ups": suite.warm_ups,
                "seed": suite.seed,
                "time-out": suite.timeout_s,
                "executor": suite.executor,
            },
            environment=environment_lines(environment),
            notes=tuple(notes),
            **gathered,
        )

    def _from_store(self, frame: pd.DataFrame) -> dict[str, Any]:
        """
        What a summary takes from MLflow: readings of the objectives, the execution before.
        """
        from allele_mlflow.analysis.frames import read_experiments
        from allele_mlflow.analysis.selection import facts_of_suite
        from allele_mlflow.summaries.evidence import (
            compare_with_before,
            find_execution,
            search_curves,
        )
        from allele_mlflow.summaries.execution import SECONDS, objective_history, objectives_of
        from allele_mlflow.tracking.reader import open_reader

        assert self._log is not None
        facts = facts_of_suite(msgspec.to_builtins(self._prepared.suite))
        objectives = objectives_of(facts)
        if not objectives or self._settings.is_offline:
            return {}
        uri = self._settings.tracking_uri
        try:
            with contextlib.closing(open_reader(uri)) as reader:
                experiment_id = reader.experiment_id_of(self._log.experiment)
                frames = read_experiments(
                    reader,
                    [experiment_id] if experiment_id else [],
                    metric_keys=[*(one.name for one in objectives), SECONDS],
                )
                ids = dict(zip(frames.runs["run_uid"], frames.runs["run_id"], strict=True))
                frame["run_id"] = [ids.get(uid) for uid in frame["run_uid"]]
                history, notes = objective_history(reader, frame, [one.name for one in objectives])
            found = find_execution(frames, self._log.run_uid)
            comparison, note = (
                compare_with_before(uri, found, facts=facts, environment=self._prepared.environment)
                if found is not None
                else (None, "")
            )
        except TrackingError as exc:
            self._notes.append(f"No curves, and no comparison with the execution before: {exc}")
            return {}
        self._notes += [*notes, *([note] if note else [])]
        searches = tuple(search_curves(history, objectives))
        return {"history": history, "comparison": comparison, "searches": searches}

    def _find_report(self, run_id: str) -> str | None:
        """
        Path or address of the report of a run that is in MLflow.
        """
        from allele_mlflow.tracking.reader import open_reader

        try:
            with contextlib.closing(open_reader(self._settings.tracking_uri)) as reader:
                runs = reader.runs(
                    with_tags={tags.RUN_UID: self._log.run_uid if self._log else ""},
                    tag_keys=[],
                    param_keys=[],
                    metric_keys=[],
                ).runs
        except TrackingError:
            return None
        for found, uri in zip(runs["run_id"], runs["artifact_uri"], strict=True):
            if found == run_id:
                return report_place(uri)
        return None


def _log_curves(readings: pd.DataFrame, objective: Objective, log: RunLogger, file: str) -> None:
    """
    How good the searches were at any time, where the objective was logged step by step.
    """
    from allele_mlflow.analysis.search_curves import curves_of

    is_search = readings.groupby("run_id")["step"].nunique().gt(1).any()
    is_known = objective.direction is not Direction.NONE
    if not (is_search and is_known and readings["value"].abs().lt(math.inf).any()):
        return
    curves = curves_of(readings, objective.name, objective.direction)
    areas = curves.areas()
    log.table(areas, f"anytime/{file}_areas.csv")
    log.table(curves.running_times(), f"anytime/{file}_running_times.csv")
    log.metric(f"objective/{objective.name}/anytime_area_mean", float(areas["area"].mean()))


def report_place(artifact_uri: str) -> str:
    """
    Where the report lies below a run's artifacts: a path where that is a folder of this machine.
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme in ("", "file"):
        return f"{unquote(parts.path) if parts.scheme else artifact_uri}/{REPORT_FILE}"
    return f"{artifact_uri}/{REPORT_FILE}"


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """
    A row without what JSON has no word for.
    """
    return {
        str(name): None if value is None or value != value else value for name, value in row.items()
    }
