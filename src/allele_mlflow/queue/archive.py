"""
The way of a delivered run from `runs/` to `done/`, and back where it was cut short.

A run is archived by one rename of its folder, a look for processes that joined it at the last
moment, and one rename of its streams: after that one it is over, and the rest is rubbish.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_writer_alive, process_start_time, try_lock_folder
from allele_mlflow.records import RunSpec, RunState

#: What stays of a delivered run, beside its damaged files.
KEPT_FILES = frozenset({spool.RUN_FILE, spool.STATE_FILE, spool.LIVE_FILE, spool.REJECTED_FILE})
#: What the streams are called once the run is over.
RUBBISH = "removed"


def stream_names(folder: Path) -> list[str]:
    """
    The streams of a run's folder.

    Raises:
        OSError: it cannot be listed now.
    """
    try:
        names = os.listdir(folder / spool.STREAMS)
    except FileNotFoundError:  # and nothing else: an empty answer ends a run
        return []
    return [name for name in names if not name.startswith(".")]


def tidy_up(archived: Path) -> None:
    """
    Remove from a run that is over what nobody needs; its streams last.
    """
    with contextlib.suppress(OSError), os.scandir(archived) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name not in (spool.DAMAGED, RUBBISH):
                    shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name not in KEPT_FILES:
                os.unlink(entry.path)
    shutil.rmtree(archived / RUBBISH, ignore_errors=True)


def take_over(run: Path) -> None:
    """
    Bring the dead letters and damaged files of an earlier part of a run, which is over, into the
    folder of this part.

    Raises:
        OSError: it cannot be done now; nothing is lost.
    """
    earlier = run.parent.parent / spool.DONE / run.name
    for name in (spool.REJECTED_FILE, spool.DAMAGED):
        if (earlier / name).exists() and not (run / name).exists():
            (earlier / name).rename(run / name)


def bring_back(scope: Path) -> None:
    """
    Bring back runs whose archiving was cut short, so that it is done again: somebody may have
    joined them. Of those that were over, remove the rest.
    """
    with contextlib.suppress(OSError), os.scandir(scope / spool.DONE) as entries:
        for entry in entries:
            folder, target = Path(entry.path), scope / spool.RUNS / entry.name
            if (folder / RUBBISH).is_dir():
                tidy_up(folder)
            if not (folder / spool.STREAMS).is_dir() or target.exists():
                continue
            lock = try_lock_folder(folder)
            if lock is not None:
                with contextlib.suppress(OSError):
                    folder.rename(target)
                lock.release()


def is_abandoned(run: Path) -> bool:
    """
    Whether the process that owns a run in `runs/` is gone, so that another one may resume it.
    """
    spec = spool.read_struct(run / spool.RUN_FILE, RunSpec)
    if spec is None:
        return False
    if not spec.owner_stream and spool.is_here(run):  # it found no room for a stream
        return process_start_time(spec.owner_pid) not in (None, spec.owner_start or None)
    return not is_writer_alive(run / spool.STREAMS / spec.owner_stream)


def is_over(run: Path) -> bool:
    """
    Whether everything of a run in `runs/` was delivered and its owner is gone: somebody archives
    it now, or will.
    """
    state = spool.read_struct(run / spool.STATE_FILE, RunState)
    return state is not None and state.done and is_abandoned(run)


def is_being_archived(run: Path) -> bool:
    """
    Whether the run of that folder in `runs/` is between there and `done/`. One that was left there
    is brought back.
    """
    streams = run.parent.parent / spool.DONE / run.name / spool.STREAMS
    if streams.is_dir():
        bring_back(run.parent.parent)
    return streams.is_dir()
