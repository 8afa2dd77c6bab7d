"""
Writing to MLflow what a run adds up to: phase metrics, environment, phases, errors, ledger.

Once at the run's end, and again where processes that outlive the owner bring more.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from allele_mlflow.records import Ledger, RunEnded, RunSpec, RunState
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.sidecar.run_store import RunStore
from allele_mlflow.sidecar.run_summary import run_tags, summary_files, summary_readings
from allele_mlflow.sidecar.uploader import Uploader


class SummaryWriter:
    """
    The summaries of one run, and how far they stand in MLflow already.

    For the event loop only; each call waits until the store takes it. Files are left to the
    uploader, for which nothing waits.
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        state: RunState,
        files: RunFiles,
        store: RunStore,
        uploader: Uploader,
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._state = state
        self._files = files
        self._store = store
        self._uploader = uploader
        #: What stands in MLflow; None where that is not known.
        self._line_count: int | None = None
        self._offered_count: int | None = None
        self._tagged: tuple[RunEnded, Ledger] | None = None

    async def write(self, end: RunEnded) -> None:
        """
        Write the phases' metrics, where there is more than last time.
        """
        line_count = self._files.line_count
        if line_count == self._line_count:
            return
        readings = summary_readings(self._files, end.timestamp_ns)
        for start in range(0, len(readings), self._spec.batch_size):
            batch = readings[start : start + self._spec.batch_size]
            await self._store.insist(partial(self._store.log_batch, readings=batch))
        self._line_count = line_count

    def offer_files(self) -> None:
        """
        Leave phases, errors, environment and dead letters to the uploader, where there is more than
        last time.

        Raises:
            OSError: they cannot be written.
        """
        line_count = self._files.line_count
        if line_count == self._offered_count:
            return
        for name, path in summary_files(self._files, self._folder, self._spec):
            self._uploader.offer_own(f"{self._state.artifact_folder}/{name}", path)
        self._offered_count = line_count

    def has_told(self, end: RunEnded, ledger: Ledger) -> bool:
        """
        Whether the tags say this already.
        """
        return (end, ledger) == self._tagged

    async def tag(self, end: RunEnded, ledger: Ledger, *, cpu_s: float) -> None:
        """
        Write how the run ended and its ledger into its tags.
        """
        tags = run_tags(self._files, end, ledger, cpu_s=cpu_s)
        if await self._store.insist(partial(self._store.log_batch, tags=tags)):
            self._tagged = end, ledger
