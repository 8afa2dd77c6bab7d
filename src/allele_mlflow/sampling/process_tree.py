"""
A benchmark's processes from outside: CPU, memory, threads, descriptors and I/O of the whole tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from allele_mlflow.clock import process_cpu_s
from allele_mlflow.sampling.probe import RateMeter
from allele_mlflow.sampling.process_reader import (
    ProcessReader,
    ProcessReading,
    system_reader,
)

#: The next look for new children waits 200 times what the last one cost: at most 0.5 % of a core.
_DISCOVERY_SPACING = 200.0
_PSS_SPACING_S = 10.0
_PSS_COST_LIMIT_S = 0.020
#: Cost of PSS before the first was taken, and the least it is ever believed to be (huge pages).
_PSS_FIRST_S_PER_BYTE = 20e-12
_PSS_LEAST_S_PER_BYTE = 5e-12
#: Each skipped PSS makes the estimate a little smaller, so that one slow reading is not the last.
_PSS_FORGIVENESS = 0.9
_BYTES_PER_MB = 1e6


class ProcessTree:
    """
    The followed processes and all their descendants, without the sidecar and its children.

    A process is known by pid and birth, so a pid that the system gave to somebody else is not
    followed. A descendant stays followed when its parent ends. CPU time is counted per process: one
    that is first seen among a known process's children counts from its birth; one that ended and
    was waited for comes with the children time of who waited (so do those that no look ever saw);
    one that nobody waited for contributes what was last seen.

    Thread safety: none; one owner.
    Cost: about 0.1 ms of CPU a process and look.
    """

    name = "process_tree"
    unavailable = None

    def __init__(
        self,
        root_pids: Iterable[int],
        *,
        excluded_pids: Collection[int] | None = None,
        reader: ProcessReader | None = None,
        cpu_clock: Callable[[], float] = process_cpu_s,
    ) -> None:
        self._reader = reader if reader is not None else system_reader()
        self._cpu_clock = cpu_clock
        self._excluded = {os.getpid()} if excluded_pids is None else set(excluded_pids)
        self._members: dict[int, ProcessReading] = {}
        self._cpu_total_s = 0.0
        self._cpu = RateMeter()
        self._io = _IoTotals(self._reader)
        self._pss = _PssMeter(self._reader, cpu_clock)
        self._discovery_due_s = float("-inf")
        for pid in root_pids:
            self.follow(pid)

    @property
    def pids(self) -> frozenset[int]:
        """
        The living processes at the last look.
        """
        return frozenset(pid for pid, seen in self._members.items() if not seen.is_zombie)

    def follow(self, pid: int, *, born: float | None = None) -> bool:
        """
        Follow one more process and what descends from it; their use so far does not count.

        Args:
            pid: A root of the tree. May be our own, where the sidecar is a thread of the benchmark.
            born: `ProcessReading.born` as it must be, where the caller knows it.
        Returns:
            False when there is no such process, or another one has its pid.
        """
        reading = self._reader.read(pid)
        if reading is None or reading.is_zombie or born not in (None, reading.born):
            return False
        self._excluded.discard(pid)
        if pid not in self._members:
            self._members[pid] = reading
            self._io.adopt([reading, *self._discover([pid])])
        return True

    def prime(self, monotonic_s: float) -> None:
        """
        Take the baseline of the CPU percentage.
        """
        self._look(monotonic_s)
        self._cpu.prime(self._cpu_total_s, monotonic_s)

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Readings of the tree; nothing when nobody is alive.
        """
        self._look(monotonic_s)
        living = [seen for seen in self._members.values() if not seen.is_zombie]
        if not living:
            return {}
        rss_bytes = sum(seen.rss_bytes for seen in living)
        values = {
            "system/process_count": float(len(living)),
            "system/process_rss_megabytes": rss_bytes / _BYTES_PER_MB,
            "system/process_threads": float(sum(seen.threads for seen in living)),
        }
        cpu_percent = self._cpu.percent(self._cpu_total_s, monotonic_s)
        if cpu_percent is not None:
            values["system/process_cpu_percent"] = cpu_percent
        fds = _sum_known(self._reader.fd_count(seen.pid) for seen in living)
        if fds is not None:
            values["system/process_fds"] = float(fds)
        values |= self._io.values(self._members)
        values |= self._pss.values(living, rss_bytes, monotonic_s)
        return values

    def _look(self, monotonic_s: float) -> None:
        before = self._members
        self._members = {
            pid: now
            for pid, seen in before.items()
            if (now := self._reader.read(pid)) is not None and now.born == seen.born
        }
        born: list[ProcessReading] = []
        if monotonic_s >= self._discovery_due_s:
            started_s = self._cpu_clock()
            born = self._discover(list(self._members))
            cost_s = max(0.0, self._cpu_clock() - started_s)
            self._discovery_due_s = monotonic_s + _DISCOVERY_SPACING * cost_s
        self._cpu_total_s += sum(new.cpu_s + new.children_cpu_s for new in born)
        self._cpu_total_s += _cpu_between(before, self._members, new={one.pid for one in born})

    def _discover(self, parents: list[int]) -> list[ProcessReading]:
        children_of = self._reader.children_lookup()
        found: list[ProcessReading] = []
        while parents:
            parent = parents.pop()
            for pid in children_of(parent):
                if pid in self._members or pid in self._excluded:
                    continue
                reading = self._reader.read(pid)
                if reading is None or reading.parent_pid != parent:
                    continue
                self._members[pid] = reading
                found.append(reading)
                parents.append(pid)
        return found


