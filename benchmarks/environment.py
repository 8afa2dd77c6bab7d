"""
Where numbers come from: machine, versions, load, file system. Unlike environments are never pooled.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from allele_mlflow.environment.affinity import count_usable_cpus
from allele_mlflow.environment.machine import find_cpu_model, find_memory_bytes
from allele_mlflow.queue import spool

PACKAGES = (
    "allele-mlflow",
    "mlflow-skinny",
    "mlflow",
    "sqlalchemy",
    "allele",
    "numpy",
    "scipy",
    "pandas",
    "msgspec",
    "anyio",
    "psutil",
)


def describe_environment(folder: Path) -> dict[str, Any]:
    """
    This machine and Python now; `folder` is where the measured spool lies.

    Units: `load_average` as the kernel says it, over 1, 5 and 15 minutes. A package that is not
    installed has version None.
    """
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": find_cpu_model(),
        "cpu_count": os.cpu_count(),
        "usable_cpu_count": count_usable_cpus(),
        "memory_mb": _memory_mb(),
        "file_system": spool.file_system_of(folder),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def is_busy() -> bool:
    """
    Whether the machine has more to do than this benchmark: absolute times are no good then.
    """
    return os.getloadavg()[0] > 0.5 * (count_usable_cpus() or 1)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory_mb() -> int | None:
    found = find_memory_bytes()
    return None if found is None else found >> 20
