"""
What `call_cost.py` calls: the floor, and streams of this project on disk and in memory.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.tracking import limits
from benchmarks.scratch import scratch_folder

MEMORY = Path("/dev/shm")
#: Small enough to stay in the cache: a floor that misses it would flatter us.
FLOOR_LENGTH = 10_000


class Floor:
    """
    The least that keeps a reading in Python: a tuple with its time, in a bounded deque.
    """

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: deque[tuple[str, float, int | None, int]] = deque(maxlen=FLOOR_LENGTH)
        for step in range(FLOOR_LENGTH):  # full, as it is for most of a run
            self.metric("", 0.0, step)

    def metric(self, key: str, value: float, step: int | None = None) -> None:
        """
        Keep one reading in memory; lost with the process.
        """
        self._rows.append((key, value, step, time.time_ns()))


class Stream:
    """
    A writer's stream without logger or sidecar; `metric` is the very method that a logger binds.
    """

    def __init__(self, folder: Path) -> None:
        run = spool.open_scope(folder) / "runs" / spool.new_uid()
        run.mkdir(mode=0o700)
        self.writer = StreamWriter(run, check_key=limits.check_key)
        self._files = run / spool.STREAMS / self.writer.stream_id

    def clear(self) -> None:
        """
        Unlink every segment but the newest of each lane.
        """
        for lane in (layout.METRIC_LANE, layout.SERIES_LANE):
            for path in sorted(self._files.glob(f"{lane}-*.seg"))[:-1]:
                path.unlink()

    def check(self) -> None:
        """
        Refuse numbers of calls that kept nothing.
        """
        dropped = self.writer.counters.as_dict()
        if dropped:
            raise RuntimeError(f"records were not kept, so the times say nothing: {dropped}")


@contextlib.contextmanager
def open_streams(disk: Path) -> Iterator[dict[str, Stream]]:
    """
    A stream on disk, and one in memory where the machine has such a file system.
    """
    with contextlib.ExitStack() as stack:
        streams = {"metric_disk": Stream(disk / "spool")}
        if MEMORY.is_dir():
            memory = stack.enter_context(
                scratch_folder(MEMORY / f"allele-mlflow-{spool.new_uid()}")
            )
            streams["metric_tmpfs"] = Stream(memory / "spool")
        try:
            yield streams
        finally:
            for stream in streams.values():
                stream.writer.close()
