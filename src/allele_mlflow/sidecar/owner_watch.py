"""
Watching the process that owns a run, from outside: how it ended, and whether for memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.queue import spool
from allele_mlflow.records import (
    ENDED_BY_EXIT,
    OomBaseline,
    ProcessEnd,
    RunEnded,
    RunSpec,
    RunState,
)
from allele_mlflow.sampling.cgroup import CgroupProbe
from allele_mlflow.sidecar.process_end import ProcessWatch
from allele_mlflow.sidecar.run_ending import corrected_end, error_of_end, is_out_of_memory
from allele_mlflow.sidecar.run_files import RunFiles

#: A process lets go of its lock a moment before it can be asked how it ended.
PATIENCE_S = 1.0
#: How long a process may take from its farewell to its exit; then the farewell stands.
EXIT_PATIENCE_S = 10.0


class OwnerWatch:
    """
    The owner of one run. Nobody is watched of another boot, host or PID namespace, and not we
    ourselves (`worker="thread"`): how they end is unknown. Not thread-safe.

    Args:
        folder: The run's folder in the spool.
        spec: Who the owner is.
        state: Where the count of kills for memory at the run's start is kept.
        root: Where the file system starts, for the cgroup: `/`, or a recorded tree.
    """

    def __init__(
        self, folder: Path, spec: RunSpec, state: RunState, *, root: Path = Path("/")
    ) -> None:
        self._spec = spec
        self._state = state
        self._process: ProcessWatch | None = None
        self._cgroup: CgroupProbe | None = None
        self._asked_s: float | None = None
        self._found: ProcessEnd | None = None
        is_here = spool.is_here(folder)
        is_wanted = state.end is None or state.end.ended_by == ENDED_BY_EXIT
        if not (is_here and is_wanted and spec.owner_start) or spec.owner_pid == os.getpid():
            self._found = ProcessEnd()
            return
        self._process = ProcessWatch(spec.owner_pid, spec.owner_start)
        if not self._process.is_open:
            self._found = ProcessEnd()
            return
        self._cgroup = CgroupProbe(spec.owner_pid, root=root)
        if self._process.was_alive:
            self._note_baseline()

    def find_end(self, patience_s: float = PATIENCE_S) -> ProcessEnd | None:
        """
        How the owner ended, unknown where that was not told within `patience_s` of the first
        question; None before.
        """
        if self._found is not None:
            return self._found
        assert self._process is not None
        now_s = now_monotonic_s()
        self._asked_s = now_s if self._asked_s is None else self._asked_s
        found = self._process.find_end()
        if found is None and now_s - self._asked_s < patience_s:
            return None
        self._found = self._judge(found) if found is not None else ProcessEnd()
        self.close()
        return self._found

    @property
    def is_asked(self) -> bool:
        """
        Whether somebody waits for the answer.
        """
        return self._asked_s is not None and self._found is None

    def is_farewell_settled(self) -> bool:
        """
        Whether the run's farewell stands, or what is to stand in its place is known.
        """
        end = self._state.end
        if end is None or end.ended_by != ENDED_BY_EXIT:
            return True
        return self.find_end(EXIT_PATIENCE_S) is not None

    def correct(self) -> bool:
        """
        Put right in the state what a farewell at the exit could not know; whether there was such.
        """
        end = self._state.end
        found = corrected_end(end, self._found or ProcessEnd()) if end is not None else None
        if found is not None:
            self._state.end = found
        return found is not None

    def close(self) -> None:
        """
        Give back the descriptor.
        """
        if self._process is not None:
            self._process.close()

    def _judge(self, found: ProcessEnd) -> ProcessEnd:
        before = self._state.oom_baseline
        if before is None or not self._is_owners(before):
            return found
        after = self._cgroup.oom_kills() if self._cgroup is not None else None
        return msgspec.structs.replace(
            found, is_out_of_memory=is_out_of_memory(found, before.kills, after)
        )

    def _note_baseline(self) -> None:
        before = self._state.oom_baseline
        if before is not None and self._is_owners(before):  # of a sidecar before us
            return
        assert self._cgroup is not None
        kills = self._cgroup.oom_kills()
        if kills is not None:
            self._state.oom_baseline = OomBaseline(
                owner_pid=self._spec.owner_pid, owner_start=self._spec.owner_start, kills=kills
            )

    def _is_owners(self, baseline: OomBaseline) -> bool:
        spec = self._spec
        return (baseline.owner_pid, baseline.owner_start) == (spec.owner_pid, spec.owner_start)


def note_error_of_end(files: RunFiles, spec: RunSpec, end: RunEnded) -> None:
    """
    Keep the error that the end of the owner's process is, where it is one; once, however often it
    is called and by how many sidecars.
    """
    phases = [one for one in files.phases.open_phases if one.stream_id == spec.owner_stream]
    error = error_of_end(end, phases)
    if error is not None and files.has_verdict():
        return
    # not told apart by its phase: a sidecar before us may have closed that
    if error is not None and not files.has_error(error.timestamp_ns, error.fingerprint):
        files.note_error(error)
