"""
Which runs are delivered next: those that somebody may wait for at once, those that are over some
dozens at a time, oldest first.

A suite of short cells ends runs faster than they can be delivered. Were all taken up as they come,
the looks at hundreds of them would take the time to deliver any.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import stream_names
from allele_mlflow.queue.locks import is_process_alive, is_writer_alive
from allele_mlflow.records import RunSpec
from allele_mlflow.sidecar.delivery import RunDelivery

#: Runs that are over and delivered side by side; each takes some ten descriptors.
AT_ONCE = 50
#: Where others wait for their turn, a new run has so long to end: then it takes its turn too.
YOUNG_NS = 1_000_000_000


class Candidate(NamedTuple):
    """
    A run that nobody serves.

    Attributes:
        folder: The run's folder in the spool.
        spec: What the logger wrote about it.
        description: Identity of the file that `spec` was read from.
    """

    folder: Path
    spec: RunSpec
    description: tuple[int, int] | None


class Turns:
    """
    The runs that wait for their turn. Not thread-safe.

    Args:
        is_drain: Nobody waits for any.
    """

    def __init__(self, *, is_drain: bool) -> None:
        self._is_drain = is_drain
        self._waiting: dict[str, Candidate] = {}
        #: Names of those that were taken up in their turn.
        self._taken: set[str] = set()

    @property
    def has_any(self) -> bool:
        """
        Whether any run waits.
        """
        return bool(self._waiting)

    def is_waiting(self, name: str, description: tuple[int, int] | None) -> bool:
        """
        Whether a run waits, and was not resumed since.
        """
        known = self._waiting.get(name)
        return known is not None and known.description == description

    def keep(self, names: Collection[str]) -> None:
        """
        Forget the runs that are not among these any more.
        """
        for name in self._waiting.keys() - names:
            del self._waiting[name]

    def is_due(self, candidate: Candidate) -> bool:
        """
        Whether a run is taken up at once; else it waits for its turn, or is looked at again.
        """
        self._waiting.pop(candidate.folder.name, None)
        if self._is_drain or _is_over(candidate):
            self._waiting[candidate.folder.name] = candidate
            return False
        age_ns = now_ns() - candidate.spec.created_ns
        return not (self._waiting and 0 <= age_ns < YOUNG_NS)

    def next(self, deliveries: Mapping[str, RunDelivery]) -> Iterator[Candidate]:
        """
        Those whose turn has come; before it asks for the next one, the caller adds to `deliveries`
        what it took up.

        What meets an error in the store takes no turn from others: it may wait for a parent among
        them, or for something that never comes.
        """
        self._taken &= deliveries.keys()
        names = sorted(self._waiting, key=lambda name: self._waiting[name].spec.created_ns)
        for name in names:
            served = self._taken & deliveries.keys()
            if sum(deliveries[one].state.last_error is None for one in served) >= AT_ONCE:
                break
            self._taken.add(name)
            yield self._waiting.pop(name)


def _is_over(candidate: Candidate) -> bool:
    """
    Whether no process lives that writes to a run, or could wait for it.
    """
    folder, spec = candidate.folder, candidate.spec
    if spool.is_here(folder) and is_process_alive(spec.owner_pid, spec.owner_start):
        return False
    streams = folder / spool.STREAMS
    return not any(is_writer_alive(streams / name) for name in stream_names(folder))
