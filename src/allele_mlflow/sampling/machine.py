"""
The machine as a whole, under the names of MLflow's own system metrics, so that its tab shows them.

Unlike there, the first CPU percentage is that of an interval, not a made-up 0.

Units: megabytes are 10^6 bytes; network counts from the start of sampling.
Source: mlflow/system_metrics/metrics/{cpu,disk,network}_monitor.py (MLflow 3.17) for the names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psutil

from allele_mlflow.sampling.probe import MIN_INTERVAL_S, ResourceProbe

_BYTES_PER_MB = 1e6
#: Linux counts these inside user and nice already.
_COUNTED_TWICE = frozenset({"guest", "guest_nice"})
_IDLE = frozenset({"idle", "iowait"})


class MachineCpu:
    """
    Busy share of all cores. Units: percent of the machine, 0 to 100.
    """

    name = "machine.cpu"
    unavailable = None

    def __init__(self, cpu_times: Callable[[], Any] = psutil.cpu_times) -> None:
        self._cpu_times = cpu_times
        self._base: dict[str, float] | None = None
        self._since_s = 0.0

    def prime(self, monotonic_s: float) -> None:
        """
        Measure from here on.
        """
        self._base, self._since_s = self._cpu_times()._asdict(), monotonic_s

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Percent since the last answer; absent without a baseline or too soon after it.
        """
        if self._base is not None and monotonic_s - self._since_s < MIN_INTERVAL_S:
            return {}
        base = self._base
        self.prime(monotonic_s)
        if base is None or self._base is None:
            return {}
        # The kernel takes iowait back now and then: a negative difference is nothing, not less.
        spent = {
            kind: max(0.0, seconds - base.get(kind, 0.0))
            for kind, seconds in self._base.items()
            if kind not in _COUNTED_TWICE
        }
        total_s = sum(spent.values())
        if total_s <= 0.0:
            return {}
        busy_s = sum(seconds for kind, seconds in spent.items() if kind not in _IDLE)
        return {"system/cpu_utilization_percentage": 100.0 * busy_s / total_s}


class MachineMemory:
    """
    Memory in use.
    """

    name = "machine.memory"
    unavailable = None

    def prime(self, monotonic_s: float) -> None:
        """
        Nothing: these are levels, not counters.
        """

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Memory in use, in megabytes and percent.
        """
        memory = psutil.virtual_memory()
        return {
            "system/system_memory_usage_megabytes": memory.used / _BYTES_PER_MB,
            "system/system_memory_usage_percentage": 100.0 * memory.used / memory.total,
        }


class MachineDisk:
    """
    Space on the root file system, as MLflow takes it.
    """

    name = "machine.disk"
    unavailable = None

    def prime(self, monotonic_s: float) -> None:
        """
        Nothing: these are levels, not counters.
        """

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Used and free space.
        """
        disk = psutil.disk_usage(os.sep)
        return {
            "system/disk_usage_percentage": disk.percent,
            "system/disk_usage_megabytes": disk.used / _BYTES_PER_MB,
            "system/disk_available_megabytes": disk.free / _BYTES_PER_MB,
        }


class MachineNetwork:
    """
    Traffic of all interfaces since the baseline.
    """

    name = "machine.network"

    def __init__(self) -> None:
        self.unavailable: str | None = None
        self._received_bytes: int | None = None
        self._sent_bytes = 0

    def prime(self, monotonic_s: float) -> None:
        """
        Count from here on.
        """
        counters = psutil.net_io_counters()
        # None where the machine has no interface, whatever the stubs say.
        if counters is None:
            self.unavailable = "no network interface"  # type: ignore[unreachable]
        else:
            self._received_bytes, self._sent_bytes = counters.bytes_recv, counters.bytes_sent

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Megabytes since the baseline; absent without one.
        """
        if self._received_bytes is None:
            self.prime(monotonic_s)
            return {}
        counters = psutil.net_io_counters()
        received_bytes = counters.bytes_recv - self._received_bytes
        sent_bytes = counters.bytes_sent - self._sent_bytes
        return {
            "system/network_receive_megabytes": received_bytes / _BYTES_PER_MB,
            "system/network_transmit_megabytes": sent_bytes / _BYTES_PER_MB,
        }


def machine_probes() -> list[ResourceProbe]:
    """
    The four, apart, so that one that fails takes no other with it.
    """
    return [MachineCpu(), MachineMemory(), MachineDisk(), MachineNetwork()]
