"""
Taking the fingerprint of this process's environment.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import msgspec

from allele_mlflow.environment import machine
from allele_mlflow.environment.affinity import count_usable_cpus
from allele_mlflow.environment.checkout import read_checkout
from allele_mlflow.environment.fingerprint import Environment, ThreadPool
from allele_mlflow.environment.packages import installed_packages
from allele_mlflow.sampling.cgroup import read_limits
from allele_mlflow.settings import thread_limits, variable


def take_environment(folder: Path) -> Environment:
    """
    The environment of this process, and the checkout that `folder` is in.

    Nothing of it is secret: of the environment's variables only those that limit threads are taken.
    Never raises for what a machine lacks; what is not known is None.

    Cost: some tens of milliseconds, most of them git's; with GPUs, their driver's start.
    """
    taken = take_machine(variable("CUDA_VISIBLE_DEVICES"))
    return msgspec.structs.replace(
        taken,
        usable_cpu_count=count_usable_cpus(),
        thread_limits=thread_limits(),
        blas=_blas_pools(),
        **read_checkout(folder)._asdict(),
    )


def take_machine(visible_devices: str | None) -> Environment:
    """
    What is the same for all processes of this Python on this machine that see these GPUs.
    """
    uname = os.uname()
    cpu_count = os.cpu_count()
    memory_bytes = machine.find_memory_bytes()
    limits = read_limits(os.getpid())
    gpus, driver = machine.find_gpus(visible_devices)
    cpu_limit = memory_limit = None
    if limits is not None:
        cpu_limit = cpu_count if limits.cpu_count is None else limits.cpu_count
        memory_limit = memory_bytes if limits.memory_bytes is None else limits.memory_bytes
    return Environment(
        host=uname.nodename,
        system=uname.sysname,
        kernel=uname.release,
        machine=uname.machine,
        cpu_model=machine.find_cpu_model(),
        cpu_count=cpu_count,
        cpu_governor=machine.find_cpu_governor(),
        cpu_limit_count=None if cpu_limit is None else float(cpu_limit),
        memory_bytes=memory_bytes,
        memory_limit_bytes=memory_limit,
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        python_flags=getattr(sys, "abiflags", None),
        packages=installed_packages(),
        gpus=gpus,
        gpu_driver=driver,
    )


def _blas_pools() -> list[ThreadPool] | None:
    """
    The BLAS libraries that this process has loaded by now; None without any, and without
    threadpoolctl.
    """
    try:
        import threadpoolctl
    except ImportError:
        return None
    found = {
        (str(info["internal_api"]), info.get("version"), info.get("num_threads"))
        for info in threadpoolctl.threadpool_info()
        if info.get("user_api") == "blas"
    }
    pools = [
        ThreadPool(library=library, version=version, thread_count=thread_count)
        for library, version, thread_count in sorted(found, key=str)
    ]
    return pools or None
