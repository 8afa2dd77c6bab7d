"""
A clean-up as it was planned, one run after another; whatever is reached by then is spared.

Ctrl-C and kills are safe at any point. A run says in a tag that its clean-up began before anything
of it is deleted, and that it is done afterwards: the next clean-up goes on with what is left.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from allele_mlflow.clock import now_monotonic_s, now_ns, utc_iso
from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.registry.reachability import KnownRun
from allele_mlflow.registry.retention import (
    OVER,
    Decision,
    Mark,
    begin_mark,
    read_mark,
)
from allele_mlflow.registry.retention_files import going_files, going_paths
from allele_mlflow.registry.retention_plan import (
    MOST_FAILURES,
    PIN_TAG,
    RETENTION_TAG,
    OnProgress,
    RetentionPlan,
    reached_runs,
    read_runs,
)
from allele_mlflow.registry.retention_roots import Registries
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.reader import open_reader
from allele_mlflow.tracking.run_artifacts import RunArtifacts, RunLook

#: Everything that reaches a run is read again before the first run and so many seconds later; where
#: that takes long, less often.
CHECK_INTERVAL_S = 30.0
_CHECK_SHARE = 5


class Left(NamedTuple):
    """
    A run whose artifacts are still there, or some of them, and why.
    """

    run_id: str
    why: str


@dataclass
class Deletions:
    """
    What became of a plan so far.

    Attributes:
        runs, files, size_bytes: That are gone.
        spared: Reached meanwhile.
        failed: Something went wrong; the next clean-up goes on with them.
    """

    runs: int = 0
    files: int = 0
    size_bytes: int = 0
    spared: list[Left] = field(default_factory=list)
    failed: list[Left] = field(default_factory=list)


class RetentionDeletion:
    """
    Deletes what a plan says. `done` tells at any time what became of it.

    Args:
        settings: Those that were planned with.
        registries: The same, whose evidence is known by now.
    """

    def __init__(self, settings: Settings, registries: Registries) -> None:
        self.done = Deletions()
        self._settings = settings
        self._registries = registries
        self._artifacts = RunArtifacts(settings.tracking_uri)

    def delete(
        self, plan: RetentionPlan, *, on_progress: OnProgress = lambda doing, done, total: None
    ) -> None:
        """
        Delete one run's artifacts after another; what fails does not stop the rest.

        Raises:
            RegistryError: what is reached cannot be told any more (UNCLEAR); the rest stays.
            TrackingError: a store or registry does not answer any more; the rest stays.
        """
        reached: Mapping[str, str] = {}
        failures, total, due_s = 0, len(plan.deleted), -math.inf
        for number, decision in enumerate(plan.deleted):
            if (begin_s := now_monotonic_s()) > due_s:
                reached = self._reached()
                taken_s = now_monotonic_s() - begin_s
                due_s = begin_s + max(CHECK_INTERVAL_S, _CHECK_SHARE * taken_s)
            on_progress("deleting", number, total)
            try:
                self._perform(decision, reached)
                failures = 0
            except TrackingError as exc:
                self.done.failed.append(Left(decision.run.run_id, str(exc)))
                failures += isinstance(exc, TransientTrackingError)
                if failures >= MOST_FAILURES:
                    raise

    def _reached(self) -> dict[str, str]:
        with contextlib.closing(open_reader(self._settings.tracking_uri)) as reader:
            return reached_runs(read_runs(reader), self._registries)

    def _perform(self, decision: Decision, reached: Mapping[str, str]) -> None:
        run = decision.run
        present = self._artifacts.look(run.run_id)
        why = reached.get(run.run_id) or self._newly_reached(run, present)
        if why is not None:
            self.done.spared.append(Left(run.run_id, why))
            return
        sizes_bytes = self._artifacts.sizes(run.artifact_uri)
        before = read_mark(present.tags.get(RETENTION_TAG))
        mark = begin_mark(before, sizes_bytes, why=decision.why, time=utc_iso(now_ns()))
        self._tell(run.run_id, mark)
        self._artifacts.delete(run.artifact_uri, going_paths(sizes_bytes))
        left = going_files(self._artifacts.sizes(run.artifact_uri))
        if left:
            raise PermanentTrackingError(
                f"the store says that it deleted {left[0]!r}, and {len(left)} such files are there",
                kind=ErrorKind.REFUSED,
            )
        self._tell(run.run_id, msgspec.structs.replace(mark, state="done"))
        self.done.runs += 1
        self.done.files += len(going_files(sizes_bytes))
        self.done.size_bytes += sum(sizes_bytes[path] for path in going_files(sizes_bytes))

    def _newly_reached(self, run: KnownRun, present: RunLook) -> str | None:
        """
        Why a run stays after all, by what it, the run above it and the registries say just now.
        """
        if not present.is_active or present.status not in OVER:
            return "it goes on, or was deleted in MLflow"
        if PIN_TAG in present.tags or (run.parent is not None and self._is_pinned(run.parent)):
            return "pinned"
        versions = self._registries.versions_of_run(run.run_id)
        return f"version {versions[0]}" if versions else None

    def _is_pinned(self, run_id: str) -> bool:
        try:
            return PIN_TAG in self._artifacts.look(run_id).tags
        except PermanentTrackingError as exc:
            if exc.kind is not ErrorKind.NOT_FOUND:
                raise
            return False  # gone from the store

    def _tell(self, run_id: str, mark: Mark) -> None:
        self._artifacts.tag(run_id, RETENTION_TAG, msgspec.json.encode(mark).decode())
