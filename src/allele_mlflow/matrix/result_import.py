"""
Bringing results that another runner has written into MLflow: a run for each finished entry, below
one run for the import.

Straight through `Tracking` and not through a logger: these readings have times of their own, and
nobody waits for the call. Every run's uid is made of its entry, so an import that was cut off is
begun again and goes on, and a file that has grown brings what is new.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from allele_mlflow import settings as settings_module
from allele_mlflow import suite_tags as tags
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import ErrorKind, PermanentTrackingError, SettingsError
from allele_mlflow.matrix.imported_entry import (
    KIND_OF_IMPORT,
    ImportedRun,
    MalformedEntryError,
    plan_entry,
    uid_of,
)
from allele_mlflow.matrix.json_entries import EntryReader
from allele_mlflow.records import RunId
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.store import open_store
from allele_mlflow.tracking import limits
from allele_mlflow.tracking.protocol import Tracking

#: On a run of which everything is there.
DONE_TAG = "allele.imported.done"
FILE_TAG = "allele.imported.file"
#: Artifact of each run: its entry, whole.
ENTRY_ARTIFACT = "allele/imported_entry.json"
#: A larger entry is not kept as a file too.
MOST_ARTIFACT_BYTES = 16 << 20
#: Of the entries that could not be imported, so many are named.
MOST_NAMED = 100
_DONE = "true"
_SHOWN_KEY = 200


@dataclass
class ImportReport:
    """
    What an import did.

    Attributes:
        experiment: Its full name.
        suite: What the entries are a part of.
        created_count: Runs that were made, or finished where an earlier import had been cut off.
        failed_count: Those of them whose entry tells of an error.
        present_count: Runs that were there already.
        malformed_count: Entries that are no finished results, or that the store refused.
        malformed: The first of them: key, and why.
        problem: Why the file may hold more that could not be read.
        run_id, run_url: The run above all; None where there is no entry at all.
    """

    experiment: str
    suite: str
    created_count: int = 0
    failed_count: int = 0
    present_count: int = 0
    malformed_count: int = 0
    malformed: list[tuple[str, str]] = field(default_factory=list)
    problem: str | None = None
    run_id: str | None = None
    run_url: str | None = None

    @property
    def is_complete(self) -> bool:
        """
        Whether every entry of the file is in MLflow.
        """
        return self.problem is None and not self.malformed_count

    def line(self) -> str:
        """
        The counts, for people.
        """
        parts = [f"{self.created_count:,} imported ({self.failed_count:,} of them failed runs)"]
        if self.present_count:
            parts.append(f"{self.present_count:,} there already")
        if self.malformed_count:
            parts.append(f"{self.malformed_count:,} could not be imported")
        return f"{self.experiment}: {', '.join(parts)}"


def import_results(
    path: Path,
    *,
    settings: Settings | None = None,
    tracking: Tracking | None = None,
    experiment: str | None = None,
    name: str | None = None,
    owns_process: bool = False,
    on_entry: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """
    Import the `results.json` or `checkpoint.json` of a matrix that Allele's own scripts have run.

    Args:
        path: The file: one JSON object of entries, see `imported_entry`.
        settings: Which store; those of the environment by default.
        tracking: A store that is open already.
        experiment: Its name behind the setting `experiment_prefix`; `name` by default.
        name: Of the suite; that of the file's folder by default, so that a checkpoint and the
            results beside it are one import.
        owns_process: Whether MLflow's environment may be arranged for this alone, as in a command.
        on_entry: Called after each entry with the counts so far.
    Raises:
        RecordError: no file that can be read, or no JSON object. One bad entry raises nothing.
        SettingsError: there is no store, because the setting says offline.
        TrackingError: the store does not answer; importing again goes on.

    Cost: one entry in memory; five calls of the store or more for an entry, two for one that is
    there.
    """
    settings = settings or settings_module.load()
    if tracking is None and settings.is_offline:
        raise SettingsError(
            "tracking_uri='offline': want a store to import into, e.g. sqlite:///mlflow.db",
            kind=ErrorKind.BAD_SETTING,
        )
    path = path.absolute()
    name = name or path.parent.name or path.stem
    report = ImportReport(f"{settings.experiment_prefix}{experiment or name}", name)
    reader = EntryReader(path)
    entries = iter(reader)
    first = next(entries, None)  # a file that is none is told before a store is opened
    if first is not None:
        store = (
            tracking if tracking is not None else open_store(settings, owns_process=owns_process)
        )
        try:
            _Import(store, settings, report, path).run(first, entries, on_entry)
        finally:
            if tracking is None:
                store.close()
    report.problem = reader.problem
    return report


class _Import:
    """
    One file on its way into one experiment.
    """

    def __init__(
        self, tracking: Tracking, settings: Settings, report: ImportReport, path: Path
    ) -> None:
        self._tracking = tracking
        self._report = report
        self._path = path
        self._began_ms = now_ns() // 1_000_000
        self._parent: RunId | None = None
        self._end_ms = 0
        self._experiment_id = tracking.ensure_experiment(
            report.experiment, artifact_location=settings.experiment_artifact_location
        )

    def run(
        self,
        first: tuple[str, object],
        entries: Iterator[tuple[str, object]],
        on_entry: Callable[[ImportReport], None] | None,
    ) -> None:
        """
        Import one entry after another.
        """
        for key, value in chain([first], entries):
            self._import_entry(key, value)
            if on_entry is not None:
                on_entry(self._report)
        parent = self._parent
        if parent is not None and (self._report.created_count or not self._is_done(parent)):
            self._tracking.end_run(parent, "FINISHED", self._end_ms)
            self._tracking.log_batch(parent, tags={DONE_TAG: _DONE})

    def _import_entry(self, key: str, value: object) -> None:
        report = self._report
        try:
            planned = plan_entry(key, value, suite=report.suite, now_ms=self._began_ms)
            parent = self._open_parent(planned.start_ms)
            self._end_ms = max(self._end_ms, planned.end_ms)
            run_id = self._tracking.find_run(self._experiment_id, planned.run_uid)
            if run_id is not None and self._is_done(run_id):
                report.present_count += 1
                return
            self._write(planned, run_id or self._create(planned, parent), value)
        except MalformedEntryError as exc:
            self._note_malformed(key, str(exc))
        except PermanentTrackingError as exc:
            if exc.kind is not ErrorKind.REFUSED:  # of the store, and not of this entry
                raise
            self._note_malformed(key, f"the store refused it: {exc}")
        else:
            report.created_count += 1
            report.failed_count += planned.status == "FAILED"

    def _note_malformed(self, key: str, reason: str) -> None:
        self._report.malformed_count += 1
        if len(self._report.malformed) < MOST_NAMED:
            told = key[:_SHOWN_KEY].encode("utf-8", "replace").decode()
            self._report.malformed.append((told, reason))

    def _is_done(self, run_id: RunId) -> bool:
        return self._tracking.look_at_run(run_id).tags.get(DONE_TAG) == _DONE

    def _open_parent(self, start_ms: int) -> RunId:
        """
        The run above all, made with the first entry that needs it.
        """
        if self._parent is not None:
            return self._parent
        suite, uid = self._report.suite, uid_of(self._report.suite)
        found = self._tracking.find_run(self._experiment_id, uid)
        if found is None:
            found = self._tracking.create_run(
                self._experiment_id,
                run_name=suite[: limits.RUN_NAME_LENGTH],
                start_ms=start_ms,
                tags=self._origin(uid) | {tags.KIND: KIND_OF_IMPORT, tags.SUITE: suite},
            )
        self._parent = found
        self._report.run_id = found
        self._report.run_url = self._tracking.run_url(self._experiment_id, found)
        return found

    def _create(self, planned: ImportedRun, parent: RunId) -> RunId:
        more = {"mlflow.parentRunId": parent, tags.EXECUTION: uid_of(self._report.suite)}
        return self._tracking.create_run(
            self._experiment_id,
            run_name=planned.run_name,
            start_ms=planned.start_ms,
            tags=planned.tags | self._origin(planned.run_uid) | more,
        )

    def _origin(self, run_uid: str) -> dict[str, str]:
        source = str(self._path).encode("utf-8", "replace").decode()[: limits.TAG_VALUE_LENGTH]
        return {
            "allele.run_uid": run_uid,
            FILE_TAG: source,
            "mlflow.source.name": source,
            "mlflow.source.type": "LOCAL",
        }

    def _write(self, planned: ImportedRun, run_id: RunId, value: object) -> None:
        """
        All of an entry; what an earlier import had written already is written once more, which
        changes nothing.
        """
        tracking = self._tracking
        params = list(planned.params.items())
        for start in range(0, len(params), limits.PARAMS_PER_CALL):
            tracking.log_batch(run_id, params=dict(params[start : start + limits.PARAMS_PER_CALL]))
        size = max(limits.METRICS_PER_CALL, tracking.readings_per_call)
        for start in range(0, len(planned.readings), size):
            tracking.log_batch(run_id, readings=planned.readings[start : start + size])
        text = json.dumps(value, indent=1).encode()
        if len(text) <= MOST_ARTIFACT_BYTES:
            with tempfile.TemporaryDirectory(prefix="allele-mlflow-") as folder:
                file = Path(folder) / "entry.json"
                file.write_bytes(text)
                tracking.log_artifact(run_id, file, ENTRY_ARTIFACT)
        tracking.end_run(run_id, planned.status, planned.end_ms)
        # last: what has it is whole
        tracking.log_batch(run_id, tags={DONE_TAG: _DONE})
