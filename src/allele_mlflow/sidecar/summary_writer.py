"""
Writing to MLflow what a run adds up to: phase metrics, environment, phases, errors, ledger, and all
readings of thinned keys.

Once at the run's end, and again where processes that outlive the owner bring more.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from allele_mlflow.errors import TrackingError
from allele_mlflow.queue import spool
from allele_mlflow.records import Ledger, RunEnded, RunSpec, RunState
from allele_mlflow.sidecar import retry
from allele_mlflow.sidecar.full_readings import FullReadings
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.sidecar.run_store import RunStore
from allele_mlflow.sidecar.run_summary import run_tags, summary_files, summary_readings
from allele_mlflow.sidecar.uploader import Uploader

_logger = logging.getLogger(__name__)


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
        self._chance = random.SystemRandom()
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

    async def offer_readings(self, readings: FullReadings) -> None:
        """
        Write all readings of thinned keys into one file, however long there is no room for it, and
        leave it to the uploader. Where the store refuses it for good, it is kept.
        """
        attempt = 0
        while True:
            try:
                path = await anyio.to_thread.run_sync(readings.write, self._folder)
                break
            except OSError as exc:
                self._state.last_error = f"the artifact of all readings: {exc}"
                _logger.warning("run %s: %s", self._spec.run_uid, self._state.last_error)
            await anyio.sleep(retry.delay_s(attempt, retry_after_s=None, chance=self._chance))
            attempt += 1
        self._uploader.offer_own(
            f"{self._state.artifact_folder}/{path.name}", path, on_end=partial(self._keep, path)
        )

    def _keep(self, path: Path, refusal: TrackingError | None) -> None:
        if refusal is None:
            path.unlink(missing_ok=True)
            return
        kept = self._folder / spool.DAMAGED / f"{self._spec.created_ns}-{path.name}"
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        path.rename(kept)
        self._state.damage.append(f"{kept.name}, kept here, was refused by the store: {refusal}")

    def has_told(self, end: RunEnded, ledger: Ledger) -> bool:
        """
        Whether the tags say this already.
        """
        return (end, ledger) == self._tagged

    async def tag(self, end: RunEnded, ledger: Ledger, *, cpu_s: float) -> None:
        """
        Write how the run ended and its ledger into its tags.
        """
        has_rules = bool(self._spec.alert_rules)
        tags = run_tags(self._files, end, ledger, cpu_s=cpu_s, has_rules=has_rules)
        if await self._store.insist(partial(self._store.log_batch, tags=tags)):
            self._tagged = end, ledger
