"""
Uploading the artifacts of one run, beside the delivery of its numbers: a store for files that does
not work keeps nothing waiting but files.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.queue import spool
from allele_mlflow.queue.uploads import Upload, UploadList
from allele_mlflow.records import RunState
from allele_mlflow.sidecar import retry
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.sidecar.run_store import RunStore

_logger = logging.getLogger(__name__)

POLL_S = 0.05
#: A server says 500 of a name that it cannot keep, as of anything else that goes wrong in it. Tried
#: so often while others were taken, it is the artifact's fault.
FAILURES_OF_ITS_OWN = 8
SERVER_FAULT = 500


@dataclass
class _Trouble:
    """
    An upload that failed: how often, when to try again, and how many others were taken before.
    """

    failures: int = 0
    retry_at_s: float = 0.0
    taken_before: int = 0


class _Own(NamedTuple):
    """
    A file of ours, and who is told of its end.
    """

    file: Path
    on_end: Callable[[TrackingError | None], None] | None


class Uploader:
    """
    One upload in flight at a time; what fails goes to the back, and the others come first, but for
    those of the same path: the last one that came is to stand.

    Args:
        folder: The run's folder.
        uploads: What waits.
        store: The run's side of the store.
        files: Where dead letters go.
        state: Where the store's last words are noted.
        is_due: Whether uploads may be made now.
        pause: Waits until the CPU that was spent is earned.
    """

    def __init__(
        self,
        folder: Path,
        uploads: UploadList,
        *,
        store: RunStore,
        files: RunFiles,
        state: RunState,
        is_due: Callable[[], bool],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._folder = folder
        self._uploads = uploads
        self._store = store
        self._files = files
        self._state = state
        self._is_due = is_due
        self._pause = pause
        self._chance = random.SystemRandom()
        self._troubles: dict[int, _Trouble] = {}
        #: When to try those again that failed, soonest first, and their numbers.
        self._due: list[tuple[float, int]] = []
        #: Number of the last one that was looked at for the first time.
        self._seen_number = 0
        self._taken = 0
        #: Files of ours (not the user's) by artifact path: newest content wins.
        self._own: dict[str, _Own] = {}
        self._own_trouble = _Trouble()
        #: Size of the file that is being uploaded.
        self.bytes_in_flight = 0
        self._news = anyio.Event()

    def offer_own(
        self,
        artifact_path: str,
        file: Path,
        *,
        on_end: Callable[[TrackingError | None], None] | None = None,
    ) -> None:
        """
        Upload a file of ours too, in no ledger; a later one of that path takes its place.

        Args:
            artifact_path: Its whole path in the run.
            file: Stays until it is uploaded.
            on_end: Told when it is in the store, or the error with which that refused it for good.
        """
        self._own[artifact_path] = _Own(file, on_end)
        self.wake()

    @property
    def has_own(self) -> bool:
        """
        Whether files of ours wait.
        """
        return bool(self._own)

    def hurry(self) -> None:
        """
        Somebody began to wait: try everything at once.
        """
        self._due = [(0.0, number) for _, number in sorted(self._due)]
        self._own_trouble.retry_at_s = 0.0
        self.wake()

    def wake(self) -> None:
        """
        Something came to be uploaded.
        """
        self._news.set()

    async def run(self) -> None:
        """
        Upload what waits, and what comes, until it is cancelled.
        """
        while True:
            if self._is_due() and await self._upload_next():
                continue
            is_waiting = self._own or self._uploads.has_waiting()
            with anyio.move_on_after(POLL_S if is_waiting else math.inf):
                await self._news.wait()
            self._news = anyio.Event()

    async def _upload_next(self) -> bool:
        """
        Try one; False where none is due.
        """
        upload = self._take_fresh() or self._take_due(now_monotonic_s())
        if upload is not None:
            await self._upload(upload)
        elif self._own and self._own_trouble.retry_at_s <= now_monotonic_s():
            await self._upload_own()
        else:
            return False
        return True

    def _take_fresh(self) -> Upload | None:
        """
        The next one that was never tried; one that has to wait for another of its path is passed
        over.
        """
        while self._seen_number < self._uploads.last_number:
            self._seen_number += 1
            upload = self._uploads.find(self._seen_number)
            if upload is not None and self._is_first(upload):
                return upload
        return None

    def _take_due(self, now_s: float) -> Upload | None:
        while self._due and self._due[0][0] <= now_s:
            upload = self._uploads.find(heapq.heappop(self._due)[1])
            if upload is not None and self._is_first(upload):
                return upload
        return None

    def _is_first(self, upload: Upload) -> bool:
        return self._uploads.first_of(upload.artifact.artifact_path) == upload

    def _settle(self, upload: Upload, rejected: str | None = None) -> None:
        self._uploads.settle(upload, rejected)
        self._troubles.pop(upload.number, None)
        following = self._uploads.first_of(upload.artifact.artifact_path)
        if following is not None and following.number <= self._seen_number:
            heapq.heappush(self._due, (now_monotonic_s(), following.number))

    async def _upload(self, upload: Upload) -> None:
        artifact = upload.artifact
        self.bytes_in_flight = artifact.size_bytes
        try:
            cost = await self._store.call(partial(self._store.upload, artifact), is_upload=True)
        except PermanentTrackingError as exc:
            if exc.kind is ErrorKind.NOT_FOUND:  # the run, which may come back
                self._fail(upload, exc)
            else:
                self._refuse(upload, str(exc.facts.get("reason", "store")), str(exc))
            return
        except TrackingError as exc:
            self._fail(upload, exc)
            return
        finally:
            self.bytes_in_flight = 0
        self._taken += 1
        self._state.last_error = None
        self._settle(upload)
        self._remove_copy(upload)
        await self._pause(cost.cpu_s)

    async def _upload_own(self) -> None:
        path, own = next(iter(self._own.items()))
        refusal: TrackingError | None = None
        try:
            work = partial(self._store.log_artifact, own.file, path)
            await self._store.call(work, is_upload=True)
        except TransientTrackingError as exc:
            self._note(self._own_trouble, exc)
            return
        except TrackingError as exc:
            _logger.warning("artifact %s of the run: %s", path, exc)
            refusal = exc
        else:
            self._taken += 1
        self._own_trouble = _Trouble()
        if self._own.get(path) is own:
            del self._own[path]
            if own.on_end is not None:
                own.on_end(refusal)

    def _fail(self, upload: Upload, exc: TrackingError) -> None:
        trouble = self._troubles.setdefault(upload.number, _Trouble(taken_before=self._taken))
        self._note(trouble, exc)
        heapq.heappush(self._due, (trouble.retry_at_s, upload.number))
        is_alone_in_it = self._taken > trouble.taken_before
        if (
            exc.facts.get("http_status") == SERVER_FAULT
            and is_alone_in_it
            and trouble.failures >= FAILURES_OF_ITS_OWN
        ):
            self._refuse(upload, "store", str(exc))

    def _note(self, trouble: _Trouble, exc: TrackingError) -> None:
        self._state.last_error = str(exc)
        _logger.warning("%s", exc)
        after_s = exc.retry_after_s if isinstance(exc, TransientTrackingError) else None
        delay_s = retry.delay_s(trouble.failures, retry_after_s=after_s, chance=self._chance)
        trouble.retry_at_s = now_monotonic_s() + delay_s
        trouble.failures += 1

    def _refuse(self, upload: Upload, reason: str, words: str) -> None:
        self._files.note_refused("artifact", upload.artifact, reason, words)
        self._settle(upload, rejected=reason)
        self._remove_copy(upload)

    def _remove_copy(self, upload: Upload) -> None:
        if upload.artifact.copied:
            with contextlib.suppress(OSError):
                (self._folder / spool.ARTIFACTS / upload.artifact.source).unlink()
