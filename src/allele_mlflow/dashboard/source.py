"""
What pages are made of: the store and the spools, each asked by a few threads at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import TypeVar

import anyio
import anyio.to_thread

from allele_mlflow.analysis.selection import SuiteFacts, read_facts
from allele_mlflow.dashboard.recent import RecentAnswers
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.registries import RegistrySource
from allele_mlflow.errors import AlleleMlflowError
from allele_mlflow.references import Stage
from allele_mlflow.registry.gates import Policy
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.tracking.reader import load_client, open_reader
from allele_mlflow.tracking.schema import sqlite_path
from allele_mlflow.watching.spools import find_all_spools

T = TypeVar("T")

#: Threads that ask the store, and so readers that are open, at most: the machine has other work,
#: and each holds some memory for good. Others look into spools for pages that are kept up to date.
MOST_THREADS = 2
MOST_LOOKING_THREADS = 2
#: Suites whose file is kept: it never changes.
KEPT_FACTS = 256


class Source:
    """
    The store of some settings and the spools of this user. Changes nothing in them.

    Thread-safe. A reader is none: each thread that asks has one to itself meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        spools: list[Path] | None = None,
        policies: Mapping[Stage, Policy] | None = None,
    ) -> None:
        """
        Args:
            settings: Where the store is, and what experiments begin with.
            spools: To look into; by default all that are known. An empty list for none.
            policies: What stages ask for; by default what is usual.
        """
        self.settings = settings
        self.registries = RegistrySource(settings, policies)
        self._spools = spools
        self._idle: list[Reader] = []
        self._facts: dict[str, SuiteFacts] = {}
        #: What a page and its figures ask alike.
        self.recent = RecentAnswers()
        self._lock = Lock()
        self._limiters: dict[str, anyio.CapacityLimiter] = {}
        #: Set when the server is about to end: whoever streams comes to an end too.
        self.is_closing = False

    @property
    def tracking_uri(self) -> str:
        """
        The store's address.
        """
        return self.settings.tracking_uri

    def problem(self) -> str | None:
        """
        Why there is no store to look into, and what to do; None where there may be one.
        """
        path = sqlite_path(self.tracking_uri)
        if path is None or path.exists():
            return None
        return (
            f"there is no store at {mask_secrets(self.tracking_uri)} yet: allele-mlflow run SUITE "
            "makes it, or the first run that is logged; allele-mlflow dashboard --tracking-uri "
            "looks into another one"
        )

    async def ask(self, question: Callable[[], T]) -> T:
        """
        What a function that may block returns, from a thread of its own.
        """
        return await self._run(question, "ask", MOST_THREADS)

    async def look(self, question: Callable[[], T]) -> T:
        """
        The same for short questions that come again and again: they wait for no long one.
        """
        return await self._run(question, "look", MOST_LOOKING_THREADS)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """
        A reader of the store, for one thread. After an error it is not used again.

        Raises:
            TrackingError: the store does not answer.
            RefusalError: 503: there is no store.
        """
        if self.settings.is_offline:
            raise RefusalError(503, "the tracking URI is offline: there is no store to look into")
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        reader = reader or open_reader(self.tracking_uri)
        try:
            yield reader
        except BaseException:  # nothing is kept from anybody: its connection is in doubt
            reader.close()
            raise
        with self._lock:
            self._idle.append(reader)

    def facts(self, run_id: str) -> SuiteFacts:
        """
        What a suite says of itself in the artifacts of its own run.

        Raises:
            TrackingError: the store does not answer.
        """
        with self._lock:
            kept = self._facts.get(run_id)
        if kept is not None:
            return kept
        found = read_facts(self.tracking_uri, run_id)
        if found.metrics:  # else they may come yet
            with self._lock:
                self._facts[run_id] = found
                while len(self._facts) > KEPT_FACTS:
                    self._facts.pop(next(iter(self._facts)))
        return found

    def warm_up(self) -> None:
        """
        Load what the first pages would wait for, before there are threads: some seconds.
        """
        load_client()
        with contextlib.suppress(AlleleMlflowError, RefusalError):
            with self.reader():
                pass  # only a store that is there: MLflow would make it
            self.facts("none")

    def spools(self) -> list[Path]:
        """
        The spools to look into.
        """
        if self._spools is not None:
            return self._spools
        return find_all_spools(self.settings.spool_dir)

    def close(self) -> None:
        """
        Give back connections.
        """
        with self._lock:
            readers, self._idle = self._idle, []
        for reader in readers:
            reader.close()

    async def _run(self, question: Callable[[], T], kind: str, most: int) -> T:
        if kind not in self._limiters:
            self._limiters[kind] = anyio.CapacityLimiter(most)
        return await anyio.to_thread.run_sync(question, limiter=self._limiters[kind])
