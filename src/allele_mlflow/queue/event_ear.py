"""
An ear that runs ahead through an event log: it counts what waits there, and hears a flush and the
end of the run though thousands of records stand before them.
"""

from __future__ import annotations

from pathlib import Path

from allele_mlflow.queue.events import EventReader
from allele_mlflow.records import RECORD_KINDS, Event, FlushAsked, RunEnded, StreamEnded

FRAMES_PER_READ = 200


class EventEar:
    """
    Listens to one event log, from an offset on; moves nobody's reading. Not thread-safe.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._log = EventReader(path, offset)
        self._heard: list[Event] = []
        #: Records of the user's since the offset, and the time of the newest event.
        self.record_count = 0
        self.newest_ns = 0

    def hear(self, limit: int, *, is_final: bool) -> bool:
        """
        Take in about `limit` more frames; whether that was all there is.
        """
        for _ in range(0, limit, FRAMES_PER_READ):
            frames = self._log.read(limit=FRAMES_PER_READ, is_final=is_final)
            for event, _ in frames:
                self.newest_ns = max(self.newest_ns, event.timestamp_ns)
                self.record_count += type(event) in RECORD_KINDS
                if isinstance(event, (FlushAsked, RunEnded)):
                    self._heard.append(event)
            if len(frames) < FRAMES_PER_READ:
                return True
        return False

    def take_heard(self) -> list[Event]:
        """
        The flushes and ends since the last call.
        """
        heard, self._heard = self._heard, []
        return heard


def find_farewell(path: Path) -> RunEnded | StreamEnded | None:
    """
    The writer's last word in a whole event log, None where there is none.
    """
    log, found = EventReader(path), None
    while frames := log.read(limit=FRAMES_PER_READ, is_final=True):
        for event, _ in frames:
            if isinstance(event, (RunEnded, StreamEnded)):
                found = event
    return found


def find_flushes(path: Path, end_offset: int, after_id: int) -> list[FlushAsked]:
    """
    The flushes before an offset with an id above `after_id`.
    """
    log, found = EventReader(path), list[FlushAsked]()
    while log.offset < end_offset and (frames := log.read(limit=FRAMES_PER_READ)):
        for event, offset in frames:
            if isinstance(event, FlushAsked) and event.flush_id > after_id and offset <= end_offset:
                found.append(event)
    return found
