"""
What the sidecar asks of a tracking store; the one seam between delivery and MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from allele_mlflow.records import Reading, RunId, RunStatus


class RunGlance(NamedTuple):
    """
    Where a run is and what it says of itself.
    """

    experiment_id: str
    tags: Mapping[str, str]


class Tracking(Protocol):
    """
    A store of runs. Every method blocks, may be called from any thread, and raises only
    TrackingError.

    Raises (all methods):
        TransientTrackingError: the same call may succeed later.
        PermanentTrackingError: the same call never will.

    Every implementation passes `tests/integration/test_tracking_contract.py`.
    """

    @property
    def is_idempotent(self) -> bool:
        """
        Whether a second `log_batch` with the same readings changes nothing (MLflow's SQL stores).
        """

    @property
    def writes_by(self) -> str:
        """
        What writes batches, in a few words for a person; empty where that is not known yet.
        """

    @property
    def readings_per_call(self) -> int:
        """
        How many readings one `log_batch` writes in one transaction, where these may be more than
        MLflow takes in a call; else 0.
        """

    def ensure_experiment(self, name: str, *, artifact_location: str | None) -> str:
        """
        The id of the experiment of that name, created (or restored if deleted) where it must be.
        """

    def find_run(self, experiment_id: str, run_uid: str) -> RunId | None:
        """
        The run tagged with `run_uid`, the oldest where there are several, else None.
        """

    def create_run(
        self, experiment_id: str, *, run_name: str | None, start_ms: int, tags: Mapping[str, str]
    ) -> RunId:
        """
        A new RUNNING run. Not idempotent: after an error of unknown outcome call `find_run` first.
        """

    def look_at_run(self, run_id: RunId) -> RunGlance:
        """
        An existing run's experiment and tags.
        """

    def reopen_run(self, run_id: RunId) -> str:
        """
        Mark an existing run RUNNING again and return its experiment id (resuming by `run_id`).
        """

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        One call to MLflow's `log_batch`; the caller keeps to `tracking.limits`.
        """

    def log_artifact(self, run_id: RunId, file: Path, artifact_path: str) -> None:
        """
        Upload `file` so that it is found at `artifact_path` (a whole path, with its name) of the
        run.
        """

    def end_run(self, run_id: RunId, status: RunStatus, end_ms: int) -> None:
        """
        Set the run's final status and end time.
        """

    def run_url(self, experiment_id: str, run_id: RunId) -> str:
        """
        Where a person finds the run: a page of the server, or for a local store the `mlflow ui`
        address part.
        """

    def close(self) -> None:
        """
        Give back connections.
        """
