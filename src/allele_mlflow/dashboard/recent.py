"""
Answers that are kept for seconds: a page and its figures ask the same, and many threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar, cast

from allele_mlflow.clock import now_monotonic_s

T = TypeVar("T")

#: Long enough for a page to fetch its figures; each answer may be of 10,000 runs, some 10 MB.
KEPT_S = 8.0
MOST_KEPT = 2


class _Entry:
    """
    One answer, made by whoever asks first while the others wait.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.made_s: float | None = None
        self.value: Any = None


class RecentAnswers:
    """
    A few answers by what was asked. Thread-safe.
    """

    def __init__(self, *, kept_s: float = KEPT_S, most: int = MOST_KEPT) -> None:
        self._kept_s = kept_s
        self._most = most
        self._lock = Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """
        What `make` returned for this key a moment ago, or returns now. An error is kept for nobody.
        """
        with self._lock:
            self._forget()
            entry = self._entries.setdefault(key, _Entry())
            while len(self._entries) > self._most:
                self._entries.pop(next(iter(self._entries)))
        with entry.lock:
            if entry.made_s is None or now_monotonic_s() - entry.made_s > self._kept_s:
                entry.value = make()
                entry.made_s = now_monotonic_s()
            return cast(T, entry.value)

    def _forget(self) -> None:
        now_s = now_monotonic_s()
        old = [
            key
            for key, entry in self._entries.items()
            if entry.made_s is not None and now_s - entry.made_s > self._kept_s
        ]
        for key in old:
            del self._entries[key]
