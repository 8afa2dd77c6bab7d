"""
Which runs are delivered next: those that somebody may wait for at once, those that are over some
dozens at a time, oldest first.

A suite of short cells ends runs faster than they can be delivered. Were all taken up as they come,
the looks at hundreds of them would take the time to deliver any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from allele_mlflow.clock import now_monotonic_s, now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import stream_names
from allele_mlflow.queue.locks import is_process_alive, is_writer_alive
from allele_mlflow.records import RunSpec
from allele_mlflow.sidecar import descriptors

#: Runs that are over and delivered side by side; half of those that there is room for at most.
AT_ONCE = 50
#: Where others wait for their turn, a new run has so long to end: then it takes its turn too.
YOUNG_NS = 1_000_000_000
#: A run that meets errors for so long gives its turn to another one, where any waits.
PATIENCE_S = 5.0
#: It rests before the next one, as long as that and then twice as long each time, up to this; in a
#: drain it does not, for that ends when nothing goes on.
LONGEST_REST_S = 60.0
#: Enough for any rest; a float has no more than a thousand.
MOST_DOUBLINGS = 10
#: How often to look whether somebody joined or resumed a run that waits.
LOOK_EVERY_S = 1.0

#: What changes when a run is resumed, and when somebody joins it.
_Looks = tuple[tuple[int, int] | None, tuple[int, int] | None]


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


class Served(Protocol):
    """
    A run that is served.
    """

    @property
    def is_in_trouble(self) -> bool:
        """
        Whether the last call of the store's failed.
        """


class _Waiting(NamedTuple):
    candidate: Candidate
    looks: _Looks


class Turns:
    """
    The runs that wait for their turn. Not thread-safe, but for `ask_for`.

    Args:
        is_drain: Nobody waits for any.
    """

    def __init__(self, *, is_drain: bool) -> None:
        self._is_drain = is_drain
        self._waiting: dict[str, _Waiting] = {}
        #: Names of those that were taken up in their turn, and since when they meet errors.
        self._taken: dict[str, float | None] = {}
        #: How many turns were given up.
        self._given_up: Counter[str] = Counter()
        #: Until when those rest that gave one up.
        self._rests: dict[str, float] = {}
        #: Names of runs that others cannot do without.
        self._asked: set[str] = set()
        self._looked_s = now_monotonic_s()

    @property
    def has_any(self) -> bool:
        """
        Whether any run waits.
        """
        return bool(self._waiting)

    def is_waiting(self, name: str) -> bool:
        """
        Whether a run waits; its folder need not be looked at.
        """
        return name in self._waiting

    def ask_for(self, name: str) -> None:
        """
        Give a run the next turn: its child is served, and cannot be created without it. Any thread.
        """
        self._asked.add(name)

    def is_asked_for(self, name: str) -> bool:
        """
        Whether others wait for a run, which must not wait for them.
        """
        return name in self._asked

    def keep(self, names: Collection[str]) -> None:
        """
        Forget the runs that are not among these any more, and now and then those that somebody
        joined or resumed: they are to be looked at again.
        """
        now_s = now_monotonic_s()
        is_look_due = now_s - self._looked_s >= LOOK_EVERY_S
        if is_look_due:
            self._looked_s = now_s
        for name, one in list(self._waiting.items()):
            if name not in names or (is_look_due and _looks_of(one.candidate.folder) != one.looks):
                del self._waiting[name]
        for name in self._given_up.keys() - names:
            del self._given_up[name]
            self._rests.pop(name, None)
        self._asked.intersection_update(names)

    def is_due(self, candidate: Candidate) -> bool:
        """
        Whether a run is taken up at once; else it waits for its turn, or is looked at again.
        """
        name = candidate.folder.name
        looks = _looks_of(candidate.folder)  # first, so that who joins meanwhile is seen
        self._waiting.pop(name, None)
        if self._is_drain or _is_over(candidate):
            self._waiting[name] = _Waiting(candidate, looks)
            return False
        self._taken.pop(name, None)
        age_ns = now_ns() - candidate.spec.created_ns
        return not (self._waiting and 0 <= age_ns < YOUNG_NS)

    def next(self, served: Mapping[str, Served]) -> Iterator[Candidate]:
        """
        Those whose turn has come: fewest turns given up first, then oldest. Before it asks for the
        next one, the caller adds to `served` what it took up.
        """
        for name in [name for name in self._taken if name not in served]:
            del self._taken[name]
        self._asked.difference_update(served)
        for name in [name for name in tuple(self._asked) if name in self._waiting]:
            yield self._take(name)
        most = max(1, min(AT_ONCE, descriptors.most_runs() // 2))
        if len(self._taken) >= most:
            return
        now_s = now_monotonic_s()
        rested = [name for name in self._waiting if self._rests.get(name, 0.0) <= now_s]
        for name in sorted(rested, key=self._order):
            if len(self._taken.keys() & served.keys()) >= most:
                break
            yield self._take(name)

    def given_up(self, served: Mapping[str, Served]) -> list[str]:
        """
        Those that have met errors for long enough, while others wait: they are to be left, and wait
        behind the others. They may wait for a parent among these, or for what never comes.
        """
        now_s = now_monotonic_s()
        found = []
        for name in self._taken.keys() & served.keys():
            since_s = self._taken[name]
            if not served[name].is_in_trouble:
                self._taken[name] = None
            elif since_s is None:
                self._taken[name] = now_s
            elif self._waiting and now_s - since_s >= PATIENCE_S:
                found.append(name)
                self._given_up[name] += 1
                if not self._is_drain:
                    rest_s = PATIENCE_S * 2.0 ** min(self._given_up[name] - 1, MOST_DOUBLINGS)
                    self._rests[name] = now_s + min(rest_s, LONGEST_REST_S)
        return found

    def _take(self, name: str) -> Candidate:
        self._taken[name] = None
        return self._waiting.pop(name).candidate

    def _order(self, name: str) -> tuple[int, int]:
        return self._given_up[name], self._waiting[name].candidate.spec.created_ns


def _looks_of(folder: Path) -> _Looks:
    # who resumes a run writes its description anew, who joins it makes a stream
    return spool.identity_of(folder / spool.RUN_FILE), spool.identity_of(folder / spool.STREAMS)


def _is_over(candidate: Candidate) -> bool:
    """
    Whether no process lives that writes to a run, or could wait for it.
    """
    folder, spec = candidate.folder, candidate.spec
    if spool.is_here(folder) and is_process_alive(spec.owner_pid, spec.owner_start):
        return False
    streams = folder / spool.STREAMS
    return not any(is_writer_alive(streams / name) for name in stream_names(folder))
