"""
The machine: clock, descriptors, endings, GPU, containers and batch jobs.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.cli.checks.findings import Finding, good, note, warning
from allele_mlflow.clock import now_boot_s, now_monotonic_s, now_ns, utc_iso
from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.sampling.gpu import GpuProbe
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar.process_end import ProcessWatch

#: A step that shows in a chart; NTP slews by half a millisecond a second.
CLOCK_STEP_S = 0.1
#: Nothing of ours is older.
EARLIEST_NS = 1_735_689_600 * 10**9  # 2025-01-01
FEW_DESCRIPTORS = 1024

_BATCH_VARIABLES = {
    "SLURM_JOB_ID": "a Slurm job",
    "PBS_JOBID": "a PBS job",
    "LSB_JOBID": "an LSF job",
    "AWS_BATCH_JOB_ID": "an AWS Batch job",
    "KUBERNETES_SERVICE_HOST": "a Kubernetes pod",
}
_CONTAINER_FILES = (".dockerenv", "run/.containerenv")
_CONTAINER_GROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc")


class Instant(NamedTuple):
    """
    The clocks at one moment.
    """

    wall_ns: int
    monotonic_s: float
    boot_s: float | None


def read_clocks() -> Instant:
    """
    All clocks, now.
    """
    return Instant(now_ns(), now_monotonic_s(), now_boot_s())


def judge_clocks(before: Instant, after: Instant) -> list[Finding]:
    """
    Whether the wall clock went as the monotonic one did between two moments.
    """
    took_s = after.monotonic_s - before.monotonic_s
    step_s = (after.wall_ns - before.wall_ns) / 1e9 - took_s
    if after.wall_ns < EARLIEST_NS:
        remedy = "set the clock (`timedatectl set-ntp true`): metrics carry its time"
        return [warning("clock", f"the clock says {utc_iso(after.wall_ns)}", remedy)]
    if abs(step_s) > CLOCK_STEP_S:
        text = f"the wall clock stepped by {step_s:+.3f} s in {took_s:.1f} s"
        remedy = "have it slewed and not stepped (chrony, systemd-timesyncd)"
        return [warning("clock", text, remedy, clock_step_s=step_s)]
    text = f"{utc_iso(after.wall_ns)}, no step in {took_s:.1f} s"
    findings = [good("clock", text, clock_step_s=step_s)]
    if after.boot_s is None:
        findings.append(note("clock", "this system has no boot clock"))
    elif after.boot_s - after.monotonic_s > 1.0:
        slept_s = after.boot_s - after.monotonic_s
        text = f"the machine has slept for {slept_s:.0f} s since boot: phases do not count that"
        findings.append(note("clock", text))
    return findings


def machine_checks(
    settings: Settings | None, environ: Mapping[str, str]
) -> list[tuple[str, Callable[[], list[Finding]]]]:
    """
    The checks that ask the machine, by name.
    """
    surroundings = find_surroundings(environ)
    return [
        ("descriptors", lambda: [judge_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))]),
        ("endings", lambda: [judge_endings(asks_kernel=can_ask_for_endings())]),
        ("gpu", lambda: [check_gpu(environ)]),
        (
            "surroundings",
            lambda: [] if settings is None else [judge_surroundings(surroundings, settings)],
        ),
    ]


def judge_descriptors(soft: int, hard: int) -> Finding:
    """
    Whether a sidecar may open enough files: it raises its own limit to the hard one.
    """
    text = f"at most {_limit(soft)} open files here, {_limit(hard)} for a sidecar"
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        return warning("descriptors", text, "raise the hard limit, e.g. `ulimit -Hn 4096`")
    return good("descriptors", text)


def judge_endings(*, asks_kernel: bool) -> Finding:
    """
    Whether the true ending of a killed run can be found out.
    """
    if asks_kernel:
        return good("endings", "the kernel tells how a killed benchmark ended (pidfd)")
    text = "the kernel does not tell how another process ended (Linux 6.15 or newer does)"
    return note("endings", f"{text}: a killed run has allele.ended_by=unknown")


def can_ask_for_endings() -> bool:
    """
    Whether PIDFD_GET_INFO tells of a process that has ended; tried on one.
    """
    process = subprocess.Popen(["/bin/sh", "-c", "kill -9 $$"], stderr=subprocess.DEVNULL)
    watch = ProcessWatch(process.pid, process_start_time(process.pid) or 0)
    process.wait()
    try:
        return watch.find_end() is not None
    finally:
        watch.close()


def check_gpu(environ: Mapping[str, str], root: Path = Path("/")) -> Finding:
    """
    Whether GPUs will be sampled, or why not.
    """
    probe = GpuProbe(lambda: (), visible_devices=environ.get("CUDA_VISIBLE_DEVICES"))
    probe.sample(now_monotonic_s())
    status, is_missing = probe.status, probe.unavailable is not None
    probe.close()
    if not is_missing:
        return good("gpu", status)
    has_device = (root / "proc/driver/nvidia").exists() or (root / "dev/nvidia0").exists()
    if has_device and "not installed" in status:
        return warning("gpu", f"there is a GPU, and {status}", "pip install 'allele-mlflow[gpu]'")
    return note("gpu", status)


def find_surroundings(environ: Mapping[str, str], root: Path = Path("/")) -> list[str]:
    """
    What this process is in that may end everything with it: containers, batch jobs, CI.
    """
    found = [what for name, what in _BATCH_VARIABLES.items() if environ.get(name)]
    if environ.get("CI", "").lower() in {"true", "1"}:
        found.append("a CI job (CI=true)")
    groups = ""
    with contextlib.suppress(OSError):
        groups = (root / "proc/1/cgroup").read_text(encoding="utf-8", errors="replace")
    is_marked = any((root / name).exists() for name in _CONTAINER_FILES)
    if is_marked or any(word in groups for word in _CONTAINER_GROUPS):
        found.append("a container")
    elif os.getpid() == 1:
        found.append("process 1")
    return found


def judge_surroundings(surroundings: list[str], settings: Settings) -> Finding:
    """
    Whether `close` waits for the delivery where nothing outlives the main process.
    """
    check = "surroundings"
    if not surroundings:
        return good(check, "no container, batch job or CI: a sidecar outlives its benchmark")
    where = ", ".join(surroundings)
    if settings.is_offline:
        return note(check, f"{where}: offline, so the spool has to be on a volume that stays")
    if settings.exit == "drain" and math.isinf(settings.exit_timeout_s):
        return good(check, f"{where}: close waits for the delivery (EXIT_TIMEOUT_S=inf)")
    if settings.exit == "detach":
        text = f"{where}: EXIT=detach leaves the delivery to a sidecar"
        remedy = "unset ALLELE_MLFLOW_EXIT and set ALLELE_MLFLOW_EXIT_TIMEOUT_S=inf"
    else:
        text = f"{where}: close waits for {settings.exit_timeout_s:g} s only"
        remedy = "export ALLELE_MLFLOW_EXIT_TIMEOUT_S=inf"
    ends_with = "the sidecar may be ended with the main process; records then wait in the spool"
    return warning(check, f"{text}, and {ends_with}", remedy)


def _limit(number: int) -> str:
    return "any number of" if number == resource.RLIM_INFINITY else f"{number:,}"
