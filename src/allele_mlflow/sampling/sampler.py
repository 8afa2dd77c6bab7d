"""
All probes of one run behind one call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from allele_mlflow.clock import Clock, SystemClock, process_cpu_s
from allele_mlflow.records import Sample
from allele_mlflow.sampling.cgroup import CgroupProbe
from allele_mlflow.sampling.gpu import GpuProbe
from allele_mlflow.sampling.machine import machine_probes
from allele_mlflow.sampling.probe import ResourceProbe
from allele_mlflow.sampling.process_tree import ProcessTree

_logger = logging.getLogger(__name__)


class ResourceSampler:
    """
    Takes resource samples of a benchmark, its machine, its cgroup and its GPUs, from outside.

    Construction takes the baselines, so that the first sample has CPU percentages if it comes 50 ms
    later; sooner, they are absent. A probe that cannot work here, or fails, is switched off and
    says why in `unavailable`; nothing of the environment makes `sample` raise.

    Args:
        root_pids: The owner and the attached processes, the owner first.
        excluded_pids: Left out of the tree with their children; this process where None.
        visible_devices: The benchmark's CUDA_VISIBLE_DEVICES; None where it is not set.
        cpu_clock: CPU seconds of whoever samples; the whole process's unless told otherwise, which
            is too much where other threads work meanwhile.
        file_system_root: Where the cgroup probe finds /proc and /sys.
        nvml: For tests; pynvml where None.
        probes: For tests; instead of all probes beside the process tree.
    Thread safety: none; one owner, any thread.
    Cost: `cost_s` says.
    """

    def __init__(
        self,
        root_pids: Iterable[int],
        *,
        clock: Clock | None = None,
        cpu_clock: Callable[[], float] = process_cpu_s,
        excluded_pids: Collection[int] | None = None,
        visible_devices: str | None = None,
        file_system_root: Path = Path("/"),
        nvml: Any = None,
        probes: Sequence[ResourceProbe] | None = None,
    ) -> None:
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._cpu_clock = cpu_clock
        pids = list(root_pids)
        self._tree = ProcessTree(pids, excluded_pids=excluded_pids, cpu_clock=cpu_clock)
        self._gpu = GpuProbe(lambda: self._tree.pids, visible_devices=visible_devices, nvml=nvml)
        self._probes: list[ResourceProbe] = [self._tree]
        if probes is not None:
            self._probes += probes
        else:
            self._probes += machine_probes()
            if pids:
                self._probes.append(CgroupProbe(pids[0], root=file_system_root))
            # Last: its first look may take long, and the CPU intervals should not wait for it.
            self._probes.append(self._gpu)
        #: Why a probe gives nothing, by its name.
        self.unavailable: dict[str, str] = {}
        #: CPU seconds that sampling has cost so far.
        self.cost_s = 0.0
        self.prime()

    @property
    def pids(self) -> frozenset[int]:
        """
        The living processes of the tree at the last look.
        """
        return self._tree.pids

    def follow(self, pid: int) -> bool:
        """
        Follow one more process, from now on; False when there is none of that pid.
        """
        return self._tree.follow(pid)

    def prime(self) -> None:
        """
        Take the baselines anew.
        """
        self._ask_all(lambda probe, monotonic_s: probe.prime(monotonic_s))

    def sample(self) -> Sample:
        """
        One sample of everything that is available; may be empty, never raises.
        """
        values: dict[str, float] = {}
        timestamp_ns = self._clock.now_ns()
        self._ask_all(lambda probe, monotonic_s: values.update(probe.sample(monotonic_s)))
        return Sample(
            timestamp_ns, {key: value for key, value in values.items() if isfinite(value)}
        )

    def close(self) -> None:
        """
        Let go of the GPU driver.
        """
        self._gpu.close()

    def _ask_all(self, ask: Callable[[ResourceProbe, float], None]) -> None:
        started_s = self._cpu_clock()
        for probe in list(self._probes):
            try:
                ask(probe, self._clock.monotonic_s())
                reason = probe.unavailable
            except Exception as error:  # noqa: BLE001 - a broken probe must not end the sidecar; kept in `unavailable`
                reason = f"{type(error).__name__}: {error}"
                _logger.warning("resource probe %s switched off: %s", probe.name, reason)
            if reason is not None:
                self.unavailable[probe.name] = reason
                self._probes.remove(probe)
        self.cost_s += max(0.0, self._cpu_clock() - started_s)
