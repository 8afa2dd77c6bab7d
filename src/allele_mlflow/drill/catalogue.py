"""
All drills, and running them: one after another in a few lanes, each lane with a place of its own.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.drill import crowd, damage, disks, interrupts, kills, leaving, races, servers
from allele_mlflow.drill.place import OverdueError, opened_place
from allele_mlflow.drill.trial import Drill, NotHereError, Tally, Trial
from allele_mlflow.errors import AlleleMlflowError
from allele_mlflow.tracking.schema import prepare_schema

DRILLS: tuple[Drill, ...] = (
    *kills.DRILLS,
    *leaving.DRILLS,
    *interrupts.DRILLS,
    *crowd.DRILLS,
    *races.DRILLS,
    *servers.DRILLS,
    *disks.DRILLS,
    *damage.DRILLS,
)

#: Called when a drill began, went on, or ended.
Watch = Callable[[Drill, Tally], None]


class Runner:
    """
    Runs drills in places below one folder.

    Args:
        folder: Scratch; every place in it is removed.
        tracking_uri: The user's own store, or None for a SQLite file a lane.
        seed: Decides when things happen: the same seed, the same attempts.
        minute_s: Seconds that an outage of a minute takes.
        watch: Told of every repetition.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tracking_uri: str | None,
        seed: int,
        minute_s: float = 60.0,
        watch: Watch = lambda drill, tally: None,
    ) -> None:
        self.folder = folder
        self._tracking_uri = tracking_uri
        self._seed = seed
        self._minute_s = minute_s
        self._watch = watch
        self._is_stopping = False

    def run(
        self, drills: Sequence[Drill], repetitions: Sequence[int], *, lanes: int
    ) -> list[Tally]:
        """
        Run each drill so many times, a few drills side by side; the tallies in their order.
        """
        with ThreadPoolExecutor(max(1, lanes)) as pool:
            futures = [
                pool.submit(self.run_one, *pair) for pair in zip(drills, repetitions, strict=True)
            ]
            try:
                return [future.result() for future in futures]
            finally:
                # Ctrl-C: what is under way ends within its trial, and cleans up behind itself
                self._is_stopping = not all(future.done() for future in futures)
                pool.shutdown(wait=True, cancel_futures=True)

    def run_one(self, drill: Drill, repetitions: int) -> Tally:
        """
        Run one drill so many times.
        """
        tally = Tally(drill.name)
        begun_s = now_monotonic_s()
        self._watch(drill, tally)
        chance = random.Random(f"{self._seed} {drill.name}")
        folder = self.folder / drill.name
        uri = self._tracking_uri or _make_store(folder)
        with opened_place(folder, uri, chance=chance, scale=self._minute_s) as place:
            for _ in range(repetitions):
                if self._is_stopping:
                    break
                try:
                    trial = drill.run(place)
                except NotHereError as exc:
                    tally.not_run = str(exc)
                    break
                except (OverdueError, AlleleMlflowError, OSError) as exc:
                    trial = Trial(problems=(f"{type(exc).__name__}: {exc}",))
                finally:
                    place.forget_programs()
                tally.add(trial)
                tally.elapsed_s = now_monotonic_s() - begun_s
                self._watch(drill, tally)
        tally.elapsed_s, tally.is_over = now_monotonic_s() - begun_s, True
        self._watch(drill, tally)
        return tally


def choose(names: Sequence[str]) -> list[Drill]:
    """
    The drills whose names begin with one of these, all of them without any.
    """
    return [d for d in DRILLS if not names or any(d.name.startswith(name) for name in names)]


_making = threading.Lock()


def _make_store(folder: Path) -> str:
    """
    A SQLite store with MLflow's tables in a drill's folder: a copy of one that is made once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "mlflow.db"
    template = folder.parent / "template.db"
    with _making:
        prepare_schema(template)
    with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    return f"sqlite:///{target}"
