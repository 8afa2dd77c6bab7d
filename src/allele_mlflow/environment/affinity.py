"""
How many cores a process may run on. Apart, for the benchmark's process loads it.
"""

from __future__ import annotations

import os


def count_usable_cpus() -> int | None:
    """
    Cores that this process may run on; all of the machine's where the system has no affinity.
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count()
