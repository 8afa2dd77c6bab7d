"""
What the running cells of this machine have logged last, read off the spool; nothing waits for it.
"""

from __future__ import annotations

from pathlib import Path

from allele_mlflow import suite_tags as tags
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.matrix.cells import Trial
from allele_mlflow.queue import spool
from allele_mlflow.queue.live import LiveView, read_live
from allele_mlflow.records import RunSpec, RunState

#: How often to look into the spool.
LOOK_EVERY_S = 1.0
#: Metrics shown of a suite that has no objective.
MOST_KEYS = 3


class LiveObjectives:
    """
    The spool's side of a running suite. Not thread-safe.

    Args:
        runs: The folder of the runs that wait or run; None where there is none.
    """

    def __init__(self, runs: Path | None) -> None:
        self._runs = runs
        self._looked_s = -LOOK_EVERY_S
        self._folders: dict[tuple[str, int, int], Path] = {}
        self._known: set[Path] = set()
        self._views: dict[Path, tuple[float, LiveView | None]] = {}
        self._pending = 0
        self._lag_s = 0.0

    def latest(self, trial: Trial, attempt: int, metrics: list[str] | None) -> dict[str, float]:
        """
        The newest reading of each of these metrics, or where there is none of any, of the first
        that there are.
        """
        self._look()
        folder = self._folders.get((trial.cell.key, trial.repeat, attempt))
        view = self._view_of(folder) if folder is not None else None
        if view is None:
            return {}
        own = [key for key in view.keys if not view.keys[key].is_resource][:MOST_KEYS]
        wanted = [name for name in metrics or () if name in view.keys] or own
        found = {name: view.last(name) for name in wanted}
        return {name: value for name, value in found.items() if value is not None}

    def delivery_line(self) -> str:
        """
        Records on their way to MLflow, in a line; empty where nothing waits.
        """
        self._look()
        if not self._pending:
            return ""
        lag = f", {self._lag_s:.0f} s behind" if self._lag_s >= 1 else ""
        return f"  {self._pending:,} records on their way to MLflow{lag}"

    def _view_of(self, folder: Path) -> LiveView | None:
        now_s = now_monotonic_s()
        read_s, view = self._views.get(folder, (-LOOK_EVERY_S, None))
        if now_s - read_s >= LOOK_EVERY_S:
            view = read_live(folder)
            self._views[folder] = now_s, view
        return view

    def _look(self) -> None:
        now_s = now_monotonic_s()
        if self._runs is None or now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            folders = list(self._runs.iterdir())
        except OSError:
            folders = []
        self._pending, self._lag_s = 0, 0.0
        for folder in folders:
            if folder not in self._known:
                self._note(folder)
            state = spool.read_struct(folder / spool.STATE_FILE, RunState)
            if state is not None:
                self._pending += state.ledger.pending
                self._lag_s = max(self._lag_s, state.lag_s)
        self._known &= set(folders)
        self._views = {folder: kept for folder, kept in self._views.items() if folder in folders}

    def _note(self, folder: Path) -> None:
        spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
        if spec is None:
            return
        self._known.add(folder)
        told = spec.tags
        if tags.CELL_KEY in told:
            place = (told[tags.CELL_KEY], int(told[tags.REPEAT]), int(told[tags.ATTEMPT]))
            self._folders[place] = folder
