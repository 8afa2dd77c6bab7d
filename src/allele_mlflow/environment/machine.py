"""
What the machine says of its processor, memory, limits and GPUs, as far as it says it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from pathlib import Path
from typing import Any

from allele_mlflow.environment.fingerprint import Gpu
from allele_mlflow.sampling.gpu import GpuProbe

#: More than the first processors' lines is never needed, and writing all of them takes the kernel
#: a while on a machine of many.
_CPUINFO_BYTES = 8192
_MODEL_NAMES = ("model name", "cpu model", "cpu", "uarch")
_ARM_NAMES = ("cpu implementer", "cpu part")
_SYSCTL = "/usr/sbin/sysctl"
_SYSCTL_DEADLINE_S = 2.0
#: A cold driver of eight devices takes seconds; a broken one for ever.
GPU_DEADLINE_S = 10.0
_GPU_FILES = ("proc/driver/nvidia", "dev/nvidia0", "dev/dxg")


def find_cpu_model(root: Path = Path("/")) -> str | None:
    """
    What the processor calls itself; on ARM its numbers.
    """
    facts: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            text = lines.read(_CPUINFO_BYTES)
    except OSError:
        return _mac_cpu_model() or platform.processor() or None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip().lower(), value.strip())
    for name in _MODEL_NAMES:
        if facts.get(name):
            return facts[name]
    if all(facts.get(name) for name in _ARM_NAMES):
        return "ARM implementer {} part {}".format(*(facts[name] for name in _ARM_NAMES))
    return platform.processor() or None


def _mac_cpu_model() -> str | None:
    try:
        done = subprocess.run(
            [_SYSCTL, "-n", "machdep.cpu.brand_string"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SYSCTL_DEADLINE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def find_cpu_governor(root: Path = Path("/")) -> str | None:
    """
    The frequency governor of all cores, comma-separated where they differ; None where there is
    none, as in most virtual machines.
    """
    found = set()
    for policy in (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_governor"):
        try:
            found.add(policy.read_text(encoding="utf-8", errors="replace").strip())
        except OSError:
            continue
    return ",".join(sorted(found - {""})) or None


def find_memory_bytes() -> int | None:
    """
    Memory of the machine.
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def find_gpus(
    visible_devices: str | None, *, root: Path = Path("/"), nvml: Any = None
) -> tuple[list[Gpu] | None, str | None]:
    """
    The NVIDIA devices that CUDA_VISIBLE_DEVICES shows, and their driver's version.

    None where there seems to be one and nobody can tell: the extra `gpu` is not installed, or the
    driver does not answer within `GPU_DEADLINE_S`. Without a device nothing is loaded.
    """
    if not any((root / name).exists() for name in _GPU_FILES):
        return [], None
    found: list[tuple[list[Gpu] | None, str | None]] = []
    probe = GpuProbe(lambda: (), visible_devices=visible_devices, nvml=nvml)

    def ask() -> None:
        facts = probe.describe_devices()
        if facts is not None:
            gpus = [Gpu(name=one.name, memory_bytes=one.memory_bytes) for one in facts.devices]
            found.append((gpus, facts.driver))
        probe.close()

    # a thread of its own that nobody waits for at exit: the driver may hang
    thread = threading.Thread(target=ask, name="allele-mlflow-gpus", daemon=True)
    thread.start()
    thread.join(GPU_DEADLINE_S)
    return found[0] if found else (None, None)
