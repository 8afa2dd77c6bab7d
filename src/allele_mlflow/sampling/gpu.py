"""
NVIDIA GPUs through NVML: the devices that the benchmark may use, and its own memory on them.

Devices carry the number that NVML and nvidia-smi give them, whatever number CUDA_VISIBLE_DEVICES
makes of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

_BYTES_PER_MB = 1e6


class Device(NamedTuple):
    """
    What a device is, and not what it does.
    """

    name: str
    memory_bytes: int | None


class DeviceFacts(NamedTuple):
    """
    The visible devices, and the version of their driver.
    """

    devices: list[Device]
    driver: str | None


class GpuProbe:
    """
    Readings of each visible device; a device that cannot tell something leaves that out.

    Args:
        own_pids: Gives the benchmark's pids, whose GPU memory is added up. In a container NVML may
            speak of the host's pids; then none is found and the metric is absent.
        visible_devices: The text of CUDA_VISIBLE_DEVICES; None where it is not set.
        nvml: A module with pynvml's functions; imported when first needed where None.
    Thread safety: none; one owner.
    Cost: the first sample loads the driver's library, which can take a second.
    """

    name = "gpu"

    def __init__(
        self,
        own_pids: Callable[[], Collection[int]],
        *,
        visible_devices: str | None = None,
        nvml: Any = None,
    ) -> None:
        self.unavailable: str | None = None
        self._own_pids = own_pids
        self._visible_devices = visible_devices
        self._nvml = nvml
        self._handles: dict[int, Any] | None = None
        self._mute: set[tuple[int, str]] = set()
        self._is_none_visible = False

    @property
    def status(self) -> str:
        """
        One line for people: which devices are watched, or why none is.
        """
        if self.unavailable is not None:
            return self.unavailable
        if self._handles is None:
            return "not looked for yet"
        return "watching GPU " + ", ".join(map(str, self._handles))

    def prime(self, monotonic_s: float) -> None:
        """
        Nothing: these are levels, and looking for a driver may take long.
        """

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Readings of the visible devices; nothing without a library, a driver or a device.
        """
        if self._handles is None and self.unavailable is None:
            self._open()
        values: dict[str, float] = {}
        for index, handle in (self._handles or {}).items():
            for what, read in _READERS.items():
                if (index, what) not in self._mute:
                    values |= self._ask(index, handle, what, read)
        return values

    def describe_devices(self) -> DeviceFacts | None:
        """
        The visible devices; None where nobody can tell, as without a library or a driver.
        """
        if self._handles is None and self.unavailable is None:
            self._open()
        if self._handles is None:
            return DeviceFacts([], None) if self._is_none_visible else None
        nvml = self._nvml
        try:
            devices = [
                Device(_text(nvml.nvmlDeviceGetName(one)), _total_memory_bytes(nvml, one))
                for one in self._handles.values()
            ]
            return DeviceFacts(devices, _text(nvml.nvmlSystemGetDriverVersion()))
        except nvml.NVMLError:
            return None  # such as a device that fell off its bus

    def close(self) -> None:
        """
        Let go of the driver.
        """
        if self._handles is not None:
            self._handles = None
            self._nvml.nvmlShutdown()

    def _open(self) -> None:
        try:
            nvml = self._nvml = self._nvml or importlib.import_module("pynvml")
        except ImportError:
            self.unavailable = "nvidia-ml-py is not installed (extra `gpu`)"
            return
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            handles = {index: nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)}
            wanted = self._visible_devices
            if wanted is not None:
                uuids = {index: str(nvml.nvmlDeviceGetUUID(one)) for index, one in handles.items()}
                handles = {index: handles[index] for index in visible_indices(wanted, uuids)}
        except nvml.NVMLError as error:
            self.unavailable = f"no NVIDIA driver answers: {error}"
            return
        if handles:
            self._handles = handles
        else:
            nvml.nvmlShutdown()
            self._is_none_visible = True
            hidden = f": CUDA_VISIBLE_DEVICES={wanted!r} of {count}" if count else ""
            self.unavailable = f"no visible NVIDIA GPU{hidden}"

    def _ask(self, index: int, handle: Any, what: str, read: _Reader) -> dict[str, float]:
        nvml = self._nvml
        try:
            found = read(nvml, handle, self._own_pids())
        except nvml.NVMLError as error:
            # What a device cannot tell it never will (no power meter, MIG); the rest may come back.
            if _code(error) in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                self._mute.add((index, what))
            return {}
        return {f"system/gpu_{index}_{key}": value for key, value in found.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _total_memory_bytes(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return None  # one that shares the processor's


_Reader = Callable[[Any, Any, Collection[int]], dict[str, float]]


def _code(error: Exception) -> int | None:
    value = getattr(error, "value", None)
    return value if isinstance(value, int) else None


def _read_utilization(nvml: Any, handle: Any, own_pids: Collection[int]) -> dict[str, float]:
    return {"utilization_percentage": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}


def _read_memory(nvml: Any, handle: Any, own_pids: Collection[int]) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "memory_usage_megabytes": memory.used / _BYTES_PER_MB,
        "memory_usage_percentage": 100.0 * memory.used / memory.total,
    }


def _read_power(nvml: Any, handle: Any, own_pids: Collection[int]) -> dict[str, float]:
    return {"power_usage_watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0}


def _read_temperature(nvml: Any, handle: Any, own_pids: Collection[int]) -> dict[str, float]:
    # The old call goes with CUDA 14; the new one is unknown to older libraries and drivers.
    sensor = nvml.NVML_TEMPERATURE_GPU
    new_call = getattr(nvml, "nvmlDeviceGetTemperatureV", None)
    if new_call is not None:
        try:
            return {"temperature_celsius": float(new_call(handle, sensor))}
        except nvml.NVMLError:
            pass
    return {"temperature_celsius": float(nvml.nvmlDeviceGetTemperature(handle, sensor))}


def _read_process_memory(nvml: Any, handle: Any, own_pids: Collection[int]) -> dict[str, float]:
    # A process that computes and draws stands in both lists with the same number.
    used = {
        process.pid: process.usedGpuMemory
        for ask in (
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
            nvml.nvmlDeviceGetComputeRunningProcesses,
        )
        for process in ask(handle)
        if process.pid in own_pids and process.usedGpuMemory is not None
    }
    return {"process_memory_megabytes": sum(used.values()) / _BYTES_PER_MB} if used else {}


_READERS: dict[str, _Reader] = {
    "utilization": _read_utilization,
    "memory": _read_memory,
    "power": _read_power,
    "temperature": _read_temperature,
    "process_memory": _read_process_memory,
}


def visible_indices(text: str, uuids: dict[int, str]) -> list[int]:
    """
    The device numbers that CUDA_VISIBLE_DEVICES lets a process see, in its order.

    As CUDA reads it: numbers or unambiguous beginnings of GPU UUIDs; the first entry that names no
    device ends the list, so `-1` and the empty text show none. MIG devices are not sampled. Numbers
    are taken in NVML's (PCI) order, which is CUDA's own only with CUDA_DEVICE_ORDER=PCI_BUS_ID or
    with devices that are all alike.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    visible: list[int] = []
    for entry in text.split(","):
        name = entry.strip()
        if name.isdecimal():
            matches = [int(name)] if int(name) in uuids else []
        elif name.startswith("GPU-"):
            matches = [index for index, uuid in uuids.items() if uuid.startswith(name)]
        else:
            matches = []
        if len(matches) != 1 or matches[0] in visible:
            break
        visible += matches
    return visible
