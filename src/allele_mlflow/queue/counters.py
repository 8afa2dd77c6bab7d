"""
What was refused or dropped, by reason: words in the stream page, which survive a kill and a full
disk.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections import deque
from typing import NoReturn

from allele_mlflow.queue import layout
from allele_mlflow.records import COUNTED_REASONS, Ledger

#: Nobody counts so far; a larger number is damage, and sums of such would fit nowhere.
MOST_COUNTED = 1 << 48
_INDEX = {reason: index for index, reason in enumerate(COUNTED_REASONS)}


class OwnedDescriptor:
    """
    A file descriptor that is closed with the last reference to it.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """
        Close it now; only where no other thread can be using it.
        """
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a descriptor has one owner: it cannot be copied")


class ReasonCounters:
    """
    One count for each of `records.COUNTED_REASONS`, kept in memory and in the stream page.

    Thread safety: any thread, signal handler or finalizer. Who cannot have the lock leaves its
    count to who holds it, so nobody waits and nobody's addition is overwritten.
    """

    __slots__ = ("_lock", "_target", "_waiting", "_words")

    def __init__(self) -> None:
        self._words = [0] * len(COUNTED_REASONS)
        self._waiting: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self._target: mmap.mmap | OwnedDescriptor | None = None

    def attach(self, target: mmap.mmap | OwnedDescriptor) -> None:
        """
        From now on mirror the counts into a mapped stream page, or through the descriptor of one.
        """
        self._target = target
        self._publish()

    def count(self, reason: str, number: int = 1) -> None:
        """
        Add `number` to a reason.
        """
        self._waiting.append((_INDEX[reason], number))
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(IndexError):
                    while True:
                        index, addition = self._waiting.popleft()
                        self._words[index] += addition
                self._publish()
            finally:
                self._lock.release()

    def as_dict(self) -> dict[str, int]:
        """
        The counts that are not zero.
        """
        return {r: n for r, n in zip(COUNTED_REASONS, self._words, strict=True) if n}

    def _publish(self) -> None:
        if self._target is None:
            return
        data = layout.COUNTERS.pack(*self._words)
        if isinstance(self._target, OwnedDescriptor):
            with contextlib.suppress(OSError):  # in write mode and out of space: the memory has it
                os.pwrite(self._target.descriptor, data, layout.COUNTERS_OFFSET)
        else:
            self._target[layout.COUNTERS_OFFSET : layout.COUNTERS_OFFSET + len(data)] = data


class SharedSum:
    """
    One number that many add to.

    Thread safety: as `ReasonCounters`: who cannot have the lock leaves its addition to who has it.
    """

    __slots__ = ("_lock", "_total", "_waiting")

    def __init__(self) -> None:
        self._total = 0
        self._waiting: deque[int] = deque()
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        """
        Add a number.
        """
        self._waiting.append(number)
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(IndexError):
                    while True:
                        self._total += self._waiting.popleft()
            finally:
                self._lock.release()

    @property
    def total(self) -> int:
        """
        The sum.
        """
        return self._total


def read_counters(page: bytes) -> Ledger:
    """
    The counts in a stream page, as the rejected and dropped parts of a ledger; what can be no count
    is left out.
    """
    ledger = Ledger()
    if len(page) < layout.COUNTERS_OFFSET + layout.COUNTERS.size:
        return ledger
    words = layout.COUNTERS.unpack_from(page, layout.COUNTERS_OFFSET)
    for reason, number in zip(COUNTED_REASONS, words, strict=True):
        if 0 < number <= MOST_COUNTED:
            outcome, _, name = reason.partition(".")
            (ledger.rejected if outcome == "rejected" else ledger.dropped)[name] = number
    return ledger


def find_counter_damage(page: bytes) -> str | None:
    """
    What is wrong with the counts in a stream page, in words; None where nothing is to be seen.
    """
    end = layout.COUNTERS_OFFSET + layout.COUNTERS.size
    if len(page) < end:
        return f"cut short, bytes {len(page)} to {layout.PAGE_BYTES} are gone"
    words = layout.COUNTERS.unpack_from(page, layout.COUNTERS_OFFSET)
    if max(words) > MOST_COUNTED:
        return f"bytes {layout.COUNTERS_OFFSET} to {end}: a count of {max(words)} refused records"
    return None
