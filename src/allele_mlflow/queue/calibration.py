"""
What one log call costs here, measured on the spot, so that a run can report its logger's share.
"""

from __future__ import annotations

import mmap
from functools import cache
from itertools import count

from allele_mlflow.clock import now_monotonic_ns
from allele_mlflow.queue import layout
from allele_mlflow.queue.stream_files import Segment
from allele_mlflow.queue.writer import StreamWriter

CALLS = 1000
ROUNDS = 3


@cache
def seconds_per_call() -> float:
    """
    Median cost of one `metric` call in seconds, on a map without a file; takes about 2 ms, once.
    """
    writer = StreamWriter(None, check_key=lambda key: None)
    size = layout.HEADER_BYTES + CALLS * layout.RECORD_BYTES
    target = mmap.mmap(-1, size)
    metric = writer.metric
    rounds = []
    for _ in range(ROUNDS):
        offsets = count(layout.HEADER_BYTES, layout.RECORD_BYTES)
        writer._lane = ({"a": 1}, offsets, layout.PACK_RECORD, target, Segment(None, "", size))
        before_ns = now_monotonic_ns()
        for step in range(CALLS):
            metric("a", 0.5, step)
        rounds.append(now_monotonic_ns() - before_ns)
    return sorted(rounds)[ROUNDS // 2] / CALLS / 1e9
