"""
What is reached: runs, what names them, and what follows from it. Pure.

A node is the id of a run, or `whole(id)`: the run with all runs below it. A cell that is reached
reaches its suite's own run, without which it cannot be told what it was; only the whole of a suite
reaches the other cells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_WHOLE = "/*"


def whole(run_id: str) -> str:
    """
    The node of a run with all runs below it.
    """
    return f"{run_id}{_WHOLE}"


class Root(NamedTuple):
    """
    What is kept for its own sake, and why, in words.
    """

    node: str
    why: str


@dataclass(frozen=True, kw_only=True)
class KnownRun:
    """
    A run as the store has it.

    Attributes:
        is_active: Not deleted in MLflow.
        started_ms, ended_ms: None where the store does not say.
        uid: Ours; None of a run that we did not make.
        kind: As of `suite_tags.RunKind`.
        cell: Key of its cell.
        execution: Uid of the suite's own run.
        parent: Id of the run above.
        kept: Why it stays for its own sake, in words: a pin, a journal.
        retention: What its tag says of an earlier clean-up.
        named: Ids and uids of other runs that are the value of one of its tags.
    """

    run_id: str
    experiment: str
    name: str
    status: str
    artifact_uri: str
    is_active: bool = True
    started_ms: int | None = None
    ended_ms: int | None = None
    uid: str | None = None
    kind: str | None = None
    suite: str | None = None
    cell: str | None = None
    execution: str | None = None
    parent: str | None = None
    kept: str | None = None
    retention: str | None = None
    named: tuple[str, ...] = ()


class KnownRuns:
    """
    All runs of a store, by what they are called.
    """

    def __init__(self, runs: Iterable[KnownRun]) -> None:
        self.by_id = {run.run_id: run for run in runs}
        self._by_uid: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        self._by_experiment: dict[str, list[str]] = {}
        self._below: dict[str, list[str]] = {}
        for run in self.by_id.values():
            self._by_name.setdefault(run.name, []).append(run.run_id)
            self._by_experiment.setdefault(run.experiment, []).append(run.run_id)
            if run.uid is not None:
                self._by_uid.setdefault(run.uid, []).append(run.run_id)
        for run in self.by_id.values():
            for above in self.above(run):
                self._below.setdefault(above, []).append(run.run_id)

    def called(self, text: str) -> list[str]:
        """
        The ids of the runs with this id or uid.
        """
        own = [text] if text in self.by_id else []
        return own + self._by_uid.get(text, [])

    def above(self, run: KnownRun) -> list[str]:
        """
        The ids of the run's parent and of the suite's own run, which are one as a rule; a parent
        need not be in the store any more.
        """
        told = [run.parent] if run.parent is not None else []
        told += self._by_uid.get(run.execution, []) if run.execution is not None else []
        return [one for one in dict.fromkeys(told) if one != run.run_id]

    def meant(self, name: str, *, prefix: str = "") -> list[str]:
        """
        The nodes of everything that the name in a selection can mean: runs of that id, uid or name,
        all runs of that experiment, and what is left of a suite whose own run is gone.
        """
        ids = [*self.called(name), *self._by_name.get(name, ())]
        for experiment in (name, f"{prefix}{name}"):
            ids += self._by_experiment.get(experiment, [])
        ids += [name] if name in self._below else []
        return [whole(run_id) for run_id in dict.fromkeys(ids)]

    def references(self) -> dict[str, Sequence[str]]:
        """
        The nodes that each node names.
        """
        edges: dict[str, Sequence[str]] = {}
        for run in self.by_id.values():
            above = self.above(run)
            others = [one for text in run.named for one in self.called(text)]
            edges[run.run_id] = [*above, *others]
            beside = [one for one in others if one not in above]
            edges[whole(run.run_id)] = [run.run_id, *map(whole, beside)]
        for above_id, below in self._below.items():
            node = whole(above_id)
            edges[node] = [*edges.get(node, ()), *map(whole, below)]
        return edges


def reach(roots: Iterable[Root], edges: Mapping[str, Collection[str]]) -> dict[str, str]:
    """
    Every node that is reached, and why: what is said of the root that came to it first.
    """
    found: dict[str, str] = {}
    waiting = deque(roots)
    while waiting:
        node, why = waiting.popleft()
        if node not in found:
            found[node] = why
            waiting += [Root(one, why) for one in edges.get(node, ()) if one not in found]
    return found
