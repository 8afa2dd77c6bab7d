"""
What the machine probes promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import psutil
import pytest

from allele_mlflow.sampling.machine import MachineCpu, MachineNetwork, machine_probes
from allele_mlflow.units import describe


class Times(NamedTuple):
    """
    CPU times as psutil gives them on Linux, cut down.
    """

    user: float
    idle: float
    iowait: float
    guest: float


def cpu_probe(*looks: Times) -> MachineCpu:
    """
    A probe that sees these CPU times, one a look.
    """
    times: Iterator[Times] = iter(looks)
    return MachineCpu(lambda: next(times))


def test_cpu_percentage_is_that_of_the_interval() -> None:
    """
    Busy over all between two looks; waiting for disks is idle and guests are not counted twice.
    """
    probe = cpu_probe(Times(100, 500, 10, 50), Times(103, 504, 11, 53))
    probe.prime(1.0)
    assert probe.sample(2.0) == {"system/cpu_utilization_percentage": pytest.approx(37.5)}


def test_first_cpu_percentage_is_absent_not_zero() -> None:
    """
    Without a baseline there is no percentage; the look becomes the baseline.
    """
    probe = cpu_probe(Times(1, 1, 0, 0), Times(2, 1, 0, 0))
    assert probe.sample(1.0) == {}
    assert probe.sample(2.0) == {"system/cpu_utilization_percentage": 100.0}


def test_too_early_look_keeps_the_baseline() -> None:
    """
    A look after 10 ms gives nothing and takes nothing from the next one.
    """
    probe = cpu_probe(Times(0, 0, 0, 0), Times(1, 3, 0, 0))
    probe.prime(1.0)
    assert probe.sample(1.01) == {}
    assert probe.sample(2.0) == {"system/cpu_utilization_percentage": 25.0}


def test_iowait_that_runs_back_stays_in_range() -> None:
    """
    The kernel takes iowait back now and then; the percentage stays between 0 and 100.
    """
    probe = cpu_probe(Times(10, 10, 10, 0), Times(11, 10, 4, 0))
    probe.prime(1.0)
    assert probe.sample(2.0) == {"system/cpu_utilization_percentage": 100.0}


def test_names_are_those_of_mlflows_system_metrics() -> None:
    """
    The metrics carry MLflow's names, so that its system metrics tab shows them, and true values.
    """
    values: dict[str, float] = {}
    for probe in machine_probes():
        probe.prime(-1e6)
        values |= probe.sample(0.0)
    # The CPU percentage needs the kernel's counters to move, which a fast test may not see.
    values.setdefault("system/cpu_utilization_percentage", 0.0)
    assert set(values) == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
        "system/disk_usage_percentage",
        "system/disk_usage_megabytes",
        "system/disk_available_megabytes",
        "system/network_receive_megabytes",
        "system/network_transmit_megabytes",
    }
    for name, value in values.items():
        row = describe(name)
        assert row is not None
        assert row.is_valid(value)


def test_network_counts_from_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Traffic before the run is not the run's; without a baseline the metric is absent.
    """
    counters = iter([(10_000_000, 5_000_000), (12_000_000, 5_500_000)])

    class Counters(NamedTuple):
        bytes_recv: int
        bytes_sent: int

    monkeypatch.setattr(psutil, "net_io_counters", lambda: Counters(*next(counters)))
    probe = MachineNetwork()
    assert probe.sample(1.0) == {}
    assert probe.sample(2.0) == {
        "system/network_receive_megabytes": 2.0,
        "system/network_transmit_megabytes": 0.5,
    }


def test_machine_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No interface: no metric, and a reason.
    """
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
    probe = MachineNetwork()
    assert probe.sample(1.0) == {}
    assert probe.unavailable == "no network interface"
