"""
What a metric's name means: unit, better direction, range of values that can be true.

One table for every name that the sampler and the phases write. A name that is not in it is a user's
own metric, of which nothing is known: `describe` then says None.

Units: megabytes are 10^6 bytes, as in MLflow's own system metrics. `percent` of a process, a phase
or a cgroup is of one core (200 = two cores busy); `percent` of the machine is of all its cores.
"""

from __future__ import annotations

import re
from enum import StrEnum
from math import inf
from typing import NamedTuple


class Direction(StrEnum):
    """
    Which way is better when two runs are compared; `none` where neither is.
    """

    HIGHER = "higher"
    LOWER = "lower"
    NONE = "none"


class MetricUnit(NamedTuple):
    """
    One row of the table. In `pattern`, `<i>` is a number and `<name>` any text, slashes included.
    """

    pattern: str
    unit: str
    direction: Direction
    low: float = 0.0
    high: float = inf

    def is_valid(self, value: float) -> bool:
        """
        Whether the value can be true. NaN never is, for missing is not a value.
        """
        return self.low <= value <= self.high


_LOWER = Direction.LOWER
_NONE = Direction.NONE

#: Resources of a run. Direction `none` marks what describes the machine or the workload: more
#: network traffic or a busier GPU is neither better nor worse by itself.
RESOURCE_UNITS: tuple[MetricUnit, ...] = (
    MetricUnit("system/cpu_utilization_percentage", "percent", _NONE, high=100.0),
    MetricUnit("system/system_memory_usage_megabytes", "megabytes", _NONE),
    MetricUnit("system/system_memory_usage_percentage", "percent", _NONE, high=100.0),
    MetricUnit("system/disk_usage_percentage", "percent", _NONE, high=100.0),
    MetricUnit("system/disk_usage_megabytes", "megabytes", _NONE),
    MetricUnit("system/disk_available_megabytes", "megabytes", _NONE),
    MetricUnit("system/network_receive_megabytes", "megabytes", _NONE),
    MetricUnit("system/network_transmit_megabytes", "megabytes", _NONE),
    MetricUnit("system/process_cpu_percent", "percent", _NONE),
    MetricUnit("system/process_rss_megabytes", "megabytes", _LOWER),
    MetricUnit("system/process_pss_megabytes", "megabytes", _LOWER),
    MetricUnit("system/process_threads", "threads", _NONE, low=1.0),
    MetricUnit("system/process_fds", "file descriptors", _NONE),
    MetricUnit("system/process_read_megabytes", "megabytes", _NONE),
    MetricUnit("system/process_write_megabytes", "megabytes", _NONE),
    MetricUnit("system/process_count", "processes", _NONE, low=1.0),
    MetricUnit("system/cgroup_memory_megabytes", "megabytes", _LOWER),
    MetricUnit("system/cgroup_memory_limit_megabytes", "megabytes", _NONE),
    MetricUnit("system/cgroup_cpu_percent", "percent", _NONE),
    # The kernel adds up the waits of all cores, so this may pass 100.
    MetricUnit("system/cgroup_cpu_throttled_percent", "percent", _LOWER),
    MetricUnit("system/cgroup_oom_kills", "processes", _LOWER),
    MetricUnit("system/gpu_<i>_utilization_percentage", "percent", _NONE, high=100.0),
    MetricUnit("system/gpu_<i>_memory_usage_megabytes", "megabytes", _NONE),
    MetricUnit("system/gpu_<i>_memory_usage_percentage", "percent", _NONE, high=100.0),
    MetricUnit("system/gpu_<i>_power_usage_watts", "watts", _NONE),
    MetricUnit("system/gpu_<i>_temperature_celsius", "degrees Celsius", _NONE, low=-273.15),
    MetricUnit("system/gpu_<i>_process_memory_megabytes", "megabytes", _LOWER),
)

#: Summaries of a run's phases, written once at its end.
PHASE_UNITS: tuple[MetricUnit, ...] = (
    MetricUnit("phase/<name>/seconds", "seconds", _LOWER),
    MetricUnit("phase/<name>/count", "phases", _NONE, low=1.0),
    MetricUnit("phase/<name>/cpu_percent_mean", "percent", _NONE),
    MetricUnit("phase/<name>/rss_mb_max", "megabytes", _LOWER),
    MetricUnit("phase/<name>/gpu_percent_mean", "percent", _NONE, high=100.0),
)

#: What the runner of a suite measures of a trial.
TRIAL_UNITS: tuple[MetricUnit, ...] = (
    MetricUnit("trial/seconds", "seconds", _LOWER),
    MetricUnit("trial/warm_up_seconds", "seconds", _NONE),
)

_PLACEHOLDERS = {"<i>": r"\d+", "<name>": ".+"}


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split("(<i>|<name>)", pattern)
    return re.compile("".join(_PLACEHOLDERS.get(part) or re.escape(part) for part in parts))


_EXACT = {row.pattern: row for row in RESOURCE_UNITS + TRIAL_UNITS if "<" not in row.pattern}
_PATTERNS = tuple(
    (_compile(row.pattern), row) for row in RESOURCE_UNITS + PHASE_UNITS if "<" in row.pattern
)


def describe(name: str) -> MetricUnit | None:
    """
    The row that explains a metric's name, or None for a user's own metric.
    """
    row = _EXACT.get(name)
    if row is not None or not name.startswith(("system/gpu_", "phase/")):
        return row
    return next((row for pattern, row in _PATTERNS if pattern.fullmatch(name)), None)
