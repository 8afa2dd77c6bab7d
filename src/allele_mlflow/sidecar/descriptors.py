"""
How many runs a process may serve at once with the descriptors that it may have.
"""

from __future__ import annotations

import os
import resource
import sys

#: Of one run: its lock, cursors, segments, and the sampler's own stream.
PER_RUN = 12
#: What is left for everything else, and a part of the limit where it is large: MLflow's imports
#: (one that fails half-way cannot be done again), its connections, uploads, runs with many streams.
RESERVE = 64
RESERVE_RATIO = 0.25
FOLDER = "/dev/fd"


def is_room(*, used: int, limit: int, runs: int) -> bool:
    """
    Whether one more run may be taken up beside `runs`, some of which may not have opened theirs
    yet.
    """
    return max(used, runs * PER_RUN) + PER_RUN <= limit - _reserve(limit)


def most_runs() -> int:
    """
    How many runs there is room for in all.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return (limit - _reserve(limit)) // PER_RUN


def is_room_for_another(runs: int) -> bool:
    """
    Whether this process can take up one more run; always one, however few descriptors it has.
    """
    if runs == 0:
        return True
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return True
    try:
        used = len(os.listdir(FOLDER))
    except FileNotFoundError:  # nobody tells here
        used = 0
    except OSError:  # not even one is left to look
        return False
    return is_room(used=used, limit=limit, runs=runs)


def _reserve(limit: int) -> int:
    return max(RESERVE, int(limit * RESERVE_RATIO))
