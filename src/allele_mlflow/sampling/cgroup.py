"""
The control group (v2) of the benchmark: what a container or a batch job may use, and does.

Memory of a cgroup holds page cache too, so it is more than the processes' own. The limit is the
lowest of the cgroup and its ancestors, as far as they can be seen: that one ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from allele_mlflow.numerals import whole_number
from allele_mlflow.sampling.probe import RateMeter

_BYTES_PER_MB = 1e6
_US_PER_S = 1e6
_OURS_IS_ELSEWHERE = "the process's cgroup is outside of what is mounted here"


class CgroupLimits(NamedTuple):
    """
    What a cgroup and those above it allow; None: as much as there is.

    Units: `cpu_count` cores' worth of time.
    """

    memory_bytes: int | None
    cpu_count: float | None


class _WholeMachineError(LookupError):
    """
    The root cgroup limits nothing.
    """


class CgroupProbe:
    """
    Readings of the cgroup that one process is in.

    Args:
        pid: The process. Its cgroup is looked up once; it stays readable after the process ended.
        root: Where the file system starts: `/`, or a recorded tree.
    Thread safety: none; one owner.
    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
    """

    name = "cgroup"

    def __init__(self, pid: int, *, root: Path = Path("/")) -> None:
        self.unavailable: str | None = None
        self._mount = root
        self._folder = root
        self._usage = RateMeter()
        self._throttled = RateMeter()
        try:
            self._mount, self._folder = _locate(pid, root)
        except (OSError, LookupError) as error:
            self.unavailable = f"no cgroup v2: {error.args[-1] if error.args else error}"

    def prime(self, monotonic_s: float) -> None:
        """
        Take the baselines of the CPU percentages.
        """
        if self.unavailable is None:
            self._cpu(monotonic_s)

    def sample(self, monotonic_s: float) -> dict[str, float]:
        """
        Whatever of memory, limit, CPU, throttling and out-of-memory kills the kernel accounts here.
        """
        if self.unavailable is not None:
            return {}
        values = self._cpu(monotonic_s)
        used_bytes = _read_number(self._folder / "memory.current")
        if used_bytes is not None:
            values["system/cgroup_memory_megabytes"] = used_bytes / _BYTES_PER_MB
        limit_bytes = _lowest_memory_bytes(self._mount, self._folder)
        if limit_bytes is not None:
            values["system/cgroup_memory_limit_megabytes"] = limit_bytes / _BYTES_PER_MB
        oom_kills = self.oom_kills()
        if oom_kills is not None:
            values["system/cgroup_oom_kills"] = float(oom_kills)
        return values

    def oom_kills(self) -> int | None:
        """
        Processes of the cgroup that were killed for memory since it exists; None where not counted.
        """
        if self.unavailable is not None:
            return None
        return _read_table(self._folder / "memory.events").get("oom_kill")

    def _cpu(self, monotonic_s: float) -> dict[str, float]:
        table = _read_table(self._folder / "cpu.stat")
        values: dict[str, float] = {}
        for key, meter, metric in (
            ("usage_usec", self._usage, "system/cgroup_cpu_percent"),
            ("throttled_usec", self._throttled, "system/cgroup_cpu_throttled_percent"),
        ):
            if key in table:
                percent = meter.percent(table[key] / _US_PER_S, monotonic_s)
                if percent is not None:
                    values[metric] = percent
        return values


def read_limits(pid: int, *, root: Path = Path("/")) -> CgroupLimits | None:
    """
    The limits of the cgroup that a process is in; None where they are not to be seen here, or are
    those of v1 hierarchies.
    """
    try:
        if _has_v1_limits(pid, root):
            return None
        mount, folder = _locate(pid, root)
    except _WholeMachineError:
        return CgroupLimits(None, None)
    except (OSError, LookupError):
        return None
    counts = [_cpu_count(one / "cpu.max") for one in _levels(mount, folder)]
    known = [count for count in counts if count is not None]
    return CgroupLimits(_lowest_memory_bytes(mount, folder), min(known, default=None))


def _has_v1_limits(pid: int, root: Path) -> bool:
    """
    Whether v1 hierarchies hold memory or CPU, as beside a v2 one that holds nothing.
    """
    lines = (root / "proc" / str(pid) / "cgroup").read_text().splitlines()
    held = {name for line in lines for name in line.split(":")[1].split(",")}
    return bool(held & {"memory", "cpu"})


def _levels(mount: Path, folder: Path) -> Iterator[Path]:
    """
    The folder and those above it, as far as they can be seen.
    """
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _lowest_memory_bytes(mount: Path, folder: Path) -> int | None:
    limits = [_read_number(one / "memory.max") for one in _levels(mount, folder)]
    return min((limit for limit in limits if limit is not None), default=None)


def _cpu_count(path: Path) -> float | None:
    """
    "200000 100000" is two cores, "max 100000" no limit.
    """
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _locate(pid: int, root: Path) -> tuple[Path, Path]:
    """
    The v2 mount point and the cgroup's folder below it.

    Raises:
        LookupError: there is no v2 hierarchy, or it does not show this cgroup.
        OSError: the process is gone.
    """
    lines = (root / "proc" / str(pid) / "cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None:
        raise LookupError("the process is in v1 hierarchies only")
    mounted, mount_point = _mounted_part(root)
    if ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(mounted):
        raise LookupError(_OURS_IS_ELSEWHERE)
    mount = root / mount_point.lstrip("/")
    folder = mount / PurePosixPath(path).relative_to(mounted)
    if not (folder / "cgroup.controllers").exists():
        raise LookupError(_OURS_IS_ELSEWHERE)
    if not (folder / "cgroup.events").exists():
        # Only the true root has none; a container's own root has.
        raise _WholeMachineError("the process is in the root cgroup, which is the whole machine")
    return mount, folder


def _mounted_part(root: Path) -> tuple[str, str]:
    """
    Which part of the hierarchy is mounted, and where. Source: proc_pid_mountinfo(5).
    """
    for line in (root / "proc" / "self" / "mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            part, mount_point = fields.split()[3:5]
            return part, mount_point
    raise LookupError("no cgroup2 file system is mounted")


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return whole_number(text)


def _read_table(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}
