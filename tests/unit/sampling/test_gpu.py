"""
What the GPU probe promises, with a made-up driver; and the real one where there is one.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from allele_mlflow.sampling.gpu import GpuProbe, visible_indices
from allele_mlflow.units import describe

MB = 1_000_000


class FakeNvml:
    """
    Two devices; `broken` names calls that a device does not support.
    """

    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """
        As pynvml's.
        """

        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    def __init__(self, devices: int = 2, broken: dict[str, int] | None = None) -> None:
        self.devices = devices
        self.broken = broken or {}
        self.calls: list[str] = []

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        if call in self.broken:
            raise self.NVMLError(self.broken[call])

    def nvmlInit(self) -> None:
        self._enter("init")

    def nvmlShutdown(self) -> None:
        self._enter("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        return self.devices

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        self._enter("name")
        return f"NVIDIA T{handle}".encode() if handle else f"NVIDIA T{handle}"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.14"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}aaa-bbb"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._enter("utilization")
        return SimpleNamespace(gpu=40 + handle)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=250 * MB, total=1000 * MB)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._enter("power")
        return 71_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        self._enter("temperature")
        return 33

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=7, usedGpuMemory=100 * MB)]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [
            SimpleNamespace(pid=7, usedGpuMemory=100 * MB),
            SimpleNamespace(pid=8, usedGpuMemory=30 * MB),
            SimpleNamespace(pid=9, usedGpuMemory=None),
            SimpleNamespace(pid=1000, usedGpuMemory=500 * MB),
        ]


def probe_with(
    nvml: FakeNvml, *, pids: set[int] | None = None, visible: str | None = None
) -> GpuProbe:
    """
    A probe of a benchmark with these pids.
    """
    return GpuProbe(lambda: pids or {7, 8, 9}, visible_devices=visible, nvml=nvml)


def test_each_device_gives_all_its_readings() -> None:
    """
    Every visible device gives utilisation, memory, power and temperature; of the processes only the
    benchmark's own count, each once, and one of unknown size not at all.
    """
    values = probe_with(FakeNvml()).sample(0.0)
    assert {name: value for name, value in values.items() if "gpu_1" in name} == {
        "system/gpu_1_utilization_percentage": 41.0,
        "system/gpu_1_memory_usage_megabytes": 250.0,
        "system/gpu_1_memory_usage_percentage": 25.0,
        "system/gpu_1_power_usage_watts": 71.5,
        "system/gpu_1_temperature_celsius": 33.0,
        "system/gpu_1_process_memory_megabytes": 130.0,
    }
    assert len(values) == 12
    assert all(describe(name) is not None for name in values)


def test_foreign_processes_are_not_ours() -> None:
    """
    Nobody of ours on the device (or pids of another namespace): no metric rather than 0.
    """
    values = probe_with(FakeNvml(), pids={4}).sample(0.0)
    assert not any("process_memory" in name for name in values)


def test_unsupported_reading_is_asked_once() -> None:
    """
    What a device does not support is absent, is not asked for again, and hides nothing else.
    """
    nvml = FakeNvml(devices=1, broken={"power": FakeNvml.NVML_ERROR_NOT_SUPPORTED})
    probe = probe_with(nvml)
    for _ in range(3):
        values = probe.sample(0.0)
        assert "system/gpu_0_power_usage_watts" not in values
        assert "system/gpu_0_temperature_celsius" in values
    assert nvml.calls.count("power") == 1


def test_passing_error_costs_one_reading() -> None:
    """
    An error that may pass leaves out one reading; the next sample asks again.
    """
    nvml = FakeNvml(devices=1, broken={"utilization": FakeNvml.NVML_ERROR_GPU_IS_LOST})
    probe = probe_with(nvml)
    assert "system/gpu_0_utilization_percentage" not in probe.sample(0.0)
    nvml.broken.clear()
    assert probe.sample(1.0)["system/gpu_0_utilization_percentage"] == 40.0


def test_new_temperature_call_is_preferred() -> None:
    """
    The call that replaces the deprecated one is used; where the driver does not know it, the old.
    """
    nvml = FakeNvml(devices=1)
    nvml.nvmlDeviceGetTemperatureV = lambda handle, sensor: 44  # type: ignore[attr-defined]
    assert probe_with(nvml).sample(0.0)["system/gpu_0_temperature_celsius"] == 44.0

    def unknown(handle: int, sensor: int) -> int:
        raise FakeNvml.NVMLError(FakeNvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    nvml.nvmlDeviceGetTemperatureV = unknown  # type: ignore[attr-defined]
    assert probe_with(nvml).sample(0.0)["system/gpu_0_temperature_celsius"] == 33.0


UUIDS = {0: "GPU-1aaa-bbb", 1: "GPU-1ccc-ddd", 2: "GPU-2eee-fff"}


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", [0]),
        ("2, 0", [2, 0]),
        ("1,-1,0", [1]),
        ("1,9,0", [1]),
        ("GPU-2eee-fff", [2]),
        ("GPU-2,0", [2, 0]),
        ("GPU-1,2", []),
        ("MIG-GPU-1aaa-bbb/1/0", []),
    ],
)
def test_visible_devices_are_read_as_cuda_does(text: str, indices: list[int]) -> None:
    """
    Numbers and unambiguous beginnings of UUIDs, up to the first entry that names no device.
    """
    assert visible_indices(text, UUIDS) == indices


def test_hidden_devices_are_not_sampled() -> None:
    """
    Only devices that the benchmark may use are sampled, under NVML's number.
    """
    values = probe_with(FakeNvml(), visible="GPU-1aaa").sample(0.0)
    assert {name.split("_")[1] for name in values} == {"1"}


@pytest.mark.parametrize(("devices", "visible"), [(0, None), (2, "-1")])
def test_no_visible_device_says_so(devices: int, visible: str | None) -> None:
    """
    Without a device there is no metric, a reason, and no driver kept awake.
    """
    nvml = FakeNvml(devices)
    probe = probe_with(nvml, visible=visible)
    assert probe.sample(0.0) == {}
    assert probe.status.startswith("no visible NVIDIA GPU")
    assert nvml.calls == ["init", "shutdown"]


def test_missing_driver_says_so() -> None:
    """
    A machine without a driver gives no metric and a reason, and the driver is not looked for again.
    """
    nvml = FakeNvml(broken={"init": 9})
    probe = probe_with(nvml)
    for _ in range(2):
        assert probe.sample(0.0) == {}
    assert probe.status == "no NVIDIA driver answers: error 9"
    assert nvml.calls == ["init"]


def test_missing_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without nvidia-ml-py there is no metric, and the reason names the extra to install.
    """
    monkeypatch.setitem(sys.modules, "pynvml", None)
    probe = GpuProbe(set)
    assert probe.status == "not looked for yet"
    assert probe.sample(0.0) == {}
    assert probe.status == "nvidia-ml-py is not installed (extra `gpu`)"


def test_driver_is_let_go() -> None:
    """
    After `close` the driver is shut down, once.
    """
    nvml = FakeNvml()
    probe = probe_with(nvml)
    probe.sample(0.0)
    assert probe.status == "watching GPU 0, 1"
    probe.close()
    probe.close()
    assert nvml.calls.count("shutdown") == 1


@pytest.mark.gpu
def test_real_devices_give_true_values() -> None:
    """
    On a machine with an NVIDIA GPU every reading lies in its unit's range.
    """
    probe = GpuProbe(lambda: {os.getpid()})
    values = probe.sample(0.0)
    if probe.unavailable is not None:
        pytest.skip(f"hardware: {probe.unavailable}")
    assert any("utilization" in name for name in values)
    assert any("memory_usage_megabytes" in name for name in values)
    for name, value in values.items():
        row = describe(name)
        assert row is not None, name
        assert row.is_valid(value), (name, value)
    probe.close()


def test_module_is_imported_only_when_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Importing the room and making a probe does not load pynvml.
    """
    real_import = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name != "pynvml"
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    GpuProbe(set, visible_devices="0").prime(0.0)
