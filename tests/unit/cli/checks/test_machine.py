"""
What the doctor says of the machine.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from allele_mlflow.cli.checks import machine
from allele_mlflow.cli.checks.findings import Level
from allele_mlflow.cli.checks.machine import Instant
from allele_mlflow.settings import load

NOW_NS = 1_900_000_000 * 10**9


@pytest.mark.parametrize(
    ("wall_s", "level"),
    [(2.0, Level.GOOD), (2.05, Level.GOOD), (62.0, Level.WARNING), (-58.0, Level.WARNING)],
)
def test_step_of_the_wall_clock_is_seen(wall_s: float, level: Level) -> None:
    """
    While two seconds went by, the wall clock has to go two seconds on.
    """
    before = Instant(NOW_NS, 100.0, 100.0)
    after = Instant(NOW_NS + int(wall_s * 1e9), 102.0, 102.0)
    assert [one.level for one in machine.judge_clocks(before, after)] == [level]


def test_clock_that_was_never_set_is_seen() -> None:
    """
    A machine that thinks it is 1970 is warned of.
    """
    instant = Instant(10**9, 1.0, 1.0)
    (found,) = machine.judge_clocks(instant, instant)
    assert (found.level, "1970-01-01" in found.text) == (Level.WARNING, True)


@pytest.mark.parametrize(("boot_s", "text"), [(None, "no boot clock"), (400.0, "slept for 300 s")])
def test_boot_clock_is_told(boot_s: float | None, text: str) -> None:
    """
    Sleep, which the monotonic clock does not count, is worth a note.
    """
    instant = Instant(NOW_NS, 100.0, boot_s)
    found = machine.judge_clocks(instant, instant)[-1]
    assert (found.level, text in found.text) == (Level.NOTE, True)


@pytest.mark.parametrize(
    ("soft", "hard", "level"),
    [
        (1024, 1_048_576, Level.GOOD),
        (256, 512, Level.WARNING),
        (1024, resource.RLIM_INFINITY, Level.GOOD),
    ],
)
def test_only_the_hard_limit_of_files_counts(soft: int, hard: int, level: Level) -> None:
    """
    A sidecar raises its own limit as far as it may.
    """
    assert machine.judge_descriptors(soft, hard).level is level


@pytest.mark.parametrize(("asks_kernel", "level"), [(True, Level.GOOD), (False, Level.NOTE)])
def test_endings_depend_on_the_kernel(asks_kernel: bool, level: Level) -> None:
    """
    Where the kernel does not tell, endings of killed runs are unknown, and that is said.
    """
    found = machine.judge_endings(asks_kernel=asks_kernel)
    assert (found.level, "unknown" in found.text) == (level, not asks_kernel)


def test_asking_for_an_ending_leaves_nothing_behind() -> None:
    """
    Whatever this kernel says, the process that was tried is gone and reaped.
    """
    assert machine.can_ask_for_endings() in {True, False}
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        children = [(task / "children").read_text() for task in tasks.iterdir()]
        names = [
            Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in " ".join(children).split()
            if Path(f"/proc/{pid}").exists()
        ]
        assert not any(b"kill -9" in name for name in names)


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({}, {}, []),
        ({"CI": "false"}, {}, []),
        ({"CI": "true"}, {}, ["a CI job (CI=true)"]),
        ({"SLURM_JOB_ID": "17"}, {}, ["a Slurm job"]),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, ["a Kubernetes pod"]),
        ({}, {".dockerenv": ""}, ["a container"]),
        ({}, {"run/.containerenv": ""}, ["a container"]),
        ({}, {"proc/1/cgroup": "0::/system.slice/docker-4f1c.scope"}, ["a container"]),
        ({}, {"proc/1/cgroup": "0::/init.scope"}, []),
    ],
)
def test_surroundings_are_recognised(
    tmp_path: Path, environ: dict[str, str], files: dict[str, str], expected: list[str]
) -> None:
    """
    Containers, batch jobs and CI show in the environment, in marks and in the cgroup.
    """
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert machine.find_surroundings(environ, tmp_path) == expected


@pytest.mark.parametrize(
    ("surroundings", "overrides", "level", "remedy"),
    [
        ([], {}, Level.GOOD, ""),
        (["a container"], {}, Level.WARNING, "export ALLELE_MLFLOW_EXIT_TIMEOUT_S=inf"),
        (["a container"], {"exit_timeout_s": "inf"}, Level.GOOD, ""),
        (
            ["a Slurm job"],
            {"exit_timeout_s": "inf", "exit": "detach"},
            Level.WARNING,
            "unset ALLELE_MLFLOW_EXIT and",
        ),
        (["a container"], {"tracking_uri": "offline"}, Level.NOTE, ""),
    ],
)
def test_container_wants_a_close_that_waits(
    tmp_path: Path,
    surroundings: list[str],
    overrides: dict[str, str],
    level: Level,
    remedy: str,
) -> None:
    """
    Where nothing outlives the main process, a close that does not wait for the delivery is warned
    of.
    """
    settings = load(overrides, environ={}, folder=tmp_path)
    found = machine.judge_surroundings(surroundings, settings)
    assert (found.level, found.remedy.startswith(remedy)) == (level, True)


def test_gpu_without_its_library_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A GPU that is there and cannot be sampled names the extra; where there is none it is a note.
    """

    class Missing:
        status = unavailable = "nvidia-ml-py is not installed (extra `gpu`)"

        def __init__(self, *args: object, **more: object) -> None: ...
        def sample(self, now_s: float) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(machine, "GpuProbe", Missing)
    assert machine.check_gpu({}, tmp_path).level is Level.NOTE
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    found = machine.check_gpu({}, tmp_path)
    assert (found.level, "allele-mlflow[gpu]" in found.remedy) == (Level.WARNING, True)
