"""
What the sampler promises about its probes as a whole.
"""

from __future__ import annotations

import ast
import math
import os
from pathlib import Path

import pytest

from allele_mlflow import sampling
from allele_mlflow.sampling.sampler import ResourceSampler
from allele_mlflow.units import describe

TREES = Path(__file__).parents[2] / "data" / "cgroup"


class FakeClock:
    """
    A clock that stands until it is told to move.
    """

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def now_ns(self) -> int:
        return 1_700_000_000_000_000_000 + round(self.elapsed_s * 1e9)

    def monotonic_s(self) -> float:
        return 1000.0 + self.elapsed_s


class FakeProbe:
    """
    A probe that gives what it is told, or fails.
    """

    def __init__(self, name: str, values: dict[str, float] | Exception) -> None:
        self.name = name
        self.unavailable: str | None = None
        self.values = values
        self.calls: list[tuple[str, float]] = []

    def prime(self, monotonic_s: float) -> None:
        self.calls.append(("prime", monotonic_s))

    def sample(self, monotonic_s: float) -> dict[str, float]:
        self.calls.append(("sample", monotonic_s))
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


def sampler_of(*probes: FakeProbe, clock: FakeClock | None = None) -> ResourceSampler:
    """
    A sampler of no process, with these probes.
    """
    return ResourceSampler([], clock=clock or FakeClock(), probes=probes)


def test_failing_probe_is_switched_off_alone(caplog: pytest.LogCaptureFixture) -> None:
    """
    A probe that raises costs its own metrics only; the reason is kept, and it is not asked again.
    """
    broken = FakeProbe("broken", OSError("no such thing"))
    sampler = sampler_of(broken, FakeProbe("good", {"system/x": 1.0}))
    assert sampler.sample().values == {"system/x": 1.0}
    assert sampler.sample().values == {"system/x": 1.0}
    assert sampler.unavailable == {"broken": "OSError: no such thing"}
    assert [call for call, _ in broken.calls] == ["prime", "sample"]
    assert len(caplog.records) == 1


def test_absent_source_is_not_asked_again() -> None:
    """
    A probe that knows it can give nothing here is listed with its reason and left alone.
    """
    absent = FakeProbe("absent", {})
    absent.unavailable = "not on this machine"
    sampler = sampler_of(absent)
    sampler.sample()
    assert sampler.unavailable == {"absent": "not on this machine"}
    assert [call for call, _ in absent.calls] == ["prime"]


def test_values_are_finite() -> None:
    """
    NaN and infinity are no readings: such a metric is absent.
    """
    values = {"system/a": math.nan, "system/b": math.inf, "system/c": 0.0}
    assert sampler_of(FakeProbe("odd", values)).sample().values == {"system/c": 0.0}


def test_sample_carries_the_time_of_its_clock() -> None:
    """
    A sample is stamped with the wall clock; probes see the monotonic one, and their baseline is
    taken at construction.
    """
    clock, probe = FakeClock(), FakeProbe("p", {})
    sampler = sampler_of(probe, clock=clock)
    clock.elapsed_s = 2.0
    assert sampler.sample().timestamp_ns == 1_700_000_002_000_000_000
    assert probe.calls == [("prime", 1000.0), ("sample", 1002.0)]


def test_cost_is_known() -> None:
    """
    The sampler adds up the CPU seconds that its probes take.
    """
    ticks = iter(range(100))
    sampler = ResourceSampler([], probes=[], cpu_clock=lambda: next(ticks) * 0.5)
    after_prime_s = sampler.cost_s
    sampler.sample()
    assert sampler.cost_s > after_prime_s > 0.0


@pytest.mark.parametrize(("elapsed_s", "is_there"), [(0.01, False), (0.06, True), (1.0, True)])
def test_first_sample_has_cpu_where_it_means_something(elapsed_s: float, is_there: bool) -> None:
    """
    The first sample uses the interval since construction if that was 50 ms, else leaves CPU out.
    """
    clock = FakeClock()
    sampler = ResourceSampler([os.getpid()], clock=clock, excluded_pids=())
    clock.elapsed_s = elapsed_s
    values = sampler.sample().values
    assert ("system/process_cpu_percent" in values) == is_there
    assert values["system/process_count"] >= 1.0
    assert "system/system_memory_usage_megabytes" in values


def test_every_metric_of_a_real_sample_is_in_the_table() -> None:
    """
    What a sample names has a unit, and a value that can be true.
    """
    clock = FakeClock()
    sampler = ResourceSampler([os.getpid()], clock=clock, excluded_pids=())
    clock.elapsed_s = 1.0
    for name, value in sampler.sample().values.items():
        row = describe(name)
        assert row is not None, name
        assert row.is_valid(value), (name, value)
    sampler.close()


def test_whole_machine_without_gpu_and_cgroup(tmp_path: Path) -> None:
    """
    No driver and no cgroup: the sample has the rest, and both reasons are listed.
    """

    class NoDriver:
        class NVMLError(Exception):
            pass

        def nvmlInit(self) -> None:
            raise self.NVMLError("Driver Not Loaded")

    sampler = ResourceSampler(
        [os.getpid()], excluded_pids=(), nvml=NoDriver(), file_system_root=tmp_path
    )
    values = sampler.sample().values
    assert set(sampler.unavailable) == {"cgroup", "gpu"}
    assert "Driver Not Loaded" in sampler.unavailable["gpu"]
    assert not any("gpu" in name or "cgroup" in name for name in values)
    assert "system/process_rss_megabytes" in values


def test_dead_benchmark_leaves_the_machine() -> None:
    """
    After the benchmark's end there are machine metrics and none of the process.
    """
    values = ResourceSampler([2**22 + 1]).sample().values
    assert "system/system_memory_usage_megabytes" in values
    assert not any("process" in name for name in values)


def test_attached_process_is_followed_from_then_on() -> None:
    """
    A process attached later belongs to the tree from the next sample on.
    """
    sampler = ResourceSampler([], excluded_pids=(), probes=[])
    assert sampler.sample().values == {}
    assert sampler.follow(os.getpid())
    assert sampler.sample().values["system/process_count"] >= 1.0
    assert os.getpid() in sampler.pids


def test_room_knows_no_mlflow_and_no_sidecar() -> None:
    """
    Sampling imports neither mlflow nor anyio, and no room above or beside it.
    """
    banned = (
        "mlflow",
        "anyio",
        "allele_mlflow.queue",
        "allele_mlflow.sidecar",
        "allele_mlflow.tracking",
    )
    for path in Path(sampling.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.startswith(banned) for name in names), (path.name, names)
