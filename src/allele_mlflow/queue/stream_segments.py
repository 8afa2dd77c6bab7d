"""
The segments of one stream as its reader holds them: which are there, how far each is read, which
cannot be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from allele_mlflow.clock import now_ns
from allele_mlflow.errors import QueueFormatError
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.cursor import SegmentPosition
from allele_mlflow.queue.segment_reader import SegmentReader, count_unread, exact_end

#: Passing shortages: the file is as good as it was, and is tried again.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


class StreamSegments:
    """
    Every segment in a stream's folder. Not thread-safe.

    Args:
        folder: The stream's folder.
        positions: How far the cursor says that each was read.
    """

    def __init__(self, folder: Path, positions: Mapping[str, SegmentPosition]) -> None:
        self.folder = folder
        #: What could not be read, in words, and the names of those files, which are kept.
        self.damage: list[str] = []
        self.damaged_files: list[str] = []
        #: Whether one could not be opened for want of something that will be there again.
        self.has_shortage = False
        self._is_series_first = False
        self._is_cleared_up = False
        self._has_series = False
        names = self.names()
        self._known = {name: place for name, place in positions.items() if name in names}
        self._open: dict[str, SegmentReader] = {}
        #: Of a backlog: records in segments that are full and not begun.
        self._full_counts: dict[str, int] = {}

    def names(self, lane: str | None = None) -> list[str]:
        """
        The names of the segments that are there, in order; of one lane or of both.

        Raises:
            OSError: the folder cannot be listed now. (It is not there: no segment.)
        """
        try:
            found = os.listdir(self.folder)
        except FileNotFoundError:  # and nothing else: an empty answer ends a stream
            return []
        names = sorted(name for name in found if layout.parse_segment_name(name))
        self._has_series = self._has_series or any(name[0] == layout.SERIES_LANE for name in names)
        return names if lane is None else [name for name in names if name[0] == lane]

    # --- reading --------------------------------------------------------------------------------

    def unfinished(self) -> Iterator[SegmentReader]:
        """
        Those with something to read, oldest first, the two lanes in turn: neither waits for the
        other's backlog.
        """
        self.has_shortage = False
        self._is_series_first = not self._is_series_first
        lanes = [layout.METRIC_LANE, layout.SERIES_LANE]
        for lane in reversed(lanes) if self._is_series_first else lanes:
            yield from self._unfinished_of(lane)

    def positions(self) -> dict[str, SegmentPosition]:
        """
        How far each was read; those that are read to the end too, until they are gone.
        """
        return self._known | {name: segment.position for name, segment in self._open.items()}

    def remove_finished(self, *, is_over: bool = False) -> None:
        """
        Remove those that are read to the end, or all that could be read where the stream is over.
        """
        names = [name for name, segment in self._open.items() if is_over or segment.is_finished]
        for name in names:
            segment = self._open.pop(name)
            self._known[name] = (
                segment.position
            )  # where it cannot be removed, it is read all the same
            segment.close()
        self._unlink(names)

    def clear_up(self) -> None:
        """
        Remove what a reader left that was stopped between the last cursor and the removal; what it
        could not read stays, and is told of again.
        """
        if self._is_cleared_up:
            return
        self._is_cleared_up = True
        for name in self.names():
            if self._opened(name) is None or name in self._known:
                continue
            self._open.pop(name).close()
            self._note_damage(name, f"{self.folder / name}: could not be read in its time")
        self.remove_finished(is_over=True)

    def torn_readings(self, given: Mapping[str, int]) -> int:
        """
        Readings in slots that were taken and never written; `given` as in the writer's farewell.
        """
        return sum(s.torn_readings(given.get(name)) for name, s in self._open.items())

    def close(self) -> None:
        """
        Give back the descriptors.
        """
        for segment in self._open.values():
            segment.close()
        self._open.clear()

    # --- looking --------------------------------------------------------------------------------

    def unread(self, *, is_exact: bool, leaving_out: Container[str] = ()) -> int:
        """
        Readings and edges that were not read yet, but for those of some segments.
        """
        total = 0
        for name in self.names():
            if name in leaving_out:
                continue
            is_begun = name in self._open or name in self._known
            if name in self._full_counts and not (is_begun or is_exact):
                total += self._full_counts[name]
                continue
            self._full_counts.pop(name, None)
            with contextlib.suppress(OSError, QueueFormatError):
                place = self._position_of(name)
                unread = count_unread(self.folder / name, place, is_exact=is_exact)
                total += unread.record_count
                if unread.is_full and not is_begun:
                    self._full_counts[name] = unread.record_count
        return total

    def ends(self) -> dict[str, int]:
        """
        How far each is written now, in slots.
        """
        ends = {}
        for name in self.names():
            with contextlib.suppress(OSError, QueueFormatError):
                ends[name] = exact_end(self.folder / name, self._position_of(name))
        return ends

    def has_read(self, ends: Mapping[str, int]) -> bool:
        """
        Whether everything written below these ends was read.
        """
        return all(self._has_read(name, end) for name, end in ends.items())

    def prepare_spare(self) -> None:
        """
        Make the writer's next metric segment ahead of its need, where it can be made.
        """
        spare = self.folder / layout.SPARE
        metric_segments = [one for one in self._open.values() if not one.is_series]
        present = max(metric_segments, key=lambda one: one.path.name, default=None)
        if present is None or spare.exists():
            return
        size = present.slot_count * layout.RECORD_BYTES + layout.HEADER_BYTES
        with contextlib.suppress(OSError):
            spool.make_segment(spare, size, now_ns())

    def remove_spare(self) -> None:
        """
        Remove the segment that was made ahead, which nobody will take.
        """
        self._unlink([layout.SPARE])

    # --- inner ----------------------------------------------------------------------------------

    def _unfinished_of(self, lane: str) -> Iterator[SegmentReader]:
        """
        Those at hand come first, and the folder is looked through only when they do not suffice: a
        backlog may have more segments than a process may have descriptors, and takes long to list.
        """
        for name in sorted(name for name in self._open if name[0] == lane):
            if not self._open[name].is_finished:
                yield self._open[name]
        if lane == layout.SERIES_LANE and not self._is_series_there():
            return
        for name in self.names(lane):
            segment = self._opened(name) if name not in self._open else None
            if segment is not None and not segment.is_finished:
                yield segment

    def _is_series_there(self) -> bool:
        # most streams have none, and one look is cheaper than the whole folder
        first = self.folder / layout.segment_name(layout.SERIES_LANE, 0)
        self._has_series = self._has_series or first.exists()
        return self._has_series

    def _opened(self, name: str) -> SegmentReader | None:
        try:
            segment = SegmentReader(
                self.folder / name,
                self._position_of(name),
                on_damage=partial(self._note_damage, name),
            )
        except FileNotFoundError:
            return None
        except (OSError, QueueFormatError) as exc:
            if isinstance(exc, OSError) and exc.errno in SHORTAGES:
                self.has_shortage = True
            else:
                self._note_damage(name, str(exc))
            return None
        self._open[name] = segment
        return segment

    def _note_damage(self, name: str, text: str) -> None:
        if name not in self.damaged_files:
            self.damaged_files.append(name)
        if text not in self.damage:
            self.damage.append(text)

    def _position_of(self, name: str) -> SegmentPosition:
        segment = self._open.get(name)
        return segment.position if segment else self._known.get(name, SegmentPosition(0))

    def _has_read(self, name: str, end: int) -> bool:
        segment = self._open.get(name)
        if segment is not None:
            return segment.has_passed(end)
        if name in self.damaged_files or not (self.folder / name).exists():
            return True  # read, committed and removed
        return self._position_of(name).next >= end

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.damaged_files:
                continue
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError:
                continue
            self._known.pop(name, None)