def _cpu_between(
    before: dict[int, ProcessReading], after: dict[int, ProcessReading], *, new: set[int]
) -> float:
    """
    CPU seconds spent between two looks by processes in both, and by their children that ended.
    """
    # What an ended process had used when last seen was counted then, and comes again inside the
    # children time of whoever waited for it: take it off there, once.
    stayed = after.keys() - new
    counted_s: dict[int, float] = {}
    for pid in before.keys() - stayed:
        seen = before[pid]
        heir = _heir_of(seen, before, stayed)
        counted_s[heir] = counted_s.get(heir, 0.0) + seen.cpu_s + seen.children_cpu_s
    total_s = 0.0
    for pid in stayed:
        seen, now = before[pid], after[pid]
        inherited_s = now.children_cpu_s - seen.children_cpu_s - counted_s.get(pid, 0.0)
        total_s += max(0.0, now.cpu_s - seen.cpu_s) + max(0.0, inherited_s)
    return total_s


def _heir_of(
    ended: ProcessReading, before: dict[int, ProcessReading], stayed: Collection[int]
) -> int:
    # Bounded, because a pid that changed hands between two reads could close a ring of parents.
    heir = ended.parent_pid
    for _ in before:
        if heir in stayed or heir not in before:
            break
        heir = before[heir].parent_pid
    return heir


def _sum_known(numbers: Iterable[int | None]) -> int | None:
    """
    The sum, or None as soon as one is unknown: a part of a tree is not the tree.
    """
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


class _IoTotals:
    """
    Bytes read from and written to storage by the tree since it is followed.

    Linux adds an ended child's I/O to whoever waited for it, so the sum over the living only falls
    when nobody did; such a fall is not taken off, and the total never shrinks.
    """

    def __init__(self, reader: ProcessReader) -> None:
        self._reader = reader
        self._seen: dict[int, tuple[float, tuple[int, int]]] = {}
        self._base = [0, 0]
        self._total = [0, 0]

    def adopt(self, readings: Iterable[ProcessReading]) -> None:
        for reading in readings:
            io = self._reader.io_bytes(reading.pid)
            if io is not None:
                self._seen[reading.pid] = reading.born, io
                self._base = [base + used for base, used in zip(self._base, io, strict=True)]

    def values(self, members: dict[int, ProcessReading]) -> dict[str, float]:
        now: dict[int, tuple[float, tuple[int, int]]] = {}
        for pid, member in members.items():
            io = None if member.is_zombie else self._reader.io_bytes(pid)
            if io is not None:
                now[pid] = member.born, io
            elif member.is_zombie:
                # Its files are closed to us until its parent waits for it and inherits its numbers.
                now[pid] = self._seen.get(pid, (member.born, (0, 0)))
            else:
                return {}
        sums = [sum(io[side] for _, io in now.values()) for side in (0, 1)]
        for side in (0, 1):
            self._total[side] += max(0, sums[side] - self._base[side])
        self._seen, self._base = now, sums
        return {
            "system/process_read_megabytes": self._total[0] / _BYTES_PER_MB,
            "system/process_write_megabytes": self._total[1] / _BYTES_PER_MB,
        }


class _PssMeter:
    """
    PSS of the tree, at most every 10 s and only where it is expected to take under 20 ms.

    Reading it walks the page tables of the process under its memory lock, so a large process would
    wait for us; the cost a byte is learned from each reading.
    """

    def __init__(self, reader: ProcessReader, cpu_clock: Callable[[], float]) -> None:
        self._reader = reader
        self._cpu_clock = cpu_clock
        self._due_s = float("-inf")
        self._s_per_byte = _PSS_FIRST_S_PER_BYTE

    def values(
        self, living: list[ProcessReading], rss_bytes: int, monotonic_s: float
    ) -> dict[str, float]:
        if monotonic_s < self._due_s:
            return {}
        self._due_s = monotonic_s + _PSS_SPACING_S
        if self._s_per_byte * rss_bytes > _PSS_COST_LIMIT_S:
            self._s_per_byte = max(_PSS_LEAST_S_PER_BYTE, self._s_per_byte * _PSS_FORGIVENESS)
            return {}
        started_s = self._cpu_clock()
        pss_bytes = _sum_known(self._reader.pss_bytes(seen.pid) for seen in living)
        cost_s = self._cpu_clock() - started_s
        self._s_per_byte = max(_PSS_LEAST_S_PER_BYTE, cost_s / max(1, rss_bytes))
        if pss_bytes is None:
            return {}
        return {"system/process_pss_megabytes": pss_bytes / _BYTES_PER_MB}
