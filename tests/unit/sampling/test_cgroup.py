"""
What the cgroup probe reads, from recorded trees.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from allele_mlflow.sampling.cgroup import CgroupLimits, CgroupProbe, read_limits

TREES = Path(__file__).parents[2] / "data" / "cgroup"
PID = 4242


def primed_probe(tree: Path) -> CgroupProbe:
    """
    A probe with its baselines taken at 100 s.
    """
    probe = CgroupProbe(PID, root=tree)
    probe.prime(100.0)
    return probe


@pytest.mark.parametrize(
    ("tree", "folder"), [("container", "sys/fs/cgroup"), ("container_host_names", "sys/fs/cgroup")]
)
def test_container_gives_everything(tmp_path: Path, tree: str, folder: str) -> None:
    """
    In a container, with its own names or the host's: memory, limit, CPU of the interval in percent
    of one core, throttled share, kills.
    """
    root = tmp_path / tree
    shutil.copytree(TREES / tree, root)
    probe = primed_probe(root)
    stat = root / folder / "cpu.stat"
    text = stat.read_text()
    stat.write_text(
        text.replace("usage_usec 5000000", "usage_usec 8000000").replace("250000", "750000")
    )
    assert probe.sample(102.0) == {
        "system/cgroup_cpu_percent": pytest.approx(150.0),
        "system/cgroup_cpu_throttled_percent": pytest.approx(25.0),
        "system/cgroup_memory_megabytes": 734.0032,
        "system/cgroup_memory_limit_megabytes": 2147.483648,
        "system/cgroup_oom_kills": 2.0,
    }
    assert probe.unavailable is None
    assert probe.oom_kills() == 2


def test_limit_of_a_level_above_counts() -> None:
    """
    The limit is the one that ends the process, also where a level above sets it.
    """
    values = primed_probe(TREES / "batch_job").sample(101.0)
    assert values["system/cgroup_memory_limit_megabytes"] == 4294.967296
    assert values["system/cgroup_memory_megabytes"] == 1000.0


def test_no_limit_and_no_throttling_are_absent() -> None:
    """
    "max" is no number and a switched-off controller no zero: both metrics are absent.
    """
    assert primed_probe(TREES / "desktop").sample(101.0) == {
        "system/cgroup_cpu_percent": 0.0,
        "system/cgroup_memory_megabytes": 512.0,
        "system/cgroup_oom_kills": 0.0,
    }


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ("v1", "v1 hierarchies only"),
        ("hybrid_root", "root cgroup"),
        ("outside", "outside of what is mounted"),
        ("nowhere", "No such file"),
    ],
)
def test_without_v2_there_is_a_reason_and_no_metric(tree: str, reason: str) -> None:
    """
    Where there is no cgroup of version 2 around the process, the probe says so and gives nothing.
    """
    probe = primed_probe(TREES / tree)
    assert probe.unavailable is not None
    assert reason in probe.unavailable
    assert probe.sample(101.0) == {}
    assert probe.oom_kills() is None


def test_cpu_needs_an_interval() -> None:
    """
    Without a baseline, and sooner than 50 ms after it, there is no CPU percentage.
    """
    assert "system/cgroup_cpu_percent" not in CgroupProbe(PID, root=TREES / "desktop").sample(1.0)
    assert "system/cgroup_cpu_percent" not in primed_probe(TREES / "desktop").sample(100.049)


def test_cgroup_that_goes_away_gives_nothing(tmp_path: Path) -> None:
    """
    A removed cgroup is no error: its metrics are absent.
    """
    root = tmp_path / "tree"
    shutil.copytree(TREES / "container", root)
    probe = primed_probe(root)
    shutil.rmtree(root / "sys")
    assert probe.sample(101.0) == {}


def test_limits_are_the_lowest_of_all_levels(tmp_path: Path) -> None:
    """
    CPU time and memory that a job may use, whichever level sets the limit; where none does, none.
    """
    root = tmp_path / "batch_job"
    shutil.copytree(TREES / "batch_job", root)
    assert read_limits(PID, root=root) == CgroupLimits(4294967296, None)
    scope = root / "sys/fs/cgroup/system.slice/slurmstepd.scope"
    (scope / "cpu.max").write_text("250000 100000\n")
    (scope / "job_17" / "cpu.max").write_text("max 100000\n")
    (scope / "job_17" / "step_0" / "cpu.max").write_text("400000 100000\n")
    assert read_limits(PID, root=root) == CgroupLimits(4294967296, 2.5)
    assert read_limits(PID, root=TREES / "desktop") == CgroupLimits(None, None)


@pytest.mark.parametrize("tree", ["v1", "hybrid_root", "outside", "nowhere"])
def test_limits_that_cannot_be_seen_are_unknown(tree: str) -> None:
    """
    Not "no limit": version 1 may hold one, or a cgroup that is not shown here.
    """
    assert read_limits(PID, root=TREES / tree) is None


def test_root_cgroup_limits_nothing(tmp_path: Path) -> None:
    """
    A process of the machine's own root cgroup, with version 2 alone, may use the whole machine.
    """
    root = tmp_path / "hybrid_root"
    shutil.copytree(TREES / "hybrid_root", root)
    (root / f"proc/{PID}/cgroup").write_text("0::/\n")
    assert read_limits(PID, root=root) == CgroupLimits(None, None)
