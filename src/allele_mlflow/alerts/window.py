"""
The readings of the last seconds, in constant memory: what a rule with a window looks at.

A window is kept in up to `PARTS` parts of equal length, each summed up, so that a million readings
cost no more than sixty. It therefore reaches back by up to one part more than its length. Which
reading lies in which part is a matter of its timestamp alone, so reading them again gives the same.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from allele_mlflow.records import Reading

PARTS = 60


@dataclass(slots=True)
class Summary:
    """
    What some readings add up to, in their order.

    Attributes:
        first: The first that is a number, else the first.
        last: The last that is a number, else the first.
        count: Numbers, infinities among them.
        total: Their sum.
        low: The least of them.
        high: The greatest.
        infinities: How many are infinite.
        nans: Readings that are no number.
    """

    first: Reading
    last: Reading
    count: int
    total: float
    low: float
    high: float
    infinities: int = 0
    nans: int = 0

    @property
    def readings(self) -> int:
        """
        How many there are in all.
        """
        return self.count + self.nans

    @property
    def non_finite(self) -> int:
        """
        How many are infinite or no number.
        """
        return self.infinities + self.nans

    def copy(self) -> Summary:
        """
        The same, to be added to.
        """
        return Summary(
            self.first,
            self.last,
            self.count,
            self.total,
            self.low,
            self.high,
            self.infinities,
            self.nans,
        )

    def add(self, other: Summary) -> None:
        """
        Take in what came after.
        """
        if other.count:
            self.first = self.first if self.count else other.first
            self.last = other.last
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.infinities += other.infinities
        self.nans += other.nans


def summary_of(reading: Reading) -> Summary:
    """
    One reading as a summary.
    """
    value = reading.value
    if math.isnan(value):
        return Summary(reading, reading, 0, 0.0, math.inf, -math.inf, nans=1)
    return Summary(reading, reading, 1, value, value, value, infinities=int(math.isinf(value)))


class Window:
    """
    The readings of one key up to `size_s` before the newest. Pure; not thread-safe.

    Cost: of a reading constant, but for the first of a part, which sums up to `PARTS` parts anew.
    """

    def __init__(self, size_s: float) -> None:
        self._part_ms = max(1, round(size_s * 1000) // PARTS)
        self._reach = max(1, round(size_s * 1000) // self._part_ms)
        self._parts: deque[tuple[int, Summary]] = deque()
        #: Of all parts but the newest.
        self._closed: Summary | None = None

    def add(self, reading: Reading) -> Summary:
        """
        Take in the next reading; what the window adds up to with it.

        One that is a little late counts for the newest part. One from before the window says that
        the clock was set back: the window begins anew.
        """
        number = reading.timestamp_ms // self._part_ms
        found = summary_of(reading)
        newest = self._parts[-1][0] if self._parts else number - 1
        if number < newest - self._reach:
            self._parts.clear()
        elif self._parts and number <= newest:
            self._parts[-1][1].add(found)
            return self._sum()
        self._parts.append((number, found))
        while self._parts[0][0] < number - self._reach:
            self._parts.popleft()
        self._closed = self._sum_of_closed()
        return self._sum()

    def _sum(self) -> Summary:
        newest = self._parts[-1][1]
        if self._closed is None:
            return newest
        found = self._closed.copy()
        found.add(newest)
        return found

    def _sum_of_closed(self) -> Summary | None:
        closed: Summary | None = None
        for _, part in list(self._parts)[:-1]:
            if closed is None:
                closed = part.copy()
            else:
                closed.add(part)
        return closed
