"""
What the machine says of itself, from made-up trees of /proc and /sys.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from allele_mlflow.environment import machine
from allele_mlflow.environment.fingerprint import Gpu
from allele_mlflow.environment.packages import installed_packages, is_tool, series_of
from tests.unit.sampling.test_gpu import MB, FakeNvml

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon Gold 6338\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\n"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (INTEL + INTEL.replace("6338", "other"), "Xeon Gold 6338"),
        (ARM, "ARM implementer 0x41 part 0xd0c"),
        ("cpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
    ],
)
def test_processor_calls_itself(tmp_path: Path, text: str, model: str) -> None:
    """
    By its name on x86 and POWER, of the first core; on ARM, which has none, by its numbers.
    """
    write(tmp_path, "proc/cpuinfo", text)
    assert machine.find_cpu_model(tmp_path) == model


def test_governors_of_all_cores(tmp_path: Path) -> None:
    """
    One word where all agree, all of them where not, and None on a machine that has none.
    """
    assert machine.find_cpu_governor(tmp_path) is None
    folder = "sys/devices/system/cpu/cpufreq"
    for number in range(3):
        write(tmp_path, f"{folder}/policy{number}/scaling_governor", "performance\n")
    assert machine.find_cpu_governor(tmp_path) == "performance"
    write(tmp_path, f"{folder}/policy1/scaling_governor", "powersave\n")
    assert machine.find_cpu_governor(tmp_path) == "performance,powersave"


def test_gpus_are_named(tmp_path: Path) -> None:
    """
    The visible devices with their memory, and the driver.
    """
    write(tmp_path, "dev/nvidia0", "")
    nvml = FakeNvml()
    gpus, driver = machine.find_gpus(None, root=tmp_path, nvml=nvml)
    assert gpus == [Gpu(name=f"NVIDIA T{number}", memory_bytes=1000 * MB) for number in range(2)]
    assert driver == "550.54.14"
    assert nvml.calls[-1] == "shutdown"
    hidden, _ = machine.find_gpus("1", root=tmp_path, nvml=FakeNvml())
    assert hidden == [Gpu(name="NVIDIA T1", memory_bytes=1000 * MB)]
    assert machine.find_gpus("", root=tmp_path, nvml=FakeNvml()) == ([], None)


def test_no_device_and_no_answer_are_told_apart(tmp_path: Path) -> None:
    """
    Without a device there are none, and nothing is loaded; with one whose driver is broken nobody
    knows.
    """
    nvml = FakeNvml()
    assert machine.find_gpus(None, root=tmp_path, nvml=nvml) == ([], None)
    assert nvml.calls == []
    write(tmp_path, "dev/nvidia0", "")
    for broken in ("init", "name"):
        lost = FakeNvml(broken={broken: FakeNvml.NVML_ERROR_GPU_IS_LOST})
        assert machine.find_gpus(None, root=tmp_path, nvml=lost) == (None, None)


def test_packages_by_their_normalised_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One name however it is spelt; where a package is there twice, the one that is imported.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (
        first / "Flask_SQL.Alchemy-3.1.dist-info",
        second / "flask_sql_alchemy-2.0.dist-info",
        second / "numpy-2.1.0.dist-info",
        second / "numpy",
    ):
        folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(first), str(second), str(tmp_path / "gone")])
    assert installed_packages() == {"flask-sql-alchemy": "3.1", "numpy": "2.1.0"}


def test_tools_and_series() -> None:
    """
    Tools are known by name or family; a series ends where behaviour may change.
    """
    assert [is_tool(name) for name in ("ruff", "pytest-xdist", "numpy", "pytests")] == [
        *(True, True),
        *(False, False),
    ]
    assert [series_of(one) for one in ("2.1.3", "0.4.1", "2024.1", "")] == ["2", "0.4", "2024", ""]
