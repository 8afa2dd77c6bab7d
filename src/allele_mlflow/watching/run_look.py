"""
The runs of a spool, and one look at one: from the spool alone, changing nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.live import LiveView, read_live
from allele_mlflow.queue.locks import is_writer_alive
from allele_mlflow.queue.run_reader import count_ledger
from allele_mlflow.records import Ledger, RunSpec, RunState
from allele_mlflow.sidecar.live_view import view_of_files
from allele_mlflow.watching.sidecars import Sidecar, find_sidecars
from allele_mlflow.watching.spools import scopes

#: What a sidecar published longer ago says nothing of the present.
FRESH_NS = 10_000_000_000
#: A view is written each second while there is news.
FRESH_VIEW_NS = 2_000_000_000


class KnownRun(NamedTuple):
    """
    A run of a spool that can be watched.
    """

    folder: Path
    spec: RunSpec
    state: RunState | None

    @property
    def names(self) -> tuple[str | None, ...]:
        """
        What it goes by: its uid, MLflow's id, its name.
        """
        return (self.spec.run_uid, self.state.run_id if self.state else None, self.spec.run_name)

    @property
    def is_over(self) -> bool:
        """
        Whether nothing more will come, as far as its sidecar knows.
        """
        return self.folder.parent.name == spool.DONE or _is_over(self.spec, self.state)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """
        Greater for the one that is rather meant: that goes on, that has no end yet, that is newer.
        """
        has_end = self.state is not None and self.state.end is not None
        return not self.is_over, not has_end, self.spec.created_ns


@dataclass(frozen=True)
class RunLook:
    """
    What is known of a run at one moment.
    """

    folder: Path
    spec: RunSpec
    state: RunState | None
    view: LiveView | None
    ledger: Ledger
    sidecar: Sidecar | None
    is_benchmark_alive: bool
    is_over: bool
    at_ns: int
    #: The view is the present sidecar's own; else we made it ourselves, and know no rates.
    is_view_told: bool = True

    @property
    def is_served(self) -> bool:
        """
        Whether a sidecar of its profile lives.
        """
        return self.sidecar is not None and self.sidecar.is_held

    @property
    def status(self) -> str:
        """
        As in MLflow; WAITING before it is there.
        """
        return self.state.status if self.state is not None else "WAITING"

    @property
    def elapsed_s(self) -> float:
        """
        Since the run (or this part of it) began, to its end where it has one.
        """
        end = self.state.end if self.state is not None else None
        end_ns = end.timestamp_ns if end is not None else self.at_ns
        return max(0, end_ns - self.spec.created_ns) / 1e9

    @property
    def told_ns(self) -> int | None:
        """
        When the sidecar published last, where that tells of the present; else None.
        """
        if self.state is None or self.is_over or not self.is_served:
            return None
        is_fresh = abs(self.at_ns - self.state.updated_ns) <= FRESH_NS
        return self.state.updated_ns if is_fresh else None

    @property
    def lag_s(self) -> float | None:
        """
        Since everything was read; None where nobody knows.
        """
        if self.state is None or self.is_over or not self.is_served:
            return None
        return self.state.lag_s + max(0, self.at_ns - self.state.updated_ns) / 1e9

    @property
    def records_per_s(self) -> float | None:
        """
        Records a second that the benchmark logs; None where nobody knows.
        """
        if self.view is None or self.told_ns is None or not self.is_view_told:
            return None
        return self.view.records_per_s(self.ledger.accepted, self.told_ns)

    @property
    def phases_at_ns(self) -> int:
        """
        The moment that open phases were seen at: now, or when a view was written that is so fresh
        that some of them may have ended since.
        """
        if self.view is None or not self.is_served:
            return self.at_ns
        is_fresh = 0 <= self.at_ns - self.view.updated_ns <= FRESH_VIEW_NS
        return self.view.updated_ns if is_fresh else self.at_ns

    def rate_per_s(self, key: str) -> float | None:
        """
        Readings of a key a second; None where nobody knows.
        """
        if self.view is None or self.told_ns is None or not self.is_view_told:
            return None
        return self.view.rate_per_s(key, max(self.told_ns, self.view.updated_ns))


def known_runs(spool_dir: Path) -> Iterator[KnownRun]:
    """
    The runs of a spool whose description can be read, waiting and done.

    Raises:
        OSError: the spool cannot be looked into.
    """
    for scope in scopes(spool_dir):
        for place in (spool.RUNS, spool.DONE):
            parent = scope / place
            for folder in parent.iterdir() if parent.is_dir() else ():
                spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
                if spec is not None:
                    yield KnownRun(folder, spec, _read_state(folder, spec))


def look_at(run: Path) -> RunLook | None:
    """
    The run of that folder as it is now, in `runs/` or `done/`; None where it is gone.
    """
    scope = run.parent.parent
    for place in (spool.RUNS, spool.DONE, spool.RUNS):  # it may be moved while we look
        folder = scope / place / run.name
        spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
        if spec is not None:
            try:
                return _look_into(folder, spec)
            except OSError:  # moved, or gone
                continue
    return None


def find_waiting(spool_dirs: Iterable[Path], run_uid: str) -> Path | None:
    """
    The folder of a run that is not delivered yet, by its uid; None where there is none. No path is
    made of the uid.
    """
    for spool_dir in spool_dirs:
        try:
            for scope in scopes(spool_dir):
                for folder in (scope / spool.RUNS).iterdir():
                    if folder.name == run_uid:
                        return folder
        except OSError:  # closed to us, or gone meanwhile
            continue
    return None


def _look_into(folder: Path, spec: RunSpec) -> RunLook:
    state = _read_state(folder, spec)
    is_done = folder.parent.name == spool.DONE
    sidecar = _sidecar_of(folder, spec)
    is_served = sidecar is not None and sidecar.is_held
    ledger = state.ledger if state is not None else Ledger()
    view = read_live(folder)
    is_told = is_done or (is_served and _is_of(view, sidecar))
    if not is_told:
        view = view_of_files(folder, spec)
    if not (is_done or is_served):
        ledger = count_ledger(folder, is_exact=False) or ledger
    return RunLook(
        folder=folder,
        spec=spec,
        state=state,
        view=view,
        ledger=ledger,
        sidecar=sidecar,
        is_benchmark_alive=not is_done
        and is_writer_alive(folder / spool.STREAMS / spec.owner_stream),
        is_over=is_done or _is_over(spec, state),
        at_ns=now_ns(),
        is_view_told=is_told,
    )


def _is_of(view: LiveView | None, sidecar: Sidecar | None) -> bool:
    """
    Whether the present sidecar wrote a view, and not one before it.
    """
    status = sidecar.status if sidecar is not None else None
    return view is not None and status is not None and view.updated_ns >= status.started_ns


def _read_state(folder: Path, spec: RunSpec) -> RunState | None:
    state = spool.read_struct(folder / spool.STATE_FILE, RunState)
    if state is not None and state.part_ns not in (0, spec.created_ns):
        state.resume(spec.created_ns)  # how an earlier part ended is not the end of this one
    return state


def _sidecar_of(folder: Path, spec: RunSpec) -> Sidecar | None:
    found = find_sidecars(folder.parent.parent)
    return next((one for one in found if one.profile == spec.profile), None)


def _is_over(spec: RunSpec, state: RunState | None) -> bool:
    if state is None:
        return False
    # of an offline run nothing is done, and nothing more will come
    return state.done or (spec.offline and state.end is not None)
