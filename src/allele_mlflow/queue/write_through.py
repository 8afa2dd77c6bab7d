"""
Writing a run through to the disk, for `durability="power"`: what a power failure then leaves is the
event logs, the copied artifacts, and every segment that its writer has left.

Never a segment that is still written to: a store to a page that is on its way to the disk waits for
the disk, and it is the benchmark that would wait.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.archive import stream_names


class WriteThrough:
    """
    One run's files on their way to the disk. Thread safety: one caller at a time, any thread.

    What is removed after its delivery stays in `segments`. A file that cannot be written through
    now (a disk that fails) is tried again with the next call.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        #: Inode and size of files that only grow or are replaced, when they were written through.
        self._seen: dict[Path, tuple[int, int]] = {}
        #: Names of segments that are on the disk as their writer left them, by stream.
        self.segments: dict[str, set[str]] = {}
        self._has_folders = False

    def write(self, *, finished: Iterable[str]) -> None:
        """
        Write through what is complete and was not written through yet.

        Args:
            finished: Streams whose writer is gone: all of their segments are complete.
        """
        if not self._has_folders:
            places = (self._run, *self._run.parents[:3])
            self._has_folders = all(_sync(place) for place in places)
        self._sync_grown(self._run / spool.RUN_FILE)
        with contextlib.suppress(OSError), os.scandir(self._run / spool.ARTIFACTS) as entries:
            for entry in entries:
                self._sync_grown(Path(entry.path))
        over = set(finished)
        for name in stream_names(self._run):
            self._write_stream(name, is_over=name in over)

    def _write_stream(self, name: str, *, is_over: bool) -> None:
        folder = self._run / spool.STREAMS / name
        known = self.segments.setdefault(name, set())
        complete = _complete_segments(folder, is_over=is_over) - known
        # first the keys, without which the segments' readings have no names
        is_named = self._sync_grown(folder / layout.EVENT_LOG)
        self._sync_grown(folder / layout.STREAM_PAGE)
        through = {segment for segment in complete if is_named and _sync(folder / segment)}
        if through and _sync(folder):
            known |= through

    def _sync_grown(self, path: Path) -> bool:
        try:
            found = path.stat()
        except OSError:
            return False
        present = (found.st_ino, found.st_size)
        if self._seen.get(path) != present:
            if not _sync(path):
                return False
            self._seen[path] = present
        return True


def _complete_segments(folder: Path, *, is_over: bool) -> set[str]:
    """
    The segments of a stream that their writer has left: all but the last of each lane.
    """
    found: set[str] = set()
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for lane in (layout.METRIC_LANE, layout.SERIES_LANE):
        of_lane = sorted(
            name
            for name in names
            if (parsed := layout.parse_segment_name(name)) and parsed[0] == lane
        )
        found.update(of_lane if is_over else of_lane[:-1])
    return found


def _sync(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.fsync(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
