"""
The fingerprint of where a benchmark runs, and which parts of it matter for timings.

Format history: 1, the fields as they are. Fields are only ever appended, so an older reader
ignores what it does not know, and in an older fingerprint what is newer is None.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from allele_mlflow.environment.packages import is_tool
from allele_mlflow.errors import ErrorKind, RecordError
from allele_mlflow.records import canonical_json, content_hash

ENVIRONMENT_FORMAT = 1
#: Hex digits of an identity, as they stand in the tag `allele.environment`.
IDENTITY_LENGTH = 16
_BYTES_PER_GIB = 1 << 30


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """
    One device that the benchmark may use.
    """

    name: str
    memory_bytes: int | None = None


class ThreadPool(msgspec.Struct, frozen=True, kw_only=True):
    """
    One BLAS library that a process has loaded, and how many threads it takes.
    """

    library: str
    version: str | None = None
    thread_count: int | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """
    Machine, system, limits, Python, packages and checkout. None: not known; never a guess or 0.

    Attributes:
        format: See the module.
        host: The machine's name, which in a container says nothing.
        system, kernel, machine: As `uname` says them.
        cpu_model: As the processor calls itself.
        cpu_count: Logical cores of the machine.
        usable_cpu_count: Those that the process may run on (its affinity).
        cpu_governor: Of all cores, comma-separated where they differ.
        cpu_limit_count: Cores' worth of time that the control group allows; `cpu_count` where it
            sets no limit.
        memory_bytes: Of the machine.
        memory_limit_bytes: What the control group allows; `memory_bytes` where it sets no limit.
        python, implementation: Version and kind, e.g. 3.12.4 and CPython.
        python_flags: Of the build: "d" debug, "t" free-threaded; usually empty.
        packages: Versions of installed distributions by name.
        thread_limits: The variables that limit threads of numeric libraries, those that are set.
        blas: What this process has loaded by now; needs threadpoolctl.
        gpus: NVIDIA devices that CUDA_VISIBLE_DEVICES shows; empty where there is none.
        gpu_driver: Version of their driver.
        commit, branch: Of the checkout that the folder is in.
        is_dirty: Whether files differ from the commit, or are neither in it nor ignored.
        diff_hash: Hash of these files; empty where there is none.
    """

    format: int = ENVIRONMENT_FORMAT
    host: str | None = None
    system: str | None = None
    kernel: str | None = None
    machine: str | None = None
    cpu_model: str | None = None
    cpu_count: int | None = None
    usable_cpu_count: int | None = None
    cpu_governor: str | None = None
    cpu_limit_count: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    python: str | None = None
    implementation: str | None = None
    python_flags: str | None = None
    packages: dict[str, str] | None = None
    thread_limits: dict[str, str] | None = None
    blas: list[ThreadPool] | None = None
    gpus: list[Gpu] | None = None
    gpu_driver: str | None = None
    commit: str | None = None
    branch: str | None = None
    is_dirty: bool | None = None
    diff_hash: str | None = None

    @property
    def identity(self) -> str:
        """
        Hash of what matters for comparing timings, for the tag `allele.environment`.

        Two environments that are the same by `compare_environments` have one identity. It holds
        neither the code, which is what is compared, nor what only some processes can see (`blas`).
        """
        parts = [[aspect.field, aspect.value(self)] for aspect in ASPECTS]
        parts.append(["packages", packages_that_matter(self)])
        return content_hash(parts)[:IDENTITY_LENGTH]

    @property
    def tags(self) -> dict[str, str]:
        """
        What of it a run is found by in MLflow; the commit under the name that its pages show.
        """
        known = {
            "allele.environment": self.identity,
            "allele.diff_hash": self.diff_hash,
            "mlflow.source.git.commit": self.commit,
            "mlflow.source.git.branch": self.branch,
        }
        return {name: value for name, value in known.items() if value}

    def to_json(self) -> bytes:
        """
        All of it; `read_environment` takes it back.
        """
        return canonical_json(self)


class Weight(StrEnum):
    """
    What a difference between two environments does to a comparison of timings. Append only.
    """

    #: Timings say nothing about the code any more.
    DECISIVE = "decisive"
    #: Timings may differ a little for it, or nobody knows.
    MINOR = "minor"
    #: The code itself: what is usually compared.
    CODE = "code"
    #: Told, and without effect.
    NOTE = "note"


class Aspect(NamedTuple):
    """
    One thing that is compared: a field, or the part of it that matters.
    """

    field: str
    weight: Weight
    value: Callable[[Environment], Any]


def read_environment(data: bytes) -> Environment:
    """
    The environment in a JSON text of any version.

    Raises:
        RecordError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Environment)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RecordError(
            f"no environment: {exc}; want the JSON that Environment.to_json() gives",
            kind=ErrorKind.BAD_VALUE,
        ) from exc


def packages_that_matter(environment: Environment) -> dict[str, str] | None:
    """
    The packages without tools; None where they are not known.
    """
    if environment.packages is None:
        return None
    return {name: one for name, one in environment.packages.items() if not is_tool(name)}


def _series(version: str | None) -> str | None:
    """
    "6.8" of 6.8.0-45-generic.
    """
    return None if version is None else ".".join(version.split(".")[:2])


def _memory(environment: Environment) -> int | None:
    # what a kernel keeps for itself changes with every update
    found = environment.memory_bytes
    return None if found is None else max(1, round(found / _BYTES_PER_GIB))


def _memory_limit(environment: Environment) -> int | str | None:
    found = environment.memory_limit_bytes
    return "none" if found is not None and found == environment.memory_bytes else found


def _gpu_names(environment: Environment) -> list[str] | None:
    return None if environment.gpus is None else sorted(gpu.name for gpu in environment.gpus)


def _driver_series(environment: Environment) -> str | None:
    found = environment.gpu_driver
    return None if found is None else found.partition(".")[0]


#: Packages and BLAS are compared one by one, see `comparability`.
ASPECTS: tuple[Aspect, ...] = (
    Aspect("system", Weight.DECISIVE, lambda e: e.system),
    Aspect("machine", Weight.DECISIVE, lambda e: e.machine),
    Aspect("cpu_model", Weight.DECISIVE, lambda e: e.cpu_model),
    Aspect("cpu_count", Weight.DECISIVE, lambda e: e.cpu_count),
    Aspect("usable_cpu_count", Weight.DECISIVE, lambda e: e.usable_cpu_count),
    Aspect("cpu_limit_count", Weight.DECISIVE, lambda e: e.cpu_limit_count),
    Aspect("cpu_governor", Weight.DECISIVE, lambda e: e.cpu_governor),
    Aspect("implementation", Weight.DECISIVE, lambda e: e.implementation),
    Aspect("python", Weight.DECISIVE, lambda e: _series(e.python)),
    Aspect("python", Weight.MINOR, lambda e: e.python),
    Aspect("python_flags", Weight.DECISIVE, lambda e: e.python_flags),
    Aspect("thread_limits", Weight.DECISIVE, lambda e: e.thread_limits),
    Aspect("gpus", Weight.DECISIVE, _gpu_names),
    Aspect("gpu_driver", Weight.MINOR, _driver_series),
    Aspect("kernel", Weight.MINOR, lambda e: _series(e.kernel)),
    Aspect("memory_bytes", Weight.MINOR, _memory),
    Aspect("memory_limit_bytes", Weight.MINOR, _memory_limit),
)
